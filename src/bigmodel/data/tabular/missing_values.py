"""Words that stand for a missing value, such as R's NA: where they stand, and how often."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from bigmodel.data.libraries import pa, pc
from bigmodel.data.tabular.numeric import is_text, parse_numbers, text_values
from bigmodel.data.tabular.type_inference import infer_type


def null_missing_words(column: Any, marks: Sequence[str]) -> tuple[Any, dict[str, int]]:
    """A column that is null where it holds one of some words, and how often each of them stood there.

    A word that is a number is found by its value in columns of numbers, however they are written.
    """

    missing_counts: dict[str, int] = {}
    if is_text(column.type):
        missing_counts = count_missing_words(column, marks)
        if missing_counts:
            found = pc.is_in(text_values(column), value_set=pa.array([*missing_counts], column.type))
            column = pc.if_else(found, None, column)
    if not (values := _numeric_words(marks)):
        return column, missing_counts
    inferred = infer_type(column)
    if inferred.kind == "number":
        filled = parse_numbers(column, inferred.number_format).values
        for mark, value in values.items():
            if count := int(np.count_nonzero(filled == value)):
                missing_counts[mark] = missing_counts.get(mark, 0) + count
        column = pc.if_else(pa.array(np.isin(filled, [*values.values()])), None, column)
    return column, missing_counts


def unused_word_warning(
    marks: Sequence[str], missing_counts: Mapping[str, Mapping[str, int]], where: str
) -> list[tuple[str, str]]:
    """A warning where words that a user names stand nowhere.

    Args:
        missing_counts: how often which words were taken for missing, by column.
    """
    unfound = [mark for mark in marks if not any(mark in counts for counts in missing_counts.values())]
    if not unfound:
        return []
    named = " and ".join(map(repr, unfound))
    stand = "stand" if len(unfound) > 1 else "stands"
    return [("Warning", f"data.missing: {named} {stand} in no column of {where}")]


def count_missing_words(column: Any, marks: Sequence[str]) -> dict[str, int]:
    """How often each of some words stands in a column of text, the most frequent first."""
    if not marks or not is_text(column.type):
        return {}
    text = text_values(column)
    found = text.filter(pc.is_in(text, value_set=pa.array(marks, text.type))).value_counts().to_pylist()
    found.sort(key=lambda row: (-row["counts"], row["values"]))
    return {row["values"]: row["counts"] for row in found}


def missing_counts_summary(counts: Mapping[str, int]) -> str:
    """The same in words."""
    return ", ".join(f"{count:,} {word!r}" for word, count in counts.items())


def _numeric_words(marks: Sequence[str]) -> dict[str, float]:
    found = {}
    for mark in marks:
        try:
            found[mark] = float(mark)
        except ValueError:
            continue
    return found
