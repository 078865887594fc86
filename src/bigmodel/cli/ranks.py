"""One run that several processes train together: started here (`device.ranks`), or by torchrun."""

from __future__ import annotations

import contextlib
import os
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from omegaconf import DictConfig

from bigmodel.cli import invocation, messages
from bigmodel.cli.launch.hydra_patches import set_globals
from bigmodel.cli.launch.run_folder import RECORD
from bigmodel.distributed.launcher import Ended, launch
from bigmodel.distributed.ranks import LostRankError, ProcessGroup, Ranks, communication_error
from bigmodel.errors import BigModelError, ConfigError, DeviceError
from bigmodel.runtime.processes import exit_reason
from bigmodel.runtime.signals import SignalMode, Signals, Stopped


class _CrashError(Exception):
    """An error that is not the user's, with its traceback."""


@dataclass(frozen=True)
class Task:
    """What several processes do together.

    Attributes:
        config: as composed.
        folder: of the run.
        resumed: the folder of the run to resume; None for a new run.
        may_change: whether it may resume with other settings or data.
    """

    config: DictConfig
    folder: Path
    resumed: Path | None
    may_change: bool


def run_ranks(count: int, act: Callable[[Ranks], None], task: Task, restarts: int) -> None:
    """Runs one job on several ranks of this machine.

    Args:
        count: of ranks.
        act: what each rank does.
        task: the job; the first rank owns its folder.
        restarts: how often all are started again, from the newest checkpoint, after one of them was
            ended from outside.

    Raises:
        Stopped: they were asked to stop.
        BigModelError: what a rank has raised.
        DeviceError: a rank was ended from outside.
    """
    current = invocation.current
    while True:
        with current.signals.waiting():
            ended = launch(count, partial(_act_in_process, act, task), current.signals.take)
        recorded = (task.folder / RECORD).is_dir()
        if recorded:
            current.folder = task.folder
        if ended.status is None or not (recorded and restarts):
            break
        restarts -= 1
        task = replace(task, resumed=task.folder)
        messages.note(f"{_error(ended, count)} They are started again, from the newest checkpoint.")
    if ended.failed:
        raise _error(ended, count)
    current.signals.check()


def _error(ended: Ended, count: int) -> BaseException:
    if ended.error is not None:
        return ended.error
    assert ended.status is not None
    return DeviceError(
        f"device.ranks={count}: rank {ended.rank} {exit_reason(ended.status)}, and the others were ended"
        " with it."
    )


def _act_in_process(act: Callable[[Ranks], None], task: Task, ranks: Ranks) -> None:
    """What a rank's process does; its errors are made fit for a pipe."""
    set_globals()  # if the process was not forked
    current = invocation.current
    current.resumed, current.may_change = task.resumed, task.may_change
    before, signals = current.signals, Signals()
    current.signals = signals
    signals.enter(SignalMode.RAISE)
    signals.install()
    if (number := before.take()) is not None:  # it came while the ranks met
        os.kill(os.getpid(), number)
    try:
        _act(act, ranks)
    except (Stopped, BigModelError):
        raise
    except Exception as error:
        raise _CrashError(traceback.format_exc()) from error


def _act(act: Callable[[Ranks], None], ranks: Ranks) -> None:
    invocation.current.signals.shared = True
    try:
        act(ranks)
    except Exception as error:
        if (meaning := communication_error(error)) is not None:
            raise meaning from error
        raise


def is_started_by_torchrun() -> bool:
    """Whether this process is one of several that torchrun, or a program like it, has started."""
    return int(os.environ.get("WORLD_SIZE") or 1) > 1 and "RANK" in os.environ


def is_follower() -> bool:
    """Whether it is any of them but the first."""
    return is_started_by_torchrun() and int(os.environ["RANK"]) > 0


def join_torchrun() -> ProcessGroup:
    """Waits for the other processes that torchrun has started.

    Raises:
        LostRankError: they have not come.
    """
    rank, size = (int(os.environ[name]) for name in ("RANK", "WORLD_SIZE"))
    try:
        return ProcessGroup.join(rank, size, int(os.environ.get("LOCAL_RANK") or rank), "env://")
    except RuntimeError as error:
        raise communication_error(error) or error from error


def lead(ranks: ProcessGroup, act: Callable[[Ranks], None], task: Task) -> None:
    """What the first of torchrun's processes does, once it has composed the run."""
    wanted = task.config.device.ranks
    if wanted not in (None, ranks.size):
        raise ConfigError(
            f"device.ranks={wanted}: torchrun has started {ranks.size} processes."
            " Leave device.ranks out."
        )
    invocation.current.ranks = None  # they need not be sent away any more
    ranks.from_first(task)
    _act(act, ranks)
    ranks.leave()


def dismiss() -> None:
    """Sends the other processes away, if there are any, and there is nothing to train."""
    ranks, invocation.current.ranks = invocation.current.ranks, None
    if ranks is not None:
        with contextlib.suppress(RuntimeError):
            ranks.from_first(None)
            ranks.leave()


def follow(act: Callable[[DictConfig, Path, Ranks], None]) -> int:
    """What the others do. They say nothing but what their own errors are.

    Returns:
        The exit status.
    """
    sys.stdout = open(os.devnull, "w")  # noqa: PTH123, SIM115
    try:
        ranks = join_torchrun()
        task: Task | None = ranks.from_first(None)
        if task is None:
            ranks.leave()
            return 0
        current = invocation.current
        current.resumed, current.may_change = task.resumed, task.may_change
        current.signals.enter(SignalMode.RAISE)
        _act(partial(act, task.config, task.folder), ranks)
        ranks.leave()
    except LostRankError:
        return 1
    except Stopped as stop:
        return stop.status
    return 0
