"""What a job tells its sweep by a file: the two may be on different machines, and start and end at
different times."""

from __future__ import annotations

import contextlib
import json
import time
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from bigmodel.errors import CheckpointError
from bigmodel.runtime import disk, nested_json
from bigmodel.sweeps.jobs import Job, Outcome

FOLDER = "slurm"
"""In a sweep's folder: what is submitted, what jobs tell, and what they print, in a folder for each
start of the sweep."""

INTERVAL = 2.0
"""Least seconds between two reports of how far a job is."""


@dataclass(frozen=True)
class Report:
    """What a job has told.

    Attributes:
        folder: its run folder; None: it does not own one yet.
        progress: where it stands; see `Observer.progressed`.
        evaluations: the numbers and values of its evaluations, if a search may prune it.
        outcome: how its last process ended; None: that is under way.
    """

    folder: Path | None = None
    progress: dict[str, Any] = field(default_factory=dict)
    evaluations: list[tuple[int, float]] = field(default_factory=list)
    outcome: Outcome | None = None


def path_of(folder: Path, job: Job, attempt: int) -> Path:
    """The file of an attempt at a job, in a folder that one start of the sweep has made."""
    return folder / f"job-{job.number}-{attempt}.json"


def prune(path: Path, evaluation: int) -> None:
    """Tells the job with that report that it is pruned for one of its evaluations.

    Raises:
        CheckpointError: that cannot be written down.
    """
    disk.write_text(_answer(path), str(evaluation))


def _answer(path: Path) -> Path:
    return path.with_suffix(".pruned")


def read(path: Path) -> Report | None:
    """What a job has told so far; None: nothing."""
    try:
        content = nested_json.loads(disk.read_text(path))
        folder, outcome = content["folder"], content["outcome"]
        own = None if folder is None else path.parents[2] / folder
        if outcome is not None:
            outcome = Outcome(**(outcome | {"folder": own}))
        evaluations = [(int(number), float(value)) for number, value in content["evaluations"]]
        return Report(own, dict(content["progress"]), evaluations, outcome)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def folder_of(sweep: Path, number: int) -> Path | None:
    """The run folder that any attempt at a job has owned, as it told; None: there is none.

    Args:
        sweep: the sweep's folder.
    """
    reports = (read(path) for path in (sweep / FOLDER).glob(f"*/job-{number}-*.json"))
    return next((report.folder for report in reports if report and report.folder), None)


class FileChannel:
    """A job's line to its sweep, which may not be there at the moment.

    Args:
        path: of the job's report.
        job: whose line it is.
        begun: whether the sweep knows that the job's run folder is its own already.
    """

    def __init__(self, path: Path, job: Job, begun: bool = False) -> None:
        self._path, self._job, self._begun = path, job, begun
        self._report = Report()
        self._written = -INTERVAL

    @property
    def begun(self) -> bool:
        """Whether the job goes on in a folder that is its own already, as after a requeue."""
        return self._begun or folder_of(self._path.parents[2], self._job.number) is not None

    def started(self, folder: Path) -> None:
        """The job owns its folder from now on: else one that was written to before a kill would be taken
        for a stranger's afterwards.

        Raises:
            CheckpointError: that cannot be written down.
        """
        folder, sweep = folder.absolute(), self._path.parents[2].absolute()
        # Below the sweep's, it stays known when that is moved.
        self._write(Report(folder.relative_to(sweep) if folder.is_relative_to(sweep) else folder))

    def progressed(self, report: dict[str, Any]) -> None:
        """Where the job stands; see `Observer.progressed`."""
        known = {key: value for key, value in report.items() if value is not None}
        self._report.progress.update(known)
        if time.monotonic() - self._written >= INTERVAL:
            with contextlib.suppress(CheckpointError):  # no reason to end a run
                self._write(self._report)

    def evaluated(self, evaluation: int, value: float) -> int | None:
        """See `Line.evaluated`. The job does not wait for an answer, which comes in time for a later
        evaluation, if at all."""
        self._report.evaluations.append((evaluation, value))
        with contextlib.suppress(CheckpointError):  # no reason to end a run
            self._write(self._report)
        with contextlib.suppress(OSError, ValueError):
            return int(disk.read_text(_answer(self._path)))
        return None

    def ended(self, outcome: Outcome) -> None:
        """The job's process is over.

        Raises:
            CheckpointError: that cannot be written down.
        """
        self._write(replace(self._report, outcome=outcome))

    def _write(self, report: Report) -> None:
        self._report, self._written = report, time.monotonic()
        disk.write_text(self._path, json.dumps(asdict(report), default=str))
