"""The parts of a table's row as a person knows them: a column, however many model inputs it became."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from bigmodel.data.preprocessing import Preprocessing
from bigmodel.data.tabular.columns import CategoryColumn, FittedColumn, MeasuredColumn, NumberColumn
from bigmodel.data.tabular.reader import TableReader
from bigmodel.spec import Features


@dataclass(frozen=True)
class Columns:
    """The user's columns.

    Attributes:
        names: of each.
        of: the column of each model input, (inputs,) int64.
        categories: whether each holds categories.
        fitted: as the run has learnt them; empty for features of arrays.
        scale: of features of arrays: what turns a model input into its own unit, mean and deviation.
    """

    names: tuple[str, ...]
    of: Tensor
    categories: tuple[bool, ...]
    fitted: tuple[FittedColumn, ...] = ()
    scale: tuple[Sequence[float], Sequence[float]] | None = None

    @classmethod
    def from_preprocessing(cls, preprocessing: Preprocessing) -> Columns:
        """The columns of a run on a table, or the features of one on arrays."""
        kind, reader = preprocessing.spec.input, preprocessing.reader
        assert isinstance(kind, Features)
        if isinstance(reader, TableReader):
            fitted = tuple(reader.columns)
            sizes = torch.tensor([len(column.outputs) for column in fitted])
            of = torch.arange(len(fitted)).repeat_interleave(sizes)
            categories = tuple(isinstance(column, CategoryColumn) for column in fitted)
            return cls(tuple(column.name for column in fitted), of, categories, fitted)
        names = kind.names or tuple(f"feature {n}" for n in range(kind.count))
        categories = tuple(size > 0 for size in kind.categories) or (False,) * kind.count
        mean, std = getattr(reader, "mean", None), getattr(reader, "std", None)
        scale = None if mean is None or std is None else (mean, std)
        return cls(names, torch.arange(kind.count), categories, scale=scale)

    def __len__(self) -> int:
        return len(self.names)

    def sum(self, values: Tensor) -> Tensor:
        """Numbers of model inputs, added up: (samples, inputs) → (samples, columns)."""
        return values.new_zeros(len(values), len(self)).index_add(1, self.of.to(values.device), values)

    def inputs(self, column: int) -> Tensor:
        """The model inputs of a column, (count,) int64."""
        return (self.of == column).nonzero()[:, 0]

    def known(self, column: int, values: Tensor) -> Tensor:
        """Which values of a column are not missing, (values,) bool.

        Args:
            values: its model inputs, (values, count).
        """
        fitted = self.fitted[column] if self.fitted else None
        if isinstance(fitted, MeasuredColumn) and fitted.flag:
            return values[:, -1] == 0
        return torch.ones(len(values), dtype=torch.bool, device=values.device)

    def words(self, column: int, values: Tensor) -> tuple[str, ...]:
        """Values of a column as a person reads them.

        Args:
            values: its model inputs, (values, count).
        """
        if self.fitted:
            return tuple(_words(self.fitted[column], value) for value in values.tolist())
        numbers = values[:, 0].double()
        if self.scale is not None and not self.categories[column]:
            numbers = numbers * self.scale[1][column] + self.scale[0][column]
        return tuple(f"{number:.6g}" for number in numbers.tolist())

    def numbers(self, column: int, values: Tensor) -> tuple[float, ...]:
        """The same as numbers; empty if they are none."""
        if self.categories[column] or (
            self.fitted and not isinstance(self.fitted[column], NumberColumn)
        ):
            return ()
        return tuple(map(float, self.words(column, values)))


def _words(fitted: FittedColumn, values: Sequence[float]) -> str:
    cells = fitted.cells(values)
    if len(cells) == 1 and fitted.name in cells:
        return cells[fitted.name]
    parts = {
        name.removeprefix(f"{fitted.name} (").removesuffix(")"): cell for name, cell in cells.items()
    }
    if {"year", "month", "day"} <= parts.keys():
        year, month, day = (round(float(parts.pop(part))) for part in ("year", "month", "day"))
        parts.pop("weekday", None)
        parts = {"": f"{year:04}-{month:02}-{day:02}", **parts}
    return ", ".join(f"{part} {cell}".strip() for part, cell in parts.items())
