"""A user's own table, one sample a row: what its columns hold is found out and told.

Whatever is learnt of the columns is learnt from the training part alone: what missing values are filled
up with, mean and deviation, which categories there are. Only how a column is to be read at all, as
numbers, dates or words, is decided by all of the file's rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from itertools import chain
from typing import Any, cast

import numpy as np
import torch
from pydantic import Field, field_validator
from torch import Tensor

from bigmodel.data.assemble import completed
from bigmodel.data.base import Dataset, PartName
from bigmodel.data.class_counts import class_warnings, count_classes
from bigmodel.data.digest import DigestBuilder
from bigmodel.data.parts import Part
from bigmodel.data.tabular.column_options import Kind, WrittenForm, column_option, parse_entries
from bigmodel.data.tabular.column_storage import give_back
from bigmodel.data.tabular.columns import (
    CategoryColumn,
    DateColumn,
    ExcludedColumn,
    FittedColumn,
    MeasuredColumn,
    NewCells,
    NumberColumn,
    RowIndex,
)
from bigmodel.data.tabular.date_formats import (
    TIME_KINDS,
    TimeKind,
    check_format,
    describe_format,
    time_kind,
)
from bigmodel.data.tabular.missing_values import count_missing_words, unused_word_warning
from bigmodel.data.tabular.number_formats import FormatChoice, NumberFormat
from bigmodel.data.tabular.numeric import identifier_groups, is_row_index, missing_words_in, text_values
from bigmodel.data.tabular.reader import TableReader
from bigmodel.data.tabular.report import (
    AS_IN_CHECKPOINT,
    AS_REQUESTED,
    alias_line,
    columns_summary,
    date_format_line,
    date_format_warning,
    excluded_mostly_measured,
    excluded_warnings,
    excluded_with_zeros,
    identifier_warning,
    invalid_cell_warnings,
    leading_zero_warning,
    missing_lines,
    mostly_measured_warning,
    number_format_line,
    number_format_warnings,
    target_summary,
    target_warnings,
    too_many_invalid,
    unseen_line,
)
from bigmodel.data.tabular.table_file import Table, check_column, get_column, name_list, read_table
from bigmodel.data.tabular.target import EncodedTarget, TargetColumn, Task
from bigmodel.data.tabular.type_inference import (
    MAX_INVALID,
    MAX_INVALID_IF_CHOSEN,
    InferredType,
    as_numbers,
    as_times,
    infer_type,
)
from bigmodel.data.targets import TargetEncoder
from bigmodel.data.text_encoding import Encoding
from bigmodel.data.user_data import (
    UserDataConfig,
    Words,
    check_trained_classes,
    resolve_path,
    separate_parts,
    split_samples,
)
from bigmodel.errors import ConfigError, DataError
from bigmodel.registry import data
from bigmodel.spec import DataSpec


class TableConfig(UserDataConfig):
    """A table in a CSV, TSV, Parquet or JSON lines file, gzip or not."""

    batch_size: int = Field(default=256, ge=1, description="samples in a batch")
    normalize: bool = Field(
        default=True,
        description="standardise numbers with mean and deviation of the training part",
    )
    encoding: Encoding = Field(
        default="utf-8",
        description="how CSV and JSON lines are written: utf-8, cp1252, utf-16, …;"
        " a byte-order mark is found",
    )
    target: str | None = Field(default=None, description="the column that is asked for")
    task: Task = Field(
        default="auto",
        description="what the target holds: classes, values, or auto: by what it looks like",
    )
    columns: dict[str, Kind | WrittenForm] = Field(
        default={},
        description="kind of a column, where it is not found out: number, category, date, time,"
        ' duration, ignore; or as it is written: {number: "1.200,5"}, {date: "%d/%m/%Y"}',
    )
    ignore: list[str] = Field(default=[], description="columns that are not learnt from")
    missing: Words | None = Field(
        default=None,
        description="words that stand for a missing value, besides NA, n/a, null, ? and their like in"
        " targets and numbers; []: NA and its like may be classes",
    )
    split: str | None = Field(
        default=None, description="column that says of each row: train, val or test; null: by fraction"
    )
    group: str | None = Field(
        default=None,
        description="column whose equal values all go to one part, such as a patient; null: none",
    )
    max_categories: int = Field(
        default=1000, ge=2, description="most categories of a column; rarer values count as unseen"
    )
    min_count: int = Field(
        default=2, ge=1, description="training rows that a category needs, or it counts as unseen"
    )

    @field_validator("columns", mode="before")
    @classmethod
    def _in_one_text(cls, columns: Any) -> Any:
        """Names that Hydra's grammar does not take as keys come in a text."""
        return parse_entries(columns) if isinstance(columns, str) else columns

    @field_validator("columns")
    @classmethod
    def _with_examples(cls, columns: dict[str, Kind | WrittenForm]) -> dict[str, Kind | WrittenForm]:
        for name, kind in columns.items():
            if isinstance(kind, dict) and len(kind) != 1:
                raise ValueError(f"{name} is said to be of {len(kind)} kinds. Give one")
            if isinstance(kind, dict) and "number" in kind:
                NumberFormat.of_example(kind["number"])
            if isinstance(kind, dict) and "date" in kind:
                check_format(kind["date"])
        return columns

    def notation_of(self, name: str) -> NumberFormat | None:
        """How a column's numbers are written, where that is said."""
        said = self.columns.get(name)
        example = said.get("number") if isinstance(said, dict) else None
        return None if example is None else NumberFormat.of_example(example)


