"""Predictions and targets as columns of a table."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bigmodel.metrics import defined
from bigmodel.metrics.calibration import Calibration
from bigmodel.metrics.conformal import class_sets, intervals
from bigmodel.metrics.multitask import split_outputs, split_targets
from bigmodel.metrics.temperature import scale
from bigmodel.metrics.threshold import move
from bigmodel.spec import Classes, Flags, Multitask, Target, Values

_DIGITS = 7  # that a float32 holds


@dataclass(frozen=True)
class Sureness:
    """What is told of how sure predictions are.

    Attributes:
        calibration: of the model, with its weights.
        calibrated: whether probabilities are.
        level: the probability with which intervals or sets hold the truth; None: there are none.
    """

    calibration: Calibration
    calibrated: bool = False
    level: float | None = None

    @property
    def temperatures(self) -> list[float] | None:
        """Those that probabilities are scaled by; None: they are as the model gives them."""
        return self.calibration.temperatures if self.calibrated else None


def predictions(
    outputs: Tensor,
    target: Target,
    *,
    probabilities: bool,
    cuts: Sequence[float] | None = None,
    sureness: Sureness | None = None,
) -> dict[str, Any]:
    """The predictions as columns by name.

    For classes: `prediction`, the likeliest label, and its `probability`; of two classes the second if
    it passes its threshold; and the `set` of those that may be true. For yes/no labels: one column each,
    1 if the label is predicted. For values: `prediction` in its own unit, or one column each under its
    own name, and the `lower` and `upper` end of its interval. Of several targets: one column each under
    its own name, and the probability of a class. Undefined predictions are null.

    Args:
        outputs: (samples, output_size), raw.
        probabilities: add `probability of NAME` for each class or label.
        cuts: decision thresholds, as `metrics.threshold` has them; None: 0.5.
        sureness: how sure they are, if it is told.
    """
    if isinstance(target, Multitask):
        return _of_several(outputs, target, probabilities)
    import pyarrow as pa

    temperatures = None if sureness is None else sureness.temperatures
    known = defined(outputs, target)
    numbers = decode_outputs(scale(outputs, temperatures), target)
    unknown = ~known.numpy()
    numbers[~known] = math.nan  # written as null
    if isinstance(target, Values):
        names = target.names if target.count > 1 else ("prediction",)
        columns = _value_columns(names, numbers, target)
        if sureness is None or sureness.level is None:
            return columns
        return _with_intervals(columns, outputs, target, sureness.calibration, sureness.level)
    assert isinstance(target, Classes | Flags)
    each = {f"probability of {name}": p.numpy() for name, p in zip(target.names, numbers.T, strict=True)}
    if isinstance(target, Flags):
        predicted: dict[str, Any] = {
            name: pa.array(column.numpy().astype(np.int8), mask=unknown)
            for name, column in zip(target.names, move(outputs, cuts, target).T > 0, strict=True)
        }
    else:
        likeliest = move(outputs, cuts, target).argmax(1)
        places = pa.array(likeliest.numpy(), mask=unknown)
        labels = pa.array(list(target.names), pa.string()).take(places)
        predicted = {
            "prediction": labels,
            "probability": numbers.gather(1, likeliest[:, None])[:, 0].numpy(),
        }
        if sureness is not None and sureness.level is not None:
            scores = sureness.calibration.scores
            members = class_sets(outputs, likeliest, scores, sureness.level)
            predicted["set"] = _name_lists(members, outputs, target.names, unknown)
    return predicted | (each if probabilities else {})


def _of_several(outputs: Tensor, target: Multitask, probabilities: bool) -> dict[str, Any]:
    """The predictions of several targets, each under its name, which all else of it begins with."""
    found: dict[str, Any] = {}
    each = zip(target.names, target.parts, split_outputs(outputs, target), strict=True)
    for name, part, of_part in each:
        own = predictions(of_part, part, probabilities=probabilities)
        found[name] = own.pop("prediction")
        found |= {f"{name} {key}": values for key, values in own.items()}
    return found


def _with_intervals(
    columns: Mapping[str, Any],
    outputs: Tensor,
    target: Values,
    calibration: Calibration,
    level: float,
) -> dict[str, Any]:
    """Columns of values, each followed by the lower and the upper end of its interval."""
    ends = intervals(outputs, calibration.predicted, calibration.scores, level)
    unknown = ~defined(outputs, target)
    lower, upper = (
        decode_outputs(end, target).index_fill_(0, unknown.nonzero()[:, 0], math.nan) for end in ends
    )
    found: dict[str, Any] = {}
    for index, (name, values) in enumerate(columns.items()):
        found[name] = values
        prefix = f"{name} " if target.count > 1 else ""
        for word, end in (("lower", lower), ("upper", upper)):
            rounded = np.round(end[:, index].numpy(), _decimals(target.std[index]))
            found[unused_name(f"{prefix}{word}", columns)] = rounded
    return found


def _name_lists(members: Tensor, outputs: Tensor, names: Sequence[str], unknown: Any) -> Any:
    """Lists of names, the likeliest first, (samples,); null where nothing is known."""
    import pyarrow as pa

    rows, places = members.nonzero(as_tuple=True)
    falling = np.lexsort((-outputs[rows, places].numpy(), rows.numpy()))
    ends = members.sum(1).cumsum(0)
    offsets = pa.array(torch.cat([ends.new_zeros(1), ends]).int().numpy())
    flat = pa.array(list(names), pa.string()).take(pa.array(places.numpy()[falling]))
    return pa.ListArray.from_arrays(offsets, flat, mask=pa.array(unknown))


def target_columns(targets: Tensor, target: Target) -> dict[str, Any]:
    """Targets as columns by name, as `predictions` has it: `target`, or `target NAME` for each label and
    for each of several values.

    Args:
        targets: (samples,) of classes, (samples, count) of labels and standardised values.
    """
    import pyarrow as pa

    if isinstance(target, Multitask):
        each = zip(target.names, target.parts, split_targets(targets, target), strict=True)
        return {f"target {name}": target_columns(own, part)["target"] for name, part, own in each}
    if isinstance(target, Classes):
        return {"target": pa.array(list(target.names), pa.string()).take(pa.array(targets.numpy()))}
    if isinstance(target, Flags):
        pairs = zip(target.names, targets.T, strict=True)
        return {f"target {name}": column.numpy().astype(np.int8) for name, column in pairs}
    assert isinstance(target, Values)
    names = [f"target {name}" for name in target.names] if target.count > 1 else ["target"]
    return _value_columns(names, decode_outputs(targets, target), target)


def merge_columns(own: Mapping[str, Sequence[Any]], predicted: Mapping[str, Any]) -> dict[str, Any]:
    """The samples' own columns, then the predictions, renamed if the name is taken."""
    columns: dict[str, Any] = dict(own)
    for name, values in predicted.items():
        columns[unused_name(name, columns)] = values
    return columns


def _value_columns(names: Sequence[str], values: Tensor, target: Values) -> dict[str, Any]:
    """Values in their own unit, (samples, count), with as many digits as mean something."""
    columns = zip(names, values.T, target.std, strict=True)
    return {name: np.round(column.numpy(), _decimals(std)) for name, column, std in columns}


def _decimals(std: float) -> int:
    """How many decimals of a value are significant if its deviation has seven significant digits."""
    return max(0, _DIGITS - 1 - math.floor(math.log10(std))) if std > 0 else _DIGITS


def unused_name(name: str, taken: Collection[str]) -> str:
    """A name for a predicted column, or an output of a graph, that none of `taken` has."""
    while name in taken:
        name = f"{name} (predicted)"
    return name


def decode_outputs(outputs: Tensor, target: Target) -> Tensor:
    """Raw outputs to predictions: probabilities of classes and labels, values in their own unit."""
    match target:
        case Classes():
            return torch.softmax(outputs.double(), dim=1).float()
        case Values(mean=mean, std=std):
            return outputs.double() * torch.tensor(std).double() + torch.tensor(mean).double()
        case _:
            return torch.sigmoid(outputs.double()).float()
