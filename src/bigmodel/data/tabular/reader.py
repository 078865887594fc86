"""Reads rows of a table as samples, in the same way for training and for new files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from bigmodel.data.parts import MultimodalPart, Part
from bigmodel.data.reader import NewSamples, Reader, reads
from bigmodel.data.tabular import several_targets
from bigmodel.data.tabular.columns import CategoryColumn, DateColumn, FittedColumn, NewCells, RowIndex
from bigmodel.data.tabular.report import new_cell_lines, too_many_invalid
from bigmodel.data.tabular.table_file import Table, name_list, read_table, table_in_memory
from bigmodel.data.tabular.target import EncodedTarget, TargetColumn
from bigmodel.data.targets import TargetEncoder
from bigmodel.errors import DataError, did_you_mean
from bigmodel.spec import Features, Input

_CHUNK_ROWS = 1 << 16  # that are encoded at once
_CACHED_ROWS = 1 << 10
_TOGETHER = 8  # columns in memory at once, in float32


class TableSamples(NamedTuple):
    """Rows of a table as samples.

    Attributes:
        part: the samples, real values of their targets in their own unit.
        new_cells: cells unlike those of training, by column; of the target too if it was read.
        kept: the rows that they come from; None: all that were asked for, in that order.
        left_out: how many were left out, by reason.
        header_rows: about the files that cells name.
        digests: of those files.
    """

    part: Part | MultimodalPart
    new_cells: dict[str, NewCells]
    kept: RowIndex | None = None
    left_out: Mapping[str, int] = MappingProxyType({})
    header_rows: Sequence[tuple[str, str]] = ()
    digests: Sequence[str] = ()


@reads("table")
class TableReader(Reader):
    """Reads tables with the columns of the training set.

    Attributes:
        columns: the input columns, in the order of the model's inputs.
        target, more_targets: the columns to predict.
        target_encoder: scales its values as in training.
        missing: the user's words for missing values.
        encoding: of text files.
    """

    columns: list[FittedColumn]
    target: TargetColumn
    more_targets: list[TargetColumn] = Field([])
    target_encoder: TargetEncoder = TargetEncoder()
    missing: list[str] = Field([])
    encoding: str = "utf-8"

    @property
    def targets(self) -> list[TargetColumn]:
        """The columns to predict."""
        return [self.target, *self.more_targets]

    @property
    def spec(self) -> Input:
        """The inputs that a model reads."""
        return self.features

    @property
    def features(self) -> Features:
        """The outputs of each column, one after another."""
        outputs = [output for fitted in self.columns for output in fitted.outputs]
        sizes = tuple(size for _, size in outputs)
        return Features(len(outputs), tuple(name for name, _ in outputs), sizes if any(sizes) else ())

    def read(self, path: Path, *, with_targets: bool, max_bad: int = 0) -> NewSamples:
        """See `Reader.read`. Columns that are not inputs are ignored."""
        return self._new_samples(read_table(path, "path", max_bad, self.encoding), with_targets)

    def read_table(self, table: Any, *, with_targets: bool) -> NewSamples:
        """See `Reader.read_table`. With targets, rows without one are left out."""
        return self._new_samples(table_in_memory(table), with_targets)

    def _new_samples(self, table: Table, with_targets: bool) -> NewSamples:
        table.missing = self.missing
        samples = self.samples(table, with_targets)
        columns = {name: table.raw_column(name) for name in table.column_names}
        if samples.kept is not None:
            columns = {name: values.take(samples.kept) for name, values in columns.items()}
        part = replace(samples.part, targets=self.target_encoder.scale(samples.part.targets))
        cell_lines = new_cell_lines(self.columns, self.targets, samples.new_cells)
        header_rows = [*table.header_rows, *samples.header_rows, *cell_lines]
        return NewSamples(part, columns, table.left_out | dict(samples.left_out), header_rows)

    def samples(self, table: Table, with_targets: bool) -> TableSamples:
        """The rows of a table as samples, real values in their own unit.

        Args:
            table: the rows.
            with_targets: read the targets too, and leave out rows without one.

        Raises:
            DataError: see `encode`; or a target is needed, and the table has none.
        """
        if not with_targets:
            return self.encode(table, several_targets.blank(self.targets, table.num_rows))
        encoded = [self._encoded_target(target, table) for target in self.targets]
        targets, filled, _ = several_targets.combined(encoded)
        if not filled.any():
            names = name_list(target.name for target in self.targets)
            raise DataError(
                f"{table.path}: no row has values of all of {names}, so there is nothing to evaluate on."
            )
        samples = self.encode(table, targets)
        for target, each in zip(self.targets, encoded, strict=True):
            samples.new_cells[target.name] = NewCells(invalid=each.invalid)
        if filled.all():
            return samples
        kept = np.flatnonzero(filled)
        part, left_out = samples.part.select(torch.from_numpy(kept)), table.num_rows - len(kept)
        return samples._replace(part=part, kept=kept, left_out={"no target": left_out})

    def _encoded_target(self, target: TargetColumn, table: Table) -> EncodedTarget:
        if target.name not in table:
            raise DataError(
                f"{table.path}: there is no column '{target.name}', which holds the answers."
                f"{did_you_mean(target.name, table.column_names)}"
            )
        cells = table.column(target.name)
        encoded = target.encode(cells, str(table.path))
        if not encoded.filled.any():
            raise DataError(
                f"{table.path}: column '{target.name}', the target, has no values in its"
                f" {table.num_rows:,} rows{target.missing_summary(cells)}, so there is nothing to"
                " evaluate on."
            )
        return encoded

    def encode(self, table: Table, targets: Tensor, order: RowIndex | None = None) -> TableSamples:
        """The rows of a table with targets that are known.

        Args:
            table: the rows.
            targets: as a part stores them, in the order of the samples.
            order: indices of the rows to read, in that order; None: all.

        Raises:
            DataError: a column is missing, or too many of its cells are invalid.
        """
        inputs, new_cells = self.inputs(table, order)
        return TableSamples(Part(inputs, targets), new_cells)

    def cells(self, inputs: Tensor) -> dict[str, str]:
        """A sample in the table's own terms: the text of each cell, by column, as a model reads it.

        Missing numbers are shown as missing if training had any, else as what they were filled with.

        Args:
            inputs: of one sample, (count,).
        """
        shown: dict[str, str] = {}
        values = inputs.tolist()
        for fitted in self.columns:
            size = len(fitted.outputs)
            shown |= fitted.cells(values[:size])
            values = values[size:]
        return shown

    def inputs(self, table: Table, order: RowIndex | None = None) -> tuple[Tensor, dict[str, NewCells]]:
        """The rows of a table as inputs, (rows, count) float32, and cells unlike those of training.

        For arguments and errors see `encode`.
        """
        rows = table.num_rows if order is None else len(order)
        out = np.empty((rows, self.features.count), np.float32)
        new_cells, encoded, start = {}, list[NDArray[np.float32]](), 0
        for fitted in self.columns:
            column = self.column(table, fitted.name)
            values = np.empty((table.num_rows, len(fitted.outputs)), np.float32)
            new_cells[fitted.name] = _encode_column(fitted, column, values, str(table.path))
            encoded.append(values if order is None else values[order])
            if len(encoded) == _TOGETHER or fitted is self.columns[-1]:
                start = _write_columns(encoded, out, start)
                encoded = []
        return torch.from_numpy(out), new_cells

    def column(self, table: Table, name: str) -> Any:
        """One column; see `Table.column`.

        Raises:
            DataError: the table has none of that name.
        """
        if name not in table:
            raise DataError(
                f"{table.path}: there is no column '{name}', which the run was trained on."
                f"{did_you_mean(name, table.column_names)} It reads {name_list(self.column_names)}."
            )
        return table.column(name)

    @property
    def column_names(self) -> list[str]:
        """Those of the columns that it reads."""
        return [column.name for column in self.columns]


def _write_columns(encoded: list[NDArray[np.float32]], out: NDArray[np.float32], start: int) -> int:
    """Writes columns side by side into `out`, from `start`; where the next ones begin.

    A few rows at a time stay in the processor's cache; one column after another, each number takes the
    place of its neighbours there.
    """
    stop: int = start + sum(values.shape[1] for values in encoded)
    for first in range(0, len(out), _CACHED_ROWS):
        rows = slice(first, first + _CACHED_ROWS)
        np.concatenate([values[rows] for values in encoded], axis=1, out=out[rows, start:stop])
    return stop


def _encode_column(fitted: FittedColumn, column: Any, out: NDArray[np.float32], where: str) -> NewCells:
    """Encodes a column chunk by chunk, so that little of it is in memory twice."""
    new_cells = NewCells()
    for first in range(0, len(column), _CHUNK_ROWS):
        chunk = out[first : first + _CHUNK_ROWS]
        new_cells += fitted.encode(column.slice(first, _CHUNK_ROWS), chunk, first)
    if not isinstance(fitted, CategoryColumn) and not new_cells.invalid.are_few(fitted.max_invalid):
        holds, noun, limit = fitted.described, fitted.noun, fitted.max_invalid
        other = fitted.other if isinstance(fitted, DateColumn) else ""
        message = too_many_invalid(fitted.name, holds, new_cells.invalid, noun, limit, other)
        raise DataError(f"{where}: {message}")
    return new_cells
