"""Which spellings are one value, whatever file they stand in: for categories, classes and labels.

One value are always
- letters composed or not, é as one character or as two (Unicode's NFC);
- whole numbers with and without a fraction of zeros, 1.0 and 1. Zeros ahead make a name of a number:
  007 is not 7; and 1.10, a version, is not 1.1;
- words that case never tells apart: True and true, YES and yes, On and on;
- true and 1, false and 0, in a column that holds nothing else: so that booleans of Parquet and JSON are
  what CSV writes as True, TRUE or 1.

Elsewhere case may tell values apart, as with the alleles A and a: both are kept where training has both.
A word that training has not is taken for the one that differs from it in case alone, if just one does:
nothing that could have been learnt is lost by that.
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
"""How words are usually spelt that case never tells apart."""

_BOOLEANS = {"1": "true", "0": "false"}
_BOOLEAN_KEYS = frozenset((*_BOOLEANS, *_BOOLEANS.values()))


def _canonical_key(word: str) -> str:
    """What all spellings of a value have in common."""
    composed = unicodedata.normalize("NFC", word)
    if whole := _WHOLE.fullmatch(composed):
        return whole[1]
    lower = composed.lower()
    return lower if lower in _CASELESS else composed


def canonical_names(counts: Mapping[str, int]) -> dict[str, str]:
    """What the value of each spelling is called: by its most frequent one, composed; numbers plainly,
    where all are whole; truth by a word.

    Args:
        counts: how often each spelling occurs.
    """
    keys = {word: _canonical_key(word) for word in counts}
    different = set(keys.values())
    of_truth = different <= _BOOLEAN_KEYS and not different <= _BOOLEANS.keys()
    if of_truth:
        keys = {word: _BOOLEANS.get(key, key) for word, key in keys.items()}
    spelt: dict[str, list[str]] = defaultdict(list)
    for word, key in keys.items():
        spelt[key].append(word)
    plain = bool(different) and all(map(_WHOLE.fullmatch, different))

    def name(key: str) -> str:
        if plain:
            return key
        as_word = [word for word in spelt[key] if not of_truth or not _WHOLE.fullmatch(word)]
        return min(as_word or [key], key=lambda word: (-counts.get(word, 0), word))

    names = {key: unicodedata.normalize("NFC", name(key)) for key in spelt}
    return {word: names[key] for word, key in keys.items()}


class ValueIndex:
    """The places of known values, by any of their spellings.

    Args:
        names: of the values; None is one that is missing, which no word means.
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
        """Which of the values a word means; None: none of them, or nobody knows which."""
        if (exact := self._exact.get(word)) is not None:
            return exact
        key = _canonical_key(word)
        if (found := self._keys.get(key)) is not None:
            return found
        alike = self._without_case.get(key.casefold(), set())
        return next(iter(alike)) if len(alike) == 1 else None

    def of(self, words: Iterable[str]) -> dict[str, int]:
        """The places of those words that mean one of the values."""
        found = ((word, self.place(word)) for word in words)
        return {word: place for word, place in found if place is not None}


def alias_summary(names: Mapping[str, str]) -> str:
    """Which spellings are called by another one; empty where none is.

    Args:
        names: of the value of each spelling, as `canonical_names` gives them.
    """
    others: dict[str, list[str]] = defaultdict(list)
    for word, name in names.items():
        if word != name:
            same = unicodedata.normalize("NFC", word) == name
            others[name].append(ascii(word)[1:-1] if same else word)
    return "; ".join(f"{', '.join(sorted(words))} = {name}" for name, words in sorted(others.items()))


def index_of_values(text: Any, names: Sequence[str | None]) -> tuple[Any, dict[str, str]]:
    """What the words of a column mean.

    Returns:
        The place of each among `names`, integers of Arrow, null where it is none of them; and the name
        of each word that is spelt otherwise.
    """
    found = pc.index_in(text, value_set=pa.array(names, text.type))
    others = text.filter(pc.and_(found.is_null(), text.is_valid())).unique().to_pylist()
    if not others or not (meant := ValueIndex(names).of(others)):
        return found, {}
    both = pc.index_in(text, value_set=pa.array([*names, *meant], text.type))
    places = pa.array([*range(len(names)), *meant.values()], pa.int32())
    return places.take(pa.chunked_array(both)), {word: str(names[at]) for word, at in meant.items()}


def count_values(text: Any) -> dict[str, int]:
    """How often each word of a column occurs."""
    counted = text.drop_null().value_counts().to_pylist()
    return {row["values"]: row["counts"] for row in counted}


def too_many_values(text: Any, most: float) -> int | None:
    """How many different words a column holds, where they are more than `most` values however they are
    spelt; None where they may be fewer."""

    different: int = pc.count_distinct(text).as_py()
    if different <= most:
        return None
    alike = pc.utf8_lower(pc.utf8_normalize(text, form="NFC"))
    alike = pc.replace_substring_regex(alike, r"\.0+$", "")
    least = pc.count_distinct(alike).as_py() - 2  # true may be 1, and false 0
    return different if least > most else None
