"""What one job of a sweep does, in a process of its own, in one of Slurm's or of another launcher's."""

from __future__ import annotations

import contextlib
import sys
import traceback
from collections.abc import Callable, Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import run_job
from hydra.types import HydraContext
from omegaconf import DictConfig, open_dict

from bigmodel.build.shared_data import SharedData
from bigmodel.cli import invocation, messages
from bigmodel.cli.job import fit_run, import_everything, prepare, prepare_resumed
from bigmodel.cli.launch import run_folder
from bigmodel.cli.launch.hydra_patches import set_globals
from bigmodel.cli.launch.lock import locked
from bigmodel.cli.launch.resume import check_own_files
from bigmodel.cli.sweep.progress import console_of_job
from bigmodel.errors import BigModelError, CheckpointError, may_pass, reason
from bigmodel.redaction import masked
from bigmodel.reporting.base import Summary
from bigmodel.reporting.summary import read_summary, write_summary
from bigmodel.runtime import disk
from bigmodel.runtime.escaping import escape, escape_library_output
from bigmodel.runtime.signals import Pruned, SignalMode, Stopped
from bigmodel.sweeps.jobs import Job, Line, Outcome, Status
from bigmodel.sweeps.manifest import JobState
from bigmodel.sweeps.process import Channel, OrphanedError, unblock_signals
from bigmodel.sweeps.report import FileChannel


class TrainingWork:
    """Composes and trains jobs of a sweep, each in a process of its own.

    Args:
        context: Hydra's, which composes configurations.
        config: the sweep's own configuration.
        threads: CPU threads of a job.
        resume: what to type to go on with the sweep.
        states: by number, how far jobs are when their process starts: one that has begun, which may be
            tried again, goes on in its folder.
        shared: a private folder for data that jobs share.
        pruned_by: the metric by which a search prunes jobs; None: none does.
    """

    def __init__(
        self,
        context: HydraContext,
        config: DictConfig,
        *,
        threads: int,
        resume: str,
        states: Mapping[int, JobState],
        shared: Path,
        pruned_by: str | None = None,
    ) -> None:
        self._context, self._config, self._threads, self._states = context, config, threads, states
        self._shared, self._resume, self._pruned_by = SharedData(shared), resume, pruned_by

    def __call__(self, job: Job, channel: Channel) -> None:
        invocation.current = invocation.Invocation()
        signals = invocation.current.signals
        signals.enter(SignalMode.LEAVE)
        signals.install()
        unblock_signals()
        with contextlib.suppress(OrphanedError):
            work = partial(self._train, job=job, channel=channel)
            channel.ended(run_composed(job, self._context, self._config, work))

    def _train(self, config: DictConfig, *, job: Job, channel: Channel) -> Outcome:
        import torch

        import_everything()  # if the process was not forked
        channel.wait_for_slot()
        torch.set_num_threads(self._threads)
        console = partial(
            console_of_job, channel=channel, resume=self._resume, pruned_by=self._pruned_by
        )
        how = {"console": console, "read": self._shared.read}
        return train(config, channel, begun=self._states[job.number].folder is not None, **how)


class QueuedWork:
    """Composes and trains jobs of a sweep, each in a process that a queue has started, perhaps on
    another machine.

    Args:
        context: Hydra's, which composes configurations.
        config: the sweep's own configuration.
        folder: the sweep's.
        resume: what to type to go on with it.
        pruned_by: the metric by which a search prunes jobs; None: none does.
    """

    def __init__(
        self,
        context: HydraContext,
        config: DictConfig,
        folder: Path,
        *,
        resume: str,
        pruned_by: str | None = None,
    ) -> None:
        self._context, self._config = context, config.copy()
        self._resume, self._pruned_by = resume, pruned_by
        with open_dict(self._config):  # as it is here: it may have been claimed as a new one
            self._config.hydra.sweep.dir = str(folder.absolute())

    def __call__(self, job: Job, channel: FileChannel, preemption: int) -> bool:
        escape_library_output()
        invocation.current = invocation.Invocation()
        signals = invocation.current.signals
        signals.install()
        signals.preempt_on(preemption)
        try:
            import_everything()
            work = partial(self._train, channel=channel)
            outcome = run_composed(job, self._context, self._config, work)
        except Stopped as stop:  # before it had a folder
            outcome = Outcome("stopped", str(stop))
        signals.enter(SignalMode.WAIT)  # what is left to do is short
        channel.ended(outcome)
        return signals.preempted and outcome.status == "stopped"

    def _train(self, config: DictConfig, *, channel: FileChannel) -> Outcome:
        console = partial(
            console_of_job, channel=channel, resume=self._resume, pruned_by=self._pruned_by
        )
        return train(config, channel, begun=channel.begun, console=console)


