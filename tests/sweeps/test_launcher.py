"""Jobs run side by side in processes of their own, whatever becomes of one of them."""

from __future__ import annotations

import multiprocessing
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from bigmodel.sweeps.jobs import Job, JobList, JobSource, Outcome
from bigmodel.sweeps.launcher import Launcher
from bigmodel.sweeps.process import Channel, Slot, Work, unblock_signals
from tests.sweeps.small_jobs import HANGS, Recorder, jobs, until

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="forks test functions")

Requests = Callable[[], "int | None"]


def quick(job: Job, channel: Channel) -> None:
    channel.wait_for_slot()
    channel.started(Path(str(job.number)))
    channel.ended(Outcome("finished", value=float(job.number)))


def run(
    folder: Path,
    work: Work,
    source: JobSource | int,
    *,
    slots: Sequence[Slot] | int = 1,
    recorder: Recorder | None = None,
    requests: Requests = lambda: None,
    **more: Any,
) -> Recorder:
    """Runs jobs, and returns what was seen of them.

    Args:
        source: or how many jobs.
        slots: or how many.
    """
    recorder = Recorder() if recorder is None else recorder
    source = JobList(jobs(source)) if isinstance(source, int) else source
    slots = [Slot()] * slots if isinstance(slots, int) else slots
    Launcher(work, source, recorder, slots, folder / "logs", **more).run(requests)
    return recorder


# ----- slots -----


def test_jobs_run_in_their_order(tmp_path: Path) -> None:
    seen = run(tmp_path, quick, 5)
    expected = [(event, number) for number in range(5) for event in ("started", "ended")]
    assert seen.events == expected
    assert [seen.outcomes[number][0].value for number in range(5)] == [0.0, 1.0, 2.0, 3.0, 4.0]


def test_a_job_that_is_prepared_sooner_waits_for_those_before_it(tmp_path: Path) -> None:
    def work(job: Job, channel: Channel) -> None:
        if job.number == 0:
            until((tmp_path / "1").exists)
            time.sleep(0.3)  # in which the other would take the slot
        (tmp_path / str(job.number)).touch()
        quick(job, channel)

    recorder = run(tmp_path, work, 2, ahead=1)

    assert recorder.of("started") == [0, 1]


def test_as_many_at_a_time_as_there_are_slots(tmp_path: Path) -> None:
    def work(job: Job, channel: Channel) -> None:
        channel.wait_for_slot()
        (tmp_path / f"begun {job.number}").touch()
        channel.started(tmp_path)
        if job.number < 3:  # the first three meet, and so all have a slot
            until(lambda: len(list(tmp_path.glob("begun *"))) >= 3)
        channel.ended(Outcome("finished"))

    seen = run(tmp_path, work, 9, slots=3)
    assert seen.most == 3
    assert sorted(seen.of("ended")) == list(range(9))


def test_a_job_has_its_slot_s_environment_to_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DEVICE", "of the sweep")

    def work(job: Job, channel: Channel) -> None:
        channel.wait_for_slot()
        taken = tmp_path / os.environ["DEVICE"]
        taken.mkdir()  # fails if another job is there
        channel.started(tmp_path)
        if job.number < 2:
            (tmp_path / f"begun {job.number}").touch()
            until(lambda: len(list(tmp_path.glob("begun *"))) == 2)
        taken.rmdir()
        channel.ended(Outcome("finished", os.environ["DEVICE"]))

    seen = run(tmp_path, work, 8, slots=[Slot(name, {"DEVICE": name}) for name in ("a", "b")])
    assert seen.statuses() == {number: ["finished"] for number in range(8)}
    assert {seen.outcomes[number][0].error for number in (0, 1)} == {"a", "b"}
    assert os.environ["DEVICE"] == "of the sweep"


@pytest.mark.parametrize("ahead", [0, 1, 2])
def test_so_many_are_prepared_before_there_is_room(tmp_path: Path, ahead: int) -> None:
    def work(job: Job, channel: Channel) -> None:
        (tmp_path / f"prepared {job.number}").touch()
        channel.wait_for_slot()
        channel.started(tmp_path)
        if job.number == 0:
            until(lambda: len(list(tmp_path.glob("prepared *"))) == 1 + ahead)
        channel.ended(Outcome("finished"))

    class Source(JobList):
        asked = 0

        def next(self) -> Job | None:
            self.asked += 1
            return super().next()

    class Seen(Recorder):
        asked = 0

        def started(self, job: Job, folder: Path) -> None:
            super().started(job, folder)
            if job.number == 0:
                self.asked = source.asked

    source, seen = Source(jobs(4)), Seen()
    run(tmp_path, work, source, ahead=ahead, recorder=seen)
    assert seen.asked == 1 + ahead
    assert sorted(seen.outcomes) == [0, 1, 2, 3]


