"""Attention maps of whole models, and rollout."""

from typing import Any

import pytest
import torch
from torch import Tensor

from bigmodel.errors import ConfigError, UndefinedError
from bigmodel.explain.attention import attention, layer_weights, rolled_out
from bigmodel.explain.rollout import rollout
from bigmodel.explain.subject import Options
from bigmodel.models.base import Model
from bigmodel.spec import DataSpec
from tests.explain.subjects import CLASSES, drawn, subject
from tests.explain.subjects import KINDS as SUBJECTS
from tests.models.cases import INPUTS, PAIR, build, samples, spec, stir

KINDS = ["image", "sequence", "tokens", "padded", "features", "categories"]


def attending(name: str, kind: str, target: str = "classes", **options: Any) -> tuple[Model, Tensor]:
    of = spec(kind, target)
    patch = {"patch_size": 4} if kind == "image" else {}
    model = build(name, of, dim=16, num_heads=4, depth=3, **patch, **options).eval()
    stir(model)
    return model, samples(of.input, 3)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["attention", "transformer"])
def test_every_layer_of_every_kind_of_input(name: str, kind: str) -> None:
    model, inputs = attending(name, kind)
    maps = layer_weights(model, inputs)
    positions = 4 if kind == "image" else inputs.shape[1]
    assert len(maps) == 3
    for each in maps:
        assert each.of == "input"
        assert each.weights.shape == (3, 4, positions, positions)
        assert torch.allclose(each.weights.sum(-1), torch.ones(3, 4, positions), atol=1e-5)
    whole = rolled_out([each.weights for each in maps])
    assert torch.allclose(whole.sum(-1), torch.ones(3, positions), atol=1e-5)


def test_maps_are_of_what_the_model_computed_and_change_nothing() -> None:
    """What a key weighs is nothing if it is padding, and the model's outputs stay the same."""
    model, inputs = attending("transformer", "padded", position="rotary", num_kv_heads=2, qk_norm=True)
    with torch.no_grad():
        before = model(inputs)
        maps = layer_weights(model, inputs)
        assert torch.equal(model(inputs), before)
    padding = inputs == INPUTS["padded"].pad  # type: ignore[union-attr]
    assert padding.any()
    for each in maps:
        assert not each.weights.amax((1, 2))[padding].any()
        assert each.weights.amax((1, 2))[~padding].all()


def test_a_decoder_sees_nothing_later() -> None:
    model, inputs = attending("transformer", "tokens", "next")
    maps = layer_weights(model, inputs)
    assert all(not each.weights.triu(1).any() for each in maps)
    assert not rolled_out([each.weights for each in maps]).triu(1).any()


def test_translation_has_three_kinds_of_maps() -> None:
    of = spec("pair", "next")
    model = build("transformer", of, dim=16, num_heads=4, depth=2, encoder_depth=1).eval()
    inputs = samples(PAIR, 2)
    kinds = [(each.name, each.of) for each in layer_weights(model, inputs)]
    assert kinds == [
        ("encoder.0.attention", "source"),
        ("decoder.0.attention", "target"),
        ("decoder.0.cross_attention", "target to source"),
        ("decoder.1.attention", "target"),
        ("decoder.1.cross_attention", "target to source"),
    ]


def test_rollout_is_the_product_by_hand() -> None:
    first = torch.tensor([[[1.0, 0.0], [0.5, 0.5]], [[0.0, 1.0], [0.5, 0.5]]])[None]  # two heads
    second = torch.tensor([[[0.2, 0.8], [1.0, 0.0]]])[None]  # one head
    # A1 = ½ ([[.5, .5], [.5, .5]] + 1) = [[.75, .25], [.25, .75]]
    # A2 = ½ ([[.2, .8], [1, 0]] + 1) = [[.6, .4], [.5, .5]]
    expected = torch.tensor([[[0.55, 0.45], [0.5, 0.5]]])
    assert torch.allclose(rolled_out([first, second]), expected)


@pytest.mark.parametrize("name", ["fnn", "cnn", "rnn"])
def test_models_without_attention_say_which_have_it(name: str) -> None:
    with pytest.raises(ConfigError, match=r"no attention.*model=attention and model=transformer have"):
        layer_weights(build(name, spec("tokens")), samples(INPUTS["tokens"]))


def test_a_model_that_has_diverged_has_no_maps() -> None:
    model, inputs = attending("transformer", "tokens")
    with torch.no_grad():
        next(iter(model.parameters())).fill_(torch.nan)
    with pytest.raises(UndefinedError, match=r"attention is NaN\. Its training has diverged"):
        layer_weights(model, inputs)


@pytest.mark.parametrize("readout", [None, "pooled", "mean"])
def test_a_class_token_is_in_the_maps_and_in_no_shares(readout: str | None) -> None:
    of = DataSpec("toy", SUBJECTS["picture"], CLASSES)
    model = build("transformer", of, dim=16, num_heads=4, depth=2, class_token=True, readout=readout)
    asked = subject(model, of, *drawn("picture", 3, 2))
    maps = attention(asked, Options()).samples[0]
    patches = (f"{row},{column}" for row in range(4) for column in range(4))
    assert maps[0].queries == maps[0].keys == ("class token", *patches)
    shares = rollout(asked, Options()).values
    assert shares.shape == (3, 1, 8, 8)
    assert torch.allclose(shares.sum((1, 2, 3)), torch.ones(3))
    layers = layer_weights(asked.model, asked.inputs(torch.tensor([0])))
    whole = rolled_out([layer.weights for layer in layers])
    row = whole[0].mean(0) if readout == "mean" else whole[0, 0]
    expected = row[1:].view(4, 4) / row[1:].sum() / 4
    assert torch.allclose(shares[0, 0, ::2, ::2], expected)
