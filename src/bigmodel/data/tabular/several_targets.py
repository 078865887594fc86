"""One target of a table or several: what they are together, and the targets of rows."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from bigmodel.data.tabular.target import EncodedTarget, TargetColumn
from bigmodel.spec import Classes, Multitask, Values


def spec_of(columns: Sequence[TargetColumn]) -> Classes | Values | Multitask:
    """What a model is to predict; several values are of one kind."""
    parts = tuple(column.spec for column in columns)
    names = tuple(column.name for column in columns)
    if len(parts) == 1:
        return parts[0]
    if all(isinstance(part, Values) for part in parts):
        return Values(names, mean=(), std=())
    return Multitask(names, parts)


def combined(encoded: Sequence[EncodedTarget]) -> EncodedTarget:
    """The targets of rows, side by side, and which rows have all of them."""
    if len(encoded) == 1:
        return encoded[0]
    filled = np.logical_and.reduce([each.filled for each in encoded])
    return EncodedTarget(_side_by_side([each.values for each in encoded]), filled)


def blank(columns: Sequence[TargetColumn], rows: int) -> Tensor:
    """Targets of rows whose answers are unknown."""
    return _side_by_side([column.blank(rows) for column in columns])


def _side_by_side(values: Sequence[Tensor]) -> Tensor:
    if len(values) == 1:
        return values[0]
    return torch.cat([each.double().reshape(len(each), 1) for each in values], dim=1)