# ----- what becomes of one job -----


def _raise() -> None:
    raise OSError("the disk is gone")


ENDS: dict[str, tuple[Callable[[], None], str]] = {
    "killed": (lambda: os.kill(os.getpid(), signal.SIGKILL), "ended by SIGKILL, as the system does"),
    "limited": (lambda: os.kill(os.getpid(), signal.SIGXCPU), "ended by SIGXCPU"),
    "exits": (lambda: os._exit(3), "exited with status 3"),
    "exits with 0": (lambda: os._exit(0), "exited with status 0"),
    "raises": (_raise, "exited with status 1"),
    "leaves": (lambda: sys.exit(4), "exited with status 4"),
}


def test_one_that_left_at_once_because_it_was_told_to_is_stopped(tmp_path: Path) -> None:
    def work(job: Job, channel: Channel) -> None:
        channel.wait_for_slot()
        channel.started(tmp_path / str(job.number))
        os._exit(128 + signal.SIGTERM)

    assert run(tmp_path, work, 1).statuses() == {0: ["stopped"]}


@pytest.mark.parametrize("phase", ["preparing", "running"])
@pytest.mark.parametrize("way", ENDS)
def test_one_that_ends_without_a_word_has_failed_and_harms_no_other(
    tmp_path: Path, way: str, phase: str
) -> None:
    end, reason = ENDS[way]

    def work(job: Job, channel: Channel) -> None:
        if job.number == 1 and phase == "preparing":
            end()
        channel.wait_for_slot()
        channel.started(tmp_path / str(job.number))
        if job.number == 1:
            end()
        channel.ended(Outcome("finished"))

    seen = run(tmp_path, work, 4, slots=2)
    (outcome,) = seen.outcomes.pop(1)
    assert outcome.status == "failed"
    assert reason in (outcome.error or "")
    assert outcome.folder == (tmp_path / "1" if phase == "running" else None)
    assert seen.statuses() == {number: ["finished"] for number in (0, 2, 3)}


