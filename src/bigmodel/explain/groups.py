"""The parts of a table's row as a person knows them: a column, however many model inputs it became."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from bigmodel.data.preprocessing import Preprocessing
from bigmodel.data.tabular.reader import TableReader
from bigmodel.spec import Features


@dataclass(frozen=True)
class Columns:
    """The user's columns.

    Attributes:
        names: of each.
        of: the column of each model input, (inputs,) int64.
    """

    names: tuple[str, ...]
    of: Tensor

    @classmethod
    def from_preprocessing(cls, preprocessing: Preprocessing) -> Columns:
        """The columns of a run on a table, or the features of one on arrays."""
        kind, reader = preprocessing.spec.input, preprocessing.reader
        assert isinstance(kind, Features)
        if isinstance(reader, TableReader):
            sizes = [len(fitted.outputs) for fitted in reader.columns]
            names = tuple(fitted.name for fitted in reader.columns)
            return cls(names, torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes)))
        names = kind.names or tuple(f"feature {n}" for n in range(kind.count))
        return cls(names, torch.arange(kind.count))

    def __len__(self) -> int:
        return len(self.names)

    def sum(self, values: Tensor) -> Tensor:
        """Numbers of model inputs, added up: (samples, inputs) → (samples, columns)."""
        return values.new_zeros(len(values), len(self)).index_add(1, self.of.to(values.device), values)

    def inputs(self, column: int) -> Tensor:
        """The model inputs of a column, (count,) int64."""
        return (self.of == column).nonzero()[:, 0]
