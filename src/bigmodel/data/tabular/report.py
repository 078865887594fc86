"""What was inferred of a table, in words for the header of a run."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence

from bigmodel.data.class_counts import class_summary
from bigmodel.data.reader import HeaderRows
from bigmodel.data.spelling_variants import alias_summary
from bigmodel.data.tabular import column_options as typed
from bigmodel.data.tabular.columns import (
    CategoryColumn,
    DateColumn,
    ExcludedColumn,
    FittedColumn,
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

_TOO_MANY_ROWS = 0.25  # share of a target's rows that are too many to leave out
_UNTYPABLE = re.compile(r'"|\\$')  # would end the quotation marks around a name, or escape them
_MAX_TYPED = 50  # names in a command to type
AS_REQUESTED = "as asked"
AS_IN_CHECKPOINT = "as before in this run"


def columns_summary(columns: Iterable[FittedColumn], excluded: Mapping[str, ExcludedColumn]) -> str:
    """How many columns of each kind there are, and which are left out, on one line."""
    names_by_kind: dict[str, list[str]] = {kind: [] for kind in ("number", "category", *TIME_KINDS)}
    for column in columns:
        if isinstance(column, CategoryColumn):
            names_by_kind["category"].append(f"{column.name} {len(column.values):,}")
        else:
            names_by_kind[column.noun].append(column.name)
    summaries = [
        counted(len(names), kind, "categories" if kind == "category" else None)
        + ("" if kind == "number" else f" ({join_names(names)})")
        for kind, names in names_by_kind.items()
        if names
    ]
    return ", ".join(summaries) + (f"; ignored: {excluded_summary(excluded)}" if excluded else "")


def excluded_summary(excluded: Mapping[str, ExcludedColumn]) -> str:
    return join_names([f"{name} ({why.reason})" for name, why in excluded.items()])


def excluded_warnings(excluded: Mapping[str, ExcludedColumn]) -> list[str]:
    """A warning for each kind that excluded columns could be read as, and one for all others."""
    texts = []
    silent = (AS_REQUESTED, AS_IN_CHECKPOINT)
    excluded = {name: why for name, why in excluded.items() if why.reason not in silent}
    for kind in ("number", *TIME_KINDS, "category", *typed.MEDIA_KINDS, None):
        some = {name: why for name, why in excluded.items() if why.possible_kind == kind}
        if not some:
            continue
        if kind is None:
            cut = f" (the first {_MAX_TYPED} of {len(some):,})" if len(some) > _MAX_TYPED else ""
            advice = f"If that is intended: {setting('data.ignore', list(some)[:_MAX_TYPED])}{cut}"
        else:
            model = " model=fusion" if kind in typed.MEDIA_KINDS else ""
            options = _options_for(list(some), kind) + model
            advice = f"To use {'them' if len(some) > 1 else 'it'}: {options}"
        texts.append(f"left out: {excluded_summary(some)}. {advice}")
    return texts


def number_format_warnings(choices: Mapping[str, FormatChoice], what: str = "column") -> list[str]:
    """Warnings for columns whose numbers may be read in two formats, one for all of the same two.

    Args:
        choices: of each column.
        what: `column` or `target`.
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
    """What to type for columns, and for how many of them if it cannot be all."""
    typable = [name for name in names if name.isprintable() and not _UNTYPABLE.search(name)]
    shown = typable[:_MAX_TYPED] or names[:1]
    options = typed.column_options(shown, kind)
    if len(shown) == len(names):
        return options
    if not typable:
        return f"{options} (the first of {len(names):,})"
    if len(shown) < len(typable):
        return f"{options} (the first {len(shown)} of {len(names):,})"
    return f"{options} (the {len(shown)} of {len(names):,} that can be typed)"


def target_warnings(target: TargetColumn, inferred: InferredType) -> list[str]:
    """What else a target whose task is not set may be."""
    what = f"target '{target.name}'"
    if inferred.kind == "number":
        texts = number_format_warnings({target.name: inferred.choice}, "target")
        return texts + leading_zero_warning(what, inferred.zero_led, "classes: data.task=classes")
    if not inferred.mostly_measured or inferred.date_format is not None:
        return []
    invalid = inferred.invalid
    cells = f"{invalid.summary('number')}, {invalid}"
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
    return [f"{what}: {_leading_zero_count(zero_led)} and {are}, {zero_led}. If they are {way_out}"]


def identifier_warning(name: str, cell: str) -> list[str]:
    """The warning that numbers may be identifiers, as all have as many groups of digits as `cell`."""
    option = typed.column_option(name, "category")
    alike = f"column '{name}': all of its numbers have as many groups of digits as {cell!r}"
    return [f"{alike}. If they are identifiers: {option}"] if cell else []


def _leading_zero_count(zero_led: InvalidCells) -> str:
    have = "have" if zero_led.count > 1 else "has"
    return f"{zero_led.count:,} of {zero_led.filled:,} cells {have} a leading zero"


def mostly_measured_warning(name: str, inferred: InferredType) -> str:
    """The warning that a column of words could be one of numbers, dates or times."""
    kind = inferred.measured_kind
    that, this = typed.column_option(name, kind), typed.column_option(name, "category")
    ways = f"To read it as {kind}s, these missing: {that} (currently: {this})"
    return f"column '{name}' is read as words: {_invalid_words(inferred)}. {ways}"


