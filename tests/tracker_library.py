"""A library in place of trackio that does as a test likes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

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
