"""Writing with a model: what goes in is checked, and what comes out is handed on token by token."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch

from bigmodel.errors import DIVERGED, DataError, SpecError, UndefinedError, counted
from bigmodel.models.base import Model, Writer
from bigmodel.models.generation.beams import search
from bigmodel.models.generation.sampling import Sampling, chosen, with_end
from bigmodel.models.generation.texts import Texts
from bigmodel.models.layers.basic import evaluating
from bigmodel.spec import DataSpec, NextTokens, TokenPair, Tokens

OnTokens = Callable[[list[int]], None]
"""Called with the new token of each text, in their order; -1: that text has ended."""

ENDED = -1


class UndefinedTextsError(UndefinedError):
    """There is no next token for some texts, since the model gives NaN or infinity there.

    Attributes:
        texts: what was written, in the order of the prompts; None in their places.
    """

    def __init__(self, texts: list[list[int] | None]) -> None:
        verb = "has" if texts.count(None) == 1 else "have"
        super().__init__(
            f"{texts.count(None):,} of {counted(len(texts), 'text')} {verb} no next token: the model"
            f" gives NaN or infinity. {DIVERGED}"
        )
        self.texts = texts


def generate(
    model: Model,
    prompts: list[list[int]],
    sampling: Sampling,
    spec: DataSpec,
    device: torch.device | str,
    *,
    on_tokens: OnTokens | None = None,
) -> list[list[int]]:
    """What a language model writes after each prompt: the new tokens only.

    A text longer than the model's context, `spec.input.length`, loses its oldest half context each time
    that it is full, and the rest is read anew.

    Args:
        prompts: one token or more each.
        device: where the model is.
        on_tokens: sees each new token as it comes; with beams, after the search.

    Raises:
        SpecError: the model does not write, or it translates.
        DataError: an empty prompt, or a token that the vocabulary has not.
        UndefinedTextsError: the model gives NaN or infinity; the other texts are whole.
    """
    if not (isinstance(model, Writer) and isinstance(spec.input, Tokens) and _writes(spec)):
        raise SpecError(
            f"Only a model that was trained to give the next token of a text can go on with one, and"
            f" data={spec.name} has {spec.input} → {spec.target}."
        )
    _check_tokens(prompts, spec.input.vocab_size, "prompt")
    texts = Texts(model, [list(prompt) for prompt in prompts], spec, device, sampling.max_tokens)
    return _write(texts, with_end(sampling, spec), on_tokens)


def translate(
    model: Model,
    sources: list[list[int]],
    sampling: Sampling,
    spec: DataSpec,
    device: torch.device | str,
    *,
    on_tokens: OnTokens | None = None,
) -> list[list[int]]:
    """What an encoder–decoder writes for each source: its tokens, without start and end.

    Args:
        sources: one token or more each; `spec.input.end` is added where a source does not end with it.
        device: where the model is.
        on_tokens: sees each new token as it comes; with beams, after the search.

    Raises:
        SpecError: the model does not translate.
        DataError: an empty source, one too long, or a token that the vocabulary has not.
        UndefinedTextsError: the model gives NaN or infinity; the other texts are whole.
    """
    if not (isinstance(model, Writer) and isinstance(spec.input, TokenPair) and _writes(spec)):
        raise SpecError(
            f"Only a model that was trained on pairs of texts can translate, and data={spec.name} has"
            f" {spec.input} → {spec.target}."
        )
    pair = spec.input
    _check_tokens(sources, pair.vocab_size, "source")
    ended = [text if text[-1] == pair.end else [*text, pair.end] for text in sources]
    for index, text in enumerate(ended):
        if len(text) > pair.length:
            raise DataError(
                f"source {index} has {len(text)} tokens with its end, but the model reads at most"
                f" {pair.length}."
            )
    sampling = replace(sampling, max_tokens=min(sampling.max_tokens, pair.length))
    starts = [[pair.start] for _ in ended]
    texts = Texts(model, starts, spec, device, sampling.max_tokens, ended)
    return _write(texts, with_end(sampling, spec), on_tokens)


def _write(texts: Texts, sampling: Sampling, on_tokens: OnTokens | None) -> list[list[int]]:
    if not texts.rows:
        return []
    with torch.inference_mode(), evaluating(texts.model):
        texts.begin()
        if sampling.beams == 1:
            return _defined(_one_by_one(texts, sampling, on_tokens))
        outputs = _defined(search(texts, sampling))
    if on_tokens is not None:
        for position in range(max(map(len, outputs))):
            on_tokens([text[position] if position < len(text) else ENDED for text in outputs])
    return outputs


def _defined(texts: list[list[int] | None]) -> list[list[int]]:
    """All of them; raises UndefinedTextsError where one is not there."""
    there = [text for text in texts if text is not None]
    if len(there) < len(texts):
        raise UndefinedTextsError(texts)
    return there


def _one_by_one(texts: Texts, sampling: Sampling, on_tokens: OnTokens | None) -> list[list[int] | None]:
    """Greedy or drawn: each text's next token at once, until all have ended; None: it has none."""
    outputs: list[list[int]] = [[] for _ in texts.rows]
    going, undefined = list(range(len(outputs))), set[int]()
    for position in range(sampling.max_tokens):
        tokens = chosen(texts.logits, sampling, going, position)
        undefined |= {going[row] for row, bad in enumerate(texts.undefined) if bad}
        ended = [token == sampling.end or texts.undefined[row] for row, token in enumerate(tokens)]
        kept = [row for row, is_over in enumerate(ended) if not is_over]
        step = [ENDED] * len(outputs)
        for row in kept:
            outputs[going[row]].append(tokens[row])
            step[going[row]] = tokens[row]
        if not kept:
            break
        if on_tokens is not None:
            on_tokens(step)
        if position + 1 < sampling.max_tokens:
            texts.select(kept)
            texts.append([tokens[row] for row in kept])
            going = [going[row] for row in kept]
    return [None if index in undefined else text for index, text in enumerate(outputs)]


def _writes(spec: DataSpec) -> bool:
    return isinstance(spec.target, NextTokens)


def _check_tokens(texts: list[list[int]], vocab_size: int, kind: str) -> None:
    for index, text in enumerate(texts):
        if not text:
            raise DataError(f"{kind} {index} is empty: the model needs a token at least to start from.")
        for token in text:
            if not 0 <= token < vocab_size:
                raise DataError(
                    f"{kind} {index} holds token {token}, but the vocabulary has 0 to {vocab_size - 1}."
                )
