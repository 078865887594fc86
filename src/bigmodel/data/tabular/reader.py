"""Reads rows of a table as its source has learnt to: the same way for training and for predictions."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from bigmodel.data.parts import Part
from bigmodel.data.reader import NewSamples, Reader, reads
from bigmodel.data.tabular.columns import DateColumn, FittedColumn, MeasuredColumn, NewCells, RowIndex
from bigmodel.data.tabular.report import new_cell_lines, too_many_invalid
from bigmodel.data.tabular.table_file import Table, name_list, read_table
from bigmodel.data.tabular.target import TargetColumn
from bigmodel.data.targets import TargetEncoder
from bigmodel.errors import DataError, did_you_mean
from bigmodel.spec import Features

_CHUNK_ROWS = 1 << 16  # rows


class TableSamples(NamedTuple):
    """Rows of a table as samples.

    Attributes:
        part: the samples.
        kept: the rows that they come from; None: all, in their order.
        left_out: how many were left out, by reason.
        new_cells: what training has not seen, by column; of the target too, where answers were read.
    """

    part: Part
    kept: RowIndex | None
    left_out: dict[str, int]
    new_cells: dict[str, NewCells]


@reads("table")
class TableReader(Reader):
    """What a table's training part told.

    Attributes:
        columns: those that a model reads, in the order of its inputs.
        target: the one that is asked for.
        target_encoder: what scores its values as those of training were.
        missing: words that stand for a missing value, that the user names.
        encoding: of text files.
    """

    columns: list[FittedColumn]
    target: TargetColumn
    target_encoder: TargetEncoder = TargetEncoder()
    missing: list[str] = Field([])
    encoding: str = "utf-8"

    @property
    def spec(self) -> Features:
        """The inputs: what each column became, one after another."""
        outputs = [output for fitted in self.columns for output in fitted.outputs]
        sizes = tuple(size for _, size in outputs)
        return Features(len(outputs), tuple(name for name, _ in outputs), sizes if any(sizes) else ())

    def read(self, path: Path, *, with_targets: bool, max_bad: int = 0) -> NewSamples:
        """See `Reader.read`. Columns that were not learnt from are left alone."""
        table = read_table(path, "path", max_bad, self.encoding)
        table.missing = self.missing
        samples = self.samples(table, with_targets)
        columns = {name: table.raw_column(name) for name in table.column_names}
        if samples.kept is not None:
            columns = {name: values.take(samples.kept) for name, values in columns.items()}
        part = Part(samples.part.inputs, self.target_encoder.scored(samples.part.targets))
        header_rows = [*table.header_rows, *new_cell_lines(self.columns, self.target, samples.new_cells)]
        return NewSamples(part, columns, table.left_out | samples.left_out, header_rows)

    def samples(self, table: Table, with_targets: bool) -> TableSamples:
        """The rows of a table as samples, real values in their own unit; rows without an answer are left
        out where answers are read."""
        inputs, new_cells = self.inputs(table)
        if not with_targets:
            return TableSamples(Part(inputs, self.target.nothing(table.num_rows)), None, {}, new_cells)
        if self.target.name not in table:
            raise DataError(
                f"{table.path}: there is no column '{self.target.name}', which holds the answers."
                f"{did_you_mean(self.target.name, table.column_names)}"
            )
        encoded = table.column(self.target.name)
        targets, filled, invalid = self.target.encode(encoded, str(table.path))
        if not filled.any():
            missing = self.target.missing_told(encoded)
            raise DataError(
                f"{table.path}: column '{self.target.name}', the target, has no values in its"
                f" {table.num_rows:,} rows{missing}, so there is nothing to evaluate on."
            )
        new_cells[self.target.name] = NewCells(invalid=invalid)
        part = Part(inputs, targets)
        if filled.all():
            return TableSamples(part, None, {}, new_cells)
        kept = np.flatnonzero(filled)
        left_out = {"no target": table.num_rows - len(kept)}
        return TableSamples(part.select(torch.from_numpy(kept)), kept, left_out, new_cells)

    def inputs(self, table: Table, order: RowIndex | None = None) -> tuple[Tensor, dict[str, NewCells]]:
        """The rows of a table as a model reads them, (rows, count) float32, and what is new in them.

        Args:
            table: the rows.
            order: which of them, in which order; None: all, as they stand.

        Raises:
            DataError: a column is missing, or holds what it did not hold in training.
        """
        rows = table.num_rows if order is None else len(order)
        out = np.empty((rows, self.spec.count), np.float32)
        new_cells, start = {}, 0
        for fitted in self.columns:
            if fitted.name not in table:
                raise DataError(
                    f"{table.path}: there is no column '{fitted.name}', which the run was trained on."
                    f"{did_you_mean(fitted.name, table.column_names)} It reads"
                    f" {name_list(known.name for known in self.columns)}."
                )
            stop = start + len(fitted.outputs)
            values = np.empty((table.num_rows, stop - start), np.float32)
            column = table.column(fitted.name)
            new_cells[fitted.name] = _encode_column(fitted, column, values, str(table.path))
            out[:, start:stop] = values if order is None else values[order]
            start = stop
        return torch.from_numpy(out), new_cells


def _encode_column(fitted: FittedColumn, column: Any, out: NDArray[np.float32], where: str) -> NewCells:
    """A column, a stretch of rows at a time: little is in memory more than once."""
    new_cells = NewCells()
    for first in range(0, len(column), _CHUNK_ROWS):
        stretch = slice(first, first + _CHUNK_ROWS)
        new_cells += fitted.encode(column.slice(first, _CHUNK_ROWS), out[stretch], first)
    invalid = new_cells.invalid
    if isinstance(fitted, MeasuredColumn) and not invalid.are_few(fitted.max_invalid):
        name, holds, noun, limit = fitted.name, fitted.described, fitted.noun, fitted.max_invalid
        other = fitted.other if isinstance(fitted, DateColumn) else ""
        raise DataError(f"{where}: {too_many_invalid(name, holds, invalid, noun, limit, other)}")
    return new_cells
