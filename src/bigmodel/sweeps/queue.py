"""Runs a sweep's jobs where they wait in a queue for their turn, and which may outlive the sweep.

A sweep that goes on finds the jobs that it has left there, in `submitted.jsonl`, and waits for them.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from bigmodel.runtime import disk, nested_json
from bigmodel.sweeps import report as reports
from bigmodel.sweeps.jobs import Job, JobSource, Observer, Outcome
from bigmodel.sweeps.manifest import JobState, Manifest
from bigmodel.sweeps.slurm import STOPPED, Cluster, QueueWork, Task, is_over

SUBMITTED = "submitted.jsonl"

TICK = 0.2
"""Seconds between two looks at signals and the view."""

LOOK = 1.0
"""Seconds between two looks at what jobs tell; for many jobs it is longer."""

ASK = 30.0
"""Seconds between two questions to the cluster, which many users ask."""

_NAME = re.compile(r"\d+(_\d+)?")
_REPORT = re.compile(r"\d+/job-\d+-\d+\.json")


@dataclass
class _Submission:
    """A job in the queue.

    Attributes:
        name: what it is called there.
        report: the file for what it tells.
        folder: its run folder, once it owns one.
        progress: the last that was heard.
        evaluations: the numbers of those that were heard.
        state: of the cluster's, the last that was told.
        gone: since when it is there no more, in seconds of `time.monotonic`.
    """

    job: Job
    name: str
    report: Path
    folder: Path | None = None
    progress: dict[str, Any] = field(default_factory=dict)
    evaluations: set[int] = field(default_factory=set)
    state: str | None = None
    gone: float | None = None


def new_folder(sweep: Path) -> Path:
    """A folder for one start of a sweep. What is unpickled there must be this start's own: a sweep's
    folder may come from somebody else.

    Raises:
        CheckpointError: it cannot be made.
    """
    place = sweep.absolute() / reports.FOLDER
    try:
        place.mkdir(exist_ok=True)
        number = 1 + max((int(p.name) for p in place.iterdir() if p.name.isdecimal()), default=0)
        folder = place / str(number)
        folder.mkdir(mode=0o700)
    except OSError as error:
        raise disk.write_error(place, error, 0) from error
    return folder


def catch_up(manifest: Manifest) -> None:
    """Records which folders jobs have got while nobody was watching."""
    if not (manifest.folder / reports.FOLDER).is_dir():
        return
    for state in list(manifest.states.values()):
        if state.folder is None and (folder := reports.folder_of(manifest.folder, state.job.number)):
            manifest.started(state.job, folder)


class QueueLauncher:
    """Submits jobs and waits until there are none left, or until it is asked to stop.

    Args:
        work: what a job's process does.
        source: gives the jobs, and is told how they end.
        observer: watches.
        cluster: where they run.
        folder: made by `new_folder`.
        at_once: how many run at a time.
        first: how many are submitted when none is there, of which `at_once` run at a time.
        states: by number, how far jobs are.
        stop_on_failure: whether the first job that fails cancels the others.
    """

    def __init__(
        self,
        work: QueueWork,
        source: JobSource,
        observer: Observer,
        cluster: Cluster,
        folder: Path,
        *,
        at_once: int,
        first: int,
        states: Mapping[int, JobState],
        stop_on_failure: bool = False,
    ) -> None:
        self._work, self._source, self._observer, self._cluster = work, source, observer, cluster
        self._folder, self._record = folder, folder.parent / SUBMITTED
        self._at_once, self._first, self._states = at_once, first, states
        self._stop_on_failure = stop_on_failure
        self._queued: list[_Submission] = []
        self._attempts: dict[int, int] = {}
        self._cancelled = False
        self._failed: int | None = None
        self._looked = self._asked = -float("inf")

    @property
    def names(self) -> list[str]:
        """What the jobs are called that are not over."""
        return [submission.name for submission in self._queued]

    @property
    def submitted(self) -> bool:
        """Whether any job of the sweep ever was, where jobs are kept."""
        return self._record.exists()

    def run(self, requests: Callable[[], int | None]) -> None:
        """Runs the jobs.

        Args:
            requests: asked a few times a second; returns a signal. All but SIGUSR1 end this: jobs of a
                cluster that keeps them go on, others are asked to stop and waited for.

        Raises:
            ConfigError: the cluster refuses the jobs.
            CheckpointError: what is submitted cannot be written down.
        """
        import signal

        while self.submit():
            number = requests()
            if number is not None and number != getattr(signal, "SIGUSR1", None):
                if self._cluster.keeps:
                    return
                self.cancel()
            self._look()
            self._observer.tick()
            time.sleep(TICK)
        while not self._cluster.keeps and self._cluster.states():  # processes that are about to end
            time.sleep(TICK)

    def cancel(self) -> None:
        """Asks all jobs to stop, and begins no more."""
        self._cancelled = True
        self._cluster.cancel(self.names)

    def adopt(self, jobs: Iterable[Job]) -> None:
        """Waits for jobs that were submitted before and are still there, or have ended unheard."""
        recorded = _recorded(self._record)
        states = self._cluster.states() if recorded else {}
        for job in (job for job in jobs if job.number in recorded):
            name, path = recorded[job.number]
            outcome, state = (reports.read(path) or reports.Report()).outcome, self._states[job.number]
            unheard = outcome is not None and outcome.status != "stopped" and state.status != "failed"
            if unheard or states is None or not is_over(states.get(name)):
                self._source.taken(job)
                self._queued.append(_Submission(job, name, path, state.folder))
                self._read(self._queued[-1], time.monotonic())

    def submit(self) -> bool:
        """Submits as many jobs as there is room for. Returns whether any is in the queue.

        Raises:
            ConfigError: the cluster refuses them.
            CheckpointError: what is submitted cannot be written down.
        """
        room = self._at_once - len(self._queued) if self._queued else self._first
        new: list[tuple[Job, Path]] = []
        while len(new) < room and not self._cancelled and (job := self._source.next()) is not None:
            self._observer.chosen(job)
            new.append((job, self._new_report(job)))
        if new:
            names = self._cluster.submit([self._task(job, path) for job, path in new])
            submissions = [_Submission(job, n, path) for (job, path), n in zip(new, names, strict=True)]
            self._queued += submissions
            if self._cluster.keeps:
                _write(self._record, submissions)
        return bool(self._queued)

    def _task(self, job: Job, report: Path) -> Task:
        state = self._states.get(job.number)
        return Task(self._work, job, report, state is not None and state.folder is not None)

    def _new_report(self, job: Job) -> Path:
        attempt = self._attempts[job.number] = self._attempts.get(job.number, 0) + 1
        return reports.path_of(self._folder, job, attempt)

    def _look(self) -> None:
        now = time.monotonic()
        if now - self._looked < max(LOOK, len(self._queued) / 100):
            return
        self._looked = now
        if now - self._asked >= (ASK if self._cluster.keeps else 0.0):
            self._asked = now
            self._ask(now)
        for submission in list(self._queued):
            self._read(submission, now)

    def _ask(self, now: float) -> None:
        if (states := self._cluster.states()) is None:
            return
        for submission in self._queued:
            state = states.get(submission.name)
            submission.state = state or submission.state
            if not is_over(state):
                submission.gone = None
            elif submission.gone is None:
                submission.gone = now

    def _read(self, submission: _Submission, now: float) -> None:
        job, report = submission.job, reports.read(submission.report) or reports.Report()
        if report.folder is not None and submission.folder is None:
            submission.folder = report.folder
            self._observer.started(job, report.folder)
        if report.progress != submission.progress:
            submission.progress = report.progress
            self._observer.progressed(job, report.progress)
        for number, value in report.evaluations:
            if number not in submission.evaluations:  # a job that goes on may repeat some
                submission.evaluations.add(number)
                if report.outcome is None and self._source.evaluated(job, number, value):
                    reports.prune(submission.report, number)
        patience = 0.0 if self._cancelled else self._cluster.patience
        gone = submission.gone is not None and now - submission.gone >= patience
        if report.outcome is not None and report.outcome.status != "stopped":
            self._end(submission, report.outcome)
        elif gone and self._cancelled and report == reports.Report():  # it had not begun
            self._queued.remove(submission)
        elif gone:  # not only stopped for a while, to be queued again
            self._end(submission, report.outcome or _lost(submission, self._cancelled))

    def _end(self, submission: _Submission, outcome: Outcome) -> None:
        self._queued.remove(submission)
        if self._failed is not None and outcome.status == "stopped":
            outcome = replace(outcome, error=f"since job {self._failed} failed (sweep.on_error=stop)")
        again = self._source.ended(submission.job, outcome)
        self._observer.ended(submission.job, outcome)
        if outcome.status == "failed" and not again and self._stop_on_failure and not self._cancelled:
            self._failed = submission.job.number
            self.cancel()


def _lost(submission: _Submission, cancelled: bool) -> Outcome:
    """How a job ended that has not said so."""
    state = submission.state if is_over(submission.state) else None  # else it is just not there any more
    log = submission.report.parent / f"{submission.name}_0_log.err"
    hint = " Raise sweep.slurm.mem_gb." if state == "OUT_OF_MEMORY" else ""
    return Outcome(
        "stopped" if cancelled or state in STOPPED else "failed",
        f"{submission.name} ended without a word{f' ({state})' if state else ''}.{hint} What it printed:"
        f" {log}",
        submission.folder,
    )


def _recorded(path: Path) -> dict[int, tuple[str, Path]]:
    """By job, the last submission: its name, and the file for what it tells."""
    found: dict[int, tuple[str, Path]] = {}
    try:
        lines = disk.read_text(path).splitlines()
    except (OSError, ValueError):
        return found
    for line in lines:
        try:
            entry = nested_json.loads(line)
            number, name, report = int(entry["job"]), str(entry["name"]), str(entry["report"])
        except (ValueError, KeyError, TypeError):  # cut off when its writer was killed
            continue
        # The name becomes a word of a command, and an answer is written beside the report.
        if _NAME.fullmatch(name) and _REPORT.fullmatch(report):
            found[number] = (name, path.parent / report)
    return found


def _write(path: Path, submissions: Iterable[_Submission]) -> None:
    entries = (
        {"job": s.job.number, "name": s.name, "report": str(s.report.relative_to(path.parent))}
        for s in submissions
    )
    text = "".join(f"{json.dumps(entry)}\n" for entry in entries)
    try:
        with path.open("a", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise disk.write_error(path, error, len(text)) from error
