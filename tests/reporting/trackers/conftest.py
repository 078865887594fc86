"""A run that trackers are told of, without training."""

from __future__ import annotations

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
from tests.tracker_library import Library, library

__all__ = ["Library", "library"]

TIMEOUT = 60.0
"""Seconds after which a state that a test waits for will not come."""


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
