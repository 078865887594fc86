"""What was found out of a table, in words for the header of a run."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import get_args

from bigmodel.data.class_counts import counted_classes
from bigmodel.data.spellings import respelt_told as spellings_told
from bigmodel.data.tabular.columns import (
    CategoryColumn,
    DateColumn,
    Learnt,
    LeftOut,
    Measured,
    MeasuredColumn,
    NumberColumn,
    Strange,
)
from bigmodel.data.tabular.date_formats import PLAINEST, described, kind_of
from bigmodel.data.tabular.dates import When
from bigmodel.data.tabular.deciding import Decided
from bigmodel.data.tabular.kinds import Form, ignoring, option, options
from bigmodel.data.tabular.missing import counts_told
from bigmodel.data.tabular.notation import PLAIN, Notation, Ways, unit_of
from bigmodel.data.tabular.odd import Odd
from bigmodel.data.tabular.target import KEEP_ALL, TargetColumn
from bigmodel.errors import join_names

_MANY = 0.25  # share of rows that nobody leaves out
_ENDS = re.compile(r'"|\\$')  # what ends a name in quotation marks, or keeps it from its end
_TYPED = 50  # names in what is to be typed
AS_ASKED = "as asked"
AS_BEFORE = "as before in this run"


def columns_told(learnt: Iterable[Learnt], left: Mapping[str, LeftOut]) -> str:
    """What became of the columns, on one line."""
    kinds: dict[str, list[str]] = {kind: [] for kind in _PLURALS}
    for found in learnt:
        size = f" {len(found.values):,}" if isinstance(found, CategoryColumn) else ""
        kinds["category" if isinstance(found, CategoryColumn) else found.noun].append(found.name + size)
    parts = []
    for kind, names in kinds.items():
        word = kind if len(names) == 1 else _PLURALS[kind]
        within = f" ({join_names(names)})" if kind != "number" else ""
        if names:
            parts.append(f"{len(names)} {word}{within}")
    ignored = left_out_listed(left)
    return ", ".join(parts) + (f"; ignored: {ignored}" if ignored else "")


def left_out_listed(left: Mapping[str, LeftOut]) -> str:
    """The columns that are not learnt from, and why."""
    return join_names([f"{name} ({why.reason})" for name, why in left.items()])


def left_out_told(left: Mapping[str, LeftOut]) -> list[tuple[str, str]]:
    """A warning for the columns that are not learnt from unless more is said, and one for the others."""
    lines = []
    for said in (*get_args(Measured), "category"):
        some = {name: why for name, why in left.items() if why.said == said}
        if some:
            them = "them" if len(some) > 1 else "it"
            what = _typed(list(some), said)
            lines.append(f"left out: {left_out_listed(some)}. To learn from {them}: {what}")
    rest = {
        name: why
        for name, why in left.items()
        if why.said is None and why.reason not in (AS_ASKED, AS_BEFORE)
    }
    if rest:
        cut = f" (the first {_TYPED} of {len(rest):,})" if len(rest) > _TYPED else ""
        what = ignoring(list(rest)[:_TYPED]) + cut
        lines.append(f"left out: {left_out_listed(rest)}. Where that is meant: {what}")
    return [("Warning", line) for line in lines]


def two_ways_told(ways: Mapping[str, Ways], what: str = "column") -> list[tuple[str, str]]:
    """A warning for the columns whose numbers may be read in another way, one for all of the same ways.

    Args:
        ways: of each column.
        what: `target` where it is one.
    """
    alike: dict[tuple[Notation, Notation, bool], dict[str, str]] = {}
    for name, (best, other, deciding) in ways.items():
        if other is not None:
            alike.setdefault((best, other, bool(deciding)), {})[name] = deciding
    return [
        ("Warning", _two_ways(what, deciding, best, other))
        for (best, other, _), deciding in alike.items()
    ]


def _two_ways(what: str, deciding: dict[str, str], best: Notation, other: Notation) -> str:
    names, cell = list(deciding), next(iter(deciding.values()))
    theirs = f"{what} '{names[0]}': its" if len(names) == 1 else f"{what}s {join_names(names)}: their"
    decides = f", which a few such as {cell!r} decide, and the others" if cell else ", and"
    this, that = (_typed(names, {"number": way.example}) for way in (best, other))
    return (
        f"{theirs} numbers are read as {_way(best)}{decides} would do as {_way(other)}: then say {that}"
        f" (as it is: {this})"
    )


def _typed(names: Sequence[str], kind: str | Form) -> str:
    """What to type for columns, and how many they are where it cannot name them all."""
    typed = (
        [name for name in names if name.isprintable() and not _ENDS.search(name)]
        if len(names) > 1
        else [*names]
    )
    if not typed:
        return option(names[0], kind) + f" (the first of {len(names):,})"
    if len(typed) > _TYPED:
        return options(typed[:_TYPED], kind) + f" (the first {_TYPED} of {len(names):,})"
    cut = f" (the {len(typed)} of {len(names):,} that can be typed)" if len(typed) < len(names) else ""
    return options(typed, kind) + cut


def target_warnings(target: TargetColumn, decided: Decided) -> list[tuple[str, str]]:
    """What may have been meant otherwise of a target of which nothing was said."""
    if decided.kind == "number":
        told = two_ways_told({target.name: decided.ways}, "target")
        return told + zeros_told(f"target '{target.name}'", decided.zeros, "classes: data.task=classes")
    if not decided.nearly or decided.when is not None:
        return []
    odd = decided.odd
    cells = f"{_odd(odd, 'number')}, {odd}"
    if not odd.are_few(_MANY):
        alike = "Where some of both mean the same, give them one spelling."
        holds = f"target '{target.name}' holds words and numbers, which are told apart: {cells}."
        return [("Warning", f"{holds} {alike}")]
    return [
        (
            "Warning",
            f"target '{target.name}' is read as words: {cells}. To leave these rows out:"
            " data.task=values (as it is: data.task=classes)",
        )
    ]


def zeros_told(what: str, zeros: Odd, way_out: str) -> list[tuple[str, str]]:
    """The warning that a few numbers may be identifiers, as they have leading zeros.

    Args:
        what: the column or target.
        way_out: what they may be instead, and what to type then.
    """
    if not zeros.count:
        return []
    are = "is read as a number" if zeros.count == 1 else "are read as numbers"
    return [("Warning", f"{what}: {_with_zeros(zeros)} and {are}, {zeros}. Where they are {way_out}")]


def groups_told(name: str, cell: str) -> list[tuple[str, str]]:
    """The warning that numbers may be identifiers, as all have as many groups of digits as a `cell`."""
    if not cell:
        return []
    told = f"column '{name}': all of its numbers have as many groups of digits as {cell!r}."
    return [("Warning", f"{told} Where they are identifiers: {option(name, 'category')}")]


def _with_zeros(zeros: Odd) -> str:
    return (
        f"{zeros.count:,} of {zeros.there:,} cells {'have' if zeros.count > 1 else 'has'} a leading zero"
    )


def zeros_left_out(why: LeftOut, zeros: Odd) -> LeftOut:
    """Why identifiers with leading zeros are words, of which there are too many to be learnt from."""
    return LeftOut(f"words, {why.reason}: {_with_zeros(zeros)}, {zeros}", why.said)


def _way(notation: Notation) -> str:
    return str(notation) or "decimal point"


def mostly_told(name: str, decided: Decided) -> tuple[str, str]:
    """The warning that a column of words could be one of numbers, dates or times."""
    kind, cells = _mostly(decided)
    return (
        "Warning",
        f"column '{name}' is read as words: {cells}. To read it as {kind}s, these"
        f" missing: {option(name, kind)} (as it is: {option(name, 'category')})",
    )


def mostly_left_out(why: LeftOut, decided: Decided) -> LeftOut:
    """The same of a column that has too many different words to be learnt from as such."""
    kind, cells = _mostly(decided)
    return LeftOut(f"words, {why.reason}: {cells}", kind)


def _mostly(decided: Decided) -> tuple[Measured, str]:
    kind: Measured = kind_of(decided.when.way) if decided.when else "number"
    way = decided.when.way if decided.when else str(decided.notation)
    cells = f"{_odd(decided.odd, kind)}{f' ({way})' if way and way != kind else ''}"
    return kind, f"{cells}, {_first_odd(decided.odd, decided)}"


def notations_told(learnt: Iterable[Learnt]) -> list[tuple[str, str]]:
    """The line that tells which columns of numbers are not written in the plainest way."""
    said = [
        f"{column.name} ({column.notation})"
        for column in learnt
        if isinstance(column, NumberColumn) and str(column.notation)
    ]
    return [("Numbers", join_names(said))] if said else []


def respelt_told(
    names: Mapping[str, Mapping[str, str]], label: str = "Spellings"
) -> list[tuple[str, str]]:
    """The line that tells which spellings are one value, by column.

    Args:
        names: of the values of other spellings.
    """
    said = [f"{column}: {told}" for column, each in names.items() if (told := spellings_told(each))]
    return [(label, "; ".join(said))] if said else []


def times_told(learnt: Iterable[Learnt]) -> list[tuple[str, str]]:
    """The line that tells how dates and times are written that are not in the plainest way."""
    said = [
        f"{column.name} ({column.way}{', in UTC' if 'zone' in column.way else ''})"
        for column in learnt
        if isinstance(column, DateColumn) and column.way != PLAINEST[column.times]
    ]
    return [("Dates", join_names(said))] if said else []


def two_times_told(name: str, when: When) -> tuple[str, str]:
    """The warning that dates or times of a column may be read in another way."""
    ways = [when.way, when.other]
    typed = [option(name, kind_of(way) if way in PLAINEST.values() else {"date": way}) for way in ways]
    return (
        "Warning",
        f"column '{name}': it is read as {described(when.way)}, and would do as {described(when.other)}:"
        f" then say {typed[1]} (as it is: {typed[0]})",
    )


_PLURALS = {
    "number": "numbers",
    "category": "categories",
    "date": "dates",
    "time": "times",
    "duration": "durations",
}


def unseen_told(label: str, strange: Mapping[str, Strange]) -> list[tuple[str, str]]:
    """The line that tells in which columns there are categories that training has not kept."""
    unseen = {name: found.unseen for name, found in strange.items() if found.unseen}
    rows = (f"{name} in {count:,} {'row' if count == 1 else 'rows'}" for name, count in unseen.items())
    return [(label, ", ".join(rows))] if unseen else []


def odd_told(
    columns: Iterable[Learnt],
    target: TargetColumn,
    strange: Mapping[str, Strange],
    where: str = "",
    *,
    learning: bool = False,
) -> list[tuple[str, str]]:
    """A warning for each column of which some cells are taken for missing, the target among them.

    Args:
        where: the part that is meant, such as ` of val`; empty: the only one.
        learning: say what to type where they are no missing values.
    """
    lines = []
    for learnt in columns:
        odd = strange[learnt.name].odd
        if isinstance(learnt, MeasuredColumn) and odd.count:
            way_out = f" Where they are words: {option(learnt.name, 'category')}" if learning else ""
            way_out = "" if odd.too_large else way_out
            cells = f"{_odd(odd, learnt.noun)} and taken for missing, {_first_odd(odd, learnt)}."
            lines.append(f"column '{learnt.name}'{where}: {cells}{way_out}")
    if target.name in strange and (odd := strange[target.name].odd).count:
        way_out = " Where they are classes: data.task=classes" if learning else ""
        way_out = "" if odd.too_large else way_out
        rows = "their rows are" if odd.count > 1 else "its row is"
        cells = f"{_odd(odd, target.noun)} and {rows} left out, {_first_odd(odd, target)}."
        lines.append(f"target '{target.name}'{where}: {cells}{way_out}")
    return [("Warning", line) for line in lines]


def too_odd(name: str, holds: str, odd: Odd, noun: str, most: float, other: str = "") -> str:
    """What to say of a column of which too many cells are odd.

    Args:
        holds: what the column is one of, such as `dates (ISO)`; `noun` is one of them.
        most: share that may be odd.
        other: another way in which its dates may be written.
    """
    otherwise = ""
    if noun == "date":
        meant = option(name, {"date": other or "%d/%m/%Y"})
        otherwise = f"; for dates written in another way, such as {other or '%d/%m/%Y'}, with {meant}"
    words = "" if odd.too_large else f"; for words, train with {option(name, 'category')}{otherwise}"
    return (
        f"column '{name}' is one of {holds}, but row {odd.row} (counted from 0) holds {odd.value!r};"
        f" {_odd(odd, noun)}, and {most:.0%} at most may be. Leave the field empty where the value is"
        f" missing{words}"
    )


def _odd(odd: Odd, noun: str) -> str:
    """How many cells are not of their column's kind."""
    noun = f"{noun}s" if odd.count > 1 else noun
    if odd.too_large:
        noun = f"finite {noun} that a model can hold"
    return f"{odd.count:,} of {odd.there:,} cells {'are' if odd.count > 1 else 'is'} no {noun}"


