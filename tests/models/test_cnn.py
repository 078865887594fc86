"""The convolutional network against plain torch layers with the same weights."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from bigmodel.errors import ConfigError
from bigmodel.models.cnn import CNNConfig
from bigmodel.spec import Image, Sequence
from tests.models.cases import build, samples, spec, stir


def test_two_layers_are_convolution_norm_relu_pool() -> None:
    model = build("cnn", spec(Image(2, 8, 8)), channels=[4, 6], pool_after=[1, 2]).eval()
    stir(model)
    state, x = model.state_dict(), torch.randn(3, 2, 8, 8)
    y = x
    for i in range(2):
        y = F.conv2d(y, state[f"layers.{i}.conv.weight"], padding=1)
        norm = [state[f"layers.{i}.norm.{k}"] for k in ("running_mean", "running_var", "weight", "bias")]
        y = F.max_pool2d(F.relu(F.batch_norm(y, *norm)), 2)
    y = F.linear(y.mean((2, 3)), state["head.weight"], state["head.bias"])
    assert torch.allclose(model(x), y, atol=1e-5)


def test_one_dimension_is_a_two_dimensional_strip() -> None:
    line = build("cnn", spec(Sequence(12, 3)), channels=[4, 8], batch_norm=False)
    strip = build("cnn", spec(Image(3, 1, 12)), channels=[4, 8], batch_norm=False)
    state = line.state_dict()
    for key, value in strip.state_dict().items():
        if value.ndim == 4:  # a 3×3 kernel of which only the middle row meets the strip
            value[:, :, 1] = state[key]
        else:
            value.copy_(state[key])
    x = torch.randn(2, 12, 3)
    assert torch.allclose(line(x), strip(x.transpose(1, 2).unsqueeze(2)), atol=1e-5)


def test_residual_blocks_are_those_of_the_paper() -> None:
    model = build("cnn", spec(Image(1, 8, 8)), channels=[4, 4], residual=True).eval()
    stir(model)
    x = torch.randn(2, 4, 8, 8)
    same, first = model.layers[1], model.layers[0]
    inner = same.second.norm(same.second.conv(F.relu(same.first.norm(same.first.conv(x)))))
    assert torch.allclose(same(x), x + inner, atol=1e-5)
    assert same.shortcut is None
    assert first.shortcut.conv.weight.shape == (4, 1, 1, 1)
    assert "layers.1.second.norm.weight" in model.state_dict()


@pytest.mark.parametrize("batch_norm", [True, False])
def test_a_residual_block_starts_as_its_shortcut(batch_norm: bool) -> None:
    model = build("cnn", spec(Image(1, 8, 8)), channels=[4, 4], residual=True, batch_norm=batch_norm)
    x = torch.randn(2, 4, 8, 8)
    assert torch.equal(model.layers[1](x), x)


@pytest.mark.parametrize(
    ("channels", "after", "pooled"),
    [
        ([8, 16, 16, 32], None, [True, False, True, False]),
        ([8, 8], None, [False, False]),
        ([8, 16], [], [False, False]),
        ([64, 10], [1, 2], [True, True]),
    ],
)
def test_sizes_are_halved_where_asked_or_before_each_wider_layer(
    channels: list[int], after: list[int] | None, pooled: list[bool]
) -> None:
    config = CNNConfig(name="cnn", channels=channels, pool_after=after)
    assert [config.pools(layer) for layer in range(len(channels))] == pooled


@pytest.mark.parametrize("pooling", ["max", "avg"])
@pytest.mark.parametrize(
    ("size", "last"), [((28, 28), (7, 7)), ((7, 5), (2, 2)), ((1, 9), (1, 3)), ((32, 33), (8, 9))]
)
def test_any_size_is_halved_upward(pooling: str, size: tuple[int, int], last: tuple[int, int]) -> None:
    of = spec(Image(1, *size))
    model = build("cnn", of, channels=[2, 4, 6], pooling=pooling, readout="flatten")
    assert model.features(samples(of.input, 2)).shape == (2, 6 * last[0] * last[1])


def test_average_pooling_counts_only_what_is_there() -> None:
    model = build(
        "cnn", spec(Sequence(5, 1)), channels=[1], pool_after=[1], pooling="avg", readout="flatten",
        batch_norm=False,
    )  # fmt: skip
    model.layers[0].conv.weight.data = torch.tensor([[[0.0, 1.0, 0.0]]])
    x = torch.tensor([[1.0, 3.0, 5.0, 7.0, 9.0]]).unsqueeze(-1)
    assert model.features(x).tolist() == [[2.0, 6.0, 9.0]]


@pytest.mark.parametrize("readout", ["mean", "max"])
def test_pooled_readout_does_not_care_about_the_size_of_the_map(readout: str) -> None:
    model = build("cnn", spec(Image(3, 32, 32)), channels=[64, 10], readout=readout)
    assert model.head.weight.shape == (3, 10)
    assert model(torch.randn(2, 3, 20, 24)).shape == (2, 3)


def test_kernels_of_each_layer() -> None:
    model = build("cnn", spec("image"), channels=[4, 8], kernel_sizes=[5, 3])
    sizes = [m.weight.shape[-1] for m in model.modules() if isinstance(m, nn.Conv2d)]
    assert sizes == [5, 3]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kernel_sizes": [4]}, r"model\.kernel_sizes=\[4\]: 4 is even.* 3 or 5"),
        ({"kernel_sizes": [3, 3]}, r"model\.kernel_sizes=\[3, 3\].*all 4 layers"),
        ({"channels": [8, 8], "pool_after": [1, 3]}, r"model\.pool_after=\[1, 3\]: there is no layer 3"),
        ({"channels": []}, r"model\.channels=\[\]"),
        ({"pooling": "min"}, r"model\.pooling='min'.*max.*avg"),
    ],
)
def test_wrong_options_are_refused_by_name(options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build("cnn", spec("image"), **options)
