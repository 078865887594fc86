"""The user's own table, one sample per row: the type of each column is inferred and reported.

Columns are fitted to the training set alone: the values that replace missing ones, mean and deviation,
categories. Only the type of a column, such as numbers, dates or words, is inferred from all rows.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import torch

from bigmodel.data.assemble import completed
from bigmodel.data.base import Dataset, PartName
from bigmodel.data.class_counts import class_warnings, count_classes
from bigmodel.data.custom_data import check_trained_classes, resolve_path, separate_parts, split_samples
from bigmodel.data.digest import DigestBuilder
from bigmodel.data.multimodal.reader import MultimodalReader, fit_media
from bigmodel.data.parts import MultimodalPart, Part
from bigmodel.data.tabular import report, several_targets
from bigmodel.data.tabular.column_options import column_option
from bigmodel.data.tabular.columns import NewCells, RowIndex
from bigmodel.data.tabular.config import MEDIA_OPTIONS, TASKS, TableConfig
from bigmodel.data.tabular.fitting import fit_columns
from bigmodel.data.tabular.missing_values import count_missing_words, unused_word_warning
from bigmodel.data.tabular.numeric import text_values
from bigmodel.data.tabular.reader import TableReader, TableSamples
from bigmodel.data.tabular.table_file import Table, check_column, get_column, name_list, read_table
from bigmodel.data.tabular.target import EncodedTarget, TargetColumn
from bigmodel.data.tabular.type_inference import InferredType, infer_type
from bigmodel.data.targets import TargetEncoder
from bigmodel.errors import ConfigError, DataError
from bigmodel.registry import data
from bigmodel.spec import DataSpec

Parts = dict[PartName, Part | MultimodalPart]


@data.register("table", TableConfig)
def table(config: TableConfig) -> Dataset:
    """A table of numbers, categories and dates, and the column to predict."""
    _refuse_hub_paths(config)
    table = read_table(resolve_path(config), "data.path", config.max_bad, config.encoding)
    table.missing, table.cache = config.missing or (), config.cache
    target = _read_target(config, table)
    reader, lines, warnings = fit_columns(config, table, target.columns, target.parts["train"])
    reader = fit_media(config, table, reader, target.parts["train"])
    digest = DigestBuilder().files(table.files)
    for part, rows in target.parts.items():
        digest.tensor(part, torch.from_numpy(rows))
    parts, encoded = _encode_parts(table, reader, target)
    new_cells = encoded.new_cells
    for word in encoded.digests:
        digest.word(word)
    reader, parts = _standardised(config, reader, parts)
    lines += encoded.header_rows
    header_rows = [*report.alias_line(_aliases(reader)), *warnings, *table.header_rows]
    for column, inferred in zip(target.columns, target.inferred, strict=True):
        if config.task == "auto" and column.name not in config.columns:
            texts = report.target_warnings(column, inferred)
            header_rows += [("Warning", _own_advice(config, column.name, text)) for text in texts]
    counts, words = table.missing_counts, table.missing
    header_rows += report.missing_lines(counts, reader.columns, target.columns, words)
    header_rows += unused_word_warning(words, counts, str(table.path))
    header_rows += report.invalid_cell_warnings(reader.columns, target.columns, new_cells, training=True)
    left_out = Counter(table.left_out)
    if len(target.rows) < table.num_rows:
        left_out["no target"] = table.num_rows - len(target.rows)
    for part in separate_parts(config, parts):
        key = f"{part}_path"
        other = read_table(resolve_path(config, key), f"data.{key}", config.max_bad, config.encoding)
        other.missing, other.cache = table.missing, table.cache
        digest.files(other.files)
        samples = reader.samples(other, with_targets=True)
        for word in samples.digests:
            digest.word(word)
        parts[part] = samples.part
        left_out.update(other.left_out)
        left_out.update(samples.left_out)
        header_rows += [*other.header_rows, *samples.header_rows]
        header_rows += report.new_cell_lines(reader.columns, target.columns, samples.new_cells, part)
    summaries, warnings = _target_rows(target.columns, parts)
    header_rows = [*lines, *summaries, *header_rows, *warnings]
    spec = DataSpec(config.name, reader.spec, several_targets.spec_of(target.columns))
    dataset = completed(spec, parts, config.learnt(spec.input))
    reader = reader.model_copy(update={"target_encoder": TargetEncoder.of(dataset.spec.target)})
    own = target.parts.get("val")
    return replace(
        dataset,
        reader=reader,
        header_rows=header_rows,
        left_out=dict(left_out),
        read=digest.read(exact="audio" not in config.media.values()),
        val_rows=None if own is None else torch.from_numpy(own),
    )


def _refuse_hub_paths(config: TableConfig) -> None:
    """Raises ConfigError for a path on the Hugging Face Hub: a run downloads nothing."""
    for key in ("path", "val_path", "test_path"):
        if (value := getattr(config, key) or "").startswith("hub:"):
            name = value.removeprefix("hub:")
            raise ConfigError(
                f"data.{key}=hub:{name}: a data set of the Hugging Face Hub must be downloaded first:"
                f" hf download --repo-type dataset {name} --local-dir {name}; then set data."
                f"{key}={name}/<file>."
            )


def _target_rows(
    columns: Sequence[TargetColumn], parts: Parts
) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    """Header rows that say what each target is, and warnings about their classes."""
    rows, warnings = [], []
    for index, column in enumerate(columns):
        counts = None
        if column.labels is not None:
            targets = (part.targets for part in parts.values())
            own = (_class_indices(each, index) for each in targets)
            counts = count_classes(own, len(column.labels))
            warnings += class_warnings(column.labels, counts)
        rows.append(("Target", report.target_summary(column, counts)))
    return rows, warnings


def _class_indices(targets: torch.Tensor, index: int) -> torch.Tensor:
    """The classes of one target, (rows,) int64, which may be the only one."""
    return targets if targets.ndim == 1 else targets[:, index].long()


class _Target(NamedTuple):
    """The target of a table, or several.

    Attributes:
        columns: the fitted column of each.
        inferred: the type of each, from all cells.
        each: the value of each in each row.
        encoded: of all together.
        rows: those with a value of each.
        parts: the rows of each part.
    """

    columns: list[TargetColumn]
    inferred: list[InferredType]
    each: list[EncodedTarget]
    encoded: EncodedTarget
    rows: RowIndex
    parts: dict[PartName, RowIndex]


def _read_target(config: TableConfig, table: Table) -> _Target:
    _check_columns(config, table)
    where = str(table.path)
    columns, inferred, each = [], [], []
    for name in config.targets:
        values = get_column(table, name, "data.target")
        inferred.append(infer_type(values))
        columns.append(_fit_target(config, name, values, where, inferred[-1]))
        each.append(columns[-1].encode(values, where))
        table.count_missing(name, count_missing_words(values, columns[-1].missing))
    encoded = several_targets.combined(each)
    rows = np.flatnonzero(encoded.filled)
    if not len(rows):
        raise DataError(f"{where}: no row has values of all of {name_list(config.targets)}.")
    targets = encoded.values[torch.from_numpy(rows)]
    classes = {i: column.labels for i, column in enumerate(columns) if column.labels is not None}
    first = next(iter(classes), None)
    places = split_samples(
        config,
        len(rows),
        labels=None if first is None else _class_indices(targets, first),
        groups=_column_values(table, config.group, "data.group", rows),
        assigned_parts=_column_values(table, config.split, "data.split", rows),
        named=lambda sample: f"row {rows[sample]}",
        class_names=() if first is None else classes[first],
    )
    for index, labels in classes.items():
        training = _class_indices(targets, index)[places["train"]]
        check_trained_classes(labels, training, where, "rows")
    parts = {part: rows[chosen.numpy()] for part, chosen in places.items()}
    return _Target(columns, inferred, each, encoded, rows, parts)


def _fit_target(
    config: TableConfig, name: str, values: Any, where: str, inferred: InferredType
) -> TargetColumn:
    """The target of a resumed run, or a new one."""
    before = config.learnt_reader(TableReader)
    for column in [] if before is None else before.targets:
        if column.name == name:
            return column
    form, default_missing = config.number_format_of(name), config.missing != []
    task = config.task_of(name)
    try:
        return TargetColumn.fit(
            name, values, task, where, form, default_missing=default_missing, inferred=inferred
        )
    except DataError as error:
        raise DataError(_own_advice(config, name, str(error))) from None


def _own_advice(config: TableConfig, name: str, text: str) -> str:
    """A text whose advice changes one target and not the others."""
    if len(config.targets) > 1 or name in config.columns:
        for kind, task in TASKS.items():
            text = text.replace(f"data.task={task}", column_option(name, kind))
    return text


def _check_columns(config: TableConfig, table: Table) -> None:
    """Checks all columns in the options."""
    if not config.targets:
        raise ConfigError(
            "data.target: name the column to predict, such as data.target="
            f"{table.column_names[-1]}. {table.path} has {name_list(table.column_names)}."
        )
    for key, names in (("data.columns", config.columns), ("data.ignore", config.ignore)):
        for column in names:
            check_column(table, column, key)
    for name in config.targets:
        if config.targets.count(name) > 1:
            raise ConfigError(f"data.target: names {name} twice.")
        if name in config.ignore or config.columns.get(name) == "ignore":
            raise ConfigError(f"data.target={name}: the target is also in data.ignore.")
        kind = config.columns.get(name, "number")
        if kind not in [*TASKS] and config.number_format_of(name) is None:
            raise ConfigError(
                f"data.columns.{name}={kind}: a target is a number or a category. Set one of these, or"
                " leave it out."
            )
        if len(config.targets) == 1 and config.task not in ("auto", config.task_of(name)):
            raise ConfigError(
                f"data.columns.{name}={kind}: data.task={config.task} says otherwise. Leave one out."
            )
    _refuse_media_options(config)


def _refuse_media_options(config: TableConfig) -> None:
    """Raises ConfigError if an option is set for a kind of column that there is none of."""
    for key, kind in MEDIA_OPTIONS.items():
        value = getattr(config, key)
        if value != TableConfig.model_fields[key].default and kind not in config.media.values():
            raise ConfigError(
                f"data.{key}={value}: no column is of kind {kind}. Set data.columns.<column>={kind}, or"
                f" leave data.{key} out."
            )


def _column_values(table: Table, name: str | None, key: str, rows: RowIndex) -> Any:
    """The values in some rows of an option's column; None: the option is not set."""
    return None if name is None else text_values(get_column(table, name, key)).take(rows).to_pylist()


