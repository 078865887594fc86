"""Formats of numbers: decimal mark, thousands separator, currency, percent, unit.

A column is read in the one format that fits most of its cells. In any format, a minus may be U+2212 or
the brackets of accounting, and spaces may be non-breaking.
"""

from __future__ import annotations

import re
from collections import Counter
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bigmodel.data.libraries import pa, pc
from bigmodel.registry import Config

Numbers = NDArray[np.float64]

_SAMPLE = 1000  # randomly drawn cells that decide which formats are tried on all
_MIN_FIT = 0.8  # share of the best format's fits in the sample that a format needs to be tried on all
_DECIDING_SHARE = 0.05  # a smaller share of the cells with a mark does not decide between two formats
_MIN_NUMBERS = 0.3  # share of the sample that must be numbers
_DIGITS = r"(?:\d[\d.,' ]*|[.,]\d+)(?:[eE][+-]?\d+)?"
_INFINITE = r"^[+-]?(?i:inf|infinity)$"
_CODES = (
    "EUR USD GBP CHF JPY CNY INR AUD CAD NZD SEK NOK DKK ISK PLN CZK HUF RON BGN RUB UAH TRY BRL ARS CLP"
    " COP PEN MXN ZAR KRW TWD SGD HKD THB IDR MYR PHP VND ILS AED SAR EGP NGN KES"
)
_CURRENCY = rf"[A-Z]{{0,2}}\p{{Sc}}|{'|'.join(_CODES.split())}|Rs\.?|kr\.?|Kč|zł|Fr\.?|Ft|lei"
_UNIT = rf"{_CURRENCY}|%|‰|[\p{{L}}°µ](?:[2-9]?[\p{{L}}°µ/²³^·*%-])*[2-9]?"  # m2, but not h15
_BRACKETS = r"^([^()\d+-]*)\(\s*([^()+-]*\d[^()+-]*?)\s*\)([^()\d+-]*)$"  # (5), $(5), (5)%
_IP = r"^(?:(?:25[0-5]|2[0-4]\d|1?\d?\d)(?:\.|$)){4}$"  # IP addresses are not numbers
_WITH_UNITS = rf"^[+-]?\s*(?P<before>{_CURRENCY}|)\s*[+-]?\s*{_DIGITS}\s*(?P<after>{_UNIT}|)$"


class NumberFormat(Config):
    """One format of numbers.

    Attributes:
        decimal: the decimal mark.
        thousands: the separator of thousands, which numbers may have; a space is any kind of space.
        before, after: currency, percent or unit around each number.
        brackets: some numbers of the column are in brackets, which makes them negative.
    """

    decimal: Literal[".", ","] = "."
    thousands: Literal["", ",", ".", " ", "'"] = ""
    before: str = ""
    after: str = ""
    brackets: bool = False

    @property
    def pattern(self) -> str:
        """A regular expression (RE2) that matches all numbers in this format."""
        mark, apart = re.escape(self.decimal), re.escape(self.thousands)
        whole = r"\d+"
        if self.thousands:
            lakhs = r"|(?:,\d{2})+,\d{3}" if self.thousands == "," else ""  # 12,34,567 in India
            whole = rf"(?:[1-9]\d{{0,2}}(?:(?:{apart}\d{{3}})+{lakhs})|\d+)"
        number = rf"(?:{whole}(?:{mark}\d*)?|{mark}\d+)(?:[eE][+-]?\d+)?"
        before, after = re.escape(self.before), re.escape(self.after)
        return rf"^(?:[+-]?\s*{before}|{before}\s*[+-]?)\s*{number}\s*{after}$"

    @property
    def unit(self) -> str:
        """Currency, percent or unit; empty if there is none."""
        return self.before or self.after

    @property
    def example(self) -> str:
        """A number that only fits this format."""
        return f"{self.before}1{self.thousands}200{self.decimal}5{self.after}"

    @classmethod
    def of_example(cls, example: str) -> NumberFormat:
        """The format of a number.

        Raises:
            ValueError: it is not a number, or ambiguous, such as 1.200.
        """
        text = pa.chunked_array([pa.array([example.strip()])])
        choice = find_number_format(text)
        if choice is None or choice.other is not None:
            wrong = "is not a number" if choice is None else "may be two numbers"
            better = _CANDIDATES[5].example
            raise ValueError(f"{example!r} {wrong}; write one with decimals, such as {better}")
        return choice.best

    def fits(self, text: Any) -> Any:
        """Which cells of text, after `normalize_number_text`, are numbers in this format."""
        return pc.match_substring_regex(text, self.pattern)

    def read(self, text: Any) -> Numbers:
        """Cells of text as numbers; NaN for cells that are missing or in another format."""
        text = normalize_number_text(text)
        infinite = pc.match_substring_regex(text, _INFINITE)
        if pc.any(infinite).as_py():
            values = self.read(pc.if_else(infinite, None, text))
            values[pc.fill_null(infinite, False).to_numpy()] = np.inf
            return values
        text = pc.if_else(self.fits(text), text, None)
        for removed in filter(None, (self.before, self.after, self.thousands, " ")):
            text = pc.replace_substring(text, removed, "")
        if self.decimal != ".":
            text = pc.replace_substring(text, self.decimal, ".")
        return to_floats(text)

    def __str__(self) -> str:
        """How it differs from the plain format; empty if it does not."""
        marks = {",": "a comma", ".": "a point", " ": "a blank", "'": "an apostrophe"}
        differences = [
            "decimal comma" if self.decimal == "," else "",
            f"thousands set apart by {marks[self.thousands]}" if self.thousands else "",
            f"in {self.unit}" if self.unit else "",
            "brackets for minus" if self.brackets else "",
        ]
        return ", ".join(filter(None, differences))


