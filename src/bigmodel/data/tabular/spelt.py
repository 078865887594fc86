"""Words of a column by the values that they mean; see `spellings`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bigmodel.data.spellings import Spellings


def places_of(text: Any, names: Sequence[str | None]) -> tuple[Any, dict[str, str]]:
    """What the words of a column mean.

    Returns:
        The place of each among `names`, integers of Arrow, null where it is none of them; and the name
        of each word that is spelt otherwise.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    found = pc.index_in(text, value_set=pa.array(names, text.type))
    others = text.filter(pc.and_(found.is_null(), text.is_valid())).unique().to_pylist()
    if not others or not (meant := Spellings(names).of(others)):
        return found, {}
    both = pc.index_in(text, value_set=pa.array([*names, *meant], text.type))
    places = pa.array([*range(len(names)), *meant.values()], pa.int32())
    return places.take(pa.chunked_array(both)), {word: str(names[at]) for word, at in meant.items()}


def counts_of_words(text: Any) -> dict[str, int]:
    """How often each word of a column occurs."""
    counted = text.drop_null().value_counts().to_pylist()
    return {row["values"]: row["counts"] for row in counted}


def too_many_words(text: Any, most: float) -> int | None:
    """How many different words a column holds, where they are more than `most` values however they are
    spelt; None where they may be fewer."""
    import pyarrow.compute as pc

    different: int = pc.count_distinct(text).as_py()
    if different <= most:
        return None
    alike = pc.utf8_lower(pc.utf8_normalize(text, form="NFC"))
    alike = pc.replace_substring_regex(alike, r"\.0+$", "")
    least = pc.count_distinct(alike).as_py() - 2  # true may be 1, and false 0
    return different if least > most else None
