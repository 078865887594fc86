"""The results of a sweep's jobs, read from their folders."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError  # type: ignore[import-untyped]

from bigmodel.cli.launch.input_limits import fault_of_file
from bigmodel.reporting.leaderboard import Row
from bigmodel.runtime import nested_json
from bigmodel.runtime.disk import read_text


def collect(folder: Path, refused: Sequence[Path] = ()) -> tuple[list[Row], str, str]:
    """The jobs of a sweep, in the order of their numbers.

    They are read from the disk, so any process may have run them.

    Args:
        folder: the sweep's folder, which holds one folder per job.
        refused: folders in it that do not belong to this sweep.

    Returns:
        One row per job, the monitored metric's name, and its mode (`max` or `min`).
    """
    others = {path.resolve() for path in refused}
    folders = (path.parent for path in folder.glob("*/.hydra") if path.is_dir())
    jobs = sorted(
        (job for job in folders if job.resolve() not in others),
        key=lambda path: (int(path.name) if path.name.isdigit() else math.inf, path.name),
    )
    overrides = {job: _overrides(job) for job in jobs}
    keys = [key for job in jobs for key in overrides[job]]
    changed = [
        key
        for key in dict.fromkeys(keys)
        if len({overrides[job].get(key) for job in jobs}) > 1 or len(jobs) == 1
    ]
    summaries = {job: _summary(job) for job in jobs}
    metric = next((s["monitor"] for s in summaries.values() if s.get("monitor")), "metric")
    mode = next((s["mode"] for s in summaries.values() if s.get("mode")), "max")
    rows = [
        Row(
            job=job.name,
            changed={key: overrides[job][key] for key in changed if key in overrides[job]},
            metric=(summaries[job].get("best") or {}).get(metric),
            seconds=float(summaries[job].get("seconds", 0.0)),
            status=str(summaries[job].get("status", "failed")),
            folder=str(job),
            error=_remark(summaries[job], metric),
            loss=str(summaries[job].get("loss") or ""),
            val_loss=(summaries[job].get("best") or {}).get("val/loss"),
        )
        for job in jobs
    ]
    return rows, metric, mode


def _remark(summary: dict[str, Any], metric: str) -> str | None:
    """Why a job failed, or why it has no rank."""
    if summary.get("status") != "finished" or (summary.get("best") or {}).get(metric) is not None:
        return summary.get("error")
    if summary.get("monitor") != metric:
        return f"has no {metric}: its best was chosen by {summary.get('monitor')}"
    others = [figure for name, figure in (summary.get("final") or {}).items() if name.startswith("val/")]
    if any(figure is not None for figure in others):
        return f"{metric} was never a number: the validation set leaves it undefined"
    return f"{metric} was never a number: the model gave NaN or infinity in every evaluation"


def _overrides(job: Path) -> dict[str, str]:
    path = job / ".hydra" / "overrides.yaml"
    if fault_of_file(path) is not None:
        return {}
    try:
        words = OmegaConf.load(path)
    except (OSError, ValueError, YAMLError, OmegaConfBaseException):  # cut off while it was written
        return {}
    plain: Any = OmegaConf.to_container(words, resolve=False)  # a secret stays a reference
    return dict(str(word).lstrip("+").split("=", 1) for word in plain or [] if "=" in str(word))


def _summary(job: Path) -> dict[str, Any]:
    try:
        summary = nested_json.loads(read_text(job / "summary.json"))
    except (OSError, ValueError):
        summary = None
    if not isinstance(summary, dict):
        return {"status": "failed", "error": "left no summary: it was ended from outside"}
    return summary
