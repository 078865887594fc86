"""`sweep.launcher=submitit`: the jobs of a sweep in Slurm's queue."""

from __future__ import annotations

import contextlib
import re
import shutil
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from hydra.types import HydraContext
from omegaconf import DictConfig

from bigmodel.cli import invocation, messages
from bigmodel.cli.launch.run_folder import PLAN
from bigmodel.cli.sweep.kinds import Begun
from bigmodel.cli.sweep.models import BASELINES
from bigmodel.cli.sweep.resume import SBATCH_OPTIONS, resume_words
from bigmodel.cli.sweep.watching import observers, report_left
from bigmodel.errors import ConfigError, counted, join_names, setting
from bigmodel.reporting.sweep_view import SweepView
from bigmodel.runtime.processors import processors
from bigmodel.sweeps.config import SearchConfig, SweepConfig
from bigmodel.sweeps.manifest import NAME, Manifest
from bigmodel.sweeps.process import Slot
from bigmodel.sweeps.queue import QueueLauncher, new_folder
from bigmodel.sweeps.report import FOLDER
from bigmodel.sweeps.search import DATABASE
from bigmodel.sweeps.slurm import check, cluster_for


class SlurmQueue:
    """Submits jobs and waits for them; without Slurm, on this machine by submitit's local executor.

    Args:
        context: Hydra's, which composes configurations.
        master: the sweep's own configuration.

    Raises:
        ConfigError: jobs cannot be submitted from here, or a setting is not for this launcher.
        MissingPackageError: submitit is not installed.
    """

    def __init__(self, settings: SweepConfig, context: HydraContext, master: DictConfig) -> None:
        self._settings, self._context, self._master = settings, context, master
        _check_typed(settings.slurm.additional_parameters, invocation.current.words)
        for key, default in (("gpus", "auto"), ("jobs_per_gpu", 1), ("plan", False)):
            if (value := getattr(settings, key)) != default:
                raise ConfigError(
                    f"{setting(f'sweep.{key}', value)}: is about this machine; jobs of"
                    " sweep.launcher=submitit run where Slurm has room, on the GPUs that it gives them."
                    " Ask for some with sweep.slurm.gpus_per_node, and leave this out."
                )
        is_local = settings.slurm.cluster == "local"
        if isinstance(settings, SearchConfig) and settings.jobs == "auto" and not is_local:
            raise ConfigError(
                "sweep=optuna with sweep.launcher=submitit: say how many jobs run at a time, such as"
                " sweep.jobs=4. Each learns from those that have ended before it."
            )
        check(settings.slurm)
        most = processors() if is_local else settings.slurm.max_submitted
        self._at_once = most if settings.jobs == "auto" else settings.jobs
        known = not isinstance(settings, SearchConfig)  # so that all of them may wait in the queue
        self._first = most if known and not is_local else self._at_once

    def run(self, begun: Begun, manifest: Manifest, room: Sequence[Slot]) -> None:  # noqa: ARG002
        from bigmodel.cli.sweep.work import QueuedWork

        signals = invocation.current.signals
        view = SweepView(begun.describe, total=begun.total)
        folder = new_folder(manifest.folder)
        cluster = cluster_for(self._settings.slurm, folder, self._at_once)
        launcher = QueueLauncher(
            QueuedWork(
                self._context,
                self._master,
                manifest.folder,
                resume=resume_words(manifest),
                pruned_by=begun.pruned_by,
            ),
            begun.source,
            observers(self._settings, manifest, view),
            cluster,
            folder,
            at_once=self._at_once,
            first=self._first,
            states=manifest.states,
            stop_on_failure=self._settings.on_error == "stop",
        )
        signals.on_leaving = partial(_leave, launcher, view, manifest, cluster.keeps)
        with signals.waiting(), contextlib.closing(view):
            self._run(launcher, begun, manifest, cluster.keeps)
        if cluster.keeps and launcher.names:
            messages.note(_left(launcher))
        signals.check()

    def _run(self, launcher: QueueLauncher, begun: Begun, manifest: Manifest, keeps: bool) -> None:
        try:
            launcher.adopt(begun.known)
            launcher.submit()
            if keeps and launcher.names:
                messages.note(f"In Slurm's queue: {_named(launcher)}.")
            launcher.run(invocation.current.signals.take)
        except ConfigError:  # refused by sbatch
            if invocation.current.resumed_sweep is None and not launcher.submitted:
                _forget(manifest)
            elif launcher.names:
                messages.note(_left(launcher))
            raise


def _check_typed(options: Mapping[str, Any], words: Sequence[str]) -> None:
    """Options of sbatch can have a job run code, `export` for one: no file may set them by itself.

    Raises:
        ConfigError: one was not typed.
    """
    typed = " ".join(word for word in words if word.lstrip("+").startswith(SBATCH_OPTIONS))
    names = re.findall(r"[\w-]+", typed.removeprefix(SBATCH_OPTIONS))
    for name, value in options.items():
        if name not in names:
            word = setting(f"{SBATCH_OPTIONS}.{name}", value)
            raise ConfigError(
                f"{SBATCH_OPTIONS}.{name}={value}: a configuration file sets an option of sbatch, which"
                f" could run code. If you trust it, type it on the command line: {word}"
            )


def _forget(manifest: Manifest) -> None:
    """Leaves nothing of a sweep that never had a job."""
    invocation.current.sweep = None
    shutil.rmtree(manifest.folder / FOLDER, ignore_errors=True)
    for name in (NAME, PLAN, DATABASE, BASELINES):
        (manifest.folder / name).unlink(missing_ok=True)


def _named(launcher: QueueLauncher) -> str:
    return f"{counted(len(launcher.names), 'job')} of the sweep, {join_names(launcher.names)}"


def _left(launcher: QueueLauncher) -> str:
    """What is said of jobs that go on without the sweep."""
    arrays = dict.fromkeys(name.partition("_")[0] for name in launcher.names)
    return (
        f"Left in Slurm's queue, where they go on: {_named(launcher)}. To cancel them:"
        f" scancel {' '.join(arrays)}"
    )


def _leave(launcher: QueueLauncher, view: SweepView, manifest: Manifest, keeps: bool) -> None:
    """What is done when the sweep is asked to stop a second time."""
    if not keeps:
        launcher.cancel()  # the second time, too
    done = _left(launcher) if keeps else "Its jobs were told to end at once."
    report_left(done, manifest, view)