def _first_odd(odd: Odd, of: object) -> str:
    """Which cell is the first odd one, with its unit where the others have another."""
    notation = getattr(of, "notation", PLAIN)
    unit = unit_of(odd.value) if notation.unit else ""
    return f"{odd} (in {unit}, not in {notation.unit})" if unit not in ("", notation.unit) else f"{odd}"


def target_told(target: TargetColumn, counts: Sequence[int] | None = None) -> str:
    """What the target is, on one line.

    Args:
        counts: rows of each class, where they are known.
    """
    notation = f"; {target.notation}" if str(target.notation) else ""
    if target.duration:
        return f"{target.name}, a real value in seconds (duration; as classes: data.task=classes)"
    if target.labels is None:
        return f"{target.name}, a real value{notation}"
    classes = join_names(target.labels) if counts is None else counted_classes(target.labels, counts)
    return f"{target.name}, {len(target.labels):,} classes: {classes}{notation}"


def missing_told(
    taken: Mapping[str, Mapping[str, int]],
    columns: Iterable[Learnt],
    target: TargetColumn,
    said: Collection[str],
) -> list[tuple[str, str]]:
    """The line that counts which words were taken for missing, and a warning where they may be a class.

    Args:
        taken: how often which words were, by column; those of `said` are by the user's word.
    """
    names = [*(column.name for column in columns), target.name]
    counted = [f"{name}: {counts_told(taken[name])}" for name in names if taken.get(name)]
    lines = [("Missing", "; ".join(counted))] if counted else []
    may_be = {word: n for word, n in taken.get(target.name, {}).items() if word not in said}
    if may_be and target.labels is not None and not target.numeric:
        told = (
            f"target '{target.name}': {counts_told(may_be)} taken for missing, and these rows left out."
        )
        lines.append(("Warning", f"{told} Where it is a class: {KEEP_ALL}"))
    return lines
