"""Spelling variants of one value, in any file format: of categories, classes and labels.

These are always the same value:
- composed and decomposed letters, é as one character or as two (Unicode's NFC);
- whole numbers with and without a fraction of zeros, 1.0 and 1. A number with leading zeros is a name:
  007 is not 7; and 1.10, a version, is not 1.1;
- a few words in any case: True and true, YES and yes, On and on;
- true and 1, false and 0, in a column without other values: so booleans in Parquet and JSON equal True,
  TRUE or 1 in CSV.

For other words case may matter, as with the alleles A and a: if training has both, they stay distinct. A
word that training has not seen means the one that differs from it only in case, if there is exactly one.
"""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from bigmodel.data.libraries import pa, pc

_WHOLE = re.compile(r"([+-]?(?:0|[1-9]\d*))(?:\.0+)?", re.ASCII)
_CASELESS = frozenset(("true", "false", "yes", "no", "on", "off"))
CASELESS_SPELLINGS = tuple(
    form for word in sorted(_CASELESS) for form in (word, word.capitalize(), word.upper())
)
"""Common spellings of the words whose case never matters."""

_BOOLEANS = {"1": "true", "0": "false"}
_BOOLEAN_KEYS = frozenset((*_BOOLEANS, *_BOOLEANS.values()))


def _canonical_key(word: str) -> str:
    """A key that all variants of a value share."""
    composed = unicodedata.normalize("NFC", word)
    if whole := _WHOLE.fullmatch(composed):
        return whole[1]
    lower = composed.lower()
    return lower if lower in _CASELESS else composed


def canonical_names(counts: Mapping[str, int]) -> dict[str, str]:
    """The canonical name of each spelling's value: its most frequent spelling, composed; integers if all
    values are whole numbers; words for booleans.

    Args:
        counts: how often each spelling occurs.
    """
    keys = {word: _canonical_key(word) for word in counts}
    distinct = set(keys.values())
    boolean = distinct <= _BOOLEAN_KEYS and not distinct <= _BOOLEANS.keys()
    if boolean:
        keys = {word: _BOOLEANS.get(key, key) for word, key in keys.items()}
    variants: dict[str, list[str]] = defaultdict(list)
    for word, key in keys.items():
        variants[key].append(word)
    whole = bool(distinct) and all(map(_WHOLE.fullmatch, distinct))

    def name(key: str) -> str:
        if whole:
            return key
        words = [word for word in variants[key] if not boolean or not _WHOLE.fullmatch(word)]
        return min(words or [key], key=lambda word: (-counts.get(word, 0), word))

    names = {key: unicodedata.normalize("NFC", name(key)) for key in variants}
    return {word: names[key] for word, key in keys.items()}


class ValueIndex:
    """Looks up the index of a value by any of its spellings.

    Args:
        names: of the values; None: a missing value, which no word means.
    """

    def __init__(self, names: Sequence[str | None]) -> None:
        known = [(name, place) for place, name in enumerate(names) if name is not None]
        self._exact = dict(known)
        self._keys: dict[str, int] = {}
        for name, place in known:
            self._keys.setdefault(_canonical_key(name), place)
        if self._keys.keys() <= _BOOLEAN_KEYS:
            for digit, truth in _BOOLEANS.items():
                for one, other in ((digit, truth), (truth, digit)):
                    if one in self._keys:
                        self._keys.setdefault(other, self._keys[one])
        self._without_case: dict[str, set[int]] = defaultdict(set)
        for name, place in known:
            self._without_case[_canonical_key(name).casefold()].add(place)

    def place(self, word: str) -> int | None:
        """The index of the value that a word means; None: no value, or several."""
        if (exact := self._exact.get(word)) is not None:
            return exact
        key = _canonical_key(word)
        if (place := self._keys.get(key)) is not None:
            return place
        similar = self._without_case.get(key.casefold(), set())
        return next(iter(similar)) if len(similar) == 1 else None

    def of(self, words: Iterable[str]) -> dict[str, int]:
        """The indices of those words that mean one of the values."""
        return {word: place for word in words if (place := self.place(word)) is not None}


def alias_summary(names: Mapping[str, str]) -> str:
    """The spellings that are replaced by another one, for a message; empty: there are none.

    Args:
        names: the canonical name of each spelling, from `canonical_names`.
    """
    others: dict[str, list[str]] = defaultdict(list)
    for word, name in names.items():
        if word != name:
            looks_equal = unicodedata.normalize("NFC", word) == name
            others[name].append(ascii(word)[1:-1] if looks_equal else word)
    return "; ".join(f"{', '.join(sorted(words))} = {name}" for name, words in sorted(others.items()))


def index_of_values(text: Any, names: Sequence[str | None]) -> tuple[Any, dict[str, str]]:
    """The values that a column's words mean.

    Returns:
        The index of each among `names`, Arrow integers, null if it is none of them; and the name of each
        word that is spelt in another way.
    """
    exact = pc.index_in(text, value_set=pa.array(names, text.type))
    others = text.filter(pc.and_(exact.is_null(), text.is_valid())).unique().to_pylist()
    if not others or not (variants := ValueIndex(names).of(others)):
        return exact, {}
    both = pc.index_in(text, value_set=pa.array([*names, *variants], text.type))
    places = pa.array([*range(len(names)), *variants.values()], pa.int32())
    return places.take(pa.chunked_array(both)), {word: str(names[at]) for word, at in variants.items()}


def count_values(text: Any) -> dict[str, int]:
    """How often each word of a column occurs."""
    return {row["values"]: row["counts"] for row in text.drop_null().value_counts().to_pylist()}


def too_many_values(text: Any, most: float) -> int | None:
    """The number of distinct words of a column, if they are certainly more than `most` values."""
    distinct: int = pc.count_distinct(text).as_py()
    if distinct <= most:
        return None
    merged = pc.utf8_lower(pc.utf8_normalize(text, form="NFC"))
    merged = pc.replace_substring_regex(merged, r"\.0+$", "")
    least = pc.count_distinct(merged).as_py() - 2  # true may be 1, and false 0
    return distinct if least > most else None
