"""Generates texts with a model: checks the inputs, and hands on the outputs token by token."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch

from bigmodel.errors import DIVERGED, DataError, SpecError, UndefinedError, counted
from bigmodel.models.base import Model, Writer, eval_mode
from bigmodel.models.generation.beams import beam_search
from bigmodel.models.generation.decoding import DecodingBatch
from bigmodel.models.generation.sampling import Sampling, next_tokens, with_end
from bigmodel.spec import DataSpec, NextTokens, TokenPair, Tokens

OnTokens = Callable[[list[int]], None]
"""Called with the new token of each text, in order; -1: that text has ended."""

ENDED = -1


class UndefinedTextsError(UndefinedError):
    """Some texts have no next token, since the model gives NaN or infinity there.

    Attributes:
        texts: the outputs in the order of the prompts; None for those texts.
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
    """Continues each prompt with a language model; returns the new tokens only.

    When a text fills the model's context, `spec.input.length`, its oldest half context is dropped, and
    the rest is read again.

    Args:
        prompts: at least one token each.
        device: where the model is.
        on_tokens: called with each new token as it comes; with beams, after the search.

    Raises:
        SpecError: the model does not write, or it translates.
        DataError: a prompt is empty, or has a token that is not in the vocabulary.
        UndefinedTextsError: the model gives NaN or infinity; the other texts are complete.
    """
    if not (isinstance(model, Writer) and isinstance(spec.input, Tokens) and _writes(spec)):
        raise SpecError(
            f"Only a model that was trained to give the next token of a text can continue one, and data"
            f"={spec.name} has {spec.input} → {spec.target}."
        )
    _check_tokens(prompts, spec.input.vocab_size, "prompt")
    rows = [list(prompt) for prompt in prompts]
    batch = DecodingBatch(model, rows, spec, device, sampling.max_tokens)
    return _write(batch, with_end(sampling, spec), on_tokens)


def translate(
    model: Model,
    sources: list[list[int]],
    sampling: Sampling,
    spec: DataSpec,
    device: torch.device | str,
    *,
    on_tokens: OnTokens | None = None,
) -> list[list[int]]:
    """Translates each source with an encoder–decoder; returns tokens without start and end.

    Args:
        sources: at least one token each; `spec.input.end` is added if a source does not end with it.
        device: where the model is.
        on_tokens: called with each new token as it comes; with beams, after the search.

    Raises:
        SpecError: the model does not translate.
        DataError: a source is empty or too long, or has a token that is not in the vocabulary.
        UndefinedTextsError: the model gives NaN or infinity; the other texts are complete.
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
    batch = DecodingBatch(model, starts, spec, device, sampling.max_tokens, ended)
    return _write(batch, with_end(sampling, spec), on_tokens)


def _write(batch: DecodingBatch, sampling: Sampling, on_tokens: OnTokens | None) -> list[list[int]]:
    if not batch.rows:
        return []
    with torch.inference_mode(), eval_mode(batch.model):
        batch.prefill()
        if sampling.beams == 1:
            return _require_defined(_decode_one_by_one(batch, sampling, on_tokens))
        outputs = _require_defined(beam_search(batch, sampling))
    if on_tokens is not None:
        for position in range(max(map(len, outputs))):
            on_tokens([text[position] if position < len(text) else ENDED for text in outputs])
    return outputs


def _require_defined(texts: list[list[int] | None]) -> list[list[int]]:
    """All texts; raises UndefinedTextsError if one is None."""
    defined = [text for text in texts if text is not None]
    if len(defined) < len(texts):
        raise UndefinedTextsError(texts)
    return defined


def _decode_one_by_one(
    batch: DecodingBatch, sampling: Sampling, on_tokens: OnTokens | None
) -> list[list[int] | None]:
    """Greedy or random decoding; None for a text that has no next token at some point."""
    outputs: list[list[int]] = [[] for _ in batch.rows]
    active, undefined = list(range(len(outputs))), set[int]()
    for position in range(sampling.max_tokens):
        tokens = next_tokens(batch.logits, sampling, active, position)
        undefined |= {active[row] for row, is_bad in enumerate(batch.undefined) if is_bad}
        ended = [token == sampling.end or batch.undefined[row] for row, token in enumerate(tokens)]
        rows = [row for row, has_ended in enumerate(ended) if not has_ended]
        step = [ENDED] * len(outputs)
        for row in rows:
            outputs[active[row]].append(tokens[row])
            step[active[row]] = tokens[row]
        if not rows:
            break
        if on_tokens is not None:
            on_tokens(step)
        if position + 1 < sampling.max_tokens:
            batch.select(rows)
            batch.append([tokens[row] for row in rows])
            active = [active[row] for row in rows]
    return [None if index in undefined else text for index, text in enumerate(outputs)]


def _writes(spec: DataSpec) -> bool:
    return isinstance(spec.target, NextTokens)


def _check_tokens(texts: list[list[int]], vocab_size: int, kind: str) -> None:
    for index, text in enumerate(texts):
        if not text:
            raise DataError(
                f"{kind} {index} is empty: the model needs at least one token to start from."
            )
        for token in text:
            if not 0 <= token < vocab_size:
                raise DataError(
                    f"{kind} {index} holds token {token}, but the vocabulary has 0 to {vocab_size - 1}."
                )
