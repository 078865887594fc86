"""The convolutional network against plain torch layers with the same weights."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from bigmodel.errors import ConfigError
from bigmodel.models.cnn import CNNConfig
from bigmodel.spec import Image, Sequence, Tokens
from tests.models.cases import build, samples, spec, stir


def in_torch(of: Image | Sequence, pooling: str, batch_norm: bool) -> nn.Sequential:
    """Two convolutions and a pool after each, the first of 5 and the second of 3 pixels or steps."""
    two = isinstance(of, Image)
    conv = nn.Conv2d if two else nn.Conv1d
    norm = nn.BatchNorm2d if two else nn.BatchNorm1d
    maximum, average = (nn.MaxPool2d, nn.AvgPool2d) if two else (nn.MaxPool1d, nn.AvgPool1d)
    parts: list[nn.Module] = []
    for inputs, outputs, size in [(of.shape[0 if two else 1], 4, 5), (4, 6, 3)]:
        parts.append(conv(inputs, outputs, size, padding=size // 2, bias=not batch_norm))
        if pooling == "max":
            parts.append(maximum(2, ceil_mode=True))
        if batch_norm:
            parts.append(norm(outputs))
        parts.append(nn.ReLU())
        if pooling == "avg":
            parts.append(average(2, ceil_mode=True))
    return nn.Sequential(*parts, nn.AdaptiveAvgPool2d(1) if two else nn.AdaptiveAvgPool1d(1),
                         nn.Flatten(), nn.Linear(6, 3))  # fmt: skip


@pytest.mark.parametrize("batch_norm", [True, False])
@pytest.mark.parametrize("pooling", ["max", "avg"])
@pytest.mark.parametrize("of", [Image(1, 8, 8), Image(3, 7, 5), Sequence(9, 2)], ids=str)
def test_training_is_that_of_the_same_layers_in_torch(
    of: Image | Sequence, pooling: str, batch_norm: bool
) -> None:
    model = build(
        "cnn", spec(of), channels=[4, 6], kernel_sizes=[5, 3], pool_after=[1, 2], pooling=pooling,
        batch_norm=batch_norm,
    )  # fmt: skip
    stir(model)
    reference = in_torch(of, pooling, batch_norm)
    state = dict(zip(reference.state_dict(), model.state_dict().values(), strict=True))
    reference.load_state_dict(state)
    inputs = samples(of, 4).requires_grad_()
    copy = inputs.detach().clone().requires_grad_()
    outputs, expected = model(inputs), reference(copy if isinstance(of, Image) else copy.mT)
    assert torch.allclose(outputs, expected, atol=1e-5)
    upstream = torch.randn_like(outputs)
    outputs.backward(upstream)
    expected.backward(upstream)
    assert torch.allclose(inputs.grad, copy.grad, atol=1e-5)
    for (key, mine), theirs in zip(model.named_parameters(), reference.parameters(), strict=True):
        assert torch.allclose(mine.grad, theirs.grad, atol=1e-4), key
    for (key, mine), theirs in zip(model.named_buffers(), reference.buffers(), strict=True):
        assert torch.allclose(mine, theirs, atol=1e-6), key


@pytest.mark.parametrize("channels", [1, 3])
def test_images_are_laid_out_channels_last_once(channels: int) -> None:
    model = build("cnn", spec(Image(channels, 8, 8)), channels=[4, 6], residual=True)
    seen: list[bool] = []
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.MaxPool2d | nn.BatchNorm1d):
            module.register_forward_hook(
                lambda _m, _i, y: seen.append(y.is_contiguous(memory_format=torch.channels_last))
            )
    model(torch.randn(2, channels, 8, 8))
    assert len(seen) == 13
    assert all(seen)


def test_a_maximum_is_the_same_before_norm_and_relu() -> None:
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


def test_the_readouts_read_one_map() -> None:
    of = spec(Image(1, 6, 4))
    models = {kind: build("cnn", of, channels=[3], readout=kind) for kind in ("mean", "max", "flatten")}
    x = samples(of.input, 2)
    for model in models.values():
        body = {k: v for k, v in models["mean"].state_dict().items() if not k.startswith("head")}
        model.load_state_dict(body, strict=False)
        model.eval()
    flat = models["flatten"].features(x).view(2, 3, 6, 4)
    assert torch.allclose(models["mean"].features(x), flat.mean((2, 3)), atol=1e-6)
    assert torch.equal(models["max"].features(x), flat.amax((2, 3)))


@pytest.mark.parametrize("readout", ["mean", "max"])
def test_pooled_readout_does_not_care_about_the_size_of_the_map(readout: str) -> None:
    model = build("cnn", spec(Image(3, 32, 32)), channels=[64, 10], readout=readout)
    assert model.head.weight.shape == (3, 10)
    assert model(torch.randn(2, 3, 20, 24)).shape == (2, 3)


def test_a_text_is_read_by_kernels_side_by_side_as_in_kim_2014() -> None:
    of = Tokens(9, 11, pad=0)
    model = build("cnn", spec(of)).eval()
    stir(model)
    tokens = samples(of, 4)
    rows = []
    for text in tokens:  # one at a time, without padding
        vectors = model.embedding(text[: int((text != 0).sum())]).T
        maps = [F.conv1d(vectors, layer.conv.weight, layer.conv.bias, padding=layer.conv.padding)
                for layer in model.layers[0].layers]  # fmt: skip
        rows.append(torch.cat([F.relu(one).amax(-1) for one in maps]))
    assert [layer.conv.weight.shape for layer in model.layers[0].layers] == [
        (100, 64, 3), (100, 64, 5), (100, 64, 7)
    ]  # fmt: skip
    assert torch.allclose(model.features(tokens), torch.stack(rows), atol=1e-5)
    model.train()
    dropped = (model.features(tokens) == 0).float().mean() - (torch.stack(rows) == 0).float().mean()
    assert 0.1 < dropped < 0.6  # half of what is not 0


def test_a_text_is_read_by_layers_one_after_another_if_they_are_listed() -> None:
    model = build("cnn", spec("padded"), channels=[4, 8], dropout=0.0, readout="mean", kernel_sizes=[3])
    assert [layer.conv.weight.shape[:2] for layer in model.layers] == [(4, 64), (8, 4)]
    assert (model.readout, model.dropout) == ("mean", 0.0)
    assert all(layer.norm is not None for layer in model.layers)


@pytest.mark.parametrize(("key", "value"), [("residual", True), ("pooling", "avg"), ("pool_after", [1])])
def test_one_layer_has_no_blocks(key: str, value: object) -> None:
    with pytest.raises(ConfigError, match=rf"model\.{key}=.*Set model\.channels=\[32, 64, 64, 128\]"):
        build("cnn", spec("padded"), **{key: value})
    build("cnn", spec("padded"), channels=[8, 8], **{key: value})


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


def test_the_mean_s_gradient_lies_as_the_last_map_does() -> None:
    """Otherwise the activation's backward pass goes value by value, which takes a tenth of a step."""
    model = build("cnn", spec(Image(1, 8, 8)), channels=[4, 8])
    layouts: list[bool] = []

    def activation(x: torch.Tensor) -> torch.Tensor:
        y = torch.relu(x)
        y.register_hook(lambda g: layouts.append(g.is_contiguous(memory_format=torch.channels_last)))
        return y

    model.activation = activation
    images = torch.randn(3, 1, 8, 8)
    outputs = model(images)
    outputs.sum().backward()
    assert layouts == [True, True]
    x = images
    for layer in model.layers:
        x = torch.relu(layer(x))
    torch.testing.assert_close(outputs, model.head(x.mean((2, 3))), atol=1e-5, rtol=1e-4)
