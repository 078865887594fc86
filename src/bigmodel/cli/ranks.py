"""One run that several processes train together: started here, or by torchrun or srun."""

from __future__ import annotations

import json
import multiprocessing
import os
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from bigmodel.cli import invocation, messages
from bigmodel.cli.launch.hydra_patches import set_globals
from bigmodel.cli.launch.run_folder import RECORD
from bigmodel.distributed.environment import Place
from bigmodel.distributed.launcher import Ended, launch
from bigmodel.distributed.meeting import Meeting
from bigmodel.distributed.ranks import PATIENCE, LostRankError, Ranks
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

    @classmethod
    def from_text(cls, text: str) -> Task:
        """The task that `to_text` wrote."""
        config, folder, resumed, may_change = json.loads(text)
        return cls(OmegaConf.create(config), Path(folder), resumed and Path(resumed), may_change)

    def to_text(self) -> str:
        """The task as JSON; what refers to the environment is looked up where it is read."""
        resumed = self.resumed and str(self.resumed)
        config = OmegaConf.to_container(self.config, resolve=False)
        return json.dumps([config, str(self.folder), resumed, self.may_change])

    @property
    def timeout(self) -> float:
        """Seconds that a process waits for another: a wrong value is refused when the run is built."""
        typed = self.config.device.get("timeout")
        return typed if isinstance(typed, int | float) and typed > 0 else PATIENCE


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
        DeviceError: a rank was ended from outside, or hung.
    """
    current = invocation.current
    current.signals.on_leaving = partial(_leave, current.signals.on_leaving)
    while True:
        with current.signals.waiting():
            ended = launch(
                count, partial(_act_in_process, act, task), current.signals.take, task.timeout
            )
        recorded = (task.folder / RECORD).is_dir()
        if recorded:
            current.folder = task.folder
        if not (ended.status is not None or ended.hung) or not (recorded and restarts):
            break
        restarts -= 1
        task = replace(task, resumed=task.folder)
        messages.note(f"{_error(ended, count)} They are started again, from the newest checkpoint.")
    if ended.failed:
        raise _error(ended, count)
    current.signals.check()


def _leave(tidy_up: Callable[[], None]) -> None:
    """A second request to stop ends all at once."""
    for process in multiprocessing.active_children():
        process.kill()
    tidy_up()


def _error(ended: Ended, count: int) -> BaseException:
    if isinstance(ended.error, LostRankError) and ended.hung:
        ended.error.name([f"rank {ended.rank}"])
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
    with ranks.naming_loss():
        act(ranks)


def lead(meeting: Meeting, act: Callable[[Ranks], None], task: Task) -> None:
    """What the first of the processes does that were started together, once it has composed the run."""
    wanted = task.config.device.ranks
    if wanted not in (None, meeting.size):
        raise ConfigError(
            f"device.ranks={wanted}: {meeting.place.starter} has started {meeting.size} processes."
            " Leave device.ranks out."
        )
    meeting.open(task.to_text())
    _train(meeting, act, task)


def follow(place: Place, act: Callable[[DictConfig, Path, Ranks], None]) -> int:
    """What the others do. They say nothing but what their own errors are.

    Returns:
        The exit status.
    """
    sys.stdout = open(os.devnull, "w")  # noqa: PTH123, SIM115
    current = invocation.current
    current.meeting = meeting = Meeting(place)
    told = meeting.hear()
    if isinstance(told, int):
        return told
    task = Task.from_text(told)
    current.resumed, current.may_change = task.resumed, task.may_change
    current.signals.enter(SignalMode.RAISE)
    try:
        _train(meeting, partial(act, task.config, task.folder), task)
    except Stopped as stop:
        return stop.status
    return 0


def _train(meeting: Meeting, act: Callable[[Ranks], None], task: Task) -> None:
    ranks = meeting.form(task.timeout)
    try:
        _act(act, ranks)
    except Stopped:
        if invocation.current.folder is not None:  # training has begun: all stop after the same step
            meeting.wait_for_first(task.timeout)
        raise
    ranks.leave()
