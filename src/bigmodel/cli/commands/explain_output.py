"""What `bigmodel explain` found, as files: tables, pictures, JSON."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from bigmodel.cli.commands.explain_subject import ExplainedPart
from bigmodel.cli.commands.output_files import TABLES, check_kind, write_columns
from bigmodel.explain.results import Attributions, Result
from bigmodel.explain.subject import Subject


def check_output(path: Path, method: str) -> None:
    """Checks that a file can hold what a method finds.

    Raises:
        ConfigError: it cannot.
    """
    del method
    check_kind(path, TABLES)


def write_result(result: Result, subject: Subject, part: ExplainedPart, path: Path | None) -> None:
    """Writes a result to a file, or prints it."""
    del part
    if isinstance(result, Attributions):
        write_columns(attribution_columns(result, subject), path)


def attribution_columns(result: Attributions, subject: Subject) -> dict[str, Any]:
    """Attributions as a table: a row for each sample, in order."""
    columns: dict[str, Any] = {
        "row": np.arange(len(result.scores)),
        "explained": [subject.output_name(index) for index in result.explained.tolist()],
        "score": result.scores.numpy(),
        "baseline": result.baseline_scores.numpy(),
    }
    columns |= dict(zip(result.names, result.values.flatten(1).numpy().T, strict=True))
    return columns
