"""Jobs in a queue: submitted, waited for, lost, left there and found again."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from bigmodel.sweeps import queue
from bigmodel.sweeps.jobs import Job, JobList, JobSource, Outcome
from bigmodel.sweeps.manifest import JobState, Manifest
from bigmodel.sweeps.queue import QueueLauncher, catch_up, new_folder
from bigmodel.sweeps.report import FileChannel
from bigmodel.sweeps.slurm import Task
from tests.sweeps.small_jobs import Recorder, jobs

Requests = Callable[[], "int | None"]


@pytest.fixture(autouse=True)
def _without_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("TICK", "LOOK", "ASK"):
        monkeypatch.setattr(queue, name, 0.0)


class FakeCluster:
    """Jobs that run when they are asked after: each submission at the first question, `at_once` at most.

    Attributes:
        batches: what was submitted, the jobs' numbers of each time.
        ends: by name, the states of jobs whose process says nothing; they are told instead of running.
        cancelled: the names of jobs that were told to stop.
    """

    def __init__(self, *, keeps: bool = True, ends: Mapping[str, str | None] | None = None) -> None:
        self.keeps, self.patience = keeps, 0.0
        self.ends = dict(ends or {})
        self.batches: list[list[int]] = []
        self.cancelled: list[str] = []
        self.runs = True
        self._waiting: dict[str, Task] = {}
        self._states: dict[str, str] = {}

    def submit(self, tasks: Sequence[Task]) -> list[str]:
        names = [f"{len(self.batches)}_{index}" for index in range(len(tasks))]
        self.batches.append([task._job.number for task in tasks])
        self._waiting |= dict(zip(names, tasks, strict=True))
        self._states |= dict.fromkeys(names, "PENDING")
        return names

    def states(self) -> Mapping[str, str]:
        for name, task in list(self._waiting.items()):
            if name in self.ends:
                del self._waiting[name]
                if (state := self.ends[name]) is None:
                    del self._states[name]
                else:
                    self._states[name] = state
            elif self.runs and not self.cancelled:
                del self._waiting[name]
                task()
                self._states[name] = "COMPLETED"
        return dict(self._states) if self.keeps else dict.fromkeys(self._waiting, "RUNNING")

    def cancel(self, names: Sequence[str]) -> None:
        self.cancelled += names
        for name in names:
            if self._waiting.pop(name, None):
                self._states[name] = "CANCELLED"


def quick(job: Job, channel: FileChannel, preemption: int) -> bool:  # noqa: ARG001
    channel.started(Path(str(job.number)))
    channel.progressed({"step": job.number})
    channel.ended(Outcome("finished", value=float(job.number)))
    return False


def failing(job: Job, channel: FileChannel, preemption: int) -> bool:  # noqa: ARG001
    channel.ended(Outcome("failed", f"it is job {job.number}"))
    return False


def run(
    sweep: Path,
    source: JobSource | int,
    cluster: FakeCluster,
    *,
    work: Any = quick,
    at_once: int = 2,
    first: int = 100,
    requests: Requests = lambda: None,
    adopt: Iterable[Job] = (),
    states: Mapping[int, JobState] | None = None,
    **more: Any,
) -> Recorder:
    """Runs jobs, and returns what was seen of them."""
    recorder = Recorder()
    states = {job.number: JobState(job) for job in jobs(9)} if states is None else states
    source = JobList(jobs(source)) if isinstance(source, int) else source
    folder = new_folder(sweep)
    how = {"at_once": at_once, "first": first, "states": states}
    launcher = QueueLauncher(work, source, recorder, cluster, folder, **how, **more)  # type: ignore[arg-type]
    launcher.adopt(adopt)
    launcher.run(requests)
    return recorder


def test_jobs_that_are_known_are_submitted_together(tmp_path: Path) -> None:
    cluster = FakeCluster()
    seen = run(tmp_path, 5, cluster)
    assert cluster.batches == [[0, 1, 2, 3, 4]]
    assert seen.statuses() == {number: ["finished"] for number in range(5)}
    assert seen.outcomes[3][0].value == 3.0
    assert seen.of("started") == list(range(5))
    assert (3, {"step": 3}) in seen.reports


def test_no_more_wait_than_may(tmp_path: Path) -> None:
    cluster = FakeCluster()
    run(tmp_path, 5, cluster, at_once=2, first=3)
    assert cluster.batches == [[0, 1, 2], [3, 4]]


def test_a_job_that_failed_is_submitted_again(tmp_path: Path) -> None:
    cluster = FakeCluster()
    seen = run(tmp_path, JobList(jobs(2), retries=1), cluster, work=failing)
    assert cluster.batches == [[0, 1], [0, 1]]
    assert seen.statuses() == {0: ["failed", "failed"], 1: ["failed", "failed"]}
    assert len(list(tmp_path.glob("slurm/1/job-0-*.json"))) == 2


@pytest.mark.parametrize(
    ("state", "status", "words"),
    [
        (
            "OUT_OF_MEMORY",
            "failed",
            "0_0 ended without a word (OUT_OF_MEMORY). Raise sweep.slurm.mem_gb",
        ),
        ("NODE_FAIL", "stopped", "0_0 ended without a word (NODE_FAIL)"),
        ("TIMEOUT", "stopped", "slurm/1/0_0_0_log.err"),
        (None, "failed", "0_0 ended without a word. What"),  # forgotten by now
    ],
)
def test_a_job_that_says_nothing_is_missed(
    tmp_path: Path, state: str | None, status: str, words: str
) -> None:
    cluster = FakeCluster(ends={"0_0": state})
    seen = run(tmp_path, 2, cluster)
    assert seen.statuses() == {0: [status], 1: ["finished"]}
    assert words in str(seen.outcomes[0][0].error)


def test_a_job_that_is_queued_again_is_not_over(tmp_path: Path) -> None:
    class Queued(FakeCluster):
        asked = 0

        def states(self) -> Mapping[str, str]:
            self.asked += 1
            if self.asked < 4:
                return {"0_0": ["PENDING", "PREEMPTED", "PENDING"][self.asked - 1]}
            return super().states()

    stopped: list[int] = []

    def work(job: Job, channel: FileChannel, preemption: int) -> bool:
        if not stopped:
            stopped.append(job.number)
            channel.ended(Outcome("stopped"))
        return quick(job, channel, preemption)

    cluster = Queued()
    cluster.patience = 60.0
    assert run(tmp_path, 1, cluster, work=work).statuses() == {0: ["finished"]}


def test_a_queue_that_does_not_answer_is_asked_again(tmp_path: Path) -> None:
    class Silent(FakeCluster):
        asked = 0

        def states(self) -> Mapping[str, str] | None:  # type: ignore[override]
            self.asked += 1
            return None if self.asked < 3 else super().states()

    assert run(tmp_path, 1, Silent()).statuses() == {0: ["finished"]}


def test_a_job_is_pruned_where_its_source_says_so(tmp_path: Path) -> None:
    """It is told while it runs, here between two questions to the cluster."""
    asked: list[tuple[int, int, float]] = []

    class Pruner(JobList):
        def evaluated(self, job: Job, evaluation: int, value: float) -> bool:
            asked.append((job.number, evaluation, value))
            return (job.number, evaluation) == (1, 2)

    class Slow(FakeCluster):
        def states(self) -> Mapping[str, str]:
            for task in list(self._waiting.values()):
                channel = channels.setdefault(task._job.number, FileChannel(task._report, task._job))
                done = len(channel._report.evaluations)
                if (worse := channel.evaluated(done + 1, 0.5)) is not None:
                    channel.ended(Outcome("pruned", f"for evaluation {worse}"))
                elif done == 4:
                    channel.ended(Outcome("finished"))
            return dict.fromkeys(self._waiting, "RUNNING")

    channels: dict[int, FileChannel] = {}
    seen = run(tmp_path, Pruner(jobs(2)), Slow())
    assert seen.statuses() == {0: ["finished"], 1: ["pruned"]}
    assert seen.outcomes[1][0].error == "for evaluation 2"
    assert [number for job, number, _ in asked if job == 1] == [1, 2]  # not the one with which it ended


# ----- stopped -----


def stop_at_once() -> int:
    return signal.SIGINT


def test_jobs_that_are_kept_go_on(tmp_path: Path) -> None:
    cluster = FakeCluster()
    cluster.runs = False
    assert run(tmp_path, 2, cluster, requests=stop_at_once).events == []
    assert cluster.cancelled == []


def test_others_are_stopped_and_what_has_not_begun_is_not_over(tmp_path: Path) -> None:
    cluster = FakeCluster(keeps=False)
    assert run(tmp_path, 2, cluster, requests=stop_at_once).events == []
    assert cluster.cancelled == ["0_0", "0_1"]


def test_a_request_to_save_is_not_one_to_stop(tmp_path: Path) -> None:
    cluster = FakeCluster()
    assert len(run(tmp_path, 2, cluster, requests=lambda: signal.SIGUSR1).outcomes) == 2


def test_the_first_failure_can_cancel_the_others(tmp_path: Path) -> None:
    cluster = FakeCluster(ends={"0_0": "FAILED"})
    cluster.runs = False
    seen = run(tmp_path, 3, cluster, stop_on_failure=True)
    assert seen.statuses() == {0: ["failed"]}
    assert cluster.cancelled == ["0_1", "0_2"]


# ----- gone on with -----


def left_behind(sweep: Path, count: int = 2, **how: Any) -> FakeCluster:
    """A queue with the jobs of a sweep that was stopped."""
    cluster = FakeCluster(**how)
    cluster.runs = False
    run(sweep, count, cluster, requests=stop_at_once)
    cluster.runs = True
    return cluster


def test_jobs_in_the_queue_are_not_submitted_twice(tmp_path: Path) -> None:
    cluster = left_behind(tmp_path)
    seen = run(tmp_path, 3, cluster, adopt=jobs(3))
    assert cluster.batches == [[0, 1], [2]]
    assert seen.statuses() == {number: ["finished"] for number in range(3)}


def test_a_job_that_ended_meanwhile_is_heard(tmp_path: Path) -> None:
    cluster = left_behind(tmp_path)
    cluster.states()  # they run
    cluster._states.clear()  # and are forgotten
    assert run(tmp_path, 2, cluster, adopt=jobs(2)).statuses() == {0: ["finished"], 1: ["finished"]}
    assert cluster.batches == [[0, 1]]


def test_a_job_that_is_gone_is_submitted_again(tmp_path: Path) -> None:
    cluster = left_behind(tmp_path)
    cluster.cancel(["0_1"])
    cluster.cancelled.clear()
    seen = run(tmp_path, 2, cluster, adopt=jobs(2))
    assert cluster.batches == [[0, 1], [1]]
    assert seen.statuses() == {0: ["finished"], 1: ["finished"]}


def test_a_failure_that_was_heard_is_tried_again(tmp_path: Path) -> None:
    cluster = FakeCluster()
    run(tmp_path, 1, cluster, work=failing)
    states = {0: JobState(jobs(1)[0], "failed")}
    seen = run(tmp_path, 1, cluster, adopt=jobs(1), states=states)
    assert seen.statuses() == {0: ["finished"]}


@pytest.mark.parametrize("name", ["--me", "7; ls", "7_", "", "../1/job", "/1/job"])
def test_names_from_a_record_are_no_options_of_commands_and_no_paths(tmp_path: Path, name: str) -> None:
    cluster = left_behind(tmp_path)
    record = tmp_path / "slurm" / queue.SUBMITTED
    ours = "1/job-0" if name.endswith("job") else "0_0"
    theirs = f"{name}-0" if name.endswith("job") else name
    text = record.read_text()
    assert ours in text
    record.write_text(text.replace(ours, theirs) + '{"job": 0, "na')
    run(tmp_path, 2, cluster, adopt=jobs(2))
    assert cluster.batches == [[0, 1], [0]]


def test_a_job_knows_its_folder_from_an_attempt_that_nobody_saw(tmp_path: Path) -> None:
    begun: list[bool] = []

    def work(job: Job, channel: FileChannel, preemption: int) -> bool:
        begun.append(channel.begun)
        return quick(job, channel, preemption)

    run(tmp_path, 1, FakeCluster(), work=work)
    run(tmp_path, 1, FakeCluster(), work=work)
    run(tmp_path / "..", 1, FakeCluster(), work=work, states={0: JobState(jobs(1)[0], folder=tmp_path)})
    assert begun == [False, True, True]


def test_a_sweep_that_goes_on_elsewhere_knows_the_folders_of_jobs(tmp_path: Path) -> None:
    manifest = Manifest.create(tmp_path, ["-m"], jobs(3))
    catch_up(manifest)  # nothing was ever submitted

    def work(job: Job, channel: FileChannel, preemption: int) -> bool:
        return quick(job, channel, preemption) if job.number else failing(job, channel, preemption)

    run(tmp_path, 2, FakeCluster(), work=work)
    catch_up(manifest)
    assert [state.attempts for state in manifest.states.values()] == [0, 1, 0]
    catch_up(manifest)
    assert manifest.states[1].attempts == 1


def test_each_start_has_a_folder_of_its_own(tmp_path: Path) -> None:
    assert [new_folder(tmp_path).name for _ in range(2)] == ["1", "2"]
    (tmp_path / "slurm" / "12").mkdir()
    (tmp_path / "slurm" / "mine").mkdir()
    assert new_folder(tmp_path).name == "13"
    assert (tmp_path / "slurm" / "13").stat().st_mode & 0o77 == 0
