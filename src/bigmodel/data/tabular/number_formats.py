"""How the numbers of a column are written: decimal comma, thousands, currency, percent, a unit.

A column is read in the one way in which most of its cells can be read. A minus may be U+2212, or the
brackets of accounting, in any of them; blanks may be such that break no line.
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

_SAMPLE = 1000  # cells, drawn from all of the column, that decide which ways are tried on all
_MIN_FIT = 0.8  # share of them that a way has to fit: the column's own is hardly ever as far from it
_DECIDING_SHARE = 0.05  # share of the cells with a mark that alone do not decide how all are read
_MIN_NUMBERS = 0.3  # share of them below which a column is not even mostly numbers
_DIGITS = r"(?:\d[\d.,' ]*|[.,]\d+)(?:[eE][+-]?\d+)?"
_INFINITE = r"^[+-]?(?i:inf|infinity)$"
_CODES = (
    "EUR USD GBP CHF JPY CNY INR AUD CAD NZD SEK NOK DKK ISK PLN CZK HUF RON BGN RUB UAH TRY BRL ARS CLP"
    " COP PEN MXN ZAR KRW TWD SGD HKD THB IDR MYR PHP VND ILS AED SAR EGP NGN KES"
)
_CURRENCY = rf"[A-Z]{{0,2}}\p{{Sc}}|{'|'.join(_CODES.split())}|Rs\.?|kr\.?|Kč|zł|Fr\.?|Ft|lei"
_UNIT = rf"{_CURRENCY}|%|‰|[\p{{L}}°µ](?:[2-9]?[\p{{L}}°µ/²³^·*%-])*[2-9]?"  # m2, but not h15
_BRACKETS = r"^([^()\d+-]*)\(\s*([^()+-]*\d[^()+-]*?)\s*\)([^()\d+-]*)$"  # (5), $(5), (5)%
_IP = r"^(?:(?:25[0-5]|2[0-4]\d|1?\d?\d)(?:\.|$)){4}$"  # addresses of machines are no numbers
_WITH_UNITS = rf"^[+-]?\s*(?P<before>{_CURRENCY}|)\s*[+-]?\s*{_DIGITS}\s*(?P<after>{_UNIT}|)$"


class NumberFormat(Config):
    """One way to write numbers.

    Attributes:
        decimal: what stands before the decimals.
        thousands: what sets thousands apart, if anything may; a blank is any kind of blank.
        before, after: currency, percent or unit around each number; part of none.
        brackets: some of the column stand in brackets, which makes them negative.
    """

    decimal: Literal[".", ","] = "."
    thousands: Literal["", ",", ".", " ", "'"] = ""
    before: str = ""
    after: str = ""
    brackets: bool = False

    @property
    def pattern(self) -> str:
        """A regular expression (RE2) that all numbers fit that are written so."""
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
        """Currency, percent or unit, empty if there is none."""
        return self.before or self.after

    @property
    def example(self) -> str:
        """A number that is written so and in no other way."""
        return f"{self.before}1{self.thousands}200{self.decimal}5{self.after}"

    @classmethod
    def of_example(cls, example: str) -> NumberFormat:
        """How a number is written.

        Raises:
            ValueError: it is none, or 1.200, which may be two.
        """
        text = pa.chunked_array([pa.array([example.strip()])])
        choice = find_number_format(text)
        if choice is None or choice.other is not None:
            wrong = "is not a number" if choice is None else "may be two numbers"
            better = _CANDIDATES[5].example
            raise ValueError(f"{example!r} {wrong}; write one with decimals, such as {better}")
        return choice.best

    def fits(self, text: Any) -> Any:
        """Which cells of text, after `normalize_number_text`, are numbers that are written so."""
        return pc.match_substring_regex(text, self.pattern)

    def read(self, text: Any) -> Numbers:
        """Cells of text as numbers, NaN where one is missing or not written so."""
        text = normalize_number_text(text)
        infinite = pc.match_substring_regex(text, _INFINITE)
        if pc.any(infinite).as_py():
            values = self.read(pc.if_else(infinite, None, text))
            values[pc.fill_null(infinite, False).to_numpy()] = np.inf
            return values
        text = pc.if_else(self.fits(text), text, None)
        for part in (self.before, self.after, self.thousands, " "):
            if part:
                text = pc.replace_substring(text, part, "")
        if self.decimal != ".":
            text = pc.replace_substring(text, self.decimal, ".")
        return to_floats(text)

    def __str__(self) -> str:
        """What is not plain of it."""
        marks = {",": "a comma", ".": "a point", " ": "a blank", "'": "an apostrophe"}
        said = [
            "decimal comma" if self.decimal == "," else "",
            f"thousands set apart by {marks[self.thousands]}" if self.thousands else "",
            f"in {self.unit}" if self.unit else "",
            "brackets for minus" if self.brackets else "",
        ]
        return ", ".join(filter(None, said))


def to_floats(column: Any, *, safe: bool = True) -> Numbers:
    """A column of numbers, or of text in the plainest format, as an array that can be written to."""
    found: Numbers = pc.cast(column, pa.float64(), safe=safe).to_numpy()
    return found if found.flags.writeable else found.copy()


PLAIN = NumberFormat()
_CANDIDATES = [
    *(PLAIN, NumberFormat(thousands=","), NumberFormat(thousands=" "), NumberFormat(thousands="'")),
    NumberFormat(decimal=","),
    NumberFormat(decimal=",", thousands="."),
    NumberFormat(decimal=",", thousands=" "),
    NumberFormat(decimal=",", thousands="'"),
]
"""Those that are tried, the likelier first."""


class FormatChoice(NamedTuple):
    """How a column of text can be read as numbers.

    Attributes:
        best: the way that fits most cells; the plainest where many fit as many.
        other: another one that fits as many, or all but a few, and reads other numbers; None: there is
            none.
        deciding_cell: the first cell that `other` does not fit; empty: it fits as many.
    """

    best: NumberFormat
    other: NumberFormat | None = None
    deciding_cell: str = ""


def normalize_number_text(text: Any) -> Any:
    """Cells with one kind of minus, in front, and of blank; rupees without the stroke behind them."""
    text = pc.replace_substring(text, "\u2212", "-")
    text = pc.replace_substring_regex(text, r"[\x{00a0}\x{2007}\x{2009}\x{202f}]", " ")
    text = pc.replace_substring(text, "\u2019", "'")
    text = pc.replace_substring_regex(text, r"^(.*\d)/-$", r"\1")
    text = pc.replace_substring_regex(text, r"^([^+-]*\d)-$", r"-\1")
    return pc.replace_substring_regex(text, _BRACKETS, r"-\1\2\3")


def find_number_format(text: Any) -> FormatChoice | None:
    """How most of a column's cells can be read as numbers; None if hardly any can.

    Args:
        text: cells of text, null where a value is missing.
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
    if len(some) < len(filled):  # ways that may be the best on all
        near = [candidate for candidate, count in counted.items() if count >= _MIN_FIT * most]
        counted = {candidate: _count(candidate, filled) for candidate in near}
        most = max(counted.values())
    best = next(candidate for candidate, count in counted.items() if count == most)
    read, found = best.read(filled), FormatChoice(best.model_copy(update={"brackets": brackets}))
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
            return found._replace(other=candidate, deciding_cell=cell)
    return found


