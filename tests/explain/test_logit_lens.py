"""The logit lens against the model's own outputs, and against a model cut short."""

import pytest
import torch

from bigmodel.errors import ConfigError, UndefinedError
from bigmodel.explain.logit_lens import layer_guesses
from bigmodel.models.transformer import Transformer
from tests.models.cases import INPUTS, build, samples, spec, stir

GPT2 = {"activation": "gelu_tanh", "initialisation": "gpt2", "tied_embeddings": True}


@pytest.mark.parametrize("options", [{}, GPT2, {"norm_first": False}, {"norm": "rmsnorm"}])
@pytest.mark.parametrize("kind", ["tokens", "pair"])
def test_the_last_layer_is_the_model(kind: str, options: dict[str, object]) -> None:
    of = spec(kind, "next")
    model = build("transformer", of, dim=16, num_heads=4, depth=3, **options).eval()
    stir(model)
    inputs = samples(of.input, 1)
    text = inputs[0] if kind == "tokens" else inputs[0, 1]
    targets = [*text[1:].tolist(), None]
    layers = layer_guesses(model, inputs, targets, top=3)
    last = layers[-1]
    with torch.no_grad():
        probabilities = model(inputs)[0].softmax(-1)
    assert len(layers) == 4
    assert last.tokens.shape == (len(text), 3)
    best = probabilities.topk(3)
    assert torch.equal(last.tokens, best.indices)
    assert torch.allclose(last.probabilities, best.values, atol=1e-6)
    for position, token in enumerate(targets[:-1]):
        truth = probabilities[position, token]
        assert last.truth[position] == pytest.approx(truth.item(), abs=1e-6)
        assert last.ranks[position] == 1 + (probabilities[position] > truth).sum()
    assert last.truth[-1].isnan()
    assert last.ranks[-1] == 0
    entropy = torch.distributions.Categorical(probabilities).entropy()
    assert torch.allclose(last.entropy, entropy, atol=1e-5)


def test_a_layer_is_the_model_without_those_after_it() -> None:
    of = spec("tokens", "next")
    model = build("transformer", of, dim=16, num_heads=4, depth=3).eval()
    assert isinstance(model, Transformer)
    stir(model)
    inputs = samples(INPUTS["tokens"], 1)
    guesses = layer_guesses(model, inputs, [None] * inputs.shape[1], top=11)
    for layers in range(4):
        cut = build("transformer", of, dim=16, num_heads=4, depth=3).eval()
        cut.load_state_dict(model.state_dict())
        assert isinstance(cut, Transformer)
        cut.blocks = cut.blocks[:layers]
        with torch.no_grad():
            best = cut(inputs)[0].softmax(-1).sort(descending=True)
        assert torch.equal(guesses[layers].tokens, best.indices)
        assert torch.allclose(guesses[layers].probabilities, best.values, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "target"), [("rnn", "next"), ("transformer", "classes"), ("cnn", "classes")]
)
def test_models_without_blocks_that_write_are_refused(name: str, target: str) -> None:
    model = build(name, spec("tokens", target))
    with pytest.raises(
        ConfigError, match=r"no logit lens.*model=transformer on data=text or data=pairs"
    ):
        layer_guesses(model, samples(INPUTS["tokens"], 1), [None] * 9, top=3)


def test_a_model_that_has_diverged_has_no_lens() -> None:
    model = build("transformer", spec("tokens", "next"), dim=16, num_heads=4).eval()
    with torch.no_grad():
        next(iter(model.parameters())).fill_(torch.nan)
    with pytest.raises(UndefinedError, match=r"gives NaN or infinity\. Its training has diverged"):
        layer_guesses(model, samples(INPUTS["tokens"], 1), [None] * 9)