def run_composed(
    job: Job, context: HydraContext, master: DictConfig, work: Callable[[DictConfig], Outcome]
) -> Outcome:
    """Composes a job, and has its work done with that configuration. Returns how it ended."""
    set_globals()
    typed = set(master.hydra.overrides.task)
    invocation.current.chosen = [word for word in job.overrides if word not in typed]
    try:
        config = context.config_loader.load_sweep_config(master, list(job.overrides))
        with open_dict(config):
            config.hydra.job.id = config.hydra.job.num = job.number
        returned = run_job(
            work,
            config,
            job_dir_key="hydra.sweep.dir",
            job_subdir_key="hydra.sweep.subdir",
            hydra_context=context,
            configure_logging=False,
        )
    except Exception as error:  # such as a folder that cannot be made
        return Outcome("failed", reason(error, in_sweep=True), may_pass=may_pass(error))
    outcome: Outcome = returned.return_value
    return outcome


def train(
    config: DictConfig, channel: Line | None = None, *, begun: bool = False, **how: Any
) -> Outcome:
    """Trains one job, whose configuration Hydra has composed. A job that fails leaves the others alone.

    If its folder belongs to another process or holds something else, nothing is written there.

    Args:
        channel: to the sweep; None if another launcher runs the job.
        begun: whether it goes on in a folder that is its own already.
        how: for `build_run`.
    """
    hydra: Any = HydraConfig.get()
    folder = Path(hydra.runtime.output_dir)
    invocation.current.signals.enter(SignalMode.RAISE)
    with contextlib.ExitStack() as stack:
        try:
            if not begun:
                run_folder.check_free(folder, "hydra.sweep.dir")
            if begun:
                _check_own(folder, Path(hydra.sweep.dir))
            stack.enter_context(locked(folder))
            if not begun:
                run_folder.check_free(folder, "hydra.sweep.dir")  # another process may have been quicker
            held = stack.enter_context(contextlib.closing(disk.HeldFolder(folder)))
        except BigModelError as error:
            return Outcome("failed", reason(error, in_sweep=True), may_pass=may_pass(error))
        try:
            if channel is not None:
                channel.started(folder)
            _train_in(folder, config, hydra, begun, **how)
        except OrphanedError:
            raise
        except BaseException as error:
            stopped = messages.stop_status(error, invocation.current.signals) is not None
            if not isinstance(error, BigModelError) and not stopped:
                sys.stderr.write(escape(masked(traceback.format_exc())))
            with contextlib.suppress(BigModelError):  # a full disk, a folder moved
                held.check()
                _record_end(*_ending(stopped, error), config, folder, hydra)
            if stopped and channel is None:
                raise
            if isinstance(error, Pruned):
                return _outcome_in(folder, *_ending(stopped, error))
            return Outcome(*_ending(stopped, error), folder, may_pass=may_pass(error))
        return _outcome_in(folder, "finished")


def _check_own(folder: Path, sweep: Path) -> None:
    """Makes sure that a job goes on in its sweep's folder: the record may be a stranger's, and name
    another run.

    Raises:
        CheckpointError: it is elsewhere, or something in it is a link to elsewhere.
    """
    if not folder.resolve().is_relative_to(sweep.resolve()):
        raise CheckpointError(
            f"{folder}: is not in the folder of its sweep, {sweep}, so that no job goes on there. Start"
            " another sweep, with hydra.sweep.subdir=<a path without ..>."
        )
    check_own_files("run", folder, folder / run_folder.RECORD)


def _outcome_in(folder: Path, status: Status, error: str | None = None) -> Outcome:
    summary = read_summary(folder)
    assert summary is not None
    return Outcome(status, error, folder, summary.best.get(summary.monitor), asdict(summary))


def _train_in(folder: Path, config: DictConfig, hydra: DictConfig, begun: bool, **how: Any) -> None:
    run_folder.remove_leftovers(folder)
    if begun and (folder / run_folder.RECORD).is_dir():
        run = prepare_resumed(config, folder, folder, **how)
        if run is not None:
            run_folder.write_config(folder, config)
            fit_run(run)
        return
    run = prepare(config, folder, **how)
    run_folder.record_start(folder, config, hydra)
    fit_run(run)


def _ending(stopped: bool, error: BaseException) -> tuple[Status, str]:
    if isinstance(error, Pruned):
        return "pruned", str(error)
    if stopped:
        return "stopped", str(error) or "interrupted"
    return "failed", reason(error, in_sweep=True)


def _record_end(status: str, error: str, config: DictConfig, folder: Path, hydra: DictConfig) -> None:
    """Makes sure that the folder says what the job was and how it ended."""
    if not (folder / run_folder.RECORD).is_dir():
        run_folder.record_start(folder, config, hydra)
    summary = read_summary(folder) or Summary(status=status)
    summary.status, summary.error = status, error
    write_summary(summary, folder)
