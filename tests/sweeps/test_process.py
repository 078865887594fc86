"""A job's end of the line to its sweep, and its process."""

from __future__ import annotations

import os
import signal
import sys
from functools import partial
from multiprocessing import Pipe
from pathlib import Path

import pytest

from bigmodel.errors import DataError, DeviceError
from bigmodel.sweeps.jobs import Job, Outcome
from bigmodel.sweeps.process import Channel, JobProcess, OrphanedError, Slot, call, unblock_signals
from tests.sweeps.small_jobs import until

JOB = Job(0, ("seed=0",))
forks = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="forks test functions")


@pytest.mark.parametrize("call", ["wait_for_slot", "started", "progressed", "evaluated", "ended"])
def test_each_word_to_a_sweep_that_is_gone_says_so(call: str) -> None:
    ours, theirs = Pipe()
    theirs.close()
    content = {
        "started": (Path(),), "progressed": ({},), "evaluated": (1, 0.5), "ended": (Outcome("failed"),),
    }.get(call, ())  # fmt: skip
    with pytest.raises(OrphanedError):
        getattr(Channel(ours), call)(*content)


@pytest.mark.parametrize("call", ["wait_for_slot", "started", "evaluated"])
def test_so_does_waiting_for_an_answer_from_it(call: str) -> None:
    ours, theirs = Pipe()
    content = {"started": (Path(),), "evaluated": (1, 0.5)}.get(call, ())
    channel = Channel(ours)
    channel._send = lambda *_: theirs.close()  # type: ignore[method-assign]
    with pytest.raises(OrphanedError):
        getattr(channel, call)(*content)


def test_a_job_writes_only_once_its_folder_is_recorded() -> None:
    """Else a kill in between leaves a folder that a resumed sweep takes for a stranger's."""
    ours, theirs = Pipe()
    theirs.send(None)
    Channel(ours).started(Path("folder"))
    assert theirs.recv() == ("started", Path("folder"))
    assert not ours.poll(), "the answer was not waited for"


@forks
def test_what_a_job_says_comes_in_order(tmp_path: Path) -> None:
    def work(_: Job, channel: Channel) -> None:
        channel.wait_for_slot()
        channel.progressed({"pid": os.getpid()})
        channel.ended(Outcome("finished", os.environ["ROOM"]))

    process = JobProcess(JOB, work, tmp_path / "log")
    told: list[tuple[object, ...]] = []
    until(lambda: told.extend(process.messages()) or told)
    assert told == [("ready",)]
    process.run_in(Slot("one", {"ROOM": "1"}))
    assert process.slot == Slot("one", {"ROOM": "1"})
    until(lambda: not process.alive)
    progressed, ended = process.messages()
    assert progressed[0] == "progressed"
    assert progressed[1]["pid"] not in (None, os.getpid())
    assert ended == ("ended", Outcome("finished", "1"))
    process.outcome = ended[1]
    assert process.close() == ended[1]
    assert not (tmp_path / "log").exists()  # nothing was printed


@forks
def test_signals_wait_until_the_work_asks_for_them(tmp_path: Path) -> None:
    def work(_: Job, channel: Channel) -> None:
        channel.wait_for_slot()
        told: list[int] = []
        signal.signal(signal.SIGTERM, lambda number, _: told.append(number))
        (tmp_path / "signalled").touch()
        until((tmp_path / "go on").exists)
        before = list(told)
        unblock_signals()
        until(lambda: told)
        channel.ended(Outcome("stopped", f"{before} {told}"))

    process = JobProcess(JOB, work, tmp_path / "log")
    process.signal(signal.SIGTERM)  # before it has a handler
    process.run_in(Slot())
    until((tmp_path / "signalled").exists)
    (tmp_path / "go on").touch()
    until(lambda: not process.alive)
    *_, (_, outcome) = process.messages()
    assert outcome.error == f"[] [{int(signal.SIGTERM)}]"
    assert process.close().status == "failed"  # it was never told to the process


@forks
def test_a_function_in_a_process_of_its_own(capfd: pytest.CaptureFixture[str]) -> None:
    assert call(os.getpid) != os.getpid()
    with pytest.raises(DataError, match="no such file"):
        call(partial(_raise, DataError("no such file")))
    with pytest.raises(DeviceError, match="its process was ended by SIGKILL, as the system does"):
        call(lambda: os.kill(os.getpid(), signal.SIGKILL))
    before = signal.signal(signal.SIGINT, lambda *_: os.write(2, b"told twice"))
    try:
        with pytest.raises(DeviceError, match="SIGINT"):
            call(lambda: os.kill(os.getpid(), signal.SIGINT))
    finally:
        signal.signal(signal.SIGINT, before)
    assert capfd.readouterr().err == ""


def _raise(error: Exception) -> None:
    raise error


@forks
def test_ctrl_c_at_a_terminal_goes_to_the_sweep_alone(tmp_path: Path) -> None:
    def work(_: Job, channel: Channel) -> None:
        channel.ended(Outcome("finished", str(os.getpgid(0))))

    process = JobProcess(JOB, work, tmp_path / "log")
    until(lambda: not process.alive)
    ((_, outcome),) = process.messages()
    process.close()
    assert outcome.error != str(os.getpgid(0))


@forks
def test_a_signal_to_one_that_has_ended_is_none(tmp_path: Path) -> None:
    process = JobProcess(JOB, lambda *_: None, tmp_path / "log")
    until(lambda: not process.alive)
    process.signal(signal.SIGTERM)
    process.answer("anything")
    assert process.close() == Outcome("failed", "its process exited with status 0")
