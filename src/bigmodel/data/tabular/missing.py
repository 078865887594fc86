"""Words that stand for a missing value, such as R's NA: which of them a column holds, and how often."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from bigmodel.data.tabular.values import is_text, words


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
