"""The command line as a user calls it, in a folder of its own.

It runs in this process, since torch takes seconds to load.
"""

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hydra.core.global_hydra import GlobalHydra

from bigmodel.cli import invocation, train


@dataclass
class Result:
    """What a command left: exit status, what it printed, and its newest run's folder."""

    status: int
    out: str
    err: str
    folder: Path | None

    def records(self) -> list[dict[str, Any]]:
        assert self.folder is not None
        return [json.loads(line) for line in (self.folder / "metrics.jsonl").read_text().splitlines()]

    def summary(self) -> dict[str, Any]:
        assert self.folder is not None
        summary: dict[str, Any] = json.loads((self.folder / "summary.json").read_text())
        return summary


Command = Callable[..., Result]


@pytest.fixture
def command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Command:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)

    def call(*argv: str) -> Result:
        monkeypatch.setattr(sys, "argv", ["bigmodel-train", *argv])
        monkeypatch.setattr(invocation, "current", invocation.Invocation())
        GlobalHydra.instance().clear()
        try:
            train.main()
            status = 0
        except SystemExit as end:
            status = end.code if isinstance(end.code, int) else 1
        printed = capsys.readouterr()
        runs = sorted(tmp_path.rglob("summary.json"), key=lambda path: path.stat().st_mtime)
        return Result(status, printed.out, printed.err, runs[-1].parent if runs else None)

    return call