@data.register("table", TableConfig)
def table(config: TableConfig) -> Dataset:
    """A table of numbers, categories and dates, and the column that is asked for."""
    _check_local(config)
    dataset = _read(config)
    give_back()  # when nothing of the file is left in memory
    return dataset


def _read(config: TableConfig) -> Dataset:
    found = read_table(resolve_path(config), "data.path", config.max_bad, config.encoding)
    found.missing = config.missing or ()
    left_out = dict(found.left_out)
    target, encoded, index = _read_target(config, found, left_out)
    reader, lines, told = _fit_columns(config, found, target, index["train"])
    content = DigestBuilder().files(found.files)
    for part, rows in index.items():
        content.tensor(part, torch.from_numpy(rows))
    named, new_cells = _encode_parts(found, reader, encoded.values, index)
    new_cells[target.name] = NewCells(invalid=encoded.invalid)
    told = [*alias_line(_aliases(reader)), *told, *found.told]
    if config.task == "auto" and target.name not in config.columns:
        told += target_warnings(target, infer_type(found.column(target.name)))
    told += missing_lines(found.missing_counts, reader.columns, target, found.missing)
    told += unused_word_warning(found.missing, found.missing_counts, str(found.path))
    told += invalid_cell_warnings(reader.columns, target, new_cells, learning=True)
    for part in separate_parts(config, named):
        key = f"{part}_path"
        other = read_table(resolve_path(config, key), f"data.{key}", config.max_bad, config.encoding)
        other.missing = found.missing
        content.files(other.files)
        told += other.told
        samples = reader.samples(other, with_targets=True)
        named[part] = samples.part
        left_out = _add_counts(_add_counts(left_out, other.left_out), samples.left_out)
        told += unseen_line(f"Unseen in {part}", samples.new_cells)
        told += alias_line(
            {name: found.aliases for name, found in samples.new_cells.items()}, f"Spellings in {part}"
        )
        told += invalid_cell_warnings(reader.columns, target, samples.new_cells, f" of {part}")
    counts = (
        None
        if target.labels is None
        else count_classes((part.targets for part in named.values()), len(target.labels))
    )
    lines.append(("Target", target_summary(target, counts)))
    told += class_warnings(target.labels or (), counts or ())
    spec = DataSpec(config.name, reader.spec, target.spec)
    done = completed(spec, named, config.learnt(spec.input))
    reader = reader.model_copy(update={"target_encoder": TargetEncoder.of(done.spec.target)})
    return replace(done, reader=reader, told=lines + told, left_out=left_out, read=content.read())


def _aliases(reader: TableReader) -> dict[str, dict[str, str]]:
    """What training spelt in several ways, the target at the end."""
    categories = {
        get_column.name: get_column.aliases
        for get_column in reader.columns
        if get_column.kind == "category"
    }
    return {**categories, reader.target.name: reader.target.aliases}


def _check_local(config: TableConfig) -> None:
    """Refuses what lies on the Hugging Face Hub, in words: nothing is fetched while a run starts."""
    for key in ("path", "val_path", "test_path"):
        name = (getattr(config, key) or "").partition("hub:")
        if not name[0] and name[1]:
            raise ConfigError(
                f"data.{key}=hub:{name[2]}: a data set of the Hugging Face Hub is downloaded first:"
                f" hf download --repo-type dataset {name[2]} --local-dir {name[2]}; then say"
                f" data.{key}={name[2]}/<file>."
            )