def test_what_jobs_print_is_in_a_log_of_each(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    def work(job: Job, channel: Channel) -> None:
        if job.number == 1:
            print("said by", job.number)  # noqa: T201
            os.write(2, b"and by a library\n")
            raise OSError("the disk is gone")
        quick(job, channel)

    with capfd.disabled():
        run(tmp_path, work, 3)
    assert [path.name for path in (tmp_path / "logs").iterdir()] == ["1.log"]
    text = (tmp_path / "logs" / "1.log").read_text()
    assert "said by 1" in text
    assert "and by a library" in text
    assert "OSError: the disk is gone" in text


def test_one_is_over_although_a_process_of_its_own_lives_on(tmp_path: Path) -> None:
    def work(job: Job, channel: Channel) -> None:
        channel.wait_for_slot()
        if job.number == 0:
            child = os.fork()
            if child == 0:  # it has all that the job has open
                signal.pause()
            (tmp_path / "child").write_text(str(child))
            os._exit(3)
        channel.ended(Outcome("finished"))

    try:
        assert run(tmp_path, work, 2).statuses() == {0: ["failed"], 1: ["finished"]}
    finally:
        os.kill(int((tmp_path / "child").read_text()), signal.SIGKILL)


def test_a_job_is_told_to_stop_by_the_source(tmp_path: Path) -> None:
    def work(job: Job, channel: Channel) -> None:
        channel.wait_for_slot()
        channel.started(tmp_path)
        channel.progressed({"step": 1})
        for step in range(10):
            if (worse := channel.evaluated(step, float(job.number))) is not None:
                channel.ended(Outcome("pruned", value=float(worse)))
                return
        channel.ended(Outcome("finished"))

    class Pruner(JobList):
        def evaluated(self, job: Job, step: int, value: float) -> bool:
            return value == 1.0 and step == 3 and job.number == 1

    seen = run(tmp_path, work, Pruner(jobs(3)), slots=2)
    assert seen.statuses() == {0: ["finished"], 1: ["pruned"], 2: ["finished"]}
    assert seen.outcomes[1][0].value == 3.0
    assert sorted(seen.reports, key=lambda told: told[0]) == [(n, {"step": 1}) for n in range(3)]


# ----- failures -----


def test_one_that_failed_is_tried_again_after_the_others(tmp_path: Path) -> None:
    def work(job: Job, channel: Channel) -> None:
        channel.wait_for_slot()
        channel.started(tmp_path)
        with (tmp_path / f"attempts {job.number}").open("a") as file:
            file.write("x")
        attempts = (tmp_path / f"attempts {job.number}").stat().st_size
        if job.number == 0 and attempts < 3:
            os._exit(1)
        channel.ended(Outcome("failed" if job.number == 2 else "finished"))

    seen = run(tmp_path, work, JobList(jobs(4), retries=2))
    assert seen.statuses() == {
        0: ["failed", "failed", "finished"], 1: ["finished"], 2: ["failed"] * 3, 3: ["finished"],
    }  # fmt: skip
    assert seen.of("started")[:4] == [0, 1, 2, 3]


def test_what_would_fail_again_is_not_tried_again(tmp_path: Path) -> None:
    def work(_: Job, channel: Channel) -> None:
        channel.wait_for_slot()
        channel.ended(Outcome("failed", "refused", may_pass=False))

    assert run(tmp_path, work, JobList(jobs(1), retries=2)).statuses() == {0: ["failed"]}


def test_a_failure_that_is_tried_again_stops_no_other(tmp_path: Path) -> None:
    def work(job: Job, channel: Channel) -> None:
        channel.wait_for_slot()
        channel.started(tmp_path / str(job.number))
        tried = tmp_path / f"tried {job.number}"
        failed = job.number == 0 and not tried.exists()
        tried.touch()
        channel.ended(Outcome("failed" if failed else "finished"))

    recorder = run(tmp_path, work, JobList(jobs(3), retries=1), stop_on_failure=True)

    assert recorder.statuses() == {0: ["failed", "finished"], 1: ["finished"], 2: ["finished"]}


def test_the_first_failure_stops_the_others_where_asked(tmp_path: Path) -> None:
    def work(job: Job, channel: Channel) -> None:
        signal.signal(signal.SIGTERM, lambda *_: (tmp_path / f"asked {job.number}").touch())
        unblock_signals()
        channel.wait_for_slot()
        channel.started(tmp_path)
        if job.number == 0:
            until((tmp_path / "running 1").exists)
            channel.ended(Outcome("failed", "no data"))
            return
        (tmp_path / f"running {job.number}").touch()
        until((tmp_path / f"asked {job.number}").exists)
        channel.ended(Outcome("stopped", "terminated"))

    seen = run(tmp_path, work, 6, slots=2, ahead=0, stop_on_failure=True)
    assert seen.statuses() == {0: ["failed"], 1: ["stopped"]}
    assert seen.outcomes[1][0].error == "since job 0 failed (sweep.on_error=stop)"


# ----- stopping -----


def obedient(folder: Path) -> Work:
    """Jobs that train until they are asked to stop; while they are being prepared they leave at once."""

    def work(job: Job, channel: Channel) -> None:
        told: list[int] = []
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: os._exit(143))
        signal.signal(signal.SIGUSR1, lambda number, _: told.append(number))
        unblock_signals()
        (folder / f"prepared {job.number}").touch()
        channel.wait_for_slot()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda number, _: told.append(number))
        channel.started(folder)
        (folder / f"running {job.number}").touch()
        until(lambda: told)
        if told[0] == signal.SIGUSR1:
            channel.ended(Outcome("finished", "saved"))
        else:
            channel.ended(Outcome("stopped", signal.Signals(told[0]).name))

    return work


def once(reached: Callable[[], object], number: int) -> Requests:
    """Asks with a signal as soon as something is the case."""
    asked: list[int] = []

    def requests() -> int | None:
        if asked or not reached():
            return None
        asked.append(number)
        return number

    return requests


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda n: n.name)
def test_a_stop_reaches_all_that_run_and_no_other_begins(tmp_path: Path, number: signal.Signals) -> None:
    def all_there() -> bool:
        return len(list(tmp_path.glob("running *"))) == 2 and (tmp_path / "prepared 2").exists()

    seen = run(tmp_path, obedient(tmp_path), 6, slots=2, requests=once(all_there, number))
    assert seen.statuses() == {0: ["stopped"], 1: ["stopped"]}
    assert {seen.outcomes[n][0].error for n in (0, 1)} == {number.name}
    assert not (tmp_path / "prepared 3").exists()


def test_one_that_has_room_and_no_folder_yet_has_not_begun_when_a_stop_comes(tmp_path: Path) -> None:
    def work(job: Job, channel: Channel) -> None:
        signal.signal(signal.SIGTERM, lambda *_: os._exit(143))
        unblock_signals()
        channel.wait_for_slot()
        (tmp_path / f"has room {job.number}").touch()
        until(lambda: False)

    asked = once((tmp_path / "has room 0").exists, signal.SIGTERM)
    assert run(tmp_path, work, 3, requests=asked).events == []


def test_a_request_to_save_reaches_those_that_run_and_the_sweep_goes_on(tmp_path: Path) -> None:
    asked: set[int] = set()

    def requests() -> int | None:
        for path in tmp_path.glob("running *"):
            if (number := int(path.name.split()[1])) not in asked:
                asked.add(number)
                return signal.SIGUSR1
        return None

    seen = run(tmp_path, obedient(tmp_path), 3, requests=requests)
    assert seen.statuses() == {number: ["finished"] for number in range(3)}
    assert seen.outcomes[2][0].error == "saved"


