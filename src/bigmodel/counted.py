"""How many there are of something, in words."""

from __future__ import annotations

from collections.abc import Sequence

TOLD = 8
"""Names on a line."""


def counted(number: float, one: str, many: str | None = None) -> str:
    """`1 epoch`, `2.5 epochs`, `12,000 epochs`; of `one class`, `many` are `classes`."""
    number = int(number) if number == int(number) else number
    return f"{number:,} {one if number == 1 else many or f'{one}s'}"


def first_of(names: Sequence[str]) -> str:
    """Names on a line: the first `TOLD`, and how many there are in all."""
    return ", ".join(names[:TOLD]) + (f", … ({len(names):,} in all)" if len(names) > TOLD else "")
