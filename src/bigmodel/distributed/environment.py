"""How this process was started: alone, or as one of several by torchrun, Slurm's srun or a program like
them. Everything that is known of that stands here, and needs no torch."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping

from bigmodel.errors import ConfigError

_PORTS = 61440, 4096  # the first, and how many: above those that Linux gives to whoever asks for any
_RESERVED = 0xFFFFFFF0  # the first of the numbers that Slurm gives to the shells of sbatch and salloc


class Place:
    """One of several processes that were started together.

    Attributes:
        starter: what has started them, in words.
        rank: the number of this one, from 0.
        size: how many there are.
        gpu: the number of its GPU among those that it sees; None: as there is one for each process of
            this machine, its number among these.
        address: the machine where they meet, that of the first process.
        port: where on that machine.
    """

    def __init__(
        self, starter: str, rank: int, size: int, gpu: int | None, address: str, port: int
    ) -> None:
        self.starter, self.rank, self.size, self.gpu = starter, rank, size, gpu
        self.address, self.port = address, port
        if not 0 <= rank < size:
            raise ConfigError(f"{starter}: there is no process {rank} of {size}.")


def place(variables: Mapping[str, str] = os.environ) -> Place | None:
    """This process's place among those that were started together; None if it was started alone.

    torchrun's variables go before those of Slurm, in whose jobs torchrun may run. Of Slurm's, those of
    its own step count alone: the shells of `sbatch` and `salloc` know how many tasks they may start,
    which nothing has started yet. Nor has a step with a terminal (`srun --pty`) any other process.

    Raises:
        ConfigError: a variable has no meaning, or one is missing.
    """
    if _number(variables, "WORLD_SIZE", 1) > 1 and "RANK" in variables:
        return _of_torchrun(variables)
    if "SLURM_PROCID" not in variables or _number(variables, "SLURM_STEP_ID", _RESERVED) >= _RESERVED:
        return None
    tasks = _number(variables, "SLURM_STEP_NUM_TASKS", _number(variables, "SLURM_NTASKS", 1))
    return _of_srun(variables, tasks) if tasks > 1 and not _has_terminal() else None


def _of_torchrun(variables: Mapping[str, str]) -> Place:
    missing = [name for name in ("MASTER_ADDR", "MASTER_PORT") if not variables.get(name)]
    if missing:
        raise ConfigError(
            f"WORLD_SIZE={variables['WORLD_SIZE']}: {missing[0]} says where these processes meet, and is"
            " not set. Start them with torchrun, or unset WORLD_SIZE to train in this process alone."
        )
    return Place(
        "torchrun" if "TORCHELASTIC_RUN_ID" in variables else "a launcher",
        _number(variables, "RANK", 0),
        _number(variables, "WORLD_SIZE", 1),
        _number(variables, "LOCAL_RANK", 0) if variables.get("LOCAL_RANK") else None,
        variables["MASTER_ADDR"],
        _number(variables, "MASTER_PORT", 0),
    )


def _of_srun(variables: Mapping[str, str], tasks: int) -> Place:
    """By the variables of `srun`, as its manual describes them."""
    first, count = _PORTS
    number = _number(variables, "SLURM_JOB_ID", 0) + _number(variables, "SLURM_STEP_ID", 0)
    visible = variables.get("CUDA_VISIBLE_DEVICES", variables.get("ROCR_VISIBLE_DEVICES", ","))
    return Place(
        "srun",
        _number(variables, "SLURM_PROCID", 0),
        tasks,
        0 if "," not in visible else _number(variables, "SLURM_LOCALID", 0),  # with --gpus-per-task
        variables.get("MASTER_ADDR") or first_host(variables.get("SLURM_STEP_NODELIST", "localhost")),
        _number(variables, "MASTER_PORT", first + number % count),
    )


def first_host(hosts: str) -> str:
    """The first of a list of machines in Slurm's notation: `gpu007` of `gpu[007-009,012],login1`."""
    first = re.match(r"(\[[^]]*\]|[^,[])*", hosts)
    return re.sub(r"\[([^],-]*)[^]]*\]", r"\1", first[0] if first else hosts)


def _has_terminal() -> bool:
    """Whether standard input is a terminal, which `srun` gives to a task only for `--pty`."""
    try:
        return os.isatty(0)
    except OSError:  # it is closed
        return False


def _number(variables: Mapping[str, str], name: str, default: int) -> int:
    value = variables.get(name) or str(default)
    if not value.isascii() or not value.isdigit():
        raise ConfigError(f"{name}={value}: expected a whole number, as torchrun or srun sets it.")
    return int(value)