def deaf(folder: Path) -> Work:
    """Jobs that hear nothing, and never end."""

    def work(job: Job, channel: Channel) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN)
        unblock_signals()
        channel.wait_for_slot()
        channel.started(folder)
        (folder / f"running {job.number}").touch()
        until(lambda: False)

    return work


def test_those_that_hang_are_killed_when_the_sweep_is_left(tmp_path: Path) -> None:
    def requests() -> int | None:
        if len(list(tmp_path.glob("running *"))) == 2:
            raise KeyboardInterrupt
        return None

    before = multiprocessing.active_children()
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, deaf(tmp_path), 4, slots=2, requests=requests)
    assert multiprocessing.active_children() == before


def test_processes_of_a_job_are_killed_with_it(tmp_path: Path) -> None:
    def work(job: Job, channel: Channel) -> None:
        channel.wait_for_slot()
        child = subprocess.Popen(["sleep", str(HANGS)])
        channel.started(tmp_path / str(job.number))
        (tmp_path / "child").write_text(str(child.pid))
        time.sleep(HANGS)

    def leave() -> int | None:
        if (tmp_path / "child").exists() and (tmp_path / "child").read_text():
            raise KeyboardInterrupt
        return None

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, work, 1, requests=leave)
    state = Path(f"/proc/{(tmp_path / 'child').read_text()}/stat")
    until(lambda: not state.exists() or ") Z " in state.read_text())  # nobody may have asked for its end


@pytest.mark.parametrize("when", ["in a tick", "as it is told"])
def test_an_error_of_the_sweep_itself_leaves_no_process(tmp_path: Path, when: str) -> None:
    class Full(Recorder):
        def started(self, job: Job, folder: Path) -> None:
            if when == "as it is told":
                raise OSError("no space left")
            super().started(job, folder)

        def tick(self) -> None:
            if self.events:
                raise OSError("no space left")

    before = multiprocessing.active_children()
    with pytest.raises(OSError, match="no space left"):
        run(tmp_path, deaf(tmp_path), 4, slots=2, recorder=Full())
    assert multiprocessing.active_children() == before


def test_jobs_end_when_the_sweep_s_process_is_gone(tmp_path: Path) -> None:
    def work(job: Job, channel: Channel) -> None:
        channel.wait_for_slot()
        channel.started(tmp_path)
        for step in range(1 << 30):
            channel.progressed({"step": step})
            (tmp_path / f"running {job.number}").touch()
            time.sleep(0.001)

    theirs_to_read, held = os.pipe()  # all processes of the sweep hold its end open
    sweep = multiprocessing.get_context("fork").Process(
        target=run, args=(tmp_path, work, 5), kwargs={"slots": 2, "ahead": 2}
    )
    sweep.start()
    os.close(held)
    until(lambda: len(list(tmp_path.glob("running *"))) == 2)
    assert sweep.pid is not None
    os.kill(sweep.pid, signal.SIGKILL)
    sweep.join()
    readable, _, _ = select.select([theirs_to_read], [], [], HANGS)
    assert readable, "some are still there"
    assert os.read(theirs_to_read, 1) == b""
    os.close(theirs_to_read)


# ----- what is left -----


def test_a_hundred_jobs_leave_nothing_open(tmp_path: Path) -> None:
    def left() -> tuple[int, int]:
        return len(list(Path("/proc/self/fd").iterdir())), len(multiprocessing.active_children())

    run(tmp_path, quick, 2)
    before = left()
    seen = run(tmp_path, quick, 100, slots=3)
    assert left() == before
    assert sorted(seen.outcomes) == list(range(100))
    assert list((tmp_path / "logs").iterdir()) == []


# ----- imports -----


def test_what_a_job_had_to_import_the_next_ones_find(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lazy = "bigmodel.reporting.pictures"
    monkeypatch.delitem(sys.modules, lazy, raising=False)
    monkeypatch.setitem(sys.modules, "colorsys", None)  # a stranger's is never imported
    del sys.modules["colorsys"]
    found: list[tuple[int, bool]] = []

    def work(_: Job, channel: Channel) -> None:
        channel.wait_for_slot()
        channel.progressed({"found": lazy in sys.modules})
        __import__(lazy)
        __import__("colorsys")
        sys.modules["bigmodel.of_a_plugin"] = sys  # which nobody can import
        channel.ended(Outcome("finished"))

    class Watching(Recorder):
        def progressed(self, job: Job, report: dict[str, Any]) -> None:
            found.append((job.number, report["found"]))

    run(tmp_path, work, 2, recorder=Watching(), ahead=0)
    assert found == [(0, False), (1, True)]
    assert "colorsys" not in sys.modules
