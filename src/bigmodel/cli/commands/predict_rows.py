"""Predictions for new samples, written beside the samples' own columns."""

from __future__ import annotations

import math
import time
from argparse import Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bigmodel.cli.commands.loaded_run import LoadedRun
from bigmodel.cli.commands.new_data import read_new_data
from bigmodel.cli.commands.output_files import TABLES, check_kind, unused_name, write_columns
from bigmodel.cli.messages import note
from bigmodel.data.parts import SplitData
from bigmodel.errors import DIVERGED, UndefinedError, counted
from bigmodel.metrics import defined
from bigmodel.spec import Classes, Flags, NextTokens, Target, Values

_BYTES = 64 << 20  # of stored inputs that go through the model at once
_MOST = 4096  # samples of them: from there on more bring nothing
_DIGITS = 7  # that a float32 holds


def predict_rows(loaded: LoadedRun, arguments: Namespace, output: Path | None) -> None:
    """Reads new samples, predicts, writes the table and notes the speed."""
    if output is not None:
        check_kind(output, TABLES)
    began = time.perf_counter()
    new_samples = read_new_data(loaded, "--input", arguments, targets=False)
    outputs = model_outputs(loaded, new_samples.part, arguments.batch_size)
    target, rows = loaded.preprocessing.spec.target, len(new_samples.part)
    predicted = predictions(outputs, target, probabilities=arguments.probabilities)
    write_columns(merge_columns(new_samples.columns, predicted), output)
    if output is not None:
        seconds = time.perf_counter() - began
        note(f"{counted(rows, 'row')} in {seconds:.2f} s ({rows / seconds:,.0f} rows/s): {output}")
    check_defined(rows - int(defined(outputs, target).sum()), rows, "rows")


def check_defined(undefined: int, count: int, what: str) -> None:
    """Fails, once the output is written, if some samples have no prediction.

    Raises:
        UndefinedError: `undefined` is not 0.
    """
    if undefined:
        raise UndefinedError(
            f"{undefined:,} of {count:,} {what} are left empty: the model gives NaN or infinity for"
            f" them. {DIVERGED}"
        )


def predictions(outputs: Tensor, target: Target, *, probabilities: bool) -> dict[str, Any]:
    """The predictions as columns by name.

    For classes: `prediction`, the likeliest label, and its `probability`. For yes/no labels: one column
    each, 1 if the label is predicted. For values: `prediction` in the value's own unit, or one column
    each under its own name. Undefined predictions are null.

    Args:
        outputs: (samples, output_size), raw.
        probabilities: add `probability of NAME` for each class or label.
    """
    import pyarrow as pa

    known = defined(outputs, target)
    numbers, unknown = decode_outputs(outputs, target), ~known.numpy()
    numbers[~known] = math.nan  # written as null
    if isinstance(target, Values):
        names = target.names if target.count > 1 else ("prediction",)
        columns = zip(names, numbers.T, target.std, strict=True)
        return {name: np.round(column.numpy(), _decimals(std)) for name, column, std in columns}
    assert isinstance(target, Classes | Flags)
    each = {f"probability of {name}": p.numpy() for name, p in zip(target.names, numbers.T, strict=True)}
    if isinstance(target, Flags):
        predicted: dict[str, Any] = {
            name: pa.array(column.numpy().astype(np.int8), mask=unknown)
            for name, column in zip(target.names, outputs.T > 0, strict=True)
        }
    else:
        likeliest = outputs.argmax(1)
        places = pa.array(likeliest.numpy(), mask=unknown)
        labels = pa.array(list(target.names), pa.string()).take(places)
        predicted = {
            "prediction": labels,
            "probability": numbers.gather(1, likeliest[:, None])[:, 0].numpy(),
        }
    return predicted | (each if probabilities else {})


def merge_columns(own: Mapping[str, Sequence[Any]], predicted: Mapping[str, Any]) -> dict[str, Any]:
    """The samples' own columns, then the predictions, renamed if the name is taken."""
    columns: dict[str, Any] = dict(own)
    for name, values in predicted.items():
        columns[unused_name(name, columns)] = values
    return columns


def _decimals(std: float) -> int:
    """How many decimals of a value are significant if its deviation has seven significant digits."""
    return max(0, _DIGITS - 1 - math.floor(math.log10(std))) if std > 0 else _DIGITS


@torch.inference_mode()
def model_outputs(loaded: LoadedRun, part: SplitData, batch_size: int | None) -> Tensor:
    """The model's raw outputs for all samples of a set: (samples, output_size) float32 on the CPU.

    Args:
        batch_size: samples at once; None chooses.
    """
    assert not isinstance(loaded.preprocessing.spec.target, NextTokens)
    order = None if part.lengths is None else part.lengths.argsort(stable=True)
    size = batch_size or _size(part)
    device = loaded.runtime.device
    scaling = loaded.preprocessing.scaling(device)
    outputs = torch.empty(len(part), loaded.preprocessing.spec.target.output_size)
    for first in range(0, len(part), size):
        last = min(first + size, len(part))
        chosen = slice(first, last) if order is None else order[first:last]
        stored = part.take(chosen)[0].to(device)
        inputs = stored if scaling is None else scaling(stored)
        with loaded.runtime.autocast():
            raw = loaded.model(inputs)
        outputs[chosen] = raw.float().cpu()
    return outputs


def decode_outputs(outputs: Tensor, target: Target) -> Tensor:
    """Raw outputs to predictions: probabilities of classes and labels, values in their own unit."""
    match target:
        case Classes():
            return torch.softmax(outputs.double(), dim=1).float()
        case Values(mean=mean, std=std):
            return outputs.double() * torch.tensor(std).double() + torch.tensor(mean).double()
        case _:
            return torch.sigmoid(outputs.double()).float()


def _size(part: SplitData) -> int:
    one = part.take(slice(0, 1) if part.lengths is None else part.lengths.argmax()[None])[0]
    return max(1, min(_MOST, _BYTES // max(1, one.numel() * max(4, one.element_size()))))
