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
    for name, (best, other, deciding_cell) in ways.items():
        if other is not None:
            alike.setdefault((best, other, bool(deciding_cell)), {})[name] = deciding_cell
    return [
        ("Warning", _number_format_warning(what, deciding_cell, best, other))
        for (best, other, _), deciding_cell in alike.items()
    ]


def _number_format_warning(
    what: str, deciding_cell: dict[str, str], best: NumberFormat, other: NumberFormat
) -> str:
    names, cell = list(deciding_cell), next(iter(deciding_cell.values()))
    theirs = f"{what} '{names[0]}': its" if len(names) == 1 else f"{what}s {join_names(names)}: their"
    decides = f", which a few such as {cell!r} decide, and the others" if cell else ", and"
    this, that = (_options_for(names, {"number": time_format.example}) for time_format in (best, other))
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


def target_warnings(target: TargetColumn, inferred: InferredType) -> list[tuple[str, str]]:
    """What may have been meant otherwise of a target of which nothing was said."""
    if inferred.kind == "number":
        told = number_format_warnings({target.name: inferred.ways}, "target")
        return told + leading_zero_warning(
            f"target '{target.name}'", inferred.zero_led, "classes: data.task=classes"
        )
    if not inferred.mostly_measured or inferred.date_format is not None:
        return []
    invalid = inferred.invalid
    cells = f"{_invalid_count(invalid, 'number')}, {invalid}"
    if not invalid.are_few(_TOO_MANY_ROWS):
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


def leading_zero_warning(what: str, zero_led: InvalidCells, way_out: str) -> list[tuple[str, str]]:
    """The warning that a few numbers may be identifiers, as they have leading zeros.

    Args:
        what: the column or target.
        way_out: what they may be instead, and what to type then.
    """
    if not zero_led.count:
        return []
    are = "is read as a number" if zero_led.count == 1 else "are read as numbers"
    return [
        (
            "Warning",
            f"{what}: {_leading_zero_count(zero_led)} and {are}, {zero_led}. Where they are {way_out}",
        )
    ]


def identifier_warning(name: str, cell: str) -> list[tuple[str, str]]:
    """The warning that numbers may be identifiers, as all have as many groups of digits as a `cell`."""
    if not cell:
        return []
    told = f"column '{name}': all of its numbers have as many groups of digits as {cell!r}."
    return [("Warning", f"{told} Where they are identifiers: {column_option(name, 'category')}")]


def _leading_zero_count(zero_led: InvalidCells) -> str:
    have = "have" if zero_led.count > 1 else "has"
    return f"{zero_led.count:,} of {zero_led.filled:,} cells {have} a leading zero"


def excluded_with_zeros(why: ExcludedColumn, zero_led: InvalidCells) -> ExcludedColumn:
    """Why identifiers with leading zeros are words, of which there are too many to be learnt from."""
    return ExcludedColumn(f"words, {why.reason}: {_leading_zero_count(zero_led)}, {zero_led}", why.said)


def _format_name(number_format: NumberFormat) -> str:
    return str(number_format) or "decimal point"


def mostly_measured_warning(name: str, inferred: InferredType) -> tuple[str, str]:
    """The warning that a column of words could be one of numbers, dates or times."""
    kind, cells = _mostly_measured(inferred)
    return (
        "Warning",
        f"column '{name}' is read as words: {cells}. To read it as {kind}s, these"
        f" missing: {column_option(name, kind)} (as it is: {column_option(name, 'category')})",
    )


def excluded_mostly_measured(why: ExcludedColumn, inferred: InferredType) -> ExcludedColumn:
    """The same of a column that has too many different words to be learnt from as such."""
    kind, cells = _mostly_measured(inferred)
    return ExcludedColumn(f"words, {why.reason}: {cells}", kind)


def _mostly_measured(inferred: InferredType) -> tuple[Measured, str]:
    kind: Measured = time_kind(inferred.date_format.time_format) if inferred.date_format else "number"
    written = inferred.date_format.time_format if inferred.date_format else str(inferred.number_format)
    within = f" ({written})" if written not in ("", kind) else ""
    cells = f"{_invalid_count(inferred.invalid, kind)}{within}"
    return kind, f"{cells}, {_first_invalid(inferred.invalid, inferred)}"


def number_format_line(learnt: Iterable[FittedColumn]) -> list[tuple[str, str]]:
    """The line that tells which columns of numbers are not written in the plainest way."""
    said = [
        f"{column.name} ({column.number_format})"
        for column in learnt
        if isinstance(column, NumberColumn) and str(column.number_format)
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
        f"{column.name} ({column.time_format}{', in UTC' if 'zone' in column.time_format else ''})"
        for column in learnt
        if isinstance(column, DateColumn) and column.time_format != DEFAULT_FORMATS[column.times]
    ]
    return [("Dates", join_names(said))] if said else []


