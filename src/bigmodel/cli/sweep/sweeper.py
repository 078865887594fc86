"""What Hydra calls for `-m`: lists the jobs, has them run, and shows how they ended."""

from __future__ import annotations

import contextlib
import shutil
import signal
from collections.abc import Callable
from functools import partial
from pathlib import Path

from hydra._internal.core_plugins.basic_launcher import BasicLauncher
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.core.plugins import Plugins
from hydra.core.utils import JobStatus
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

from bigmodel.cli import invocation, messages
from bigmodel.cli.job import import_everything
from bigmodel.cli.launch.hydra_patches import check_sweep
from bigmodel.cli.launch.run_folder import PLAN, claimed_sweep
from bigmodel.cli.sweep.grid import combinations
from bigmodel.cli.sweep.models import fit_baselines, with_models
from bigmodel.cli.sweep.resume import merge_jobs, record_words, to_run
from bigmodel.cli.sweep.search import SearchPlan, is_hydra_search, plan_search, settings_of
from bigmodel.errors import ConfigError, reason, shell_quoted
from bigmodel.reporting.sweep_view import SweepView
from bigmodel.runtime import caches
from bigmodel.runtime.escaping import escape_message
from bigmodel.runtime.processors import processors
from bigmodel.runtime.signals import Stopped
from bigmodel.sweeps.config import ModelsConfig, SearchConfig, SweepConfig
from bigmodel.sweeps.jobs import Job, JobList, JobSource, Observer, Observers, Outcome
from bigmodel.sweeps.keep import KeepBest
from bigmodel.sweeps.launcher import Launcher
from bigmodel.sweeps.manifest import Manifest
from bigmodel.sweeps.process import Slot, call
from bigmodel.sweeps.results import finished
from bigmodel.sweeps.search import Search
from bigmodel.sweeps.shared_folder import shared_folder
from bigmodel.sweeps.slots import slots

Explain = Callable[[Exception], str | None]

LOGS = "logs"


def make_sweeper(
    explain: Explain,
    *,
    hydra_context: HydraContext,
    task_function: TaskFunction,
    config: DictConfig,
) -> Sweeper:
    """Our sweeper in the place of Hydra's basic one and its Optuna one.

    Args:
        explain: says in words what is wrong; None for a fault that is not the user's.

    Raises:
        ConfigError: another sweeper is configured.
    """
    if not (_is(config.hydra.sweeper, BasicSweeper) or is_hydra_search(config)):
        raise ConfigError(
            f"hydra/sweeper: {config.hydra.sweeper.get('_target_')} is not bigmodel's own sweeper, which"
            " lists, resumes and ranks jobs. Leave it out, or search with sweep=optuna."
        )
    sweeper = GridSweeper(explain)
    sweeper.setup(hydra_context=hydra_context, task_function=task_function, config=config)
    return sweeper


def _is(config: DictConfig, kind: type) -> bool:
    return str(config.get("_target_")) == f"{kind.__module__}.{kind.__name__}"