def excluded_words(why: ExcludedColumn, inferred: InferredType, *, chosen: bool) -> ExcludedColumn:
    """Why a column of words is excluded, and what else it could be if it has too many of them.

    Args:
        chosen: whether the user says that they are words.
    """
    if why.possible_kind is None:
        return why
    zero_led = inferred.zero_led
    # If most cells have a leading zero, they are identifiers, and nothing is unusual about them.
    if zero_led.are_minority:
        cells = f"{_leading_zero_count(zero_led)}, {zero_led}"
        return why._replace(reason=f"words, {why.reason}: {cells}")
    if chosen or not inferred.mostly_measured:
        return why
    return ExcludedColumn(f"words, {why.reason}: {_invalid_words(inferred)}", inferred.measured_kind)


def _invalid_words(inferred: InferredType) -> str:
    """How many cells of a mostly measured column are words, and the first of them."""
    kind, date_format = inferred.measured_kind, inferred.date_format
    written = str(inferred.number_format) if date_format is None else date_format.time_format
    within = f" ({written})" if written not in ("", kind) else ""
    return f"{inferred.invalid.summary(kind)}{within}, {_first_invalid(inferred.invalid, inferred)}"


def written_lines(columns: Iterable[FittedColumn]) -> HeaderRows:
    """Header rows that list numbers and dates in other than the default format."""
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
    """The header row that lists different spellings of one value.

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
    targets: Iterable[TargetColumn],
    new_cells: Mapping[str, NewCells],
    part: str = "",
) -> HeaderRows:
    """Header rows about cells unlike those of the training set.

    Args:
        part: the name of the rows' set, such as `val`; empty: they are new data.
    """
    unseen = [f"{name} in {counted(new.unseen, 'row')}" for name, new in new_cells.items() if new.unseen]
    within = f" in {part}" if part else ""
    lines = [(f"Unseen{within or ' categories'}", ", ".join(unseen))] if unseen else []
    lines += alias_line({name: new.aliases for name, new in new_cells.items()}, f"Spellings{within}")
    return lines + invalid_cell_warnings(columns, targets, new_cells, part)


def invalid_cell_warnings(
    columns: Iterable[FittedColumn],
    targets: Iterable[TargetColumn],
    new_cells: Mapping[str, NewCells],
    part: str = "",
    *,
    training: bool = False,
) -> HeaderRows:
    """A warning for each column, the target too, with invalid cells, which count as missing.

    Args:
        part: see `new_cell_lines`.
        training: say what to type if these cells are not missing values.
    """
    texts = []
    for column in (*columns, *targets):
        invalid = new_cells.get(column.name, NewCells()).invalid
        if isinstance(column, CategoryColumn) or not invalid.count:
            continue
        if isinstance(column, TargetColumn):
            what, way_out = "target", "classes: data.task=classes"
            outcome = f"{'their rows are' if invalid.count > 1 else 'its row is'} left out"
        else:
            what, way_out = "column", f"words: {typed.column_option(column.name, 'category')}"
            outcome = "taken for missing"
        of_part = f" of {part}" if part else ""
        cells = f"{invalid.summary(column.noun)} and {outcome}, {_first_invalid(invalid, column)}"
        advice = f" If they are {way_out}" if training and not invalid.too_large else ""
        texts.append(f"{what} '{column.name}'{of_part}: {cells}.{advice}")
    return [("Warning", text) for text in texts]


def too_many_invalid(
    name: str, holds: str, invalid: InvalidCells, noun: str, limit: float, other: str = ""
) -> str:
    """The message for a column with too many invalid cells.

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
        f" {invalid.value!r}; {invalid.summary(noun)}, and {limit:.0%} at most may be. Leave the"
        f" field empty where the value is missing{advice}"
    )


def _first_invalid(invalid: InvalidCells, column: FittedColumn | TargetColumn | InferredType) -> str:
    """The first invalid cell, with its unit if the other cells have another."""
    usual = "" if isinstance(column, DateColumn | CategoryColumn) else column.number_format.unit
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
    counts: Mapping[str, Mapping[str, int]],
    columns: Iterable[FittedColumn],
    targets: Sequence[TargetColumn],
    chosen: Collection[str],
) -> HeaderRows:
    """The header row that counts words for missing values, and a warning if one may be a class.

    Args:
        counts: how often each word was taken for missing, by column.
        chosen: the words that the user has named.
    """
    names = [column.name for column in (*columns, *targets)]
    summaries = [f"{name}: {missing_counts_summary(counts[name])}" for name in names if counts.get(name)]
    lines = [("Missing", "; ".join(summaries))] if summaries else []
    for target in targets:
        lines += _maybe_class_warning(target, counts.get(target.name, {}), chosen)
    return lines


def _maybe_class_warning(
    target: TargetColumn, counts: Mapping[str, int], chosen: Collection[str]
) -> HeaderRows:
    may_be_class = {word: count for word, count in counts.items() if word not in chosen}
    if not may_be_class or target.labels is None or target.numeric:
        return []
    words = missing_counts_summary(may_be_class)
    text = f"target '{target.name}': {words} taken for missing, and these rows left out."
    return [("Warning", f"{text} If it is a class: {KEEP_MISSING_WORDS}")]
