"""What an input is compared with: one that says as little as possible."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from bigmodel.data.preprocessing import Preprocessing
from bigmodel.data.tabular.columns import CategoryColumn, FittedColumn, NumberColumn
from bigmodel.data.tabular.reader import TableReader
from bigmodel.spec import Features, Image, Input


@dataclass(frozen=True)
class Baseline:
    """A model input, (1, *shape), and what it is."""

    inputs: Tensor
    words: str


def baseline_of(preprocessing: Preprocessing) -> Baseline:
    """The baseline of real inputs: as far as it is known, the mean of the training set.

    Standardised numbers have the mean 0. Of categories it is the most frequent one, and no value counts
    as missing. Where numbers are not standardised (`data.normalize=false`) it is a column's median, and
    otherwise 0: black of a picture, silence of a recording.
    """
    kind, reader = preprocessing.spec.input, preprocessing.reader
    zeros = torch.zeros(1, *kind.shape)
    if isinstance(reader, TableReader):
        values = [value for fitted in reader.columns for value in _of_column(fitted)]
        return Baseline(torch.tensor([values]), _words_of_table(reader))
    if isinstance(kind, Features) and any(kind.categories):
        return Baseline(zeros, "0, and of categories one that training never saw")
    return Baseline(zeros, _words(kind, preprocessing))


def _of_column(fitted: FittedColumn) -> list[float]:
    if isinstance(fitted, CategoryColumn):
        return [1.0]  # they are encoded from 1, the most frequent first
    scales = [fitted.scale] if isinstance(fitted, NumberColumn) else fitted.parts.values()
    centres = [0.0 if (each.mean, each.std) != (0.0, 1.0) else each.fill for each in scales]
    return [*centres, 0.0][: len(fitted.outputs)]


def _words_of_table(reader: TableReader) -> str:
    numbers = any(not isinstance(fitted, CategoryColumn) for fitted in reader.columns)
    categories = any(isinstance(fitted, CategoryColumn) for fitted in reader.columns)
    parts = ["the mean of each number"] * numbers + ["the most frequent of each category"] * categories
    return " and ".join(parts) + " in training"


def _words(kind: Input, preprocessing: Preprocessing) -> str:
    known = preprocessing.mean is not None or getattr(preprocessing.reader, "mean", None) is not None
    if known:
        return "the mean of training"
    return "black" if isinstance(kind, Image) else "0"
