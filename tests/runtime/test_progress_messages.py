"""Progress messages of work that takes long."""

import threading
from pathlib import Path
from types import SimpleNamespace

import pytest

from bigmodel.runtime import progress_messages
from bigmodel.training.loop import fit
from tests.small_runs import built

PATIENCE = 60  # seconds after which a test gives up


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """A message almost at once."""
    monkeypatch.setattr(progress_messages, "SILENCE", 0.01)
    monkeypatch.setattr(progress_messages, "_SLACK", 0.0)


class Heard:
    """Keeps what is said, and lets a test wait for it."""

    def __init__(self, wanted: str) -> None:
        self.lines: list[str] = []
        self._wanted = wanted
        self._there = threading.Event()

    def __call__(self, text: str) -> None:
        self.lines.append(text)
        if self._wanted in text:
            self._there.set()

    def wait(self) -> None:
        assert self._there.wait(PATIENCE), self.lines


@pytest.mark.usefixtures("quick")
def test_long_work_says_what_it_does_and_how_far_it_is() -> None:
    outer, inner = Heard("Reading, "), Heard("Counting, 3 of 7, ")
    with progress_messages.report_progress("Reading"):
        with progress_messages.reporting_to(outer):
            outer.wait()
        with (
            progress_messages.reporting_to(inner),
            progress_messages.report_progress(lambda: "Counting, 3 of 7"),
        ):
            inner.wait()
        again = Heard("Reading, ")
        with progress_messages.reporting_to(again):
            again.wait()
    assert outer.lines[0] == "Reading, 0 s so far"


def test_whoever_speaks_needs_no_message(monkeypatch: pytest.MonkeyPatch) -> None:
    """A word puts the next message off: it is due a whole silence later."""
    clock, waits, heard = [0.0], [], Heard("Reading")
    monkeypatch.setattr(progress_messages, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    monkeypatch.setattr(progress_messages, "_tasks", [progress_messages._Task("Reading", 0.0)])
    monkeypatch.setattr(progress_messages, "_last_output", 0.0)

    class Over:
        def wait(self, seconds: float) -> bool:
            waits.append(seconds)
            clock[0] += seconds
            if len(waits) == 1:
                progress_messages.note_output()
            return len(waits) == 3

    with progress_messages.reporting_to(heard):
        progress_messages._print_when_due(Over())  # type: ignore[arg-type]
    assert waits == [30.5, 30.5, 30.5]
    assert heard.lines == ["Reading, 1 min 01 s so far"]


@pytest.mark.usefixtures("quick")
def test_nothing_is_said_when_all_is_done() -> None:
    heard = Heard("Reading")
    with progress_messages.reporting_to(heard):
        with progress_messages.report_progress("Reading"):
            heard.wait()
        for thread in threading.enumerate():
            if thread.name == "progress":
                thread.join(PATIENCE)
                assert not thread.is_alive()
    assert not progress_messages._tasks


@pytest.mark.parametrize("seconds", [0.0, 59.6, 61.0, 3600.0])
def test_how_long_it_takes_is_told_in_words(seconds: float) -> None:
    told = {0.0: "0 s", 59.6: "1 min 00 s", 61.0: "1 min 01 s", 3600.0: "60 min 00 s"}
    assert progress_messages._words(seconds) == told[seconds]


@pytest.mark.usefixtures("quick")
def test_a_run_shows_life_while_it_evaluates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However long one batch takes: here until a line has come."""
    run, told = built(tmp_path, {"trainer.epochs": 1})
    heard = Heard("Evaluating: 0 of 16 samples, ")
    monkeypatch.setattr(told, "message", lambda text, level="info": heard(text))  # noqa: ARG005
    monkeypatch.setattr(run.signals, "check", heard.wait)
    fit(run)
    assert any(line.startswith("Evaluating: 0 of 16 samples, ") for line in heard.lines)
