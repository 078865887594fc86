"""Writing with a cache against reading everything anew, and searches against trying everything."""

import itertools
import math
import random
from typing import Any

import pytest
import torch
from torch import Tensor

from bigmodel.errors import ConfigError, DataError, SpecError
from bigmodel.models.base import DecodingCache, Memory, Model, Writer
from bigmodel.models.generation import (
    ENDED,
    Sampling,
    UndefinedTextsError,
    generate,
    probabilities,
    translate,
    window_start,
)
from bigmodel.models.generation.beams import Beam, Finished, beam_search, expand
from bigmodel.models.generation.decoding import DecodingBatch
from bigmodel.spec import DataSpec, NextTokens, TokenPair, Tokens
from tests.models.cases import build, spec

VOCABULARY, CONTEXT = 11, 12
TEXT = DataSpec("text", Tokens(CONTEXT, VOCABULARY), NextTokens(VOCABULARY))
PAIRS = DataSpec("pairs", TokenPair(CONTEXT, VOCABULARY, 0, 1, 2), NextTokens(VOCABULARY))
PROMPTS = [[3], [4, 5, 6, 7, 8], [9, 3, 9], list(range(11)), [5, 5, 5, 4, 3, 2, 1]]
SOURCES = [[3], [4, 5, 6, 7, 8], [9, 3, 9, 2], [7] * 11]
GREEDY = Sampling(max_tokens=30, temperature=0.0)
DRAWN = Sampling(max_tokens=30, temperature=1.3, top_k=8, top_p=0.95, seed=5)

TRANSFORMERS: dict[str, dict[str, Any]] = {
    "learned": {},
    "sinusoidal": {"position": "sinusoidal", "activation": "relu_squared"},
    "rotary": {"position": "rotary"},
    "grouped": {"position": "rotary", "num_kv_heads": 2},
    "one_kv_head": {"num_kv_heads": 1, "norm_first": False},
    "qk_norm": {"qk_norm": True, "position": "rotary", "norm": "rmsnorm"},
    "post_norm": {"norm_first": False, "activation": "swiglu"},
    "tied": {"tied_embeddings": True, "bias": False, "initialisation": "gpt2"},
}
WRITERS = {key: {"name": "transformer"} | options for key, options in TRANSFORMERS.items()} | {
    f"{cell}_{layers}": {"name": "rnn", "cell": cell, "num_layers": layers, "dropout": 0.2}
    for cell in ("rnn", "lstm", "gru")
    for layers in (1, 2)
} | {"stepwise": {"name": "rnn", "cell": "lstm", "fused": False}}  # fmt: skip


def writer(options: dict[str, Any], of: DataSpec = TEXT) -> Writer:
    """A model far enough from its start that its tokens differ."""
    options = {"name": "transformer", **options}
    model = build(options.pop("name"), of, **options)
    assert isinstance(model, Writer)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
        model.head.weight.mul_(2)
    return model


class Uncached(Writer):
    """The same model without a cache: at every step it reads all there is."""

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.model = model

    def prefill(self, inputs: Tensor, lengths: list[int], max_length: int) -> tuple[Tensor, "ReadSoFar"]:
        del max_length
        cache = ReadSoFar(list(inputs), lengths)
        return self.logits(cache), cache

    def decode(self, tokens: Tensor, cache: "ReadSoFar") -> Tensor:
        for row, token in enumerate(tokens):
            text = cache.texts[row]
            if text.ndim == 1:
                cache.texts[row] = torch.cat([text[: cache.lengths[row]], token[None]])
            else:
                wide = torch.nn.functional.pad(text, (0, 1))
                wide[1, cache.lengths[row]] = token
                cache.texts[row] = wide
        cache.lengths = [length + 1 for length in cache.lengths]
        return self.logits(cache)

    def logits(self, cache: "ReadSoFar") -> Tensor:
        """Each text by itself."""
        rows = []
        for text, length in zip(cache.texts, cache.lengths, strict=True):
            known = text[..., : max(length, int((text != 0).sum(-1).max())) if text.ndim > 1 else length]
            rows.append(self.model(known[None])[0, length - 1])
        return torch.stack(rows)