def date_format_warning(name: str, date_format: DateFormat) -> tuple[str, str]:
    """The warning that dates or times of a column may be read in another way."""
    ways = [date_format.time_format, date_format.other]
    typed = [
        column_option(
            name,
            time_kind(time_format) if time_format in DEFAULT_FORMATS.values() else {"date": time_format},
        )
        for time_format in ways
    ]
    return (
        "Warning",
        f"column '{name}': it is read as {describe_format(date_format.time_format)}, and would do as"
        f" {describe_format(date_format.other)}:"
        f" then say {typed[1]} (as it is: {typed[0]})",
    )


_PLURALS = {
    "number": "numbers",
    "category": "categories",
    "date": "dates",
    "time": "times",
    "duration": "durations",
}


def unseen_line(label: str, new_cells: Mapping[str, NewCells]) -> list[tuple[str, str]]:
    """The line that tells in which columns there are categories that training has not kept."""
    unseen = {name: found.unseen for name, found in new_cells.items() if found.unseen}
    rows = (f"{name} in {count:,} {'row' if count == 1 else 'rows'}" for name, count in unseen.items())
    return [(label, ", ".join(rows))] if unseen else []


def invalid_cell_warnings(
    columns: Iterable[FittedColumn],
    target: TargetColumn,
    new_cells: Mapping[str, NewCells],
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
        invalid = new_cells[learnt.name].invalid
        if isinstance(learnt, MeasuredColumn) and invalid.count:
            way_out = (
                f" Where they are words: {column_option(learnt.name, 'category')}" if learning else ""
            )
            way_out = "" if invalid.too_large else way_out
            cells = (
                f"{_invalid_count(invalid, learnt.noun)} and taken for missing,"
                f" {_first_invalid(invalid, learnt)}."
            )
            lines.append(f"column '{learnt.name}'{where}: {cells}{way_out}")
    if target.name in new_cells and (invalid := new_cells[target.name].invalid).count:
        way_out = " Where they are classes: data.task=classes" if learning else ""
        way_out = "" if invalid.too_large else way_out
        rows = "their rows are" if invalid.count > 1 else "its row is"
        cells = (
            f"{_invalid_count(invalid, target.noun)} and {rows} left out,"
            f" {_first_invalid(invalid, target)}."
        )
        lines.append(f"target '{target.name}'{where}: {cells}{way_out}")
    return [("Warning", line) for line in lines]


def too_many_invalid(
    name: str, holds: str, invalid: InvalidCells, noun: str, most: float, other: str = ""
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
        ""
        if invalid.too_large
        else f"; for words, train with {column_option(name, 'category')}{otherwise}"
    )
    return (
        f"column '{name}' is one of {holds}, but row {invalid.row} (counted from 0) holds"
        f" {invalid.value!r};"
        f" {_invalid_count(invalid, noun)}, and {most:.0%} at most may be. Leave the field empty where"
        " the value is"
        f" missing{words}"
    )


def _invalid_count(invalid: InvalidCells, noun: str) -> str:
    """How many cells are not of their column's kind."""
    noun = f"{noun}s" if invalid.count > 1 else noun
    if invalid.too_large:
        noun = f"finite {noun} that a model can hold"
    return (
        f"{invalid.count:,} of {invalid.filled:,} cells {'are' if invalid.count > 1 else 'is'} no {noun}"
    )


def _first_invalid(invalid: InvalidCells, of: object) -> str:
    """Which cell is the first odd one, with its unit where the others have another."""
    number_format = getattr(of, "number_format", PLAIN)
    unit = unit_of(invalid.value) if number_format.unit else ""
    return (
        f"{invalid} (in {unit}, not in {number_format.unit})"
        if unit not in ("", number_format.unit)
        else f"{invalid}"
    )


def target_summary(target: TargetColumn, counts: Sequence[int] | None = None) -> str:
    """What the target is, on one line.

    Args:
        counts: rows of each class, where they are known.
    """
    number_format = f"; {target.number_format}" if str(target.number_format) else ""
    if target.duration:
        return f"{target.name}, a real value in seconds (duration; as classes: data.task=classes)"
    if target.labels is None:
        return f"{target.name}, a real value{number_format}"
    classes = join_names(target.labels) if counts is None else class_summary(target.labels, counts)
    return f"{target.name}, {len(target.labels):,} classes: {classes}{number_format}"


def missing_lines(
    missing_counts: Mapping[str, Mapping[str, int]],
    columns: Iterable[FittedColumn],
    target: TargetColumn,
    said: Collection[str],
) -> list[tuple[str, str]]:
    """The line that counts which words were taken for missing, and a warning where they may be a class.

    Args:
        missing_counts: how often which words were, by column; those of `said` are by the user's word.
    """
    names = [*(column.name for column in columns), target.name]
    counted = [
        f"{name}: {missing_counts_summary(missing_counts[name])}"
        for name in names
        if missing_counts.get(name)
    ]
    lines = [("Missing", "; ".join(counted))] if counted else []
    may_be = {word: n for word, n in missing_counts.get(target.name, {}).items() if word not in said}
    if may_be and target.labels is not None and not target.numeric:
        told = (
            f"target '{target.name}': {missing_counts_summary(may_be)} taken for missing, and"
            " these rows left out."
        )
        lines.append(("Warning", f"{told} Where it is a class: {KEEP_MISSING_WORDS}"))
    return lines