class GridSweeper(Sweeper):
    """Runs every combination of what is typed, or those that a search chooses."""

    def __init__(self, explain: Explain) -> None:
        self._explain = explain

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        del task_function  # of a single run
        self._context, self._config = hydra_context, config

    def sweep(self, arguments: list[str]) -> None:
        settings = settings_of(self._config)
        params = self._config.hydra.sweeper.get("params") or {}
        words = [*(f"{key}={value}" for key, value in params.items()), *arguments]
        parser = OverridesParser.create(config_loader=self._context.config_loader)
        overrides = parser.parse_overrides(words)
        import_everything()
        plan = self._plan_search(settings, overrides) if isinstance(settings, SearchConfig) else None
        jobs = self._listed(settings, overrides) if plan is None else []
        self._room = slots(settings, gpu_count(str(self._config.device.name)))
        if settings.plan:
            self._show_plan(jobs)
            return
        if invocation.current.resumed_sweep is not None and not self._runs_itself():
            raise ConfigError(
                "sweep.resume: only works with bigmodel's own launcher. Leave out hydra/launcher."
            )
        folder, resumed = Path(str(self._config.hydra.sweep.dir)), invocation.current.resumed_sweep
        with claimed_sweep(folder, resumed is not None):
            search = None
            if resumed is not None:
                resumed = Manifest.read(folder)  # again, now that it is ours
            if plan is not None:  # before anything is written: its file may be refused
                search = plan.start(folder, {} if resumed is None else resumed.states)
            elif resumed is not None:
                merge_jobs(resumed, jobs, settings.extend)
                jobs = to_run(resumed, retry=settings.retries > 0)
            if isinstance(settings, ModelsConfig) and settings.baselines:
                example = (jobs if resumed is None else resumed.jobs)[0].overrides
                fit_baselines(folder, example, self._context, self._config)
            manifest = resumed or Manifest.create(folder, invocation.current.words, jobs)
            if resumed is None:
                OmegaConf.save(self._config, folder / PLAN)
            else:
                record_words(resumed, invocation.current.words)
            invocation.current.sweep, invocation.current.started = manifest, True
            if plan is not None and search is not None:
                self._search(plan, search, manifest)
            elif self._runs_itself():
                view = SweepView(manifest.changes(), total=len(jobs))
                self._run(settings, JobList(jobs, settings.retries), view)
            else:
                self._run_by_plugin(jobs)

    def _runs_itself(self) -> bool:
        return _is(self._config.hydra.launcher, BasicLauncher)

    def _listed(self, settings: SweepConfig, overrides: list[Override]) -> list[Job]:
        check_sweep(overrides)
        first = int(self._config.seed)
        seeds = range(first, first + (settings.seeds or 0))
        listed = combinations(overrides, settings.zip, seeds, settings.folds or 0)
        if isinstance(settings, ModelsConfig):
            listed = with_models(settings, listed, self._context, self._config)
        jobs = [Job(number, words) for number, words in enumerate(listed)]
        subdir = OmegaConf.to_container(self._config.hydra.sweep, resolve=False)
        if len(jobs) > 1 and "${" not in str(subdir["subdir"]):  # type: ignore[index, call-overload]
            raise ConfigError(
                f"hydra.sweep.subdir={self._config.hydra.sweep.subdir}: is the same folder for all jobs."
                " Use one that depends on the job, such as 'hydra.sweep.subdir=${hydra.job.num}'."
            )
        self._check(jobs)
        return jobs

    def _check(self, jobs: list[Job]) -> None:
        from bigmodel.cli.sweep.check import JobCheck

        call(partial(JobCheck(self._context, self._config, self._explain), jobs))

    def _show_plan(self, jobs: list[Job]) -> None:
        from bigmodel.cli.sweep.plan import Planner
        from bigmodel.reporting.sweep_plan import print_plan

        planner = Planner(self._context, self._config, _threads(self._room))
        print_plan(planner(jobs), len(self._room), _free_memory(self._room))

    def _plan_search(self, settings: SearchConfig, overrides: list[Override]) -> SearchPlan:
        if not self._runs_itself():
            raise ConfigError(
                "sweep=optuna: runs its jobs itself, to end bad ones early. Leave out hydra/launcher."
            )
        return plan_search(settings, overrides, self._context, self._config, self._check)

    def _search(self, plan: SearchPlan, search: Search, manifest: Manifest) -> None:
        shown = {job.number: plan.shown(job) for job in manifest.jobs}

        def record(job: Job) -> None:
            manifest.add(job)
            shown[job.number] = plan.shown(job)

        search.on_new_job = record
        self._run(plan.config, search, SweepView(shown, total=search.to_run), plan.pruned_by)
        if text := plan.result(search):
            print(escape_message(text))  # noqa: T201

    def _run(
        self, settings: SweepConfig, source: JobSource, view: SweepView, pruned_by: str | None = None
    ) -> None:
        """Runs the jobs in processes of our own."""
        manifest, signals = invocation.current.sweep, invocation.current.signals
        assert manifest is not None
        from bigmodel.cli.sweep.work import TrainingWork

        observers: list[Observer] = [manifest, view]
        if settings.keep is not None:
            observers.append(KeepBest(settings.keep, finished(manifest)))
        place = caches.code_folder("sweeps")  # as private as compiled code: shared data is a pickle
        with shared_folder(place) as shared:
            work = TrainingWork(
                self._context,
                self._config,
                threads=_threads(self._room),
                states=manifest.states,
                shared=shared,
                pruned_by=pruned_by,
            )
            launcher = Launcher(
                work,
                source,
                Observers(observers),
                self._room,
                manifest.folder / LOGS,
                stop_on_failure=settings.on_error == "stop",
            )
            signals.on_leaving = partial(_leave, launcher, shared, view, manifest)
            with signals.waiting(), contextlib.closing(view):
                launcher.run(_request)
        signals.check()

    def _run_by_plugin(self, jobs: list[Job]) -> None:
        """Runs the jobs by the launcher that is configured, such as `hydra/launcher=joblib`."""
        manifest = invocation.current.sweep
        assert manifest is not None
        from bigmodel.cli.sweep.work import train

        launcher = Plugins.instance().instantiate_launcher(
            hydra_context=self._context, task_function=train, config=self._config
        )
        returned = launcher.launch([list(job.overrides) for job in jobs], initial_job_idx=0)
        for job, result in zip(jobs, returned, strict=True):
            failed = result.status is JobStatus.FAILED
            outcome = Outcome("failed", reason(result._return_value)) if failed else result.return_value
            if outcome.folder is not None:
                manifest.started(job, outcome.folder)
            manifest.ended(job, outcome)


def gpu_count(device: str) -> int:
    """GPUs that jobs on `device` can use. They are counted without starting CUDA, which a forked process
    could not use then."""
    import torch

    kind = device.partition(":")[0]
    return torch.cuda.device_count() if kind in ("auto", "cuda") else 0


def _threads(room: list[Slot]) -> int:
    """CPU threads of each of the jobs that run at the same time."""
    return max(1, processors() // len(room))


def _free_memory(room: list[Slot]) -> int | None:
    """Bytes of memory for the jobs that run at the same time, on a CPU; None if it is not known."""
    from bigmodel.data.memory_check import free_memory

    return None if any(slot.environment for slot in room) else free_memory()


def _leave(launcher: Launcher, shared: Path, view: SweepView, manifest: Manifest) -> None:
    """What is done when the sweep is asked to stop a second time."""
    launcher.kill()
    shutil.rmtree(shared, ignore_errors=True)
    with contextlib.suppress(Exception):  # it may be in the middle of drawing
        view.close()
    words = shell_quoted(f"sweep.resume={manifest.folder}")
    messages.report(f"Its jobs were ended at once. Resume with -m {words}")


def _request() -> int | None:
    """The signal that the sweep has received since it was last asked."""
    signals = invocation.current.signals
    if not signals.pending:
        return None
    try:
        signals.acknowledged()
    except Stopped as stop:
        return stop.status - 128
    return getattr(signal, "SIGUSR1", None)