def to_floats(column: Any, *, safe: bool = True) -> Numbers:
    """A column of numbers, or of text in the plain format, as a writeable array."""
    values: Numbers = pc.cast(column, pa.float64(), safe=safe).to_numpy()
    return values if values.flags.writeable else values.copy()


PLAIN = NumberFormat()
_CANDIDATES = [
    *(PLAIN, NumberFormat(thousands=","), NumberFormat(thousands=" "), NumberFormat(thousands="'")),
    NumberFormat(decimal=","),
    NumberFormat(decimal=",", thousands="."),
    NumberFormat(decimal=",", thousands=" "),
    NumberFormat(decimal=",", thousands="'"),
]
"""Formats that are tried, likelier ones first."""


class FormatChoice(NamedTuple):
    """The formats in which a column of text can be read as numbers.

    Attributes:
        best: the format that fits most cells; the plainest of several.
        other: another one that fits as many, or nearly so, but reads other numbers; None: there is none.
        deciding_cell: the first cell that `other` does not fit; empty: it fits as many.
    """

    best: NumberFormat
    other: NumberFormat | None = None
    deciding_cell: str = ""


def normalize_number_text(text: Any) -> Any:
    """Cells with one kind of minus, in front, and of space; without the `/-` after amounts in rupees."""
    text = pc.replace_substring(text, "\u2212", "-")
    text = pc.replace_substring_regex(text, r"[\x{00a0}\x{2007}\x{2009}\x{202f}]", " ")
    text = pc.replace_substring(text, "\u2019", "'")
    text = pc.replace_substring_regex(text, r"^(.*\d)/-$", r"\1")
    text = pc.replace_substring_regex(text, r"^([^+-]*\d)-$", r"-\1")
    return pc.replace_substring_regex(text, _BRACKETS, r"-\1\2\3")


def find_number_format(text: Any) -> FormatChoice | None:
    """The formats in which most cells can be read as numbers; None if hardly any can.

    Args:
        text: cells of text, null if missing.
    """
    filled = text.drop_null()
    some = normalize_number_text(sample_cells(filled))
    addresses = pc.sum(pc.match_substring_regex(some, _IP), min_count=0).as_py()
    if addresses >= max(1, (1 - _DECIDING_SHARE) * len(some)):
        return None
    before, after = _find_units(some)
    units = {"before": before, "after": after}
    tried = [candidate.model_copy(update=units) for candidate in _CANDIDATES]
    counted = {candidate: _count(candidate, some) for candidate in tried} if len(some) else {}
    most = max(counted.values(), default=0)
    if most == 0 or (len(some) < len(filled) and most < _MIN_NUMBERS * len(some)):
        return None
    brackets = bool(pc.any(pc.match_substring_regex(text, _BRACKETS)).as_py())
    filled = normalize_number_text(filled)
    if len(some) < len(filled):  # try those that may be the best on all cells
        near = [candidate for candidate, count in counted.items() if count >= _MIN_FIT * most]
        counted = {candidate: _count(candidate, filled) for candidate in near}
        most = max(counted.values())
    best = next(candidate for candidate, count in counted.items() if count == most)
    read, choice = best.read(filled), FormatChoice(best.model_copy(update={"brackets": brackets}))
    for candidate, count in counted.items():
        if candidate == best or count < (1 - _DECIDING_SHARE) * most:
            continue
        theirs = candidate.read(filled)
        both = ~(np.isnan(read) | np.isnan(theirs))
        differing = int(np.count_nonzero(read[both] != theirs[both]))
        deciding = np.isfinite(read) & np.isnan(theirs)
        few = deciding.sum() <= _DECIDING_SHARE * (differing + deciding.sum())
        if differing and (few or count == most):
            cell = filled[int(deciding.argmax())].as_py() if deciding.any() else ""
            return choice._replace(other=candidate, deciding_cell=cell)
    return choice


def check_plain_format(text: Any) -> FormatChoice:
    """The formats for a column whose cells are all numbers in the plain format."""
    apart = NumberFormat(decimal=",", thousands=".")
    filled = text.drop_null()
    for cells in (filled.slice(0, _SAMPLE), filled):  # the first cells decide for most columns
        marked = cells.filter(pc.match_substring(cells, "."))
        deciding_cell = marked.filter(pc.invert(apart.fits(marked)))
        if len(marked) == len(deciding_cell) or len(deciding_cell) > _DECIDING_SHARE * len(marked):
            return FormatChoice(PLAIN)
    return FormatChoice(PLAIN, apart, deciding_cell[0].as_py() if len(deciding_cell) else "")


def unit_of(cell: str) -> str:
    """The currency, percent or unit of a number in any format; empty if there is none."""
    text = normalize_number_text(pa.array([cell]))
    match = pc.extract_regex(text, _WITH_UNITS)[0].as_py()
    return (match["before"] or match["after"]) if match else ""


def _count(candidate: NumberFormat, text: Any) -> int:
    return int(pc.sum(candidate.fits(text)).as_py() or 0)


def sample_cells(text: Any) -> Any:
    """A sample of the cells, the same each time."""
    if len(text) <= _SAMPLE:
        return text
    return text.take(np.sort(np.random.default_rng(0).choice(len(text), _SAMPLE, replace=False)))


def _find_units(text: Any) -> tuple[str, str]:
    """The units before and after most numbers; empty if most have none."""
    matches = pc.extract_regex(text, _WITH_UNITS).drop_null().to_pylist()
    pairs = Counter((match["before"], match["after"]) for match in matches)
    return max(pairs, key=lambda pair: (pairs[pair], pair == ("", "")), default=("", ""))
