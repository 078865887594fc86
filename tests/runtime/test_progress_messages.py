"""Progress messages of work that takes long."""

import os
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


def test_whoever_speaks_needs_no_sign(monkeypatch: pytest.MonkeyPatch) -> None:
    """A word puts the next sign off: it is due a whole silence later."""
    clock, heard = [31.0], Heard("Reading")
    monkeypatch.setattr(progress_messages, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    monkeypatch.setattr(progress_messages, "_tasks", [progress_messages._Task("Reading", 0.0)])
    monkeypatch.setattr(progress_messages, "_last_output", 0.0)
    with progress_messages.reporting_to(heard):
        progress_messages.note_output()
        for clock[0] in (60.9, 61.0, 61.5, 90.0):
            progress_messages._print_if_due()
    assert heard.lines == ["Reading, 1 min 01 s so far"]
    assert progress_messages._due() == 61.0 + 30.5


@pytest.mark.usefixtures("quick")
def test_one_thread_serves_all_blocks() -> None:
    for wanted in ("Reading", "Counting"):
        heard = Heard(wanted)
        with progress_messages.reporting_to(heard), progress_messages.report_progress(wanted):
            heard.wait()
    assert [thread.name for thread in threading.enumerate()].count("progress") == 1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes cannot be forked here")
@pytest.mark.usefixtures("quick")
def test_a_forked_process_reports_too() -> None:
    with progress_messages.report_progress("Reading"):
        pass
    child = os.fork()
    if child == 0:
        heard = Heard("Counting")
        with progress_messages.reporting_to(heard), progress_messages.report_progress("Counting"):
            os._exit(not heard._there.wait(PATIENCE))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


@pytest.mark.usefixtures("quick")
def test_nothing_is_said_when_all_is_done() -> None:
    heard = Heard("Reading")
    with progress_messages.reporting_to(heard):
        with progress_messages.report_progress("Reading"):
            heard.wait()
        said = len(heard.lines)
        progress_messages._print_if_due()
    assert len(heard.lines) == said
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
