"""What kind of column one is: decided by all of its cells, of which a few may be odd."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

from bigmodel.data.tabular.date_formats import PLAINEST, TimeKind, kind_of
from bigmodel.data.tabular.dates import When, find_way, read_times, timed_as
from bigmodel.data.tabular.notation import PLAIN, Notation, Ways, plain_ways, ways_to_read
from bigmodel.data.tabular.odd import MOST_IF_SAID, NONE_ODD, Odd
from bigmodel.data.tabular.truth import holds_truth
from bigmodel.data.tabular.values import (
    is_text,
    leading_zeros,
    numbers,
    plain_cells,
    without_marks,
)

ColumnKind = Literal["number", "date", "time", "duration", "text", "empty", "other"]


class Decided(NamedTuple):
    """How a column is read.

    Attributes:
        kind: what it holds; `other` is such as lists.
        notation: how its numbers are written, or those that it holds among its words.
        other: another way that reads other numbers from as many cells.
        when: how its dates, times of day or durations are written.
        odd: the cells that are no numbers or dates; of text, those that keep it from being numbers, and
            none where most are.
        deciding: the first cell that `other` does not fit, if any.
        zeros: the cells that have a leading zero, as identifiers have: of numbers, a few.
    """

    kind: ColumnKind
    notation: Notation = PLAIN
    other: Notation | None = None
    when: When | None = None
    odd: Odd = NONE_ODD
    deciding: str = ""
    zeros: Odd = NONE_ODD

    @property
    def ways(self) -> Ways:
        """How its numbers can be read."""
        return Ways(self.notation, self.other, self.deciding)

    @property
    def nearly(self) -> bool:
        """Whether it is text that is mostly numbers, or, where `when` is known, dates or times."""
        return self.kind == "text" and self.odd.count > 0 and self.odd.are_few(MOST_IF_SAID)


def decide(column: Any) -> Decided:
    """What kind of column one is: numbers or dates where 95 % of its cells are, or more.

    Identifiers with leading zeros, such as 007, are text where they are more than a few, and so are
    true and false, whatever kind of file they stand in.
    """
    import pyarrow as pa

    kind = column.type
    if column.null_count == len(column):
        return Decided("empty")
    if pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        return as_numbers(column)
    if timed_as(kind) is not None:
        return as_times(column)
    if pa.types.is_boolean(kind):
        return Decided("text")
    if not is_text(kind):
        return Decided("other")
    zeros = _zeros(column)
    if not zeros.are_few():
        return Decided("text", zeros=zeros)
    found = _as_plain(column)
    if found is None and holds_truth(without_marks(column)):
        return Decided("text")
    found = found or _as_written(column)
    if found.odd.there == 0:
        return Decided("empty")
    if found.odd.are_few():
        return found._replace(zeros=zeros)
    timed = as_times(column)
    if timed.odd.are_few():
        return timed
    if timed.odd.are_few(MOST_IF_SAID):
        return timed._replace(kind="text")
    return found._replace(kind="text")


def _zeros(column: Any) -> Odd:
    found = leading_zeros(column)
    if not found.any():
        return NONE_ODD
    there = without_marks(column)
    return Odd.of(column, found, len(there) - there.null_count)


def as_times(column: Any, kind: TimeKind | None = None, way: str = "") -> Decided:
    """A column as one of dates, times of day or durations, however many of its cells are odd.

    Args:
        column: of any kind but `other`.
        kind: which of the three the user says that it holds; None: any.
        way: how they are written, by the user's word; empty: to be found out.
    """
    when = When(way) if way else find_way(column, kind) or When(PLAINEST[kind or "date"])
    cells = read_times(column, when.way)
    return Decided(kind_of(when.way), when=when, odd=Odd.of(column, cells.odd, cells.there))


def as_numbers(column: Any, notation: Notation | None = None) -> Decided:
    """A column as one of numbers, however many of its cells are odd.

    Args:
        column: of any kind but `other`.
        notation: how they are written, where that is known.
    """
    if notation is not None:
        return _read_by(column, Ways(notation))
    if not is_text(column.type):
        return _read_by(column, Ways(PLAIN))
    return _as_plain(column) or _read_by(column, ways_to_read(without_marks(column)) or Ways(PLAIN))


def _as_plain(column: Any) -> Decided | None:
    """Text of which all is numbers in the plainest way, which is soon known."""
    cells = plain_cells(column)
    if cells is None:
        return None
    ways = plain_ways(without_marks(column.slice(0, 1000)))
    if ways.other is not None:
        ways = plain_ways(without_marks(column))
    return _numbers(ways, Odd(cells.there))


def _as_written(column: Any) -> Decided:
    """Other text; where hardly any of it is numbers, it is not read for the few."""
    text = without_marks(column)
    ways = ways_to_read(text)
    if ways is not None:
        return _read_by(column, ways)
    there = len(text) - text.null_count
    return Decided("text", odd=Odd(there, there))


def _read_by(column: Any, ways: Ways) -> Decided:
    cells = numbers(column, ways.best)
    odd = Odd.of(column, cells.odd & ~cells.infinite, cells.there)
    return _numbers(ways, odd)


def _numbers(ways: Ways, odd: Odd) -> Decided:
    return Decided("number", ways.best, ways.other, odd=odd, deciding=ways.deciding)
