"""The user's own table, one sample per row: the type of each column is inferred and reported.

Columns are fitted to the training set alone: the values that replace missing ones, mean and deviation,
categories. Only the type of a column, such as numbers, dates or words, is inferred from all rows.
"""

from __future__ import annotations

from collections import Counter
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
from bigmodel.data.tabular import report
from bigmodel.data.tabular.columns import NewCells, RowIndex
from bigmodel.data.tabular.config import TableConfig
from bigmodel.data.tabular.fitting import fit_columns
from bigmodel.data.tabular.missing_values import count_missing_words, unused_word_warning
from bigmodel.data.tabular.numeric import text_values
from bigmodel.data.tabular.reader import TableReader, TableSamples
from bigmodel.data.tabular.table_file import Table, check_column, get_column, name_list, read_table
from bigmodel.data.tabular.target import EncodedTarget, TargetColumn
from bigmodel.data.tabular.type_inference import InferredType, infer_type
from bigmodel.data.targets import TargetEncoder
from bigmodel.errors import ConfigError
from bigmodel.registry import data
from bigmodel.spec import DataSpec


@data.register("table", TableConfig)
def table(config: TableConfig) -> Dataset:
    """A table of numbers, categories and dates, and the column to predict."""
    _refuse_hub_paths(config)
    table = read_table(resolve_path(config), "data.path", config.max_bad, config.encoding)
    table.missing, table.cache = config.missing or (), config.cache
    target = _read_target(config, table)
    reader, lines, warnings = fit_columns(config, table, target.column, target.parts["train"])
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
    if config.task == "auto" and target.column.name not in config.columns:
        texts = report.target_warnings(target.column, target.inferred)
        header_rows += [("Warning", text) for text in texts]
    counts, words = table.missing_counts, table.missing
    header_rows += report.missing_lines(counts, reader.columns, target.column, words)
    header_rows += unused_word_warning(words, counts, str(table.path))
    header_rows += report.invalid_cell_warnings(reader.columns, target.column, new_cells, training=True)
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
        header_rows += report.new_cell_lines(reader.columns, target.column, samples.new_cells, part)
    labels, class_counts = target.column.labels, None
    if labels is not None:
        class_counts = count_classes((part.targets for part in parts.values()), len(labels))
    lines.append(("Target", report.target_summary(target.column, class_counts)))
    header_rows = [*lines, *header_rows, *class_warnings(labels or (), class_counts or ())]
    spec = DataSpec(config.name, reader.spec, target.column.spec)
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


class _Target(NamedTuple):
    """The target of a table.

    Attributes:
        column: its fitted column.
        inferred: its type, from all cells.
        encoded: its value in each row.
        rows: those with a value.
        parts: the rows of each part.
    """

    column: TargetColumn
    inferred: InferredType
    encoded: EncodedTarget
    rows: RowIndex
    parts: dict[PartName, RowIndex]


def _read_target(config: TableConfig, table: Table) -> _Target:
    name = _target_name(config, table)
    values, where = get_column(table, name, "data.target"), str(table.path)
    inferred = infer_type(values)
    before = config.learnt_reader(TableReader)
    if before is not None and before.target.name == name:
        column = before.target
    else:
        form, default_missing = config.number_format_of(name), config.missing != []
        column = TargetColumn.fit(
            name, values, config.task, where, form, default_missing=default_missing, inferred=inferred
        )
    encoded = column.encode(values, where)
    table.count_missing(name, count_missing_words(values, column.missing))
    rows = np.flatnonzero(encoded.filled)
    targets = encoded.values[torch.from_numpy(rows)]
    places = split_samples(
        config,
        len(rows),
        labels=None if column.labels is None else targets,
        groups=_column_values(table, config.group, "data.group", rows),
        assigned_parts=_column_values(table, config.split, "data.split", rows),
        named=lambda sample: f"row {rows[sample]}",
        class_names=column.labels or (),
    )
    if column.labels is not None:
        check_trained_classes(column.labels, targets[places["train"]], where, "rows")
    parts = {part: rows[chosen.numpy()] for part, chosen in places.items()}
    return _Target(column, inferred, encoded, rows, parts)


def _target_name(config: TableConfig, table: Table) -> str:
    """The target's name, after all columns in the options have been checked."""
    name = config.target
    if name is None:
        raise ConfigError(
            "data.target: name the column to predict, such as data.target="
            f"{table.column_names[-1]}. {table.path} has {name_list(table.column_names)}."
        )
    for key, names in (("data.columns", config.columns), ("data.ignore", config.ignore)):
        for column in names:
            check_column(table, column, key)
    if name in config.ignore or config.columns.get(name) == "ignore":
        raise ConfigError(f"data.target={name}: the target is also in data.ignore.")
    if name in config.columns and config.number_format_of(name) is None:
        raise ConfigError(
            f"data.columns.{name}: this is the target; data.task sets its kind: classes or values."
        )
    return name


def _column_values(table: Table, name: str | None, key: str, rows: RowIndex) -> Any:
    """The values in some rows of an option's column; None: the option is not set."""
    return None if name is None else text_values(get_column(table, name, key)).take(rows).to_pylist()


Parts = dict[PartName, Part | MultimodalPart]


def _encode_parts(table: Table, reader: TableReader, target: _Target) -> tuple[Parts, TableSamples]:
    """The parts, and what was found in all of their rows."""
    # All parts share their tensors, one after another, so that nothing is in memory twice.
    order = np.concatenate(list(target.parts.values()))
    encoded = reader.encode(table, target.encoded.values[torch.from_numpy(order)], order)
    encoded.new_cells[target.column.name] = NewCells(invalid=target.encoded.invalid)
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
    return {**categories, reader.target.name: reader.target.aliases}
