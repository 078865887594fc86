"""Predictions of a cross-validation: of each sample by the model that was not trained on it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from bigmodel.data.parts import Labelled, SplitData
from bigmodel.errors import counted
from bigmodel.metrics import defined
from bigmodel.reporting.predictions import merge_columns, predictions, target_columns
from bigmodel.reporting.table_bytes import as_table, csv_bytes
from bigmodel.runtime import disk
from bigmodel.spec import Classes, Flags, NextTokens
from bigmodel.training.run import Run
from bigmodel.training.validation import held_out_outputs, load_best_weights

NAME = "out_of_fold.csv"

MOST_PROBABILITIES = 100
"""With more classes, only the probability of the predicted one is written."""

_ROWS = 1 << 16  # that are made at a time: as text they need many times the memory of the outputs


def write_predictions(run: Run) -> None:
    """Writes `out_of_fold.csv`: a row for each sample that the run holds out, in the order of the data,
    predicted by the best checkpoint. Nothing without folds, for next tokens, or on other ranks than the
    first.

    Raises:
        Stopped: the process was asked to stop.
        CheckpointError: the file cannot be written.
    """
    fold, dataset = run.settings["data"].get("val_fold"), run.dataset
    if fold is None or dataset.val_rows is None or isinstance(dataset.spec.target, NextTokens):
        return
    load_best_weights(run, "Out-of-fold predictions are made")
    outputs = held_out_outputs(run, dataset.part("val"))
    if outputs is None or not run.ranks.is_first:
        return
    path = run.info.folder / NAME
    try:
        with disk.atomic_write(path) as file:
            for number, columns in enumerate(_pieces(run, outputs, dataset.val_rows, fold)):
                file.write(csv_bytes(as_table(columns), header=number == 0))
    except OSError as error:
        raise disk.write_error(path, error, outputs.nbytes) from error
    run.sinks.message(f"Predictions for {counted(len(outputs), 'sample')} of fold {fold}: {NAME}")
    if undefined := len(outputs) - int(defined(outputs, dataset.spec.target).sum()):
        run.sinks.message(
            f"{NAME}: {undefined:,} of {len(outputs):,} rows are left empty: the model gives NaN or"
            " infinity for them.",
            "warning",
        )


def _pieces(run: Run, outputs: Tensor, rows: Tensor, fold: int) -> Iterator[dict[str, Any]]:
    """The columns of the file, some rows at a time."""
    target, files = run.dataset.spec.target, run.dataset.val_files
    named = isinstance(target, Classes | Flags) and target.count <= MOST_PROBABILITIES
    for index in torch.split(rows.argsort(), _ROWS):
        own: dict[str, Any] = {"row": rows[index].numpy()}
        if files:
            own["file"] = [files[place] for place in index.tolist()]
        own["fold"] = [fold] * len(index)
        own |= target_columns(_targets(run.dataset.part("val"), index), target)
        yield merge_columns(own, predictions(outputs[index], target, probabilities=named))


def _targets(part: SplitData, index: Tensor) -> Tensor:
    """The targets of some samples, without gathering their inputs where they are apart."""
    return part.targets[index] if isinstance(part, Labelled) else part.take(index)[1]
