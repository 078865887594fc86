import os
import signal
import sys
import threading
from pathlib import Path

import pytest

from bigmodel.runtime import signals
from bigmodel.runtime.signals import SignalMode, Signals, Stopped

pytestmark = pytest.mark.skipif(not hasattr(signal, "SIGUSR1"), reason="signals as POSIX has them")


@pytest.fixture
def left(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The statuses with which the process would have been left at once."""
    statuses: list[int] = []
    monkeypatch.setattr(signals.os, "_exit", statuses.append)
    return statuses


def test_the_handlers_before_come_back() -> None:
    before, hook = [signal.getsignal(n) for n in signals.NUMBERS], sys.unraisablehook
    with Signals().installed():
        assert signal.getsignal(signal.SIGTERM) != before[0]
    assert [signal.getsignal(n) for n in signals.NUMBERS] == before
    assert sys.unraisablehook == hook


@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGHUP, 129)]
)
def test_a_stop_is_raised_with_its_status(number: signal.Signals, status: int) -> None:
    asked = Signals()
    with asked.installed(), pytest.raises(Stopped) as caught:
        os.kill(os.getpid(), number)
    assert caught.value.status == status
    assert isinstance(caught.value, KeyboardInterrupt)


def test_within_training_a_stop_waits_until_all_is_saved(left: list[int]) -> None:
    asked = Signals()
    with asked.installed(), asked.waiting():
        assert not asked.pending
        os.kill(os.getpid(), signal.SIGTERM)
        assert asked.pending
        assert not asked.urgent()
        with pytest.raises(Stopped, match="terminated"):
            asked.check()
        with pytest.raises(Stopped):
            asked.acknowledged()
    assert left == []


def test_what_another_process_was_asked_before_is_no_first_request(left: list[int]) -> None:
    asked = Signals()
    asked.shared = True
    with asked.installed(), asked.waiting():
        asked.hear(signals._STOPPING + signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
        assert left == []
        with pytest.raises(Stopped):
            asked.check()
        asked._asked -= signals.PATIENCE
        os.kill(os.getpid(), signal.SIGINT)
    assert left == [130]


def test_among_several_processes_a_signal_that_is_passed_on_is_the_same_one(left: list[int]) -> None:
    asked = Signals()
    asked.shared = True
    with asked.installed(), asked.waiting():
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGTERM)
        assert left == []
        assert asked.tell() == signals._STOPPING + signal.SIGTERM
        asked._asked -= signals.PATIENCE
        os.kill(os.getpid(), signal.SIGTERM)
    assert left == [143]


def test_a_request_that_comes_while_others_are_heard_is_told_the_next_time() -> None:
    asked = Signals()
    asked.shared = True
    with asked.installed(), asked.waiting():
        told = asked.tell()
        os.kill(os.getpid(), signal.SIGTERM)  # while the process waits for what the others tell
        asked.hear(told)
        assert not asked.pending
        asked.hear(asked.tell())
        assert asked.pending
        assert asked.tell() == 0


def test_a_stop_that_came_meanwhile_is_raised_when_raising_begins() -> None:
    asked = Signals()
    with asked.installed():
        with asked.waiting():
            os.kill(os.getpid(), signal.SIGINT)
        with pytest.raises(Stopped):
            asked.enter(SignalMode.RAISE)


def test_a_long_step_is_left_in_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    asked, now = Signals(), 100.0
    monkeypatch.setattr(signals.time, "monotonic", lambda: now)
    with asked.installed(), asked.waiting():
        os.kill(os.getpid(), signal.SIGTERM)
        assert not asked.urgent()
        now += signals.PATIENCE + 0.1
        assert asked.urgent()


@pytest.mark.parametrize("number", signals.NUMBERS, ids=lambda n: n.name)
def test_what_is_ignored_stays_ignored(number: signal.Signals) -> None:
    before = signal.signal(number, signal.SIG_IGN)
    try:
        with Signals().installed():
            os.kill(os.getpid(), number)
            assert signal.getsignal(number) is signal.SIG_IGN
    finally:
        signal.signal(number, before)


def test_within_an_import_nothing_is_raised_that_it_could_swallow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "swallows.py").write_text(
        "import os, signal\ntry:\n    os.kill(os.getpid(), signal.SIGINT)\n    whole = True\n"
        "except BaseException:\n    raise ImportError('something else') from None\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    reached = []
    with Signals().installed():
        with pytest.raises(Stopped):  # noqa: PT012  the statement after the import is what it is about
            import swallows  # type: ignore[import-not-found]

            reached.append(True)
        assert sys.modules["swallows"].whole
        assert swallows.whole
    assert reached == []
    assert sys.gettrace() is None
    del sys.modules["swallows"]


class Dropped:
    """Asks for a stop when nobody has it any more, where what is raised goes nowhere."""

    def __del__(self) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        for _ in range(10):
            pass


def test_what_is_raised_in_a_destructor_is_raised_after_it(capfd: pytest.CaptureFixture[str]) -> None:
    reached = []
    with Signals().installed(), pytest.raises(Stopped):  # noqa: PT012  as above
        Dropped()
        reached.append(True)
    assert reached == []
    assert capfd.readouterr().err == ""


def test_an_error_that_a_stop_was_made_into_is_a_stop() -> None:
    asked = Signals()
    error = RuntimeError("callback failed")
    error.__context__ = ValueError("within")
    assert asked.status(error) is None
    error.__context__.__cause__ = Stopped(signal.SIGTERM)
    assert asked.status(error) == 143
    assert asked.status(KeyboardInterrupt()) == 130


def test_a_closed_terminal_is_told_more_than_once(left: list[int]) -> None:
    """Its shell, the kernel and systemd all send signals: that is one request."""
    asked = Signals()
    with asked.installed(), asked.waiting():
        for number in (signal.SIGHUP, signal.SIGHUP, signal.SIGTERM, signal.SIGHUP):
            os.kill(os.getpid(), number)
        assert left == []
        with pytest.raises(Stopped, match="terminated"):
            asked.check()
        os.kill(os.getpid(), signal.SIGTERM)
    assert left == [143]


def test_once_all_is_done_the_work_s_status_stands(left: list[int]) -> None:
    asked = Signals()
    asked.over(3)
    with asked.installed():
        os.kill(os.getpid(), signal.SIGTERM)
    assert left[0] == 3


def test_a_request_to_save_stops_nothing(left: list[int]) -> None:
    asked = Signals()
    with asked.installed(), asked.waiting():
        os.kill(os.getpid(), signal.SIGUSR1)
        assert asked.pending
        asked.check()
        asked.acknowledged()
        assert not asked.pending
        os.kill(os.getpid(), signal.SIGUSR1)
        os.kill(os.getpid(), signal.SIGUSR1)
    assert left == []


def test_a_signal_is_passed_on_once(left: list[int]) -> None:
    asked = Signals()
    with asked.installed(), asked.waiting():
        assert asked.take() is None
        for number in (signal.SIGUSR1, signal.SIGTERM):
            os.kill(os.getpid(), number)
            assert (asked.take(), asked.take()) == (number, None)
    assert left == []


def test_a_second_stop_leaves_at_once_and_tidies_up(left: list[int]) -> None:
    asked, tidied = Signals(), []
    asked.on_leaving = lambda: tidied.append(True)
    with asked.installed(), asked.waiting():
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGTERM)
    assert (left, tidied) == ([143], [True])


def test_before_anything_began_the_first_stop_leaves_at_once(
    left: list[int], capfd: pytest.CaptureFixture[str]
) -> None:
    asked = Signals("program")
    asked.enter(SignalMode.LEAVE)
    with asked.installed():
        os.kill(os.getpid(), signal.SIGTERM)
    assert left == [143]
    assert capfd.readouterr().err == "program: Stopped.\n"


def test_another_thread_leaves_the_handlers_alone() -> None:
    before = signal.getsignal(signal.SIGTERM)
    seen = []

    def work() -> None:
        with Signals().installed():
            seen.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [before]


def test_a_library_s_work_leaves_the_process_to_answer() -> None:
    """The thread that waits goes on running Python, in which signals are heeded."""
    main, seen = threading.current_thread(), []

    def work() -> int:
        seen.append(threading.current_thread() is main)
        return 7

    assert signals.interruptible(work) == 7
    assert seen == [False]


def test_a_request_to_stop_is_heeded_while_a_library_computes() -> None:
    """Its work is left as it is: here it would go on for ever."""
    over = threading.Event()

    def work() -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        over.wait()

    with Signals().installed(), pytest.raises(Stopped):
        signals.interruptible(work)
    over.set()


def test_what_such_work_raises_is_raised() -> None:
    with pytest.raises(ZeroDivisionError):
        signals.interruptible(lambda: 1 / 0)


@pytest.mark.parametrize(
    "sent", [(signal.SIGUSR2,), (signal.SIGTERM, signal.SIGUSR2), (signal.SIGUSR2, signal.SIGTERM)]
)
def test_who_is_asked_to_make_room_may_be_told_twice(sent: tuple[int, ...], left: list[int]) -> None:
    asked, before = Signals(), signal.getsignal(signal.SIGUSR2)
    try:
        with asked.installed(), asked.waiting():
            asked.preempt_on(signal.SIGUSR2)
            for number in sent:
                os.kill(os.getpid(), number)
            assert asked.pending
            with pytest.raises(Stopped):
                asked.acknowledged()
    finally:
        signal.signal(signal.SIGUSR2, before)
    assert asked.preempted
    assert left == []


def test_the_signal_to_save_may_ask_for_room() -> None:
    asked = Signals()
    with asked.installed(), asked.waiting():
        os.kill(os.getpid(), signal.SIGUSR1)
        assert not asked.preempted
        asked.preempt_on(signal.SIGUSR1)
        os.kill(os.getpid(), signal.SIGUSR1)
        assert asked.preempted
        with pytest.raises(Stopped):
            asked.check()
