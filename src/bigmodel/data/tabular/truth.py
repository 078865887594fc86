"""Truth values in a column of text, as CSV writes what Parquet and JSON hold as booleans."""

from __future__ import annotations

from typing import Any

_DIGITS = {"true": "1", "false": "0", "1": "1", "0": "0", "1.0": "1", "0.0": "0"}
_SAMPLE = 1000  # values that decide whether all are looked at


def holds_truth(text: Any) -> bool:
    """Whether a column of text holds true or false, in any case, and nothing but 1 and 0 beside."""
    import pyarrow as pa
    import pyarrow.compute as pc

    there = text.drop_null()
    if not _all_of_truth(there.slice(0, _SAMPLE)) or not _all_of_truth(there):
        return False
    words = pa.array(["true", "false"], text.type)
    return bool(pc.any(pc.is_in(pc.utf8_lower(there), value_set=words), min_count=0).as_py())


def _all_of_truth(text: Any) -> bool:
    import pyarrow as pa
    import pyarrow.compute as pc

    known = pc.is_in(pc.utf8_lower(text), value_set=pa.array([*_DIGITS], text.type))
    return bool(pc.all(known, min_count=0).as_py())


def as_digits(text: Any) -> Any:
    """A column that `holds_truth` with 1 for true and 0 for false."""
    import pyarrow as pa
    import pyarrow.compute as pc

    places = pc.index_in(pc.utf8_lower(text), value_set=pa.array([*_DIGITS], text.type))
    return pa.array([*_DIGITS.values()], text.type).take(places)
