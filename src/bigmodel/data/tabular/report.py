"""What was found out of a table, in words for the header of a run."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import get_args

from bigmodel.data.canonical import alias_summary as spellings_told
from bigmodel.data.class_counts import class_summary
from bigmodel.data.tabular.column_options import (
    WrittenForm,
    column_option,
    column_options,
    ignore_option,
)
from bigmodel.data.tabular.columns import (
    CategoryColumn,
    DateColumn,
    ExcludedColumn,
    FittedColumn,
    Measured,
    MeasuredColumn,
    NewCells,
    NumberColumn,
)
from bigmodel.data.tabular.date_formats import DEFAULT_FORMATS, describe_format, time_kind
from bigmodel.data.tabular.dates import DateFormat
from bigmodel.data.tabular.missing_values import missing_counts_summary
from bigmodel.data.tabular.number_formats import PLAIN, FormatChoice, NumberFormat, unit_of
from bigmodel.data.tabular.target import KEEP_MISSING_WORDS, TargetColumn
from bigmodel.data.tabular.type_inference import InferredType, InvalidCells
from bigmodel.errors import join_names

_TOO_MANY_ROWS = 0.25  # share of rows that nobody leaves out
_UNTYPABLE = re.compile(r'"|\\$')  # what ends a name in quotation marks, or keeps it from its end
_MAX_TYPED = 50  # names in what is to be typed
AS_REQUESTED = "as asked"
AS_IN_CHECKPOINT = "as before in this run"


def columns_summary(learnt: Iterable[FittedColumn], left: Mapping[str, ExcludedColumn]) -> str:
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
    ignored = excluded_summary(left)
    return ", ".join(parts) + (f"; ignored: {ignored}" if ignored else "")


def excluded_summary(left: Mapping[str, ExcludedColumn]) -> str:
    """The columns that are not learnt from, and why."""
    return join_names([f"{name} ({why.reason})" for name, why in left.items()])


def excluded_warnings(left: Mapping[str, ExcludedColumn]) -> list[tuple[str, str]]:
    """A warning for the columns that are not learnt from unless more is said, and one for the others."""
    lines = []
    for said in (*get_args(Measured), "category"):
        some = {name: why for name, why in left.items() if why.said == said}
        if some:
            them = "them" if len(some) > 1 else "it"
            what = _options_for(list(some), said)
            lines.append(f"left out: {excluded_summary(some)}. To learn from {them}: {what}")
    rest = {
        name: why
        for name, why in left.items()
        if why.said is None and why.reason not in (AS_REQUESTED, AS_IN_CHECKPOINT)
    }
    if rest:
        cut = f" (the first {_MAX_TYPED} of {len(rest):,})" if len(rest) > _MAX_TYPED else ""
        what = ignore_option(list(rest)[:_MAX_TYPED]) + cut
        lines.append(f"left out: {excluded_summary(rest)}. Where that is meant: {what}")
    return [("Warning", line) for line in lines]


def number_format_warnings(
    ways: Mapping[str, FormatChoice], what: str = "column"
) -> list[tuple[str, str]]:
    """A warning for the columns whose numbers may be read in another way, one for all of the same ways.

    Args:
        ways: of each column.
        what: `target` where it is one.
    """
    alike: dict[tuple[NumberFormat, NumberFormat, bool], dict[str, str]] = {}
    for name, (best, other, deciding) in ways.items():
        if other is not None:
            alike.setdefault((best, other, bool(deciding)), {})[name] = deciding
    return [
        ("Warning", _number_format_warning(what, deciding, best, other))
        for (best, other, _), deciding in alike.items()
    ]


def _number_format_warning(
    what: str, deciding: dict[str, str], best: NumberFormat, other: NumberFormat
) -> str:
    names, cell = list(deciding), next(iter(deciding.values()))
    theirs = f"{what} '{names[0]}': its" if len(names) == 1 else f"{what}s {join_names(names)}: their"
    decides = f", which a few such as {cell!r} decide, and the others" if cell else ", and"
    this, that = (_options_for(names, {"number": way.example}) for way in (best, other))
    return (
        f"{theirs} numbers are read as {_format_name(best)}{decides} would do as"
        f" {_format_name(other)}: then say {that}"
        f" (as it is: {this})"
    )


def _options_for(names: Sequence[str], kind: str | WrittenForm) -> str:
    """What to type for columns, and how many they are where it cannot name them all."""
    typed = (
        [name for name in names if name.isprintable() and not _UNTYPABLE.search(name)]
        if len(names) > 1
        else [*names]
    )
    if not typed:
        return column_option(names[0], kind) + f" (the first of {len(names):,})"
    if len(typed) > _MAX_TYPED:
        return column_options(typed[:_MAX_TYPED], kind) + f" (the first {_MAX_TYPED} of {len(names):,})"
    cut = f" (the {len(typed)} of {len(names):,} that can be typed)" if len(typed) < len(names) else ""
    return column_options(typed, kind) + cut


def target_warnings(target: TargetColumn, decided: InferredType) -> list[tuple[str, str]]:
    """What may have been meant otherwise of a target of which nothing was said."""
    if decided.kind == "number":
        told = number_format_warnings({target.name: decided.ways}, "target")
        return told + leading_zero_warning(
            f"target '{target.name}'", decided.zeros, "classes: data.task=classes"
        )
    if not decided.nearly or decided.when is not None:
        return []
    odd = decided.odd
    cells = f"{_invalid_count(odd, 'number')}, {odd}"
    if not odd.are_few(_TOO_MANY_ROWS):
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


def leading_zero_warning(what: str, zeros: InvalidCells, way_out: str) -> list[tuple[str, str]]:
    """The warning that a few numbers may be identifiers, as they have leading zeros.

    Args:
        what: the column or target.
        way_out: what they may be instead, and what to type then.
    """
    if not zeros.count:
        return []
    are = "is read as a number" if zeros.count == 1 else "are read as numbers"
    return [
        ("Warning", f"{what}: {_leading_zero_count(zeros)} and {are}, {zeros}. Where they are {way_out}")
    ]


def identifier_warning(name: str, cell: str) -> list[tuple[str, str]]:
    """The warning that numbers may be identifiers, as all have as many groups of digits as a `cell`."""
    if not cell:
        return []
    told = f"column '{name}': all of its numbers have as many groups of digits as {cell!r}."
    return [("Warning", f"{told} Where they are identifiers: {column_option(name, 'category')}")]


def _leading_zero_count(zeros: InvalidCells) -> str:
    return (
        f"{zeros.count:,} of {zeros.there:,} cells {'have' if zeros.count > 1 else 'has'} a leading zero"
    )


def excluded_with_zeros(why: ExcludedColumn, zeros: InvalidCells) -> ExcludedColumn:
    """Why identifiers with leading zeros are words, of which there are too many to be learnt from."""
    return ExcludedColumn(f"words, {why.reason}: {_leading_zero_count(zeros)}, {zeros}", why.said)


def _format_name(notation: NumberFormat) -> str:
    return str(notation) or "decimal point"


def mostly_measured_warning(name: str, decided: InferredType) -> tuple[str, str]:
    """The warning that a column of words could be one of numbers, dates or times."""
    kind, cells = _mostly_measured(decided)
    return (
        "Warning",
        f"column '{name}' is read as words: {cells}. To read it as {kind}s, these"
        f" missing: {column_option(name, kind)} (as it is: {column_option(name, 'category')})",
    )


def excluded_mostly_measured(why: ExcludedColumn, decided: InferredType) -> ExcludedColumn:
    """The same of a column that has too many different words to be learnt from as such."""
    kind, cells = _mostly_measured(decided)
    return ExcludedColumn(f"words, {why.reason}: {cells}", kind)


def _mostly_measured(decided: InferredType) -> tuple[Measured, str]:
    kind: Measured = time_kind(decided.when.way) if decided.when else "number"
    way = decided.when.way if decided.when else str(decided.notation)
    cells = f"{_invalid_count(decided.odd, kind)}{f' ({way})' if way and way != kind else ''}"
    return kind, f"{cells}, {_first_invalid(decided.odd, decided)}"


def number_format_line(learnt: Iterable[FittedColumn]) -> list[tuple[str, str]]:
    """The line that tells which columns of numbers are not written in the plainest way."""
    said = [
        f"{column.name} ({column.notation})"
        for column in learnt
        if isinstance(column, NumberColumn) and str(column.notation)
    ]
    return [("Numbers", join_names(said))] if said else []


def alias_line(
    names: Mapping[str, Mapping[str, str]], label: str = "Spellings"
) -> list[tuple[str, str]]:
    """The line that tells which spellings are one value, by column.

    Args:
        names: of the values of other spellings.
    """
    said = [f"{column}: {told}" for column, each in names.items() if (told := spellings_told(each))]
    return [(label, "; ".join(said))] if said else []


def date_format_line(learnt: Iterable[FittedColumn]) -> list[tuple[str, str]]:
    """The line that tells how dates and times are written that are not in the plainest way."""
    said = [
        f"{column.name} ({column.way}{', in UTC' if 'zone' in column.way else ''})"
        for column in learnt
        if isinstance(column, DateColumn) and column.way != DEFAULT_FORMATS[column.times]
    ]
    return [("Dates", join_names(said))] if said else []


def date_format_warning(name: str, when: DateFormat) -> tuple[str, str]:
    """The warning that dates or times of a column may be read in another way."""
    ways = [when.way, when.other]
    typed = [
        column_option(name, time_kind(way) if way in DEFAULT_FORMATS.values() else {"date": way})
        for way in ways
    ]
    return (
        "Warning",
        f"column '{name}': it is read as {describe_format(when.way)}, and would do as"
        f" {describe_format(when.other)}:"
        f" then say {typed[1]} (as it is: {typed[0]})",
    )


_PLURALS = {
    "number": "numbers",
    "category": "categories",
    "date": "dates",
    "time": "times",
    "duration": "durations",
}


def unseen_line(label: str, strange: Mapping[str, NewCells]) -> list[tuple[str, str]]:
    """The line that tells in which columns there are categories that training has not kept."""
    unseen = {name: found.unseen for name, found in strange.items() if found.unseen}
    rows = (f"{name} in {count:,} {'row' if count == 1 else 'rows'}" for name, count in unseen.items())
    return [(label, ", ".join(rows))] if unseen else []


def invalid_cell_warnings(
    columns: Iterable[FittedColumn],
    target: TargetColumn,
    strange: Mapping[str, NewCells],
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
            way_out = (
                f" Where they are words: {column_option(learnt.name, 'category')}" if learning else ""
            )
            way_out = "" if odd.too_large else way_out
            cells = (
                f"{_invalid_count(odd, learnt.noun)} and taken for missing,"
                f" {_first_invalid(odd, learnt)}."
            )
            lines.append(f"column '{learnt.name}'{where}: {cells}{way_out}")
    if target.name in strange and (odd := strange[target.name].odd).count:
        way_out = " Where they are classes: data.task=classes" if learning else ""
        way_out = "" if odd.too_large else way_out
        rows = "their rows are" if odd.count > 1 else "its row is"
        cells = f"{_invalid_count(odd, target.noun)} and {rows} left out, {_first_invalid(odd, target)}."
        lines.append(f"target '{target.name}'{where}: {cells}{way_out}")
    return [("Warning", line) for line in lines]


def too_many_invalid(
    name: str, holds: str, odd: InvalidCells, noun: str, most: float, other: str = ""
) -> str:
    """What to say of a column of which too many cells are odd.

    Args:
        holds: what the column is one of, such as `dates (ISO)`; `noun` is one of them.
        most: share that may be odd.
        other: another way in which its dates may be written.
    """
    otherwise = ""
    if noun == "date":
        meant = column_option(name, {"date": other or "%d/%m/%Y"})
        otherwise = f"; for dates written in another way, such as {other or '%d/%m/%Y'}, with {meant}"
    words = (
        "" if odd.too_large else f"; for words, train with {column_option(name, 'category')}{otherwise}"
    )
    return (
        f"column '{name}' is one of {holds}, but row {odd.row} (counted from 0) holds {odd.value!r};"
        f" {_invalid_count(odd, noun)}, and {most:.0%} at most may be. Leave the field empty where"
        " the value is"
        f" missing{words}"
    )


def _invalid_count(odd: InvalidCells, noun: str) -> str:
    """How many cells are not of their column's kind."""
    noun = f"{noun}s" if odd.count > 1 else noun
    if odd.too_large:
        noun = f"finite {noun} that a model can hold"
    return f"{odd.count:,} of {odd.there:,} cells {'are' if odd.count > 1 else 'is'} no {noun}"


