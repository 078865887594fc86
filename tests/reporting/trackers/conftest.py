"""A library in place of trackio, which does as a test likes, and a run that it is told of."""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from bigmodel.reporting.base import Labels, Record, RunInfo
from bigmodel.reporting.jsonl import JsonLines
from bigmodel.reporting.summary import write_summary
from bigmodel.reporting.trackers import supervisor
from bigmodel.reporting.trackers.sink import Trackers
from tests.reporting import facts

TIMEOUT = 60.0
"""Seconds after which a state that a test waits for will not come."""

_LIBRARY = """
import json, os, sys
from pathlib import Path
from bigmodel.reporting.trackers import trackio as ours
ours._WRITTEN_WITHIN = 0.0
NOTES, MENDED = Path({notes!r}), Path({mended!r}).exists()
def note(*what):
    with NOTES.open("a") as file:
        file.write(json.dumps([os.getpid(), *what]) + "\\n")
def misbehave(where):
    note(where)
    if where == {where!r} and not MENDED:
        {what}
misbehave("import")
class Run:
    def log(self, metrics, step=None):
        misbehave("log")
        note("logged", metrics, step)
    def finish(self):
        misbehave("finish")
        note("finished")
def init(project, **how):
    misbehave("init")
    note("began", project, how)
    return Run()
"""


class Library:
    """The library and what it was told; without a fault it keeps all of it."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._notes = folder, folder / "notes.jsonl"
        self._mended = folder / "mended"
        self.breaks()

    def breaks(self, where: str = "", what: str = "pass") -> None:
        """Has it do `what`, in Python, when it is imported (`import`), or in `init`, `log`, `finish`."""
        text = _LIBRARY.format(notes=str(self._notes), mended=str(self._mended), where=where, what=what)
        (self._folder / "trackio.py").write_text(text)

    def mend(self) -> None:
        """From its next process on, nothing is wrong with it."""
        self._mended.touch()

    def heard(self, kind: str) -> list[Any]:
        """What it has noted of a kind, without the process."""
        return [note[2:] for note in self._all() if note[1] == kind]

    def processes(self) -> set[int]:
        """The processes in which it was."""
        return {note[0] for note in self._all()}

    def steps(self) -> list[int]:
        """The steps of the records that it has, in the order in which they came."""
        return [step for metrics, step in self.heard("logged") if "status" not in metrics]

    def _all(self) -> list[Any]:
        lines = self._notes.read_text().splitlines() if self._notes.exists() else []
        return [json.loads(line) for line in lines]


@pytest.fixture
def library(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Library:
    folder = tmp_path_factory.mktemp("library")
    monkeypatch.syspath_prepend(str(folder))
    return Library(folder)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "PAUSES", (0.05, 0.2))
    for name in [*os.environ]:
        if name.startswith(("MLFLOW_", "WANDB_", "TRACKIO_")):
            monkeypatch.delenv(name)


class TrackedRun:
    """A run whose records are written, and told to trackers."""

    def __init__(self, folder: Path, *names: str, wait: float = TIMEOUT) -> None:
        self.folder, self._names, self._wait = folder, names, wait
        self.said: list[tuple[str, str]] = []

    def start(self, after: int = 0, **changes: Any) -> None:
        self._jsonl = JsonLines(self.folder)
        self.sink = Trackers(
            self._names, lambda text, level: self.said.append((level, text)), self._wait
        )
        info: RunInfo = facts.info(self.folder, first_step=after, **changes)
        self._jsonl.start(info)
        self.sink.start(info)

    def record(self, *epochs: int) -> None:
        for epoch in epochs:
            record: Record = facts.record(epoch)
            self._jsonl.record(record, {})
            self.sink.record(record, {})

    def rewind(self, step: int) -> None:
        self._jsonl.rewind(step)
        self.sink.rewind(step)

    def end(self, status: str = "finished") -> None:
        summary = facts.summary(status)
        write_summary(summary, self.folder)
        self.sink.finish(summary, self.folder)
        self._jsonl.close()
        self.sink.close()

    def warnings(self) -> list[str]:
        return [text for level, text in self.said if level == "warning"]


@pytest.fixture
def tracked(tmp_path: Path) -> Iterator[Callable[..., TrackedRun]]:
    runs: list[TrackedRun] = []

    def make(*names: str, wait: float = TIMEOUT) -> TrackedRun:
        runs.append(TrackedRun(tmp_path / "run", *names, wait=wait))
        return runs[-1]

    (tmp_path / "run").mkdir()
    yield make
    for run in runs:
        if hasattr(run, "sink"):
            run.sink.close()
            run._jsonl.close()


def until(state: Callable[[], object]) -> None:
    """Waits for a state."""
    deadline = time.monotonic() + TIMEOUT
    while not state():
        assert time.monotonic() < deadline, "what is waited for does not come"
        time.sleep(0.02)


class SilentServer:
    """Accepts connections, and never answers."""

    def __init__(self) -> None:
        self._server = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._server.getsockname()[1]}"
        self.connections: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                self.connections.append(self._server.accept()[0])
            except OSError:
                return

    def close(self) -> None:
        # `close` alone does not wake up the thread that accepts.
        self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
        for connection in self.connections:
            connection.close()


@pytest.fixture
def silent() -> Iterator[SilentServer]:
    server = SilentServer()
    yield server
    server.close()


def named(name: str = "the base line") -> dict[str, Any]:
    """What the user calls a run, for `TrackedRun.start`."""
    labels = Labels(name=name, tags=["paper", "small"], notes="to beat")
    return {"config": facts.CONFIG | {"run": labels.model_dump()}, "labels": labels}
