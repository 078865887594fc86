"""Processes that prepare batches: how a run ends when one of them fails, and that none stays behind."""

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch

from bigmodel.data.batching import workers as workers_module
from bigmodel.data.batching.workers import worker_faults
from bigmodel.errors import DataError
from tests.data.batching.test_workers import batches_of
from tests.faults import trials

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="signals and /proc as Linux has them")


ENDLESS = 100_000.0  # seconds, where nobody may wait for them


def children():
    return {process.pid for process in multiprocessing.active_children()}


@pytest.fixture(autouse=True)
def _no_orphan():
    before = children()
    yield
    assert children() == before


def test_held_out_parts_have_none():
    assert len(list(batches_of(part="val").epoch(0))) == 6
    epoch = batches_of(part="val").epoch(0)
    next(epoch)
    assert not children()


def test_they_are_gone_after_an_epoch_and_when_it_is_left():
    batches = batches_of()
    epoch = batches.epoch(0)
    next(epoch)
    assert len(children()) == 2
    for _ in epoch:
        pass
    assert not children()
    epoch = batches.epoch(1)
    next(epoch)
    epoch.close()
    assert not children()


def test_training_may_be_left_without_closing_anything():
    with worker_faults():
        epoch = batches_of().epoch(0)
        next(epoch)
    assert not children()
    del epoch


def test_one_that_is_killed_is_named_with_cause_and_way_out():
    with worker_faults():
        epoch = batches_of(timeout=ENDLESS).epoch(0)
        next(epoch)
        victim = max(children())
        os.kill(victim, signal.SIGKILL)
        _settled(lambda: victim not in children())
        sum(range(10_000))  # no error here, in the midst of a step
        words = (
            rf"data\.workers: a process .* \(pid {victim}\) was killed by SIGKILL\..* out of memory\."
            r" Say data\.workers=0, .* data\.batch_size\."
        )
        with pytest.raises(DataError, match=words):
            list(epoch)


def test_one_that_is_stopped_is_not_waited_for(monkeypatch):
    """By a clock that moves only while that one is waited for, as busy as the machine may be."""
    now, stopped, wait = 0.0, None, workers_module.wait

    def waited(things, seconds):
        nonlocal now
        if stopped is None or stopped.sentinel not in things:
            return wait(things, None)
        now += seconds
        return []

    monkeypatch.setattr(workers_module, "wait", waited)
    monkeypatch.setattr(workers_module.time, "monotonic", lambda: now)
    with worker_faults():
        epoch = batches_of(timeout=0.2).epoch(0)
        next(epoch)
        stopped = workers_module._living[0].process
        os.kill(stopped.pid, signal.SIGSTOP)
        words = (
            rf"data\.timeout=0\.2: no batch came from a worker \(pid {stopped.pid}\) for 0\.2 seconds\."
            r" .* Say data\.workers=0, or a larger data\.timeout\."
        )
        with pytest.raises(DataError, match=words):
            list(epoch)
    assert now == pytest.approx(0.2)


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_an_error_in_training_ends_them_at_once_even_one_that_is_stopped(error):
    with pytest.raises(error), worker_faults():  # noqa: PT012  all of it belongs within
        for _ in batches_of(timeout=ENDLESS).epoch(0):
            os.kill(min(children()), signal.SIGSTOP)
            raise error
    assert not children()


def test_an_error_in_what_a_worker_runs_arrives_as_itself(monkeypatch):
    def broken(*_):
        raise ZeroDivisionError("a fault of its own")

    monkeypatch.setattr(workers_module.Blocks, "read", broken)
    with pytest.raises(ZeroDivisionError, match="a fault of its own"), worker_faults():
        list(batches_of().epoch(0))
    monkeypatch.setattr(workers_module.Blocks, "read", lambda *_: torch.zeros(2) @ torch.zeros(3))
    with pytest.raises(RuntimeError, match="inconsistent"), worker_faults():
        list(batches_of().epoch(0))


class UnportableError(Exception):
    def __init__(self, one, two):
        super().__init__(one)
        self.two = two


def test_an_error_that_cannot_travel_is_told_in_words(monkeypatch):
    def broken(*_):
        raise UnportableError("lost on the way", 2)

    monkeypatch.setattr(workers_module.Blocks, "read", broken)
    with (
        pytest.raises(RuntimeError, match="UnportableError: lost on the way") as caught,
        worker_faults(),
    ):
        list(batches_of().epoch(0))
    assert "in broken" in caught.value.__notes__[0]