def _read_target(
    config: TableConfig, found: Table, left_out: dict[str, int]
) -> tuple[TargetColumn, EncodedTarget, dict[PartName, RowIndex]]:
    """The target, what all rows hold of it, and which rows that have one go to which part."""
    name = _target_name(config, found)
    values, where = get_column(found, name, "data.target"), str(found.path)
    before = config.learnt_reader(TableReader)
    if before is not None and before.target.name == name:
        target = before.target
    else:
        default_missing, number_format = config.missing != [], config.notation_of(name)
        target = TargetColumn.fit(
            name, values, config.task, where, number_format, default_missing=default_missing
        )
    encoded = target.encode(values, where)
    found.note(name, count_missing_words(values, target.missing))
    rows = np.flatnonzero(encoded.filled)
    if len(rows) < found.num_rows:
        left_out["no target"] = found.num_rows - len(rows)
    places = split_samples(
        config,
        len(rows),
        labels=None if target.labels is None else encoded.values[torch.from_numpy(rows)],
        groups=_column_values(found, config.group, "data.group", rows),
        marks=_column_values(found, config.split, "data.split", rows),
        named=lambda sample: f"row {rows[sample]}",
    )
    if target.labels is not None:
        targets = encoded.values[torch.from_numpy(rows)]
        check_trained_classes(target.labels, targets[places["train"]], where, "rows")
    return target, encoded, {part: rows[chosen.numpy()] for part, chosen in places.items()}


def _encode_parts(
    found: Table, reader: TableReader, targets: Tensor, index: dict[PartName, RowIndex]
) -> tuple[dict[PartName, Part], dict[str, NewCells]]:
    """Each part's rows, and what is strange in them all: one after another in one tensor, so that none
    is ever there twice."""
    order = np.concatenate(list(index.values()))
    inputs, new_cells = reader.inputs(found, order)
    ordered = targets[torch.from_numpy(order)]
    sizes = [len(rows) for rows in index.values()]
    pairs = zip(torch.split(inputs, sizes), torch.split(ordered, sizes), strict=True)
    return {name: Part(*pair) for name, pair in zip(index, pairs, strict=True)}, new_cells


def _target_name(config: TableConfig, found: Table) -> str:
    """The target, where what the options say of columns can be."""
    if config.target is None:
        raise ConfigError(
            "data.target: say which column is asked for, such as data.target="
            f"{found.column_names[-1]}. {found.path} has {name_list(found.column_names)}."
        )
    for name in config.columns:
        check_column(found, name, "data.columns")
    for name in config.ignore:
        check_column(found, name, "data.ignore")
    if config.target in config.ignore or config.columns.get(config.target) == "ignore":
        raise ConfigError(f"data.target={config.target}: the target cannot be ignored as well.")
    if config.target in config.columns and config.notation_of(config.target) is None:
        raise ConfigError(
            f"data.columns.{config.target}: this is the target, whose kind data.task says: classes or"
            " values."
        )
    return config.target


def _column_values(found: Table, name: str | None, key: str, rows: RowIndex) -> Any:
    """What an option's column says of each of some rows; None where the option names none."""
    return None if name is None else text_values(get_column(found, name, key)).take(rows).to_pylist()


def _fit_columns(
    config: TableConfig, found: Table, target: TargetColumn, rows: RowIndex
) -> tuple[TableReader, list[tuple[str, str]], list[tuple[str, str]]]:
    """What the training part's rows tell of each column; the lines that tell it, and warnings.

    Raises:
        DataError: there is no column to learn from.
    """
    learnt: list[FittedColumn] = []
    left: dict[str, ExcludedColumn] = {}
    told: dict[str, list[tuple[str, str]]] = {}
    ways: dict[str, FormatChoice] = {}
    as_asked = set(config.ignore)
    for nth, name in enumerate(found.column_names):
        kind = config.columns.get(name)
        if name == target.name or (name in (config.split, config.group) and kind is None):
            continue
        if name in as_asked or kind == "ignore":
            left[name] = ExcludedColumn(AS_REQUESTED)
            continue
        values = found.column(name)
        inferred = infer_type(values)
        known, told[name] = _fit_column(config, name, values, inferred, rows, nth, str(found.path))
        if isinstance(known, ExcludedColumn):
            left[name] = known
            continue
        learnt.append(known)
        if kind is None and inferred.kind == "number":
            ways[name] = inferred.ways
        if isinstance(known, MeasuredColumn):
            found.note(name, count_missing_words(values, missing_words_in(values, words_too=False)))
    if not learnt:
        reasons = [line for _, line in (*chain(*told.values()), *excluded_warnings(left))]
        why = "; ".join(reasons) or ("all are left out, as asked." if left else "there is no other.")
        raise DataError(f"{found.path}: no column is left to learn '{target.name}' from: {why}")
    reader = TableReader(
        columns=learnt, target=target, missing=list(found.missing), encoding=config.encoding
    )
    before = config.learnt_reader(TableReader)
    if before is not None and all(known.name in found for known in before.columns):
        reader = before.model_copy(update={"target": target})
        left |= {get_column.name: ExcludedColumn(AS_IN_CHECKPOINT) for get_column in learnt}
    read = {get_column.name for get_column in reader.columns}
    left = {name: why for name, why in left.items() if name not in read}
    lines = [("Columns", columns_summary(reader.columns, left))]
    lines += [*number_format_line(reader.columns), *date_format_line(reader.columns)]
    warnings = number_format_warnings({name: some for name, some in ways.items() if name in read})
    warnings += chain(*(told[name] for name in told if name in read), excluded_warnings(left))
    return reader, lines, warnings


