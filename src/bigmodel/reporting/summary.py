"""`summary.json`: how a run ended, or that it is running; always written atomically."""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from bigmodel.errors import CheckpointError
from bigmodel.reporting.base import Summary
from bigmodel.runtime import disk, run_summary
from bigmodel.runtime.run_summary import NAME


def write_summary(summary: Summary, folder: Path) -> None:
    """Writes `summary.json` atomically; NaN and infinity, which JSON lacks, become null.

    Raises:
        CheckpointError: the file cannot be written.
    """
    text = json.dumps(jsonable(asdict(summary)), indent=2, ensure_ascii=False) + "\n"
    disk.write_text(folder / NAME, text)


def read_summary(folder: Path) -> Summary | None:
    """Reads `summary.json`; None if there is no such file. Figures that are null become NaN.

    Raises:
        CheckpointError: the file cannot be read, or is not a summary.
    """
    path = folder / NAME
    try:
        values = run_summary.read(folder)
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path}: cannot be read: {error}. {_REMEDY}") from error
    if not isinstance(values.get("status"), str):
        raise CheckpointError(f"{path}: is not a run summary: `status` is missing. {_REMEDY}")
    for name in ("best", "final", "test"):
        if isinstance(figures := values.get(name), dict):
            values[name] = {key: math.nan if value is None else value for key, value in figures.items()}
    try:
        # Keys that another version has written are ignored.
        return TypeAdapter(Summary).validate_python(values)
    except ValidationError as error:
        wrong = error.errors()[0]
        key = ".".join(map(str, wrong["loc"]))
        value = f"{wrong['input']!r:.60}"
        raise CheckpointError(f"{path}: `{key}` is {value}: {wrong['msg']}. {_REMEDY}") from error


_REMEDY = "The run's checkpoints are not affected; move the file away to continue without it."


def jsonable(value: Any) -> Any:
    """The same value with None for NaN and infinity, which are not valid JSON."""
    if isinstance(value, dict):
        return {key: jsonable(item) for key, item in value.items()}
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
