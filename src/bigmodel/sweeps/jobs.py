"""A sweep's jobs and how they ended: plain data that the launcher, the search and the records share."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

FOLD = "data.val_fold"
"""The key by which the jobs of a cross-validation differ."""

Status = Literal["waiting", "running", "finished", "stopped", "failed", "pruned"]


@dataclass(frozen=True)
class Job:
    """One job of a sweep.

    Attributes:
        number: from 0.
        overrides: what it sets, as Hydra reads it: `optimizer.lr=0.1`.
    """

    number: int
    overrides: tuple[str, ...]


@dataclass(frozen=True)
class Outcome:
    """How an attempt at a job ended.

    Attributes:
        status: `finished`, `stopped`, `failed` or `pruned`.
        error: why it failed or stopped.
        folder: its run folder; None if it never owned one.
        value: the best value of its monitored metric; None if it has none.
        details: the content of its `summary.json`.
        may_pass: whether another attempt may succeed, if it failed.
    """

    status: Status
    error: str | None = None
    folder: Path | None = None
    value: float | None = None
    details: dict[str, Any] = field(default_factory=dict)
    may_pass: bool = True


class Line(Protocol):
    """A job's line to its sweep."""

    def started(self, folder: Path) -> None:
        """The job owns its folder from now on. Returns once that is recorded: else a folder that was
        written to before a kill would be taken for a stranger's afterwards."""

    def progressed(self, report: dict[str, Any]) -> None:
        """Where the job stands; see `Observer.progressed`."""

    def evaluated(self, evaluation: int, value: float) -> int | None:
        """The job's evaluation number `evaluation`, from 1, gave `value`. Returns the number of that for
        which it is pruned, this or an earlier one; None: it goes on."""


class JobSource(Protocol):
    """Where the launcher gets its jobs: a list, or a search that decides as results come in."""

    def next(self) -> Job | None:
        """The next job to run; None if there is none now. Asked again after each job that ends."""

    def taken(self, job: Job) -> None:
        """A job is under way already: it is not the next."""

    def evaluated(self, job: Job, evaluation: int, value: float) -> bool:
        """A job's evaluation number `evaluation`, from 1, gave `value`. Returns whether to prune it."""

    def ended(self, job: Job, outcome: Outcome) -> bool:
        """A job is over. Returns whether it is tried again."""


class Observer:
    """Watches a sweep. Methods do nothing by default."""

    def chosen(self, job: Job) -> None:
        """A job is about to be given a process."""

    def started(self, job: Job, folder: Path) -> None:
        """A job has begun, in a folder that it owns."""

    def progressed(self, job: Job, report: dict[str, Any]) -> None:
        """Where a job stands: `epoch`, `epochs`, `step`, `steps`, `metric`, `value`, as far as known."""

    def ended(self, job: Job, outcome: Outcome) -> None:
        """A job is over."""

    def tick(self) -> None:
        """Called a few times a second."""


class JobList:
    """A source of jobs that are known beforehand.

    Args:
        jobs: in the order in which they are run.
        retries: how often a job that failed is tried again, after all the others, if that may help.
    """

    def __init__(self, jobs: Sequence[Job], retries: int = 0) -> None:
        self._waiting = list(reversed(jobs))
        self._retries = {job.number: retries for job in jobs}

    def next(self) -> Job | None:
        return self._waiting.pop() if self._waiting else None

    def taken(self, job: Job) -> None:
        self._waiting.remove(job)

    def evaluated(self, job: Job, evaluation: int, value: float) -> bool:  # noqa: ARG002
        return False

    def ended(self, job: Job, outcome: Outcome) -> bool:
        failed = outcome.status == "failed" and outcome.may_pass
        again = failed and self._retries[job.number] > 0
        if again:
            self._retries[job.number] -= 1
            self._waiting.insert(0, job)
        return again


def changes(jobs: Iterable[Job]) -> dict[int, dict[str, str]]:
    """By job number, the keys in which jobs differ, with the job's own values."""
    values = {job.number: settings(job.overrides) for job in jobs}
    keys = dict.fromkeys(key for own in values.values() for key in own)
    differing = [key for key in keys if len({own.get(key) for own in values.values()}) > 1]
    return {n: {key: own[key] for key in differing if key in own} for n, own in values.items()}


def settings(overrides: Iterable[str]) -> dict[str, str]:
    """What overrides set: the values by key."""
    parted = (override.lstrip("+").partition("=") for override in overrides)
    return {key: value for key, _, value in parted}


def in_one_line(changed: Mapping[str, str]) -> str:
    """Settings as they are typed: `model=cnn optimizer.lr=0.1`."""
    return " ".join(f"{key}={value}" for key, value in changed.items())


class Observers(Observer):
    """Tells several observers."""

    def __init__(self, observers: Sequence[Observer]) -> None:
        self._observers = observers

    def chosen(self, job: Job) -> None:
        for observer in self._observers:
            observer.chosen(job)

    def started(self, job: Job, folder: Path) -> None:
        for observer in self._observers:
            observer.started(job, folder)

    def progressed(self, job: Job, report: dict[str, Any]) -> None:
        for observer in self._observers:
            observer.progressed(job, report)

    def ended(self, job: Job, outcome: Outcome) -> None:
        for observer in self._observers:
            observer.ended(job, outcome)

    def tick(self) -> None:
        for observer in self._observers:
            observer.tick()