class ReadSoFar(DecodingCache):
    def __init__(self, texts: list[Tensor], lengths: list[int]) -> None:
        self.texts, self.lengths = texts, lengths

    def select(self, rows: list[int]) -> "ReadSoFar":
        return ReadSoFar([self.texts[row] for row in rows], [self.lengths[row] for row in rows])


class FormerPlugin(Writer):
    """A plugin from before `begin`, `extend`, `room` and `Memory` had their present names."""

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.model = Uncached(model)

    def begin(self, inputs: Tensor, lengths: list[int], room: int) -> tuple[Tensor, "FormerMemory"]:
        logits, cache = self.model.prefill(inputs, lengths, room)
        return logits, FormerMemory(cache)

    def extend(self, tokens: Tensor, memory: "FormerMemory") -> Tensor:
        return self.model.decode(tokens, memory.read)


class FormerMemory(Memory):
    def __init__(self, read: ReadSoFar) -> None:
        self.read = read

    def select(self, rows: list[int]) -> "FormerMemory":
        return FormerMemory(self.read.select(rows))


@pytest.mark.parametrize("sampling", [GREEDY, Sampling(beams=3, end=4)], ids=["greedy", "beams"])
def test_a_writer_with_the_former_names_writes(sampling: Sampling) -> None:
    model = writer({})
    texts = generate(FormerPlugin(model), PROMPTS, sampling, TEXT, "cpu")
    assert texts == generate(model, PROMPTS, sampling, TEXT, "cpu")


def test_a_writer_that_cannot_write_says_so() -> None:
    with pytest.raises(NotImplementedError):
        Writer().prefill(torch.ones(1, 1, dtype=torch.long), [1], 2)
    with pytest.raises(NotImplementedError):
        Writer().decode(torch.ones(1, dtype=torch.long), None)


@pytest.mark.parametrize("sampling", [GREEDY, DRAWN], ids=["greedy", "drawn"])
@pytest.mark.parametrize("options", WRITERS.values(), ids=WRITERS)
def test_tokens_are_those_of_reading_everything_anew(
    options: dict[str, Any], sampling: Sampling
) -> None:
    """Also far beyond the context, and with prompts of different lengths."""
    model = writer(options)
    texts = generate(model, PROMPTS, sampling, TEXT, "cpu")
    assert texts == generate(Uncached(model), PROMPTS, sampling, TEXT, "cpu")
    assert [len(text) for text in texts] == [30] * 5
    assert len({token for text in texts for token in text}) > 2
    assert model.training


@pytest.mark.parametrize(
    "sampling", [GREEDY, DRAWN, Sampling(beams=3)], ids=["greedy", "drawn", "beams"]
)
@pytest.mark.parametrize("options", TRANSFORMERS.values(), ids=TRANSFORMERS)
def test_translations_are_those_of_reading_everything_anew(
    options: dict[str, Any], sampling: Sampling
) -> None:
    model = writer(options, PAIRS)
    texts = translate(model, SOURCES, sampling, PAIRS, "cpu")
    assert texts == translate(Uncached(model), SOURCES, sampling, PAIRS, "cpu")
    assert all(not {0, 1, 2} & set(text) for text in texts)
    assert all(len(text) <= CONTEXT for text in texts)


@pytest.mark.parametrize(
    "sampling", [GREEDY, Sampling(max_tokens=9, beams=3, end=4)], ids=["greedy", "beams"]
)
@pytest.mark.parametrize("name", ["learned", "qk_norm", "gru_2"])
def test_a_text_does_not_depend_on_those_beside_it(name: str, sampling: Sampling) -> None:
    model = writer(WRITERS[name])
    together = generate(model, PROMPTS, sampling, TEXT, "cpu")
    alone = [generate(model, [prompt], sampling, TEXT, "cpu")[0] for prompt in PROMPTS]
    assert together == alone


def test_draws_depend_on_the_index_and_not_on_the_batch() -> None:
    model = writer({})
    together = generate(model, PROMPTS, DRAWN, TEXT, "cpu")
    others = [PROMPTS[0], [1], [2, 2], PROMPTS[3]]
    beside = generate(model, others, DRAWN, TEXT, "cpu")
    assert (together[0], together[3]) == (beside[0], beside[3])
    twice = generate(model, [[3], [3]], DRAWN, TEXT, "cpu")
    assert twice[0] != twice[1]


