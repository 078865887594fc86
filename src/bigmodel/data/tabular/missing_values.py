"""Words that stand for a missing value, such as R's NA: where they stand, and how often."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from bigmodel.data.libraries import pa, pc
from bigmodel.data.tabular.number_formats import NumberFormat
from bigmodel.data.tabular.numeric import is_number, is_text, parse_numbers, text_values


def null_missing_words(
    column: Any, words: Sequence[str], number_format: Callable[[Any], NumberFormat | None]
) -> tuple[Any, dict[str, int]]:
    """A column that is null where it holds one of some words, and how often it holds each of them.

    A word that is a number is found by its value in columns of numbers, however they are written.

    Args:
        number_format: gives how the numbers of such a column are written; None if it holds no numbers.
    """
    counts = count_missing_words(column, words)
    if counts:
        found = pc.is_in(text_values(column), value_set=pa.array([*counts], column.type))
        column = pc.if_else(found, None, column)
    numbers = {word: float(word) for word in words if is_number(word)}
    written = number_format(column) if numbers else None
    if written is not None:
        values = parse_numbers(column, written).values
        for word, number in numbers.items():
            if count := int(np.count_nonzero(values == number)):
                counts[word] = counts.get(word, 0) + count
        column = pc.if_else(pa.array(np.isin(values, [*numbers.values()])), None, column)
    return column, counts


def unused_word_warning(
    missing: Sequence[str], missing_counts: Mapping[str, Mapping[str, int]], where: str
) -> list[tuple[str, str]]:
    """A warning where words that a user names stand nowhere.

    Args:
        missing_counts: how often which words were taken for missing, by column.
    """
    unfound = [mark for mark in missing if not any(mark in counts for counts in missing_counts.values())]
    if not unfound:
        return []
    named = " and ".join(map(repr, unfound))
    stand = "stand" if len(unfound) > 1 else "stands"
    return [("Warning", f"data.missing: {named} {stand} in no column of {where}")]


def count_missing_words(column: Any, missing: Sequence[str]) -> dict[str, int]:
    """How often each of some words stands in a column of text, the most frequent first."""
    if not missing or not is_text(column.type):
        return {}
    text = text_values(column)
    words = text.filter(pc.is_in(text, value_set=pa.array(missing, text.type)))
    found = words.value_counts().to_pylist()
    found.sort(key=lambda row: (-row["counts"], row["values"]))
    return {row["values"]: row["counts"] for row in found}


def missing_counts_summary(counts: Mapping[str, int]) -> str:
    """The same in words."""
    return ", ".join(f"{count:,} {word!r}" for word, count in counts.items())
