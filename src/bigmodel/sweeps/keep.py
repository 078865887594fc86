"""Checkpoints of a sweep's best jobs are kept, those of the others removed."""

from __future__ import annotations

import math
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

from bigmodel.sweeps.jobs import Job, Observer, Outcome

FOLDER = "checkpoints"


class KeepBest(Observer):
    """Removes checkpoints of finished jobs as better ones finish. Those of a job that failed or was
    stopped stay, since it may go on; so do those outside of the sweep's folder, whose record may be a
    stranger's.

    Args:
        sweep: the sweep's folder.
        most: how many jobs keep theirs; 0: none.
        finished: jobs that have finished before, in a sweep that goes on.
    """

    def __init__(self, sweep: Path, most: int, finished: Iterable[Outcome] = ()) -> None:
        self._sweep, self._most = sweep.resolve(), most
        self._kept: list[tuple[tuple[float, float], Path]] = []
        for outcome in finished:
            self._add(outcome)

    def ended(self, job: Job, outcome: Outcome) -> None:  # noqa: ARG002
        if outcome.status in ("finished", "pruned"):
            self._add(outcome)

    def _add(self, outcome: Outcome) -> None:
        if outcome.folder is None or not (outcome.folder / FOLDER).is_dir():
            return
        if not outcome.folder.resolve().is_relative_to(self._sweep):
            return
        self._kept.append((_badness(outcome), outcome.folder))
        self._kept.sort(key=lambda kept: kept[0])
        while len(self._kept) > self._most:
            shutil.rmtree(self._kept.pop()[1] / FOLDER, ignore_errors=True)


def _badness(outcome: Outcome) -> tuple[float, float]:
    """The lower, the better: the monitored metric, and among equal ones the validation loss, as jobs are
    ranked."""
    loss = (outcome.details.get("best") or {}).get("val/loss")
    loss = math.inf if loss is None or math.isnan(loss) else loss
    if outcome.value is None or not math.isfinite(outcome.value) or outcome.status != "finished":
        return math.inf, loss
    mode: Literal["min", "max"] = outcome.details.get("mode", "max")
    return outcome.value if mode == "min" else -outcome.value, loss