def test_signals_to_the_whole_group_are_left_to_the_main_process():
    with worker_faults():
        epoch = batches_of().epoch(0)
        next(epoch)
        for pid in children():
            os.kill(pid, signal.SIGINT)
            os.kill(pid, signal.SIGUSR1)
        assert len(list(epoch)) == 22


def test_what_the_whole_group_is_sent_is_for_the_main_process_to_decide_about():
    heard = []
    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
    before = {n: signal.signal(n, lambda *_: heard.append(os.getpid())) for n in numbers}
    expected = [batch.inputs for batch in batches_of(workers=0).epoch(0)]
    try:
        with worker_faults():
            epoch = batches_of().epoch(0)
            came = [next(epoch).inputs]
            for number in numbers:
                os.kill(min(children()), number)
            came += [batch.inputs for batch in epoch]
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    assert not heard
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(came, expected, strict=True))


def test_the_signals_of_this_process_stay_as_they_were():
    numbers = (signal.SIGCHLD, signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
    before = [signal.getsignal(number) for number in numbers]
    list(batches_of().epoch(0))
    assert [signal.getsignal(number) for number in numbers] == before
    assert not signal.pthread_sigmask(signal.SIG_BLOCK, [])


def test_no_memory_to_share(monkeypatch):
    def full(_):
        raise RuntimeError("unable to allocate shared memory(shm): No space left on device (28)\nat")

    monkeypatch.setattr(torch.Tensor, "share_memory_", full)
    with pytest.raises(DataError, match=r"shared memory .* No space left .* Say data\.workers=0"):
        list(batches_of().epoch(0))


def test_no_process_to_be_had(monkeypatch):
    def refused():
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(os, "fork", refused)
    with pytest.raises(
        DataError, match=r"data\.workers=2: a process cannot be started: Resource temporarily"
    ):
        list(batches_of().epoch(0))


def test_beside_other_threads():
    done = threading.Event()
    thread = threading.Thread(target=done.wait)
    thread.start()
    try:
        assert len(list(batches_of().epoch(0))) == 23
    finally:
        done.set()
        thread.join()


ORPHANS = """
import multiprocessing, os, signal, sys
from tests.data.batching.test_workers import batches_of


epoch = batches_of().epoch(0)
for _ in range(7):  # of three blocks: both have settled
    next(epoch)
pids = [process.pid for process in multiprocessing.active_children()]
if sys.argv[1] == "stopped":
    os.kill(pids[0], signal.SIGSTOP)
print(*pids, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("state", ["running", "stopped"])
def test_none_outlives_a_main_process_that_is_killed(state):
    root = str(Path(__file__).parents[2])  # named: Python may have been told to leave its folder out
    ended = subprocess.run(
        [sys.executable, "-c", ORPHANS, state],
        env=os.environ | {"PYTHONPATH": os.pathsep.join([root, *sys.path])},
        capture_output=True,
        text=True,
        timeout=trials.HANGS,
    )
    assert ended.returncode == -signal.SIGKILL, ended.stderr
    pids = [int(pid) for pid in ended.stdout.split()]
    assert len(pids) == 2
    _settled(lambda: not any(_alive(pid) for pid in pids))


def _alive(pid):
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"  # nobody may be there to bury it


def _settled(reached):
    deadline = time.monotonic() + trials.HANGS
    while not reached():
        assert time.monotonic() < deadline
        time.sleep(0.01)


RUN = (
    *("data=synthetic", "data.samples=300000", "data.batch_size=16", "data.workers=1", "device=cpu"),
    *("device.threads=1", "trainer.epochs=50", "trainer.tensorboard=false"),
    "trainer.record_every_steps=1",
)


def hang(folder, *argv):
    """A run whose worker is stopped once it has done some steps."""
    attempt = trials.launch(folder, *RUN, *argv, hold="step 3, waiting")
    attempt.until_held()
    (worker,) = trials.children_of(attempt.pid)
    os.kill(worker, signal.SIGSTOP)
    attempt.let_go()
    return attempt


def test_a_run_whose_worker_hangs_saves_what_it_has(tmp_path):
    attempt = hang(tmp_path, "data.timeout=2")
    assert attempt.wait() == 1
    assert "data.timeout=2" in attempt.log
    assert "Traceback" not in attempt.log
    assert trials.acknowledged(tmp_path) >= 3


def test_a_stop_while_a_worker_hangs_does_not_wait_for_it(tmp_path):
    attempt = hang(tmp_path, f"data.timeout={ENDLESS}")
    attempt.until(lambda: (tmp_path / trials.HELD).read_text() == "waiting")
    attempt.send(signal.SIGTERM)
    assert attempt.wait() == 143, attempt.log
    assert trials.acknowledged(tmp_path) >= 3
