"""How a process was started, by the variables of its environment."""

from __future__ import annotations

import os

import pytest

from bigmodel.distributed.environment import Place, first_host, place
from bigmodel.errors import ConfigError

MEETING = {"MASTER_ADDR": "gpu1", "MASTER_PORT": "29500"}
TORCHRUN = MEETING | {"TORCHELASTIC_RUN_ID": "1", "RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1"}
BATCH = {
    "SLURM_JOB_ID": "70",
    "SLURM_NTASKS": "4",
    "SLURM_NPROCS": "4",
    "SLURM_PROCID": "0",
    "SLURM_LOCALID": "0",
    "SLURM_NODEID": "0",
    "SLURM_JOB_NODELIST": "gpu[1-2]",
}
"""The shell of a script that `sbatch` has started, for four tasks that nothing has started."""
STEP = BATCH | {
    "SLURM_STEP_ID": "2",
    "SLURM_STEP_NUM_TASKS": "4",
    "SLURM_STEP_NODELIST": "gpu[1-2]",
    "SLURM_PROCID": "3",
    "SLURM_LOCALID": "1",
    "SLURM_NODEID": "1",
}
"""The last of four tasks that `srun` has started on two machines."""


@pytest.fixture(autouse=True)
def _no_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "isatty", lambda _: False)


def found(variables: dict[str, str]) -> Place:
    there = place(variables)
    assert there is not None
    return there


def test_torchrun_s_own_variables() -> None:
    there = found(TORCHRUN)
    assert (there.starter, there.rank, there.size, there.gpu) == ("torchrun", 3, 4, 1)
    assert (there.address, there.port) == ("gpu1", 29500)
    assert found(STEP | TORCHRUN).starter == "torchrun"  # which srun has started


def test_without_a_local_rank_the_gpu_is_left_open() -> None:
    assert found({**TORCHRUN, "LOCAL_RANK": ""}).gpu is None


def test_a_task_of_srun() -> None:
    there = found(STEP)
    assert (there.starter, there.rank, there.size, there.gpu) == ("srun", 3, 4, 1)
    assert (there.address, there.port) == ("gpu1", 61440 + 72)
    there = found(STEP | MEETING)
    assert (there.address, there.port) == ("gpu1", 29500)
    assert found({**STEP, "SLURM_JOB_ID": str(2**31)}).port < 2**16


def test_tasks_that_see_one_gpu_each_take_that() -> None:
    assert found(STEP | {"CUDA_VISIBLE_DEVICES": "0"}).gpu == 0
    assert found(STEP | {"CUDA_VISIBLE_DEVICES": "0,1"}).gpu == 1


@pytest.mark.parametrize(
    "variables",
    [
        {},
        {"WORLD_SIZE": "1", "RANK": "0"},
        {"WORLD_SIZE": "2"},
        BATCH,
        STEP | {"SLURM_STEP_NUM_TASKS": "1"},  # submitit starts each job of a sweep like that
        BATCH | {"SLURM_STEP_ID": str(0xFFFFFFFA), "SLURM_STEP_NUM_TASKS": "4"},
    ],
    ids=["nothing", "torchrun, one", "no rank", "sbatch", "srun, one", "salloc"],
)
def test_a_process_that_was_started_alone(variables: dict[str, str]) -> None:
    assert place(variables) is None


def test_a_shell_that_srun_has_given_a_terminal_is_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "isatty", lambda _: True)
    assert place(STEP) is None
    assert place(TORCHRUN) is not None


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"RANK": "x"}, "RANK=x: expected a whole number"),
        ({"RANK": "4"}, "torchrun: there is no process 4 of 4"),
        ({"MASTER_ADDR": ""}, "WORLD_SIZE=4: MASTER_ADDR says where"),
    ],
    ids=str,
)
def test_variables_that_mean_nothing(changed: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        place(TORCHRUN | changed)


@pytest.mark.parametrize(
    ("hosts", "first"),
    [
        ("gpu1", "gpu1"),
        ("gpu1,gpu2", "gpu1"),
        ("gpu[007-009,012],login1", "gpu007"),
        ("a[3,5]-ib,b", "a3-ib"),
        ("rack[1-2]node[4-8]", "rack1node4"),
    ],
)
def test_the_first_machine_of_slurm_s_list(hosts: str, first: str) -> None:
    assert first_host(hosts) == first