def check_plain_format(text: Any) -> FormatChoice:
    """The same of a column of which all cells are numbers in the plainest way."""
    apart = NumberFormat(decimal=",", thousands=".")
    filled = text.drop_null()
    for cells in (filled.slice(0, _SAMPLE), filled):  # most columns are known by their first cells
        marked = cells.filter(pc.match_substring(cells, "."))
        deciding_cell = marked.filter(pc.invert(apart.fits(marked)))
        if len(marked) == len(deciding_cell) or len(deciding_cell) > _DECIDING_SHARE * len(marked):
            return FormatChoice(PLAIN)
    return FormatChoice(PLAIN, apart, deciding_cell[0].as_py() if len(deciding_cell) else "")


def unit_of(cell: str) -> str:
    """The currency, percent or unit of a number, however it is written; empty if there is none."""
    text = normalize_number_text(pa.array([cell]))
    found = pc.extract_regex(text, _WITH_UNITS)[0].as_py()
    return (found["before"] or found["after"]) if found else ""


def _count(candidate: NumberFormat, text: Any) -> int:
    return int(pc.sum(candidate.fits(text)).as_py() or 0)


def sample_cells(text: Any) -> Any:
    """A sample of the cells, the same each time."""
    if len(text) <= _SAMPLE:
        return text
    return text.take(np.sort(np.random.default_rng(0).choice(len(text), _SAMPLE, replace=False)))


def _find_units(text: Any) -> tuple[str, str]:
    """What stands before and after most numbers; nothing where most stand alone."""
    found = pc.extract_regex(text, _WITH_UNITS).drop_null().to_pylist()
    pairs = Counter((row["before"], row["after"]) for row in found)
    return max(pairs, key=lambda pair: (pairs[pair], pair == ("", "")), default=("", ""))
