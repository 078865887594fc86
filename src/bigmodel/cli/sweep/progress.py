"""What a job tells its sweep while it trains, in the place of the console."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

from bigmodel.cli import invocation
from bigmodel.reporting.base import ProgressReport, Record, RunInfo, Sink, Sinks
from bigmodel.reporting.console import Console
from bigmodel.reporting.formatting import figure
from bigmodel.sweeps.jobs import Line


def console_of_job(folder: Path, channel: Line, resume: str, pruned_by: str | None) -> Sink:
    """What takes the console's place: lines go to the job's log alone, and figures to the sweep.

    Args:
        folder: of the job.
        channel: to the sweep.
        resume: what to type to go on with the sweep.
        pruned_by: the metric by which the sweep may prune the job; None: it does not.
    """
    nowhere = open(os.devnull, "w")  # noqa: PTH123, SIM115
    log = Console(folder, terminal=False, stream=nowhere, resume=resume)
    return Sinks([log, _ToSweep(channel, pruned_by)])


class _ToSweep(Sink):
    """Tells the sweep where a job stands."""

    def __init__(self, channel: Line, pruned_by: str | None) -> None:
        self._channel, self._pruned_by = channel, pruned_by
        self._info: RunInfo | None = None

    def start(self, info: RunInfo) -> None:
        self._info = info
        self._channel.progressed(
            {"steps": info.total_steps, "epochs": info.epochs, "metric": info.monitor}
        )

    def progress(self, progress: ProgressReport) -> None:
        self._channel.progressed(
            {"step": progress.step, "epoch": progress.epoch, "value": progress.metric}
        )

    def record(self, record: Record, best: Record) -> None:  # noqa: ARG002
        assert self._info is not None
        known: dict[str, Any] = {"step": record["step"], "epoch": record["epoch"]}
        if (value := record.get(self._info.monitor)) is not None:
            known["value"] = value
        self._channel.progressed(known)
        if self._pruned_by is not None and "val/loss" in record:
            self._ask_whether_pruned(record, self._pruned_by, self._info)

    def _ask_whether_pruned(self, record: Record, metric: str, info: RunInfo) -> None:
        step, value = int(record["step"]), float(record[metric])
        number = math.ceil(step / info.evaluate_every)
        worse = self._channel.evaluated(number, value)
        if worse is None or step >= info.total_steps:
            return
        own = f"{metric} {figure(value)} at step {step:,} (epoch {record['epoch']}) is worse than what"
        if worse != number:
            own = f"{metric} was worse at evaluation {worse} than what"
        invocation.current.signals.prune(f"{own} other trials had there")