def _first_invalid(odd: InvalidCells, of: object) -> str:
    """Which cell is the first odd one, with its unit where the others have another."""
    notation = getattr(of, "notation", PLAIN)
    unit = unit_of(odd.value) if notation.unit else ""
    return f"{odd} (in {unit}, not in {notation.unit})" if unit not in ("", notation.unit) else f"{odd}"


def target_summary(target: TargetColumn, counts: Sequence[int] | None = None) -> str:
    """What the target is, on one line.

    Args:
        counts: rows of each class, where they are known.
    """
    notation = f"; {target.notation}" if str(target.notation) else ""
    if target.duration:
        return f"{target.name}, a real value in seconds (duration; as classes: data.task=classes)"
    if target.labels is None:
        return f"{target.name}, a real value{notation}"
    classes = join_names(target.labels) if counts is None else class_summary(target.labels, counts)
    return f"{target.name}, {len(target.labels):,} classes: {classes}{notation}"


def missing_lines(
    taken: Mapping[str, Mapping[str, int]],
    columns: Iterable[FittedColumn],
    target: TargetColumn,
    said: Collection[str],
) -> list[tuple[str, str]]:
    """The line that counts which words were taken for missing, and a warning where they may be a class.

    Args:
        taken: how often which words were, by column; those of `said` are by the user's word.
    """
    names = [*(column.name for column in columns), target.name]
    counted = [f"{name}: {missing_counts_summary(taken[name])}" for name in names if taken.get(name)]
    lines = [("Missing", "; ".join(counted))] if counted else []
    may_be = {word: n for word, n in taken.get(target.name, {}).items() if word not in said}
    if may_be and target.labels is not None and not target.numeric:
        told = (
            f"target '{target.name}': {missing_counts_summary(may_be)} taken for missing, and"
            " these rows left out."
        )
        lines.append(("Warning", f"{told} Where it is a class: {KEEP_MISSING_WORDS}"))
    return lines
