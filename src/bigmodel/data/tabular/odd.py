"""Odd cells: those that are not of their column's kind, such as one `unknown` among numbers or dates.

A column is of the kind that nearly all of its cells are of. The others are taken for missing, counted
and told; where they are more than a few, the column is of another kind.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bigmodel.data.tabular.values import words

MOST = 0.05
"""Share of a column's cells, missing ones aside, that may be odd."""

MOST_IF_SAID = 0.5
"""The same where the user says what kind the column is of."""

_KEPT = 1000  # different odd cells that are learnt by heart


@dataclass(frozen=True)
class Odd:
    """The odd cells of a column.

    Attributes:
        there: cells of the column that hold anything.
        count: how many of them are odd.
        row, value: where the first one stands, counted from 0, and what it holds.
        known: how many of them may be odd at any time: words that were odd in training already.
        too_large: the first is a number, but infinite or too large for a model.
    """

    there: int = 0
    count: int = 0
    row: int = 0
    value: str = ""
    known: int = 0
    too_large: bool = False

    @classmethod
    def of(
        cls,
        column: Any,
        odd: NDArray[np.bool_],
        there: int,
        first: int = 0,
        known: Collection[str] = (),
        too_large: NDArray[np.bool_] | None = None,
    ) -> Odd:
        """Those of a stretch of a column.

        Args:
            column: the stretch.
            odd: which of its cells are.
            there: how many hold anything.
            first: the row at which the stretch begins.
            known: words that were odd in training.
            too_large: which cells are odd because they are infinite or too large for a model.
        """
        count = int(np.count_nonzero(odd))
        if count == 0:
            return cls(there)
        cells = _taken(column, odd).to_pylist()
        again = sum(cell in known for cell in cells) if known else 0
        row = int(odd.argmax())
        large = too_large is not None and bool(too_large[row])
        return cls(there, count, first + row, cells[0], again, large)

    def __add__(self, other: Odd) -> Odd:
        """Those of two stretches, the earlier one first."""
        first = self if self.count else other
        return replace(
            first,
            there=self.there + other.there,
            count=self.count + other.count,
            known=self.known + other.known,
        )

    def and_known(self, count: int) -> Odd:
        """The same with `count` more that are known."""
        return replace(self, known=self.known + count)

    def are_few(self, most: float = MOST) -> bool:
        """Whether they may be taken for missing; what was odd in training may be at any time."""
        return self.count - self.known <= most * self.there

    def __str__(self) -> str:
        """Which is the first."""
        return f"the first in row {self.row:,} (counted from 0): {self.value!r}"


NONE_ODD = Odd()


def odd_words(column: Any, odd: NDArray[np.bool_]) -> list[str]:
    """What stands in the odd cells of a column, the most frequent first."""
    counted = _taken(column, odd).value_counts().to_pylist()
    counted.sort(key=lambda row: (-row["counts"], row["values"]))
    return [row["values"] for row in counted[:_KEPT]]


def _taken(column: Any, odd: NDArray[np.bool_]) -> Any:
    return words(column.take(np.flatnonzero(odd)))
