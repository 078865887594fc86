"""What was found in a table, in words for the header of a run."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import get_args

from bigmodel.data.class_counts import class_summary
from bigmodel.data.reader import HeaderRows
from bigmodel.data.spelling_variants import alias_summary
from bigmodel.data.tabular import column_options as typed
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
from bigmodel.data.tabular.date_formats import DEFAULT_FORMATS, TIME_KINDS, describe_format, time_kind
from bigmodel.data.tabular.dates import DateFormat
from bigmodel.data.tabular.missing_values import missing_counts_summary
from bigmodel.data.tabular.number_formats import FormatChoice, NumberFormat, unit_of
from bigmodel.data.tabular.target import KEEP_MISSING_WORDS, TargetColumn
from bigmodel.data.tabular.type_inference import InferredType, InvalidCells
from bigmodel.errors import counted, join_names, setting

_TOO_MANY_ROWS = 0.25  # share of a target's rows that nobody wants left out
_UNTYPABLE = re.compile(r'"|\\$')  # would end the quotation marks around a name, or escape them
_MAX_TYPED = 50  # names in a command to type
AS_REQUESTED = "as asked"
AS_IN_CHECKPOINT = "as before in this run"
_WithCells = NumberColumn | DateColumn | TargetColumn


def columns_summary(columns: Iterable[FittedColumn], excluded: Mapping[str, ExcludedColumn]) -> str:
    """What became of the columns, on one line."""
    names_by_kind: dict[str, list[str]] = {kind: [] for kind in ("number", "category", *TIME_KINDS)}
    for column in columns:
        if isinstance(column, CategoryColumn):
            names_by_kind["category"].append(f"{column.name} {len(column.values):,}")
        else:
            names_by_kind[column.noun].append(column.name)
    parts = []
    for kind, names in names_by_kind.items():
        if names:
            which = "" if kind == "number" else f" ({join_names(names)})"
            plural = "categories" if kind == "category" else f"{kind}s"
            parts.append(f"{len(names)} {kind if len(names) == 1 else plural}{which}")
    ignored = f"; ignored: {excluded_summary(excluded)}" if excluded else ""
    return ", ".join(parts) + ignored


def excluded_summary(excluded: Mapping[str, ExcludedColumn]) -> str:
    """The columns to leave out, and why."""
    return join_names([f"{name} ({why.reason})" for name, why in excluded.items()])


def excluded_warnings(excluded: Mapping[str, ExcludedColumn]) -> list[str]:
    """A warning for each kind that excluded columns could be read as, and one for all others."""
    texts = []
    for kind in (*get_args(Measured), "category"):
        some = {name: why for name, why in excluded.items() if why.possible_kind == kind}
        if some:
            them = "them" if len(some) > 1 else "it"
            options = _options_for(list(some), kind)
            texts.append(f"left out: {excluded_summary(some)}. To use {them}: {options}")
    silent = (AS_REQUESTED, AS_IN_CHECKPOINT)
    rest = {name: why for name, why in excluded.items() if why.possible_kind is None}
    rest = {name: why for name, why in rest.items() if why.reason not in silent}
    if rest:
        cut = f" (the first {_MAX_TYPED} of {len(rest):,})" if len(rest) > _MAX_TYPED else ""
        option = setting("data.ignore", list(rest)[:_MAX_TYPED])
        texts.append(f"left out: {excluded_summary(rest)}. If that is intended: {option}{cut}")
    return texts


def number_format_warnings(choices: Mapping[str, FormatChoice], what: str = "column") -> list[str]:
    """Warnings for columns whose numbers may be read in two formats, one for all of the same two.

    Args:
        choices: of each column.
        what: `target` if it is one.
    """
    ambiguous: dict[tuple[NumberFormat, NumberFormat, bool], dict[str, str]] = {}
    for name, (best, other, cell) in choices.items():
        if other is not None:
            ambiguous.setdefault((best, other, bool(cell)), {})[name] = cell
    texts = []
    for (best, other, _), cells in ambiguous.items():
        names, cell = list(cells), next(iter(cells.values()))
        several = len(names) > 1
        theirs = f"{what}s {join_names(names)}: their" if several else f"{what} '{names[0]}': its"
        decides = f", which a few such as {cell!r} decide, and the others" if cell else ", and"
        this, that = (_options_for(names, {"number": choice.example}) for choice in (best, other))
        best_name, other_name = (str(choice) or "decimal point" for choice in (best, other))
        texts.append(
            f"{theirs} numbers are read as {best_name}{decides} would do as {other_name}: then set "
            f"{that} (currently: {this})"
        )
    return texts


def _options_for(names: Sequence[str], kind: str | typed.WrittenForm) -> str:
    """What to type for columns, and how many of them it names if it cannot name all."""
    if len(names) == 1:
        return typed.column_option(names[0], kind)
    typable = [name for name in names if name.isprintable() and not _UNTYPABLE.search(name)]
    if not typable:
        return typed.column_option(names[0], kind) + f" (the first of {len(names):,})"
    options = typed.column_options(typable[:_MAX_TYPED], kind)
    if len(typable) > _MAX_TYPED:
        return f"{options} (the first {_MAX_TYPED} of {len(names):,})"
    if len(typable) < len(names):
        return f"{options} (the {len(typable)} of {len(names):,} that can be typed)"
    return options


def target_warnings(target: TargetColumn, inferred: InferredType) -> list[str]:
    """What else may be meant by a target whose task is not set."""
    what = f"target '{target.name}'"
    if inferred.kind == "number":
        texts = number_format_warnings({target.name: inferred.choice}, "target")
        return texts + leading_zero_warning(what, inferred.zero_led, "classes: data.task=classes")
    if not inferred.mostly_measured or inferred.date_format is not None:
        return []
    invalid = inferred.invalid
    cells = f"{_invalid_count(invalid, 'number')}, {invalid}"
    if invalid.are_few(_TOO_MANY_ROWS):
        ways = "To leave these rows out: data.task=values (currently: data.task=classes)"
        return [f"{what} is read as words: {cells}. {ways}"]
    advice = "If some of both mean the same, spell them the same way."
    return [f"{what} holds words and numbers, which are distinguished: {cells}. {advice}"]


def leading_zero_warning(what: str, zero_led: InvalidCells, way_out: str) -> list[str]:
    """The warning that a few numbers may be identifiers, as they have leading zeros.

    Args:
        what: the column or target.
        way_out: what they may be instead, and what to type then.
    """
    if not zero_led.count:
        return []
    are = "is read as a number" if zero_led.count == 1 else "are read as numbers"
    return [f"{what}: {_leading_zero_count(zero_led)} and {are}, {zero_led}. Where they are {way_out}"]


def identifier_warning(name: str, cell: str) -> list[str]:
    """The warning that numbers may be identifiers, as all have as many groups of digits as `cell`."""
    option = typed.column_option(name, "category")
    alike = f"column '{name}': all of its numbers have as many groups of digits as {cell!r}"
    return [f"{alike}. Where they are identifiers: {option}"] if cell else []


def _leading_zero_count(zero_led: InvalidCells) -> str:
    have = "have" if zero_led.count > 1 else "has"
    return f"{zero_led.count:,} of {zero_led.filled:,} cells {have} a leading zero"


def excluded_with_zeros(why: ExcludedColumn, zero_led: InvalidCells) -> ExcludedColumn:
    """Why identifiers with leading zeros are words, of which there are too many to learn from."""
    reason = f"words, {why.reason}: {_leading_zero_count(zero_led)}, {zero_led}"
    return ExcludedColumn(reason, why.possible_kind)


def mostly_measured_warning(name: str, inferred: InferredType) -> str:
    """The warning that a column of words could be one of numbers, dates or times."""
    kind, cells = _mostly_measured(inferred)
    that, this = typed.column_option(name, kind), typed.column_option(name, "category")
    ways = f"To read it as {kind}s, these missing: {that} (currently: {this})"
    return f"column '{name}' is read as words: {cells}. {ways}"


def excluded_mostly_measured(why: ExcludedColumn, inferred: InferredType) -> ExcludedColumn:
    """The same for a column that has too many different words to learn from."""
    kind, cells = _mostly_measured(inferred)
    return ExcludedColumn(f"words, {why.reason}: {cells}", kind)


def _mostly_measured(inferred: InferredType) -> tuple[Measured, str]:
    """What most cells are, and how many are not."""
    kind: Measured = "number"
    written = str(inferred.number_format)
    if inferred.date_format is not None:
        written = inferred.date_format.time_format
        kind = time_kind(written)
    within = f" ({written})" if written not in ("", kind) else ""
    first = _first_invalid(inferred.invalid, inferred)
    return kind, f"{_invalid_count(inferred.invalid, kind)}{within}, {first}"


def written_lines(columns: Iterable[FittedColumn]) -> list[tuple[str, str]]:
    """The lines that say which numbers and dates are not written in the plainest way."""
    numbers, dates = [], []
    for column in columns:
        if isinstance(column, NumberColumn) and str(column.number_format):
            numbers.append(f"{column.name} ({column.number_format})")
        if isinstance(column, DateColumn) and column.time_format != DEFAULT_FORMATS[column.times]:
            zone = ", in UTC" if "zone" in column.time_format else ""
            dates.append(f"{column.name} ({column.time_format}{zone})")
    lines = [("Numbers", numbers), ("Dates", dates)]
    return [(label, join_names(names)) for label, names in lines if names]


def alias_line(aliases: Mapping[str, Mapping[str, str]], label: str = "Spellings") -> HeaderRows:
    """The line that says which spellings are one value.

    Args:
        aliases: of each column, the value that each other spelling means.
    """
    parts = [f"{name}: {text}" for name, each in aliases.items() if (text := alias_summary(each))]
    return [(label, "; ".join(parts))] if parts else []


def date_format_warning(name: str, date_format: DateFormat) -> str:
    """The warning that dates or times of a column may be read in another format."""
    plain = DEFAULT_FORMATS.values()
    kinds: list[str | typed.WrittenForm] = [
        time_kind(text) if text in plain else {"date": text} for text in date_format
    ]
    this, that = (typed.column_option(name, kind) for kind in kinds)
    best, other = map(describe_format, date_format)
    ways = f"then set {that} (currently: {this})"
    return f"column '{name}': it is read as {best}, and would do as {other}: {ways}"


def new_cell_lines(
    columns: Iterable[FittedColumn],
    target: TargetColumn,
    new_cells: Mapping[str, NewCells],
    part: str = "",
) -> list[tuple[str, str]]:
    """What rows hold that the training part does not, on lines of a header.

    Args:
        part: that the rows are, such as `val`; empty: they are new data.
    """
    counts = {name: found.unseen for name, found in new_cells.items() if found.unseen}
    unseen = [f"{name} in {counted(count, 'row')}" for name, count in counts.items()]
    within, of_part = (f" in {part}", f" of {part}") if part else ("", "")
    lines = [(f"Unseen{within or ' categories'}", ", ".join(unseen))] if unseen else []
    lines += alias_line({name: new.aliases for name, new in new_cells.items()}, f"Spellings{within}")
    return lines + invalid_cell_warnings(columns, target, new_cells, of_part)


def invalid_cell_warnings(
    columns: Iterable[FittedColumn],
    target: TargetColumn,
    new_cells: Mapping[str, NewCells],
    of_part: str = "",
    *,
    training: bool = False,
) -> list[tuple[str, str]]:
    """A warning for each column, the target too, of which some cells count as missing.

    Args:
        of_part: the part that the rows are, such as ` of val`; empty: the only one.
        training: say what to type if these cells are not missing values.
    """
    texts = []

    def warn(column: _WithCells, what: str, outcome: str, way_out: str) -> None:
        invalid = new_cells[column.name].invalid
        cells = f"{_invalid_count(invalid, column.noun)} and {outcome}"
        text = f"{what} '{column.name}'{of_part}: {cells}, {_first_invalid(invalid, column)}."
        texts.append(text + (f" Where they are {way_out}" if training and not invalid.too_large else ""))

    for column in columns:
        if isinstance(column, MeasuredColumn) and new_cells[column.name].invalid.count:
            words = f"words: {typed.column_option(column.name, 'category')}"
            warn(column, "column", "taken for missing", words)
    if target.name in new_cells and (count := new_cells[target.name].invalid.count):
        rows = "their rows are" if count > 1 else "its row is"
        warn(target, "target", f"{rows} left out", "classes: data.task=classes")
    return [("Warning", text) for text in texts]


def too_many_invalid(
    name: str, holds: str, invalid: InvalidCells, noun: str, limit: float, other: str = ""
) -> str:
    """The message for a column of which too many cells are invalid.

    Args:
        holds: what the column is one of, such as `dates (ISO)`; `noun` is one of them.
        limit: share of cells that may be invalid.
        other: another format that its dates may be written in.
    """
    advice = ""
    if not invalid.too_large:
        advice = f"; for words, train with {typed.column_option(name, 'category')}"
        if noun == "date":
            other = other or "%d/%m/%Y"
            option = typed.column_option(name, {"date": other})
            advice += f"; for dates written in another way, such as {other}, with {option}"
    return (
        f"column '{name}' is one of {holds}, but row {invalid.row} (counted from 0) holds"
        f" {invalid.value!r}; {_invalid_count(invalid, noun)}, and {limit:.0%} at most may be. Leave the"
        f" field empty where the value is missing{advice}"
    )


def _invalid_count(invalid: InvalidCells, noun: str) -> str:
    noun = f"{noun}s" if invalid.count > 1 else noun
    if invalid.too_large:
        noun = f"finite {noun} that a model can hold"
    are = "are not" if invalid.count > 1 else "is not a"
    return f"{invalid.count:,} of {invalid.filled:,} cells {are} {noun}"


def _first_invalid(invalid: InvalidCells, column: _WithCells | InferredType) -> str:
    """Which cell is the first invalid one, with its unit if the other cells have another."""
    usual = "" if isinstance(column, DateColumn) else column.number_format.unit
    unit = unit_of(invalid.value) if usual else ""
    return f"{invalid} (in {unit}, not in {usual})" if unit not in ("", usual) else str(invalid)


def target_summary(target: TargetColumn, counts: Sequence[int] | None = None) -> str:
    """What the target is, on one line.

    Args:
        counts: rows of each class, if they are known.
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
    chosen: Collection[str],
) -> list[tuple[str, str]]:
    """The line that counts the words taken for missing, and a warning if one may be a class.

    Args:
        missing_counts: how often each word was taken for missing, by column.
        chosen: the words that the user has named.
    """
    names = [*(column.name for column in columns), target.name]
    found = [(name, counts) for name in names if (counts := missing_counts.get(name))]
    summaries = [f"{name}: {missing_counts_summary(counts)}" for name, counts in found]
    lines = [("Missing", "; ".join(summaries))] if summaries else []
    of_target = missing_counts.get(target.name, {})
    may_be_class = {word: count for word, count in of_target.items() if word not in chosen}
    if may_be_class and target.labels is not None and not target.numeric:
        words = missing_counts_summary(may_be_class)
        text = f"target '{target.name}': {words} taken for missing, and these rows left out."
        lines.append(("Warning", f"{text} If it is a class: {KEEP_MISSING_WORDS}"))
    return lines
