"""What models refuse: data that they cannot read, targets that they cannot predict, misfitting sizes."""

from __future__ import annotations

import math

from bigmodel.errors import SpecError
from bigmodel.spec import DataSpec, Multimodal, NextTokens, PackedTokens, TokenPair, Tokens


def cannot_read(model: str, spec: DataSpec, advice: str) -> SpecError:
    """The error of a model that does not read this kind of input; `advice` says what to do instead."""
    return SpecError(f"model={model} cannot read data={spec.name}, which holds {spec.input}. {advice}")


def refuse_several(model: str, spec: DataSpec) -> None:
    """Raises SpecError if the inputs are several kinds of data."""
    if isinstance(spec.input, Multimodal):
        advice = "It reads one kind of data: use model=fusion, or leave out the columns of other kinds."
        raise cannot_read(model, spec, advice)


def refuse_pairs(model: str, spec: DataSpec) -> None:
    """Raises SpecError if the inputs are pairs of texts."""
    if isinstance(spec.input, TokenPair):
        advice = "It has no part that writes a text after reading another: use model=transformer."
        raise cannot_read(model, spec, advice)


def refuse_packed(model: str, spec: DataSpec) -> None:
    """Raises SpecError if several texts share a row, for models that cannot keep them apart."""
    if isinstance(spec.input, PackedTokens):
        advice = "It would carry what it has read from one text into the next: use model=transformer, or"
        raise cannot_read(model, spec, f"{advice} data.packing=padded.")


def refuse_writing(model: str, spec: DataSpec, *, several: bool = False) -> None:
    """Refuses data that asks for written text, for models that read each input as a whole.

    Args:
        several: the model reads several kinds of data at once.

    Raises:
        SpecError: the inputs are pairs of texts or, unless `several`, of several kinds; or the target is
            the next token.
    """
    if not several:
        refuse_several(model, spec)
    refuse_pairs(model, spec)
    if isinstance(spec.target, NextTokens):
        raise SpecError(
            f"model={model} cannot write: data={spec.name} asks for {spec.target} at every position,"
            " and it reads inputs as a whole. Use model=transformer or model=rnn."
        )


def check_writing(model: str, spec: DataSpec) -> bool:
    """Whether the data asks a model that can write for the next token at each position.

    Raises:
        SpecError: next tokens are asked for after inputs that are no tokens, pairs of texts have another
            target, or the inputs are several kinds of data.
    """
    refuse_several(model, spec)
    writes = isinstance(spec.target, NextTokens)
    if writes and not isinstance(spec.input, Tokens | TokenPair):
        raise SpecError(
            f"model={model} writes tokens after tokens, but data={spec.name} asks for {spec.target} of"
            f" {spec.input}. Give it a text to read."
        )
    if isinstance(spec.input, TokenPair) and not writes:
        raise SpecError(
            f"model={model} translates the pairs of data={spec.name}, whose target is then the next"
            f" token, but data={spec.name} has {spec.target}."
        )
    if isinstance(spec.input, PackedTokens) and not writes:
        raise cannot_read(model, spec, f"Packed texts have no single place for {spec.target}.")
    return writes


def check_divides(number: int, of: str, whole: int) -> int:
    """Returns `number` if it divides `whole`, the value of the setting `of`.

    Raises:
        ValueError: it does not; the message names the nearest numbers that do.
    """
    if whole % number:
        small = [n for n in range(1, math.isqrt(whole) + 1) if whole % n == 0]
        divisors = [*small, *(whole // n for n in small)]
        below = max(n for n in divisors if n < number)
        above = [n for n in divisors if n > number]
        advice = f"{below} or {min(above)}" if above else f"{below}"
        raise ValueError(f"does not divide {of}={whole}; try {advice}")
    return number
