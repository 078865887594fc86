"""Predictions for new samples: each sample's own columns, and beside them what the model says."""

from __future__ import annotations

import math
import time
from argparse import Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from bigmodel.cli.commands.asking import in_words, outputs_of
from bigmodel.cli.commands.load import Loaded
from bigmodel.cli.commands.outputs import TABLES, check_kind, write_columns
from bigmodel.cli.commands.reading import read
from bigmodel.cli.commands.telling import tell
from bigmodel.errors import DIVERGED, UndefinedError, counted
from bigmodel.metrics import defined
from bigmodel.spec import Classes, Flags, Target, Values

_DIGITS = 7  # that a float32 holds


def predict_rows(loaded: Loaded, arguments: Namespace, output: Path | None) -> None:
    """Reads new samples, asks the model, writes the table and tells how fast it was."""
    if output is not None:
        check_kind(output, TABLES)
    began = time.perf_counter()
    path = Path(arguments.input).expanduser()
    found = read(
        loaded,
        path,
        "--input",
        with_targets=False,
        max_bad=arguments.max_bad,
        encoding=arguments.encoding,
    )
    outputs = outputs_of(loaded, found.part, arguments.batch_size)
    target, rows = loaded.prepared.spec.target, len(found.part)
    said = predictions(outputs, target, probabilities=arguments.probabilities)
    write_columns(beside(found.columns, said), output)
    if output is not None:
        seconds = time.perf_counter() - began
        tell(f"{counted(rows, 'row')} in {seconds:.2f} s ({rows / seconds:,.0f} rows/s): {output}")
    check_defined(rows - int(defined(outputs, target).sum()), rows, "rows")


def check_defined(undefined: int, count: int, what: str) -> None:
    """Ends a command that has written all it could, where a model said nothing of some samples.

    Raises:
        UndefinedError: there are such.
    """
    if undefined:
        raise UndefinedError(
            f"{undefined:,} of {count:,} {what} are left empty: the model gives NaN or infinity for"
            f" them. {DIVERGED}"
        )


def predictions(outputs: Tensor, target: Target, *, probabilities: bool) -> dict[str, Any]:
    """What a model says, as columns by name.

    Of classes `prediction`, the likeliest label, and `probability`, its own; of labels that do not
    exclude each other one column each, 1 where it is said to be set; of values `prediction` in the
    value's own unit, or one column each under its own name. What is not defined is null.

    Args:
        outputs: (samples, output_size), raw.
        probabilities: add each class's or label's own, as `probability of NAME`.
    """
    import pyarrow as pa

    known = defined(outputs, target)
    numbers, unknown = in_words(outputs, target), ~known.numpy()
    numbers[~known] = math.nan  # null where it is written
    if isinstance(target, Values):
        names = target.names if target.count > 1 else ("prediction",)
        columns = zip(names, numbers.T, target.std, strict=True)
        return {name: np.round(column.numpy(), _decimals(std)) for name, column, std in columns}
    assert isinstance(target, Classes | Flags)
    each = {f"probability of {name}": p.numpy() for name, p in zip(target.names, numbers.T, strict=True)}
    if isinstance(target, Flags):
        said: dict[str, Any] = {
            name: pa.array(column.numpy().astype(np.int8), mask=unknown)
            for name, column in zip(target.names, outputs.T > 0, strict=True)
        }
    else:
        likeliest = outputs.argmax(1)
        places = pa.array(likeliest.numpy(), mask=unknown)
        labels = pa.array(list(target.names), pa.string()).take(places)
        said = {"prediction": labels, "probability": numbers.gather(1, likeliest[:, None])[:, 0].numpy()}
    return said | (each if probabilities else {})


def beside(own: Mapping[str, Sequence[Any]], said: Mapping[str, Any]) -> dict[str, Any]:
    """The samples' own columns, then the predictions; one of the same name is told apart."""
    columns: dict[str, Any] = dict(own)
    for name, values in said.items():
        free = name
        while free in columns:
            free = f"{free} (predicted)"
        columns[free] = values
    return columns


def _decimals(std: float) -> int:
    """How many decimals of a value mean something, where its deviation is known to seven digits."""
    return max(0, _DIGITS - 1 - math.floor(math.log10(std))) if std > 0 else _DIGITS
