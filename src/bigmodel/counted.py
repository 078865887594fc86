"""How many there are of something, in words."""

from __future__ import annotations


def counted(number: float, one: str, many: str | None = None) -> str:
    """`1 epoch`, `2.5 epochs`, `12,000 epochs`; of `one class`, `many` are `classes`."""
    number = int(number) if number == int(number) else number
    return f"{number:,} {one if number == 1 else many or f'{one}s'}"
