"""What the tests of sweeps share: jobs that take milliseconds, and an observer that remembers."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bigmodel.sweeps.jobs import Job, Observer, Outcome

HANGS = 300.0
"""Seconds after which what does not happen is said to hang, however busy the machine."""


def jobs(count: int) -> list[Job]:
    return [Job(number, (f"seed={number}",)) for number in range(count)]


def until(reached: Callable[[], object]) -> None:
    """Waits for a state."""
    deadline = time.monotonic() + HANGS
    while not reached():
        assert time.monotonic() < deadline, "it never came to that"
        time.sleep(0.002)


class Recorder(Observer):
    """Remembers what it is told.

    Attributes:
        events: in order, what happened to which job.
        outcomes: by number, how each attempt at a job ended.
        most: how many jobs there were at once.
    """

    def __init__(self) -> None:
        self.events: list[tuple[str, int]] = []
        self.outcomes: dict[int, list[Outcome]] = {}
        self.reports: list[tuple[int, dict[str, Any]]] = []
        self.most = 0
        self._running: set[int] = set()

    def started(self, job: Job, folder: Path) -> None:  # noqa: ARG002
        self.events.append(("started", job.number))
        self._running.add(job.number)
        self.most = max(self.most, len(self._running))

    def progressed(self, job: Job, report: dict[str, Any]) -> None:
        self.reports.append((job.number, report))

    def ended(self, job: Job, outcome: Outcome) -> None:
        self.events.append(("ended", job.number))
        self.outcomes.setdefault(job.number, []).append(outcome)
        self._running.discard(job.number)

    def of(self, kind: str) -> list[int]:
        """The jobs to which something happened, in that order."""
        return [number for event, number in self.events if event == kind]

    def statuses(self) -> dict[int, list[str]]:
        return {number: [o.status for o in outcomes] for number, outcomes in self.outcomes.items()}