def test_random_numbers_elsewhere_stay_as_they_were() -> None:
    model, state, python = writer({}), torch.get_rng_state(), random.getstate()
    first = generate(model, PROMPTS, DRAWN, TEXT, "cpu")
    assert torch.equal(torch.get_rng_state(), state)
    assert random.getstate() == python
    torch.rand(3)
    assert generate(model, PROMPTS, DRAWN, TEXT, "cpu") == first
    assert generate(model, PROMPTS, Sampling(max_tokens=30, seed=6), TEXT, "cpu") != first


@pytest.mark.parametrize(
    ("length", "context", "start"),
    [(1, 4, 0), (4, 4, 0), (5, 4, 2), (6, 4, 2), (7, 4, 4), (12, 4, 8), (6, 5, 2), (7, 5, 2), (8, 5, 4),
     (2, 1, 1), (9, 1, 8)],
)  # fmt: skip
def test_a_full_context_loses_its_oldest_half(length: int, context: int, start: int) -> None:
    assert window_start(length, context) == start
    assert 1 <= length - start <= context


def test_greedy_is_the_likeliest_of_what_the_model_sees() -> None:
    model = writer({}).eval()
    text = [3, 4]
    for _ in range(40):
        seen = torch.tensor([text[window_start(len(text), CONTEXT) :]])
        text.append(int(model(seen)[0, -1].argmax()))
    assert generate(model, [[3, 4]], Sampling(max_tokens=40, temperature=0), TEXT, "cpu") == [text[2:]]


@pytest.mark.parametrize("top_k", [None, 1, 3, 50])
@pytest.mark.parametrize("top_p", [None, 0.3, 0.8, 1.0])
def test_chances_are_those_of_the_definition(top_k: int | None, top_p: float | None) -> None:
    logits = torch.randn(4, 9) * 2
    found = probabilities(logits, Sampling(temperature=0.7, top_k=top_k, top_p=top_p))
    for row, given in zip(found.tolist(), logits.tolist(), strict=True):
        order = sorted(range(9), key=lambda token, given=given: -given[token])[:top_k]
        weights = {token: math.exp(given[token] / 0.7) for token in order}
        total, kept, reached = sum(weights.values()), {}, 0.0
        for token in order:
            if reached < (top_p or 1.0):
                kept[token] = weights[token]
            reached += weights[token] / total
        expected = [kept.get(token, 0.0) / sum(kept.values()) for token in range(9)]
        assert row == pytest.approx(expected, abs=1e-5)


def test_tokens_are_drawn_as_often_as_they_are_likely() -> None:
    model = writer({}).eval()
    sampling = Sampling(max_tokens=1, temperature=1.5, top_p=0.9)
    drawn = generate(model, [[3]] * 4000, sampling, TEXT, "cpu")
    shares = torch.bincount(torch.tensor(drawn).flatten(), minlength=VOCABULARY) / 4000
    with torch.no_grad():
        expected = probabilities(model(torch.tensor([[3]]))[:, -1], sampling)[0]
    assert torch.allclose(shares, expected, atol=0.03)
    assert (shares[expected == 0] == 0).all()


@pytest.mark.parametrize("length_penalty", [0.0, 0.6, 2.0])
@pytest.mark.parametrize("end", [2, None])
def test_beams_find_what_trying_everything_finds(length_penalty: float, end: int | None) -> None:
    tiny = DataSpec("tiny", Tokens(6, 4), NextTokens(4))
    model = writer({"dim": 16}, tiny).eval()
    steps = 4
    sampling = Sampling(max_tokens=steps, beams=4**steps, end=end, length_penalty=length_penalty)
    for prompt in ([1], [3, 0]):
        ratings = {}
        for length in range(steps + 1):
            for text in itertools.product([t for t in range(4) if t != end], repeat=length):
                asked = [*text, end] if length < steps else list(text)
                if asked[-1] is None:
                    continue
                with torch.no_grad():
                    chances = model(torch.tensor([prompt + asked[:-1]]))[0].log_softmax(-1)
                score = sum(chances[len(prompt) - 1 + i, t].item() for i, t in enumerate(asked))
                ratings[text] = score / ((5 + len(asked)) / 6) ** length_penalty
        best = max(ratings, key=lambda text, ratings=ratings: ratings[text])
        assert generate(model, [prompt], sampling, tiny, "cpu") == [list(best)]


