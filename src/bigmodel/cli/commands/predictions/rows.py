"""Predictions for new samples, written beside the samples' own columns."""

from __future__ import annotations

import time
from argparse import Namespace
from pathlib import Path

from bigmodel.cli.commands.loaded_run import LoadedRun
from bigmodel.cli.commands.new_data import read_new_data
from bigmodel.cli.commands.output_files import TABLES, check_kind, write_columns
from bigmodel.cli.commands.sureness import CalibrationSource
from bigmodel.cli.messages import note
from bigmodel.errors import DIVERGED, UndefinedError, counted
from bigmodel.metrics import defined
from bigmodel.reporting.predictions import merge_columns, predictions
from bigmodel.spec import Flags
from bigmodel.training.outputs import model_outputs


def predict_rows(loaded: LoadedRun, arguments: Namespace, output: Path | None) -> None:
    """Reads new samples, predicts, writes the table and notes the speed."""
    if output is not None:
        check_kind(output, TABLES)
    sureness = CalibrationSource(loaded).sureness(
        note,
        interval=arguments.interval,
        prediction_set=arguments.set,
        calibrated=arguments.calibrated,
    )
    began = time.perf_counter()
    new_samples = read_new_data(loaded, "--input", arguments, targets=False)
    outputs = model_outputs(
        loaded.model, new_samples.part, loaded.preprocessing, loaded.runtime, arguments.batch_size
    )
    target, rows = loaded.preprocessing.spec.target, len(new_samples.part)
    # Calibrated labels without their probabilities would be as they are.
    shown = arguments.probabilities or (arguments.calibrated and isinstance(target, Flags))
    predicted = predictions(outputs, target, probabilities=shown, cuts=loaded.cuts, sureness=sureness)
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
