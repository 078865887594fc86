import os
import signal
import threading

import pytest

from bigmodel import signals
from bigmodel.signals import Mode, Signals, Stopped

pytestmark = pytest.mark.skipif(not hasattr(signal, "SIGUSR1"), reason="signals as POSIX has them")


@pytest.fixture
def left(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The statuses with which the process would have been left at once."""
    statuses: list[int] = []
    monkeypatch.setattr(signals.os, "_exit", statuses.append)
    return statuses


def test_the_handlers_before_come_back() -> None:
    before = [signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)]
    with Signals().installed():
        assert signal.getsignal(signal.SIGTERM) != before[0]
    assert [signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)] == before


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
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
            asked.heeded()
    assert left == []


def test_a_stop_that_came_meanwhile_is_raised_when_raising_begins() -> None:
    asked = Signals()
    with asked.installed():
        with asked.waiting():
            os.kill(os.getpid(), signal.SIGINT)
        with pytest.raises(Stopped):
            asked.enter(Mode.RAISE)


def test_a_long_step_is_left_in_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    asked, now = Signals(), 100.0
    monkeypatch.setattr(signals.time, "monotonic", lambda: now)
    with asked.installed(), asked.waiting():
        os.kill(os.getpid(), signal.SIGTERM)
        assert not asked.urgent()
        now += signals.PATIENCE + 0.1
        assert asked.urgent()


def test_a_request_to_save_stops_nothing(left: list[int]) -> None:
    asked = Signals()
    with asked.installed(), asked.waiting():
        os.kill(os.getpid(), signal.SIGUSR1)
        assert asked.pending
        asked.check()
        asked.heeded()
        assert not asked.pending
        os.kill(os.getpid(), signal.SIGUSR1)
        os.kill(os.getpid(), signal.SIGUSR1)
    assert left == []


def test_a_second_stop_leaves_at_once_and_tidies_up(left: list[int]) -> None:
    asked, tidied = Signals(), []
    asked.on_leaving = lambda: tidied.append(True)
    with asked.installed(), asked.waiting():
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGTERM)
    assert (left, tidied) == ([143], [True])


def test_before_anything_began_the_first_stop_leaves_at_once(left: list[int]) -> None:
    asked = Signals()
    asked.enter(Mode.LEAVE)
    with asked.installed():
        os.kill(os.getpid(), signal.SIGTERM)
    assert left == [143]


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
