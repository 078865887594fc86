"""Words that stand for a missing value, such as R's NA: where they stand, and how often."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from bigmodel.data.tabular.values import is_text, words


def blanked(column: Any, marks: Sequence[str]) -> tuple[Any, dict[str, int]]:
    """A column that is null where it holds one of some words, and how often each of them stood there.

    A word that is a number is found in columns of numbers as well.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    if is_text(column.type):
        taken = counts_of(column, marks)
        found = pc.is_in(words(column), value_set=pa.array([*taken], column.type))
        return (pc.if_else(found, None, column) if taken else column), taken
    if pa.types.is_integer(column.type) or pa.types.is_floating(column.type):
        taken = {}
        for mark, value in _numbers_of(marks).items():
            found = pc.equal(pc.cast(column, pa.float64(), safe=False), value)
            if count := pc.sum(found).as_py():
                taken[mark] = count
                column = pc.if_else(found, None, column)
        return column, taken
    return column, {}


def counts_of(column: Any, marks: Sequence[str]) -> dict[str, int]:
    """How often each of some words stands in a column of text, the most frequent first."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if not marks or not is_text(column.type):
        return {}
    text = words(column)
    found = text.filter(pc.is_in(text, value_set=pa.array(marks, text.type))).value_counts().to_pylist()
    found.sort(key=lambda row: (-row["counts"], row["values"]))
    return {row["values"]: row["counts"] for row in found}


def counts_told(counts: Mapping[str, int]) -> str:
    """The same in words."""
    return ", ".join(f"{count:,} {word!r}" for word, count in counts.items())


def _numbers_of(marks: Sequence[str]) -> dict[str, float]:
    found = {}
    for mark in marks:
        try:
            found[mark] = float(mark)
        except ValueError:
            continue
    return found