def _fit_column(
    config: TableConfig,
    name: str,
    values: Any,
    inferred: InferredType,
    rows: RowIndex,
    nth: int,
    where: str,
) -> tuple[FittedColumn | ExcludedColumn, list[tuple[str, str]]]:
    """What one column tells, or why it tells a model nothing; and what is to be told of it."""
    said = config.columns.get(name)
    chosen = said if said is None or isinstance(said, str) else next(iter(said))
    kind: str = inferred.kind
    if kind not in ("empty", "other"):  # of which a user's word makes nothing else
        kind = chosen or kind
    if kind == "number":
        if chosen is None and is_row_index(name, values, nth):
            return ExcludedColumn("counts the rows", "number"), []
        if inferred.kind != "number" or isinstance(said, dict):
            inferred = as_numbers(values, config.notation_of(name))
        most = MAX_INVALID if inferred.invalid.are_few() else MAX_INVALID_IF_CHOSEN
        if not inferred.invalid.are_few(most):
            raise DataError(
                f"{where}: {too_many_invalid(name, 'numbers', inferred.invalid, 'number', most)}"
            )
        told = leading_zero_warning(
            f"column '{name}'", inferred.zero_led, f"words: {column_option(name, 'category')}"
        )
        told += identifier_warning(name, identifier_groups(values, inferred.number_format))
        return NumberColumn.fit(
            name, values, rows, config.normalize, where, inferred.number_format, most
        ), told if chosen is None else []
    if kind in TIME_KINDS:
        return _fit_times(config, name, values, rows, where, inferred)
    if kind in ("category", "text"):
        known = CategoryColumn.fit(
            name, values, rows, config.max_categories, config.min_count, chosen is not None
        )
        zero_led = inferred.zero_led  # where most have one, they are identifiers, which is nothing odd
        if (
            zero_led.count
            and zero_led.are_few(MAX_INVALID_IF_CHOSEN)
            and isinstance(known, ExcludedColumn)
            and known.said
        ):
            return excluded_with_zeros(known, zero_led), []
        if not inferred.mostly_measured or chosen is not None:
            return known, []
        if isinstance(known, ExcludedColumn):
            return (excluded_mostly_measured(known, inferred) if known.said else known), []
        return known, [mostly_measured_warning(name, inferred)]
    return ExcludedColumn("empty" if kind == "empty" else str(values.type)), []


def _fit_times(
    config: TableConfig, name: str, values: Any, rows: RowIndex, where: str, inferred: InferredType
) -> tuple[FittedColumn | ExcludedColumn, list[tuple[str, str]]]:
    """See `_learn_column`."""
    said, most = config.columns.get(name), MAX_INVALID
    if isinstance(said, dict):
        inferred = as_times(values, time_format=said["date"])
    elif said is not None:
        inferred = as_times(values, cast(TimeKind, said))
        most = MAX_INVALID if inferred.invalid.are_few() else MAX_INVALID_IF_CHOSEN
    date_format = inferred.date_format
    assert date_format is not None
    if not inferred.invalid.are_few(most):
        message = too_many_invalid(
            name,
            describe_format(date_format.time_format),
            inferred.invalid,
            time_kind(date_format.time_format),
            most,
        )
        raise DataError(f"{where}: {message}")
    told = [date_format_warning(name, date_format)] if date_format.other else []
    return DateColumn.fit(name, values, rows, config.normalize, date_format, most), told


def _add_counts(counts: Mapping[str, int], more: Mapping[str, int]) -> dict[str, int]:
    return {key: counts.get(key, 0) + more.get(key, 0) for key in [*counts, *more]}