def searched(model: Model, prompt: list[int], sampling: Sampling) -> list[int]:
    """Beam search by its definition, over all continuations of all beams."""
    beams: list[tuple[float, list[int]]] = [(0.0, [])]
    ended: list[tuple[float, list[int]]] = []

    def rating(score: float, length: int) -> float:
        return score / ((5 + length) / 6) ** sampling.length_penalty

    for length in range(1, sampling.max_tokens + 1):
        found = []
        for score, text in beams:
            seen = (prompt + text)[window_start(len(prompt + text), CONTEXT) :]
            chances = model(torch.tensor([seen]))[0, -1].log_softmax(-1).tolist()
            found += [(score + chance, [*text, token]) for token, chance in enumerate(chances)]
        found.sort(reverse=True)
        for score, text in found[: sampling.beams]:
            if text[-1] == sampling.end:
                ended.append((rating(score, length), text[:-1]))
        beams = [(score, text) for score, text in found if text[-1] != sampling.end][: sampling.beams]
        if len(ended) >= sampling.beams and length < sampling.max_tokens:
            return max(ended)[1]
    return max(ended + [(rating(score, sampling.max_tokens), text) for score, text in beams])[1]


@pytest.mark.parametrize("likely", [0.0, 2.0, 4.0])
@pytest.mark.parametrize("beams", [2, 3, 5])
def test_few_beams_find_what_the_definition_finds(beams: int, likely: float) -> None:
    model = writer({}).eval()
    with torch.no_grad():
        model.head.bias[4] += likely
        for length_penalty in (0.0, 1.0):
            sampling = Sampling(max_tokens=7, beams=beams, end=4, length_penalty=length_penalty)
            found = generate(model, PROMPTS, sampling, TEXT, "cpu")
            assert found == [searched(model, prompt, sampling) for prompt in PROMPTS]


def test_as_many_beams_go_on_however_many_end() -> None:
    chances = torch.tensor([[0.1, 0.2, 0.7], [0.15, 0.05, 0.8]]).log()
    beams = [Beam(-1.0, (0,), 0), Beam(-1.1, (1,), 1)]
    ended: Finished = []
    sampling = Sampling(beams=2, end=2, length_penalty=0.0)
    going = expand(beams, chances, sampling, ended)
    assert [(beam.tokens, beam.row) for beam in going] == [((0, 1), 0), ((1, 0), 1)]
    assert [text for _, text in ended] == [(1,), (0,)]


def test_a_search_with_one_beam_is_greedy() -> None:
    model = writer({}).eval()
    for end in (None, 4, 7):
        sampling = Sampling(max_tokens=20, temperature=0, end=end)
        batch = DecodingBatch(model, [list(prompt) for prompt in PROMPTS], TEXT, "cpu", 20)
        with torch.inference_mode():
            batch.prefill()
            found = beam_search(batch, sampling)
        assert found == generate(model, PROMPTS, sampling, TEXT, "cpu")


def test_an_end_stops_its_own_text_and_is_not_given() -> None:
    model = writer({})
    free = generate(model, PROMPTS, GREEDY, TEXT, "cpu")
    end = free[1][3]
    ended = generate(model, PROMPTS, Sampling(max_tokens=30, temperature=0, end=end), TEXT, "cpu")
    for whole, text in zip(free, ended, strict=True):
        assert text == whole[: whole.index(end) if end in whole else None]
    own = DataSpec("text", TEXT.input, NextTokens(VOCABULARY, end=end))
    assert generate(model, PROMPTS, GREEDY, own, "cpu") == ended


@pytest.mark.parametrize("sampling", [GREEDY, Sampling(max_tokens=8, beams=2)], ids=["greedy", "beams"])
def test_tokens_are_handed_on_as_they_come(sampling: Sampling) -> None:
    model = writer({}, PAIRS)
    steps: list[list[int]] = []
    texts = translate(model, SOURCES, sampling, PAIRS, "cpu", on_tokens=steps.append)
    for index, text in enumerate(texts):
        assert [step[index] for step in steps if step[index] != ENDED] == text
    assert all(len(step) == len(SOURCES) for step in steps)
    assert all(any(token != ENDED for token in step) for step in steps)


