"""The feed-forward network against the formula."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from bigmodel.errors import ConfigError
from bigmodel.models.layers.activations import ACTIVATIONS
from bigmodel.spec import Features, Image
from tests.models.cases import build, samples, spec


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_each_layer_is_f_of_w_x_plus_b(activation: str) -> None:
    model = build("fnn", spec(Features(4)), hidden_sizes=[6, 5], activation=activation)
    for key, parameter in model.named_parameters():
        if key.endswith("bias"):
            nn.init.normal_(parameter)
    state, x = model.state_dict(), torch.randn(3, 4)
    expected = x
    for layer in range(2):
        expected = expected @ state[f"layers.{layer}.weight"].T + state[f"layers.{layer}.bias"]
        expected = getattr(F, activation)(expected)
    expected = expected @ state["head.weight"].T + state["head.bias"]
    assert torch.allclose(model(x), expected, atol=1e-5)


def test_has_the_size_of_the_textbook_network() -> None:
    model = build("fnn", spec(Features(10), "values"), hidden_sizes=[5])
    assert sum(p.numel() for p in model.parameters()) == 10 * 5 + 5 + 5 * 1 + 1


def test_without_hidden_layers_it_is_linear() -> None:
    model = build("fnn", spec(Image(1, 3, 3)), hidden_sizes=[])
    x = torch.randn(4, 1, 3, 3)
    assert torch.allclose(model(x), F.linear(x.flatten(1), model.head.weight, model.head.bias))


def test_images_are_read_as_one_vector() -> None:
    model = build("fnn", spec(Image(2, 3, 4)))
    x = torch.randn(4, 2, 3, 4)
    flat = build("fnn", spec(Features(24)))
    flat.load_state_dict(model.state_dict())
    assert torch.allclose(model(x), flat(x.view(4, 24)))


def test_tokens_are_averaged_in_any_order() -> None:
    model = build("fnn", spec("tokens"))
    x = samples(spec("tokens").input, 3)
    assert torch.allclose(model(x), model(x.flip(1)), atol=1e-5)
    (average,) = model.embedding(x)[:1].mean(1)
    expected = F.relu(model.layers[0](average))
    expected = model.head(F.relu(model.layers[1](expected)))
    assert torch.allclose(model(x)[0], expected, atol=1e-5)


@pytest.mark.parametrize(("norm", "kind"), [("batch", nn.BatchNorm1d), ("layer", nn.LayerNorm)])
def test_norms_stand_before_the_activation(norm: str, kind: type[nn.Module]) -> None:
    model = build("fnn", spec(Features(4)), hidden_sizes=[7], norm=norm)
    assert isinstance(model.norms[0], kind)
    assert (model.layers[0].bias is None) == (norm == "batch")  # the batch's mean takes it away
    x = torch.randn(32, 4)
    before = model.norms[0](model.layers[0](x))
    assert torch.equal(model.features(x), F.relu(before))
    assert before.mean().abs() < 1e-5
    assert before.var().item() == pytest.approx(1, abs=0.05)


def test_dropout_leaves_its_share_at_zero() -> None:
    model = build("fnn", spec(Features(4)), hidden_sizes=[4000], activation="sigmoid", dropout=0.3)
    dropped = (model.features(torch.randn(1, 4)) == 0).float().mean().item()
    assert dropped == pytest.approx(0.3, abs=0.05)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"hidden_sizes": [8, 0]}, r"model\.hidden_sizes\.1=0"),
        ({"hidden_size": [8]}, r"Did you mean 'hidden_sizes'"),
        ({"activation": "relux"}, r"model\.activation='relux'.*gelu"),
        ({"dropout": 1.0}, r"model\.dropout=1\.0"),
        ({"dropout": float("nan")}, r"model\.dropout=nan"),
    ],
)
def test_wrong_options_are_refused_by_name(options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build("fnn", spec("features"), **options)
