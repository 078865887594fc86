"""Tells trackers of a run."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from bigmodel.errors import counted, program, shell_quoted
from bigmodel.reporting import jsonl, run_name
from bigmodel.reporting.base import ProgressReport, Record, RunInfo, Sink, Summary
from bigmodel.reporting.formatting import shown_path
from bigmodel.reporting.trackers import described
from bigmodel.reporting.trackers.described import Description, Progress
from bigmodel.reporting.trackers.supervisor import Supervisor, take
from bigmodel.runtime import disk
from bigmodel.sweeps import manifest

WAIT, WAIT_STOPPED = 30.0, 10.0
"""Seconds at most in which the rest is sent at the end of a run; and if it was stopped or has failed, as
whoever stops it may not wait longer."""

_PATIENCE = 2.0
"""Seconds after which the user is told what is waited for."""


class Trackers(Sink):
    """Has each tracker read the records that `metrics.jsonl` receives; must come after that sink.

    Nothing here waits for a tracker but `finish`, for a limited time. What was not sent by then is sent
    by `bigmodel track`, or when the run is resumed.

    Args:
        names: of the trackers.
        say: shows a message and its level to the user.
        wait: seconds that `finish` takes at most; None: `WAIT`, or `WAIT_STOPPED`.
    """

    essential = False

    def __init__(
        self, names: Sequence[str], say: Callable[[str, str], None], wait: float | None = None
    ) -> None:
        self._names, self._say, self._wait = names, say, wait
        self._supervisors: list[Supervisor] = []

    def start(self, info: RunInfo) -> None:
        path = described.description_path(info.folder)
        disk.make_folder(path.parent)
        told = describe(info.title, info.config, info.folder)
        replace(told, name=run_name.run_name(info)).write(path)
        for name in self._names:
            kept = described.progress_path(info.folder, name)
            if not kept.exists():  # so that `bigmodel track` knows of it, whatever happens
                Progress().write(kept)
            self._supervisors.append(Supervisor(name, info.folder, info.last_recorded_step))

    def progress(self, progress: ProgressReport) -> None:  # noqa: ARG002
        self._pass_on()

    def record(self, record: Record, best: Record) -> None:  # noqa: ARG002
        self._pass_on()

    def rewind(self, step: int) -> None:
        for each in self._supervisors:
            each.rewind(step)

    def finish(self, summary: Summary, folder: Path) -> None:
        wait = self._wait
        if wait is None:
            wait = WAIT if summary.status == "finished" else WAIT_STOPPED
        deadline = time.monotonic() + wait
        for each in self._supervisors:
            each.finish()
        self._await(min(_PATIENCE, wait))
        self._pass_on()
        if late := [each.name for each in self._supervisors if not each.wait(0)]:
            self._say(f"Sending the rest to {' and '.join(late)}, for {wait:g} s at most.", "info")
        self._await(deadline - time.monotonic())
        for each in self._supervisors:
            each.end()
        self._pass_on()
        for each in self._supervisors:
            if not each.done:
                self._say(unsent_words(each, folder), "warning")

    def close(self) -> None:
        for each in self._supervisors:
            each.end()

    def _await(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        for each in self._supervisors:
            each.wait(deadline - time.monotonic())

    def _pass_on(self) -> None:
        for each in self._supervisors:
            take(each.messages, self._say)


def describe(title: str, config: Mapping[str, Any], folder: Path) -> Description:
    """What trackers are told of a run before its first record.

    Args:
        config: without secrets.
    """
    run = config.get("run")
    named = run if isinstance(run, dict) else {}
    folder = folder.absolute()
    of_sweep = (folder.parent / manifest.NAME).is_file()
    return Description(
        title=title,
        folder=str(folder),
        records=jsonl.NAME,
        config={key: value for key, value in config.items() if key not in ("run", "sweep")},
        name=str(named.get("name") or run_name.described(config, {})),
        tags=[str(tag) for tag in named.get("tags") or []],
        notes=str(named.get("notes") or ""),
        group="/".join(folder.parts[-3:-1]) if of_sweep else "",
    )


def unsent_words(tracker: Supervisor, folder: Path) -> str:
    """What a tracker does not have, why, and how to send it."""
    count = tracker.unsent()
    what = f"{counted(count, 'record')} of the run" if count else "the end of the run"
    was = "was" if count < 2 else "were"
    why = f" {tracker.failure}" if tracker.failure else " It did not answer in time."
    command = f"{program('bigmodel')} track {shell_quoted(shown_path(folder))}"
    return f"{tracker.name}: {what} {was} not sent:{why} To send it, type: {command}"
