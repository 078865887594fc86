"""What submitit is asked for, and what a job does when its place is needed."""

from __future__ import annotations

import os
import re
import signal
from pathlib import Path
from typing import Any

import pytest

from bigmodel.errors import ConfigError, MissingPackageError
from bigmodel.registry import validate
from bigmodel.sweeps import slurm as slurms
from bigmodel.sweeps.config import SlurmConfig
from bigmodel.sweeps.jobs import Job, Outcome
from bigmodel.sweeps.report import FileChannel, path_of
from bigmodel.sweeps.slurm import Slurm, Task, check, cluster_for, is_over
from tests.sweeps import fake_slurm
from tests.sweeps.small_jobs import jobs, until

pytest.importorskip("submitit")


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Slurm's commands, with a queue that is held."""
    commands = fake_slurm.install(tmp_path / "commands")
    (commands / "hold").touch()
    monkeypatch.setenv("PATH", f"{commands}{os.pathsep}{os.environ['PATH']}")
    return commands


def idle(job: Job, channel: FileChannel, preemption: int) -> bool:  # noqa: ARG001
    return False


def tasks(folder: Path, count: int) -> list[Task]:
    return [Task(idle, job, path_of(folder, job, 1)) for job in jobs(count)]


def test_the_script_asks_for_what_is_set(tmp_path: Path, place: Path) -> None:
    config = SlurmConfig(
        name="mine", partition="gpu", account="lab", qos="low", constraint="a100", timeout_min=90,
        signal_delay_s=60, gpus_per_node=2, cpus_per_task=8, mem_gb=31.5,
        additional_parameters={"nodelist": "node7", "exclusive": True},
    )  # fmt: skip
    cluster = cluster_for(config, tmp_path / "sub", at_once=3)
    assert isinstance(cluster, Slurm)
    assert cluster.submit(tasks(tmp_path, 5)) == [f"7_{index}" for index in range(5)]
    script = (place / "7.sh").read_text()
    asked = dict(re.findall(r"^#SBATCH --([\w-]+)=?(.*)$", script, re.MULTILINE))
    folder = tmp_path / "sub"
    assert asked == {
        "account": "lab", "array": "0-4%3", "constraint": "a100", "cpus-per-task": "8", "exclusive": "",
        "gpus-per-node": "2", "job-name": "mine", "mem": "32256MB", "nodelist": "node7", "nodes": "1",
        "open-mode": "append", "partition": "gpu", "qos": "low", "signal": "USR2@60", "time": "90",
        "error": f"{folder}/%A_%a_0_log.err", "output": f"{folder}/%A_%a_0_log.out",
        "wckey": "submitit",
    }  # fmt: skip
    assert dict(cluster.states() or {}) == dict.fromkeys((f"7_{n}" for n in range(5)), "PENDING")
    cluster.cancel(["7_1", "7_3"])
    until(lambda: list((cluster.states() or {}).values()).count("CANCELLED") == 2)
    cluster.cancel(["7_0", "7_2", "7_4"])
    until(lambda: all(map(is_over, (cluster.states() or {}).values())))


def test_what_is_not_set_is_left_to_slurm(tmp_path: Path, place: Path) -> None:
    cluster = cluster_for(SlurmConfig(), tmp_path / "sub", at_once=1)
    assert cluster.submit(tasks(tmp_path, 1)) == ["7"]
    script = (place / "7.sh").read_text()
    assert not re.search("--(array|partition|account|qos|mem|gpus|cpus)", script)
    assert "--signal=USR2@120" in script
    cluster.cancel(["7"])


def test_a_refusal_is_told(tmp_path: Path, place: Path) -> None:  # noqa: ARG001
    cluster = cluster_for(SlurmConfig(partition="nowhere"), tmp_path / "sub", at_once=1)
    with pytest.raises(
        ConfigError, match="refused the jobs: error: invalid partition specified: nowhere"
    ):
        cluster.submit(tasks(tmp_path, 2))


def test_a_queue_that_cannot_be_asked_does_not_say_that_jobs_are_over(
    tmp_path: Path, place: Path
) -> None:
    cluster = cluster_for(SlurmConfig(), tmp_path / "sub", at_once=1)
    (place / "squeue").write_text("#!/bin/sh\nexit 1\n")
    assert cluster.states() is None
    assert is_over(None)
    assert [is_over(state) for state in ("PENDING", "COMPLETING", "TIMEOUT")] == [False, False, True]


def test_where_there_is_no_slurm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(ConfigError, match=r"no command sbatch was found.*sweep\.slurm\.cluster=local"):
        check(SlurmConfig())
    check(SlurmConfig(cluster="local"))


def test_where_there_is_no_submitit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(
        MissingPackageError, match=r"needs submitit.*pip install 'bigmodel-train\[sweeps\]'"
    ):
        check(SlurmConfig())


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"timeout_min": 2}, "signal_delay_s=120: should be less than sweep.slurm.timeout_min"),
        ({"partition": "a\nrm -rf ~"}, "partition.*: should be one line"),
        ({"account": ""}, "account.*: should be one line"),
        ({"additional_parameters": {"a\nb": 1}}, "additional_parameters"),
        ({"additional_parameters": {"comment": "x\ny"}}, "should be one line"),
    ],
)
def test_what_would_be_another_line_of_the_script_is_refused(
    values: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        validate(SlurmConfig, SlurmConfig().model_dump() | values, "sweep.slurm")


# ----- the job's end -----


@pytest.mark.parametrize(("variable", "number"), [(None, signal.SIGUSR2), ("USR1", signal.SIGUSR1)])
def test_a_job_is_queued_again_once_it_has_saved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str | None, number: signal.Signals
) -> None:
    if variable is not None:
        monkeypatch.setenv("SUBMITIT_PREEMPT_SIGNAL", variable)
    told: list[Any] = []

    def work(job: Job, channel: FileChannel, preemption: int) -> bool:
        assert preemption == number
        signal.signal(preemption, lambda *_: told.append("asked"))
        os.kill(os.getpid(), preemption)
        channel.ended(Outcome("stopped"))
        told.append(job.number)
        return True

    before = signal.signal(number, lambda *_: told.append("queued"))  # as submitit has it
    try:
        task = Task(work, jobs(1)[0], tmp_path / "job-0-1.json")
        task()
    finally:
        signal.signal(number, before)
    assert told == ["asked", 0, "queued"]
    assert task.checkpoint().function is task


def test_a_job_that_has_ended_is_not(tmp_path: Path) -> None:
    before = signal.signal(signal.SIGUSR2, lambda *_: pytest.fail("queued again"))
    try:
        Task(idle, jobs(1)[0], tmp_path / "job-0-1.json")()
    finally:
        signal.signal(signal.SIGUSR2, before)


def test_local_processes_do_not_get_what_the_terminal_sends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Any] = []

    class Executor:
        def submit(self, _: Task) -> Any:
            seen.append(signal.getsignal(signal.SIGINT))
            return type("Submitted", (), {"job_id": "1", "done": lambda _: True})()

    monkeypatch.setattr(slurms, "_executor", lambda *_: Executor())
    before = signal.getsignal(signal.SIGINT)
    cluster = cluster_for(SlurmConfig(cluster="local"), tmp_path, at_once=1)
    assert cluster.submit(tasks(tmp_path, 1)) == ["1"]
    assert (seen, signal.getsignal(signal.SIGINT)) == ([signal.SIG_IGN], before)
    assert cluster.states() == {}