def _encode_parts(table: Table, reader: TableReader, target: _Target) -> tuple[Parts, TableSamples]:
    """The parts, and what was found in all of their rows."""
    # All parts share their tensors, one after another, so that nothing is in memory twice.
    order = np.concatenate(list(target.parts.values()))
    encoded = reader.encode(table, target.encoded.values[torch.from_numpy(order)], order)
    for column, each in zip(target.columns, target.each, strict=True):
        encoded.new_cells[column.name] = NewCells(invalid=each.invalid)
    parts = encoded.part.split([len(rows) for rows in target.parts.values()])
    return dict(zip(target.parts, parts, strict=True)), encoded


def _standardised(config: TableConfig, reader: TableReader, parts: Parts) -> tuple[TableReader, Parts]:
    """The reader and the parts, their pictures and recordings standardised by the training set."""
    training = parts["train"]
    if not (isinstance(reader, MultimodalReader) and isinstance(training, MultimodalPart)):
        return reader, parts
    if config.normalize and config.learnt_reader(MultimodalReader) is None:
        reader = reader.with_statistics(training)
    scaling = reader.scaling
    return reader, {
        name: replace(part, scaling=scaling) if isinstance(part, MultimodalPart) else part
        for name, part in parts.items()
    }


def _aliases(reader: TableReader) -> dict[str, dict[str, str]]:
    """Other spellings in the training set, by column, the target last."""
    categories = {column.name: column.aliases for column in reader.columns if column.kind == "category"}
    return {**categories, **{target.name: target.aliases for target in reader.targets}}
