"""Runs a sweep's jobs, each in a process of its own, as many at a time as there are slots."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

from bigmodel.sweeps.jobs import JobSource, Observer
from bigmodel.sweeps.process import JobProcess, Slot, Work, import_modules

TICK = 0.2
"""Seconds between two looks at everything else: signals, the view."""


class Launcher:
    """Runs jobs until there are none left, or until it is asked to stop.

    Args:
        work: what a job's process does.
        source: gives the jobs, and is told how they end.
        observer: watches.
        slots: room for so many jobs at a time.
        logs: the folder for what jobs print.
        ahead: how many jobs are prepared before there is room for them.
        stop_on_failure: whether the first job that fails stops the others.
    """

    def __init__(
        self,
        work: Work,
        source: JobSource,
        observer: Observer,
        slots: Sequence[Slot],
        logs: Path,
        *,
        ahead: int = 1,
        stop_on_failure: bool = False,
    ) -> None:
        self._work, self._source, self._observer = work, source, observer
        self._free = list(reversed(slots))
        self._logs = logs
        self._most = len(slots) + ahead
        self._stop_on_failure = stop_on_failure
        self._processes: list[JobProcess] = []
        self._stopping = False
        self._failed: int | None = None

    def run(self, requests: Callable[[], int | None]) -> None:
        """Runs the jobs.

        Args:
            requests: asked a few times a second; returns a signal to pass on to the jobs. All but
                SIGUSR1, which asks them to save, also end the sweep.
        """
        self._logs.mkdir(exist_ok=True)
        try:
            while self._start_jobs():
                self._wait()
                if (number := requests()) is not None:
                    self._pass_on(number)
                self._observer.tick()
        finally:
            self.kill()

    def kill(self) -> None:
        """Ends all processes at once. What lies on the disk is whole at every moment."""
        import signal

        for process in self._processes:
            process.signal(getattr(signal, "SIGKILL", signal.SIGTERM))
        for process in self._processes:
            process.close()
        self._processes.clear()

    def _start_jobs(self) -> bool:
        """Starts processes and gives them slots. Returns whether any is left."""
        while not self._stopping and len(self._processes) < self._most:
            if (job := self._source.next()) is None:
                break
            self._observer.chosen(job)
            lines = [process.connection for process in self._processes]
            log = self._logs / f"{job.number}.log"
            self._processes.append(JobProcess(job, self._work, log, lines))
        waiting = [process for process in self._processes if process.slot is None]
        for process in waiting:  # in the order of the jobs, whichever is prepared first
            if not (self._free and process.ready) or self._stopping:
                break
            process.run_in(self._free.pop())
        return bool(self._processes)

    def _wait(self) -> None:
        sources = {p.connection: p for p in self._processes} | {p.sentinel: p for p in self._processes}
        seen = {sources[source] for source in wait(list(sources), TICK)}  # type: ignore[index]
        for process in list(self._processes):
            ended = not process.alive  # the sentinel is silent while a process of the job's own lives on
            if process in seen:
                for message in process.messages():
                    self._handle(process, *message)
            if ended:
                self._end(process)

    def _handle(self, process: JobProcess, kind: str, *content: Any) -> None:
        job = process.job
        match kind:
            case "ready":
                process.ready = True
            case "started":
                process.folder = content[0]
                self._observer.started(job, process.folder)
                process.answer(None)
            case "progressed":
                self._observer.progressed(job, content[0])
            case "evaluated":
                process.answer(self._source.evaluated(job, *content))
            case "ended":
                process.outcome = content[0]
            case "imported":
                import_modules(content[0])

    def _end(self, process: JobProcess) -> None:
        for message in process.messages():  # what it said last
            self._handle(process, *message)
        self._processes.remove(process)
        if process.slot is not None:
            self._free.append(process.slot)
        outcome = process.close()
        if self._failed is not None and outcome.status == "stopped":
            outcome = replace(outcome, error=f"since job {self._failed} failed (sweep.on_error=stop)")
        if self._stopping and process.folder is None and process.outcome is None:
            return  # it had not begun
        again = self._source.ended(process.job, outcome)
        self._observer.ended(process.job, outcome)
        failed = outcome.status == "failed" and not again
        if failed and self._stop_on_failure and not self._stopping:
            import signal

            self._failed = process.job.number
            self._pass_on(signal.SIGTERM)

    def _pass_on(self, number: int) -> None:
        import signal

        if number != getattr(signal, "SIGUSR1", None):
            self._stopping = True
        for process in self._processes:
            if process.slot is not None or self._stopping:
                process.signal(number)
