"""What runs a sweep's jobs: processes of our own, or a launcher of Hydra's such as joblib's.

A launcher that runs them in another way is one more class here, which `runner_for` chooses by what is
configured.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Protocol

from hydra._internal.core_plugins.basic_launcher import BasicLauncher
from hydra.core.plugins import Plugins
from hydra.core.utils import JobStatus
from hydra.types import HydraContext
from omegaconf import DictConfig

from bigmodel.cli import invocation
from bigmodel.cli.launch.run_folder import LOGS
from bigmodel.cli.sweep.kinds import Begun
from bigmodel.cli.sweep.resume import resume_words
from bigmodel.cli.sweep.settings import is_plugin
from bigmodel.cli.sweep.watching import observers, report_left
from bigmodel.errors import ConfigError, reason
from bigmodel.reporting.sweep_view import SweepView
from bigmodel.runtime import caches
from bigmodel.sweeps.config import SearchConfig, SweepConfig
from bigmodel.sweeps.jobs import Outcome
from bigmodel.sweeps.launcher import Launcher
from bigmodel.sweeps.manifest import Manifest
from bigmodel.sweeps.process import Slot
from bigmodel.sweeps.shared_folder import shared_folder
from bigmodel.sweeps.slots import threads


class Runner(Protocol):
    """Runs the jobs of a sweep."""

    def run(self, begun: Begun, manifest: Manifest, room: Sequence[Slot]) -> None:
        """Runs the jobs until there are none left, and records how they end.

        Args:
            manifest: the sweep's record.
            room: for jobs on this machine.

        Raises:
            Stopped: the sweep was asked to stop.
        """


def runner_for(
    settings: SweepConfig, context: HydraContext, master: DictConfig, *, resumed: bool
) -> Runner:
    """What runs the jobs of a sweep.

    Args:
        context: Hydra's, which composes configurations.
        master: the sweep's own configuration.
        resumed: whether it goes on with a sweep.

    Raises:
        ConfigError: the launcher that is configured cannot do what the sweep needs.
    """
    own = is_plugin(master.hydra.launcher, BasicLauncher)
    if settings.launcher == "submitit":
        if not own:
            raise ConfigError("sweep.launcher=submitit: is a launcher itself. Leave out hydra/launcher.")
        from bigmodel.cli.sweep.slurm import SlurmQueue

        return SlurmQueue(settings, context, master)
    if own:
        return OwnProcesses(settings, context, master)
    if isinstance(settings, SearchConfig):
        raise ConfigError(
            "sweep=optuna: runs its jobs itself, to end bad ones early. Leave out hydra/launcher."
        )
    if resumed:
        raise ConfigError(
            "sweep.resume: goes on with bigmodel's own launcher alone. Add hydra/launcher=basic."
        )
    return HydraLauncher(context, master)


class OwnProcesses:
    """Runs each job in a process of its own on this machine."""

    def __init__(self, settings: SweepConfig, context: HydraContext, master: DictConfig) -> None:
        self._settings, self._context, self._master = settings, context, master

    def run(self, begun: Begun, manifest: Manifest, room: Sequence[Slot]) -> None:
        from bigmodel.cli.sweep.work import TrainingWork

        signals = invocation.current.signals
        view = SweepView(begun.describe, total=begun.total)
        place = caches.code_folder("sweeps")  # as private as compiled code: shared data is a pickle
        with shared_folder(place) as shared:
            work = TrainingWork(
                self._context,
                self._master,
                threads=threads(room),
                resume=resume_words(manifest),
                states=manifest.states,
                shared=shared,
                pruned_by=begun.pruned_by,
            )
            launcher = Launcher(
                work,
                begun.source,
                observers(self._settings, manifest, view),
                room,
                manifest.folder / LOGS,
                stop_on_failure=self._settings.on_error == "stop",
            )
            signals.on_leaving = partial(_leave, launcher, shared, view, manifest)
            with signals.waiting(), contextlib.closing(view):
                launcher.run(_impatiently(view))
        signals.check()


def _leave(launcher: Launcher, shared: Path, view: SweepView, manifest: Manifest) -> None:
    """What is done when the sweep is asked to stop a second time."""
    launcher.kill()
    shutil.rmtree(shared, ignore_errors=True)
    report_left("Its jobs were ended at once.", manifest, view)


def _impatiently(view: SweepView) -> Callable[[], int | None]:
    """Asks for requests, and says what to do about jobs that are slow to stop."""
    told = False

    def requests() -> int | None:
        nonlocal told
        if not told and invocation.current.signals.urgent():
            told = True
            view.note("Waiting for running jobs to save and stop. Ctrl-C again ends them at once.")
        return invocation.current.signals.take()

    return requests


class HydraLauncher:
    """Runs the jobs by the launcher plugin that is configured, such as `hydra/launcher=joblib`. It is
    given all of them at once, and tells how they ended when all are over."""

    def __init__(self, context: HydraContext, master: DictConfig) -> None:
        self._context, self._master = context, master

    def run(self, begun: Begun, manifest: Manifest, room: Sequence[Slot]) -> None:  # noqa: ARG002
        from bigmodel.cli.sweep.work import train

        launcher = Plugins.instance().instantiate_launcher(
            hydra_context=self._context, task_function=train, config=self._master
        )
        jobs = list(iter(begun.source.next, None))
        returned = launcher.launch([list(job.overrides) for job in jobs], initial_job_idx=0)
        for job, result in zip(jobs, returned, strict=True):
            failed = result.status is JobStatus.FAILED
            outcome = Outcome("failed", reason(result._return_value)) if failed else result.return_value
            if outcome.folder is not None:
                manifest.started(job, outcome.folder)
            manifest.ended(job, outcome)
