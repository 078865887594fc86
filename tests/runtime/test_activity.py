"""Signs of life of whatever takes long, and work that does not keep signals waiting."""

import os
import signal
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest

from bigmodel.runtime import activity
from bigmodel.runtime.signals import Signals, Stopped
from bigmodel.training.loop import fit
from tests.small_runs import built

PATIENCE = 60  # seconds after which a test gives up


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """A sign of life nearly at once."""
    monkeypatch.setattr(activity, "SILENCE", 0.01)
    monkeypatch.setattr(activity, "_SLACK", 0.0)


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
    with activity.report_progress("Reading"):
        with activity.reporting_to(outer):
            outer.wait()
        with activity.reporting_to(inner), activity.report_progress(lambda: "Counting, 3 of 7"):
            inner.wait()
        again = Heard("Reading, ")
        with activity.reporting_to(again):
            again.wait()
    assert outer.lines[0] == "Reading, 0 s so far"


def test_whoever_speaks_needs_no_sign(monkeypatch: pytest.MonkeyPatch) -> None:
    """A word puts the next sign off: it is due a whole silence later."""
    clock, waits, heard = [0.0], [], Heard("Reading")
    monkeypatch.setattr(activity, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    monkeypatch.setattr(activity, "_tasks", [activity._Task("Reading", 0.0)])
    monkeypatch.setattr(activity, "_last_output", 0.0)

    class Over:
        def wait(self, seconds: float) -> bool:
            waits.append(seconds)
            clock[0] += seconds
            if len(waits) == 1:
                activity.note_output()
            return len(waits) == 3

    with activity.reporting_to(heard):
        activity._print_when_due(Over())  # type: ignore[arg-type]
    assert waits == [30.5, 30.5, 30.5]
    assert heard.lines == ["Reading, 1 min 01 s so far"]


@pytest.mark.usefixtures("quick")
def test_nothing_is_said_when_all_is_done() -> None:
    heard = Heard("Reading")
    with activity.reporting_to(heard):
        with activity.report_progress("Reading"):
            heard.wait()
        for thread in threading.enumerate():
            if thread.name == "signs of life":
                thread.join(PATIENCE)
                assert not thread.is_alive()
    assert not activity._tasks


@pytest.mark.parametrize("seconds", [0.0, 59.6, 61.0, 3600.0])
def test_how_long_it_takes_is_told_in_words(seconds: float) -> None:
    told = {0.0: "0 s", 59.6: "1 min 00 s", 61.0: "1 min 01 s", 3600.0: "60 min 00 s"}
    assert activity._words(seconds) == told[seconds]


def test_a_library_s_work_leaves_the_process_to_answer() -> None:
    """The thread that waits goes on running Python, in which signals are heeded."""
    main, seen = threading.current_thread(), []

    def work() -> int:
        seen.append(threading.current_thread() is main)
        return 7

    assert activity.interruptible(work) == 7
    assert seen == [False]


def test_a_request_to_stop_is_heeded_while_a_library_computes() -> None:
    """Its work is left as it is: here it would go on for ever."""
    over = threading.Event()

    def work() -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        over.wait()

    signals = Signals()
    with signals.installed(), pytest.raises(Stopped):
        activity.interruptible(work)
    over.set()


def test_what_such_work_raises_is_raised() -> None:
    with pytest.raises(ZeroDivisionError):
        activity.interruptible(lambda: 1 / 0)


@pytest.mark.usefixtures("quick")
def test_a_run_shows_life_while_it_evaluates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However long one batch takes: here until a line has come."""
    run, told = built(tmp_path, {"trainer.epochs": 1})
    heard = Heard("Evaluating: 0 of 16 samples, ")
    monkeypatch.setattr(told, "message", lambda text, level="info": heard(text))  # noqa: ARG005
    monkeypatch.setattr(run.signals, "check", heard.wait)
    fit(run)
    assert any(line.startswith("Evaluating: 0 of 16 samples, ") for line in heard.lines)