@pytest.mark.parametrize("options", WRITERS.values(), ids=WRITERS)
def test_half_precision_writes(options: dict[str, Any]) -> None:
    with torch.autocast("cpu", torch.bfloat16):
        texts = generate(writer(options), PROMPTS, DRAWN, TEXT, "cpu")
    assert [len(text) for text in texts] == [30] * len(PROMPTS)


@pytest.mark.parametrize("options", TRANSFORMERS.values(), ids=TRANSFORMERS)
def test_half_precision_translates(options: dict[str, Any]) -> None:
    with torch.autocast("cpu", torch.bfloat16):
        texts = translate(writer(options, PAIRS), SOURCES, Sampling(beams=3), PAIRS, "cpu")
    assert len(texts) == len(SOURCES)


def test_nothing_to_write_is_nothing() -> None:
    assert generate(writer({}), [], GREEDY, TEXT, "cpu") == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_tokens": 0}, r"max_tokens=0: .*from 1"),
        ({"temperature": -0.1}, r"temperature=-0\.1: .*from 0"),
        ({"temperature": math.nan}, "temperature=nan"),
        ({"top_k": 0}, "top_k=0"),
        ({"top_p": 0.0}, r"top_p=0\.0: must be above 0 and at most 1"),
        ({"top_p": 1.1}, r"top_p=1\.1"),
        ({"beams": 0}, "beams=0"),
        ({"length_penalty": -1.0}, "length_penalty"),
        ({"beams": 2, "temperature": 0.7}, "beams=2 looks for the likeliest text.*beams=1"),
        ({"beams": 2, "top_k": 3}, "beams=2"),
    ],
)
def test_wrong_values_are_refused_in_words(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Sampling(**options)


def test_what_cannot_be_written_is_refused_in_words() -> None:
    model, pairs = writer({}), writer({}, PAIRS)
    with pytest.raises(DataError, match="prompt 1 is empty"):
        generate(model, [[3], []], GREEDY, TEXT, "cpu")
    with pytest.raises(DataError, match="prompt 0 holds token 11, but the vocabulary has 0 to 10"):
        generate(model, [[3, 11]], GREEDY, TEXT, "cpu")
    with pytest.raises(DataError, match=r"source 0 has 13 tokens with its end.*at most 12"):
        translate(pairs, [[3] * 12], GREEDY, PAIRS, "cpu")
    with pytest.raises(SpecError, match="pairs of texts can translate, and data=text"):
        translate(model, [[3]], GREEDY, TEXT, "cpu")
    with pytest.raises(SpecError, match=r"next token of a text.*data=pairs"):
        generate(pairs, [[3]], GREEDY, PAIRS, "cpu")
    with pytest.raises(SpecError, match="data=toy has 9 tokens out of 11 → 3 classes"):
        generate(build("transformer", spec("tokens")), [[3]], GREEDY, spec("tokens"), "cpu")


@pytest.mark.parametrize(
    "sampling", [GREEDY, DRAWN, Sampling(max_tokens=5, beams=3)], ids=["greedy", "drawn", "beams"]
)
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_where_there_is_no_next_token_the_others_are_still_written(
    monkeypatch: pytest.MonkeyPatch, sampling: Sampling, value: float
) -> None:
    """From some moment on, for all texts that hold token 9."""
    model = writer({})
    whole = generate(model, PROMPTS, sampling, TEXT, "cpu")
    real = DecodingBatch._set_logits

    def take(self: DecodingBatch, logits: Tensor) -> None:
        bad = torch.tensor([len(row) > 4 and row[0] == 9 for row in self.rows])
        real(self, torch.where(bad[:, None], value, logits))

    monkeypatch.setattr(DecodingBatch, "_set_logits", take)
    seen: list[list[int]] = []
    with pytest.raises(UndefinedTextsError, match="1 of 5 texts has no next token") as caught:
        generate(model, PROMPTS, sampling, TEXT, "cpu", on_tokens=seen.append)
    assert caught.value.texts == [*whole[:2], None, *whole[3:]]
    if sampling.beams == 1:
        assert sum(step[2] != ENDED for step in seen) == 2, "what came until then was handed on"
