"""What is said of tokens is true: it adds up, and what is named most matters most."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from bigmodel.data.parts import Part, Windows
from bigmodel.data.preprocessing import Preprocessing
from bigmodel.data.sources.text import TextDataReader
from bigmodel.data.texts.tokenizer_training import build_vocabulary
from bigmodel.errors import ConfigError
from bigmodel.explain.subject import Options
from bigmodel.explain.token_gradients import token_gradients
from bigmodel.spec import IGNORED, Classes, DataSpec, NextTokens, Tokens
from tests.explain.text_subjects import BAD, GOOD, PAD, SPEC, subject_of, texts, trained
from tests.models.cases import INPUTS, build, samples, spec, stir

MODELS = ["fnn", "cnn", "rnn", "attention", "transformer"]


def score(model: nn.Module, tokens: list[int], of: int) -> float:
    """The log-odds of a class for a text."""
    with torch.no_grad():
        outputs = model(torch.tensor([tokens or [PAD]]))[0]
    return float(outputs[of] - outputs[1 - of])


@pytest.mark.parametrize("name", MODELS)
def test_attributions_add_up_and_are_of_the_text_that_was_given(name: str) -> None:
    part = texts(12, seed=2)
    model = trained(name)
    found = token_gradients(subject_of(model, SPEC, part), Options())
    assert found.complete
    assert (found.gaps < 1e-3).all()
    sizes = (~found.values.isnan()).sum(1)
    assert torch.equal(sizes, part.sizes)
    for place, words in enumerate(found.tokens):
        tokens = part.take(torch.tensor([place]))[0][0, : part.sizes[place]].tolist()
        assert words == tuple(map(str, tokens))
        own = score(model, tokens, int(found.explained[place]))
        assert found.scores[place] == pytest.approx(own, abs=1e-4)


@pytest.mark.parametrize("options", [{"position": "rotary", "norm": "rmsnorm", "qk_norm": True}, {}])
def test_they_add_up_where_the_path_begins_at_a_norm_of_nothing(options: dict[str, Any]) -> None:
    model = build("transformer", SPEC, dim=16, num_heads=2, depth=3, **options)
    stir(model)
    found = token_gradients(subject_of(model, SPEC, texts(6, seed=3)), Options())
    assert (found.gaps < 1e-3).all()


@pytest.mark.parametrize("name", MODELS)
def test_deleting_what_is_named_most_lowers_the_score_fastest(name: str) -> None:
    """Tokens are taken out of the text one by one: the most named first, or in random order."""
    model, part = trained(name), texts(16, seed=4)
    found = token_gradients(subject_of(model, SPEC, part), Options())
    draw = torch.Generator().manual_seed(0)
    named, chance = [], []
    for place in range(len(part)):
        tokens = part.take(torch.tensor([place]))[0][0, : part.sizes[place]].tolist()
        values, of = found.values[place, : len(tokens)], int(found.explained[place])
        orders = {
            "named": values.argsort(descending=True),
            "random": torch.randperm(len(tokens), generator=draw),
        }
        for sums, order in ((named, orders["named"]), (chance, orders["random"])):
            gone = [set(order[:count].tolist()) for count in range(1, 5)]
            kept = [[t for n, t in enumerate(tokens) if n not in out] for out in gone]
            sums.append(sum(score(model, text, of) for text in kept) / len(kept))
    assert sum(named) / len(named) < sum(chance) / len(chance) - 1


@pytest.mark.parametrize("name", MODELS)
def test_words_that_decide_are_named(name: str) -> None:
    part = texts(40, seed=5)
    found = token_gradients(subject_of(trained(name), SPEC, part, output=1), Options())
    means = {}
    for kind, known in (("good", GOOD), ("bad", BAD)):
        values = [
            float(found.values[place, n])
            for place, words in enumerate(found.tokens)
            for n, word in enumerate(words)
            if int(word) in known
        ]
        means[kind] = sum(values) / len(values)
    assert means["good"] > 0.3
    assert means["bad"] < -0.3


def continued(text: str, part: Any, **more: Any) -> Any:
    reader = TextDataReader(vocabulary=build_vocabulary([text], "character", 0), context=32)
    size = reader.vocabulary.size
    model = build("transformer", DataSpec("text", Tokens(32, size), NextTokens(size)), dim=16, depth=2)
    stir(model)
    subject = subject_of(
        model, DataSpec("text", Tokens(32, size), NextTokens(size)), part(reader), **more
    )
    prepared = Preprocessing(subject.preprocessing.spec, reader=reader)
    return model, type(subject)(model.eval(), prepared, subject.runtime, subject.part, **more)


def prompt(reader: TextDataReader) -> Part:
    tokens = torch.tensor([reader.encode("to be or not")])
    return Part(tokens, torch.cat([tokens[:, 1:], torch.tensor([[IGNORED]])], dim=1))


def test_of_a_prompt_the_next_token_is_explained() -> None:
    model, subject = continued("to be or not to be", prompt)
    found = token_gradients(subject, Options())
    with torch.no_grad():
        log_probs = model(subject.inputs())[0, -1].log_softmax(-1)
    assert "".join(found.tokens[0]) == "to be or not"
    assert int(found.explained[0]) == int(log_probs.argmax())
    assert float(found.scores[0]) == pytest.approx(float(log_probs.max()), abs=1e-5)
    assert (found.gaps < 1e-3).all()
    other = token_gradients(continued("to be or not to be", prompt, output=2)[1], Options())
    assert int(other.explained[0]) == 2


def test_a_window_that_the_text_does_not_fill_is_not_explained_beyond_it() -> None:
    stream = "to be or not to be"

    def windows(reader: TextDataReader) -> Windows:
        return Windows.side_by_side(torch.tensor(reader.encode(stream)), 10, whole=True)

    _, subject = continued(stream, windows)
    found = token_gradients(subject, Options())
    assert ["".join(words) for words in found.tokens] == [stream[:10], stream[10:17]]


class Own(nn.Module):
    """A model of a user: positions are looked up like tokens, but are none."""

    def __init__(self, *, embeds: bool) -> None:
        super().__init__()
        self.tokens = nn.Embedding(11, 8)
        self.places = nn.Embedding(9, 8)
        self.head = nn.Linear(8, 3)
        self.embeds = embeds

    def forward(self, inputs: Tensor) -> Tensor:
        x = self.tokens(inputs) if self.embeds else nn.functional.one_hot(inputs, 11)[..., :8].float()
        x = x + self.places(torch.arange(inputs.shape[1]))
        return self.head(torch.tanh(x).mean(1))


def test_vectors_of_positions_stay() -> None:
    inputs = samples(INPUTS["tokens"], 1)
    model = Own(embeds=True)
    part = Part(inputs, torch.zeros(1, dtype=torch.int64))
    found = token_gradients(subject_of(model, spec("tokens"), part), Options())
    with torch.no_grad():
        outputs = model.head(torch.tanh(model.places.weight).mean(0))
    of = int(found.explained[0])
    expected = outputs[of] - (outputs.sum() - outputs[of]) / 2
    assert float(found.baseline_scores[0]) == pytest.approx(float(expected), abs=1e-5)
    assert (found.gaps < 1e-3).all()
    assert isinstance(spec("tokens").target, Classes)


def test_a_model_without_an_embedding_is_refused_in_words() -> None:
    part = Part(samples(INPUTS["tokens"], 1), torch.zeros(1, dtype=torch.int64))
    with pytest.raises(ConfigError, match=r"looks its tokens up in no torch\.nn\.Embedding"):
        token_gradients(subject_of(Own(embeds=False), spec("tokens"), part), Options())
