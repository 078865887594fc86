"""Words for missing values, such as R's NA: which a column holds, and how often."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from bigmodel.data.libraries import pa, pc
from bigmodel.data.tabular.number_formats import NumberFormat
from bigmodel.data.tabular.numeric import is_number, is_text, parse_numbers, text_values, value_counts


def null_missing_words(
    column: Any, words: Sequence[str], number_format: Callable[[Any], NumberFormat | None]
) -> tuple[Any, dict[str, int]]:
    """A column with null in place of some words, and how often it holds each of them.

    A word that is a number, such as -999, is found by its value in columns of numbers.

    Args:
        number_format: returns the format of a column of numbers, None for other columns.
    """
    counts = count_missing_words(column, words)
    if counts:
        missing = pc.is_in(text_values(column), value_set=pa.array([*counts], column.type))
        column = pc.if_else(missing, None, column)
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
    """A warning if words in `data.missing` occur in no column.

    Args:
        missing_counts: how often each word was taken for missing, by column.
    """
    unused = [word for word in missing if not any(word in counts for counts in missing_counts.values())]
    if not unused:
        return []
    named = " and ".join(map(repr, unused))
    occur = "occur" if len(unused) > 1 else "occurs"
    return [("Warning", f"data.missing: {named} {occur} in no column of {where}")]


def count_missing_words(column: Any, missing: Sequence[str]) -> dict[str, int]:
    """How often each of some words occurs in a column of text, the most frequent first."""
    if not missing or not is_text(column.type):
        return {}
    text = text_values(column)
    return value_counts(text.filter(pc.is_in(text, value_set=pa.array(missing, text.type))))


def missing_counts_summary(counts: Mapping[str, int]) -> str:
    """The same in words."""
    return ", ".join(f"{count:,} {word!r}" for word, count in counts.items())
