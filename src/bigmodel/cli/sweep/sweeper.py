"""What Hydra calls for `-m`: finds out what there is to run, and has it run in the sweep's folder."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

from bigmodel.cli import invocation
from bigmodel.cli.job import import_everything
from bigmodel.cli.launch.run_folder import PLAN, claimed_sweep
from bigmodel.cli.sweep.grid import Grid
from bigmodel.cli.sweep.kinds import Begun, Kind
from bigmodel.cli.sweep.models import Models
from bigmodel.cli.sweep.resume import record_words
from bigmodel.cli.sweep.runners import runner_for
from bigmodel.cli.sweep.search import OptunaSearch
from bigmodel.cli.sweep.settings import is_hydra_search, is_plugin, settings_of
from bigmodel.errors import ConfigError
from bigmodel.runtime.escaping import escape_message
from bigmodel.sweeps.config import ModelsConfig, SearchConfig, SweepConfig
from bigmodel.sweeps.jobs import Job
from bigmodel.sweeps.manifest import Manifest
from bigmodel.sweeps.process import call
from bigmodel.sweeps.queue import catch_up
from bigmodel.sweeps.slots import slots

Explain = Callable[[Exception], str | None]


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
        ConfigError: another sweeper is configured, or several processes were started together.
    """
    if (meeting := invocation.current.meeting) is not None:
        raise ConfigError(
            f"-m: {meeting.place.starter} has started {meeting.size} processes for one run, but each job"
            " of a sweep trains in a process of its own. Start the sweep as one process."
        )
    if not (is_plugin(config.hydra.sweeper, BasicSweeper) or is_hydra_search(config)):
        raise ConfigError(
            f"hydra/sweeper: {config.hydra.sweeper.get('_target_')} is not bigmodel's own sweeper, which"
            " lists, resumes and ranks jobs. Leave it out, or search with sweep=optuna."
        )
    sweeper = JobSweeper(explain)
    sweeper.setup(hydra_context=hydra_context, task_function=task_function, config=config)
    return sweeper


class JobSweeper(Sweeper):
    """Runs the jobs of a sweep of any kind."""

    def __init__(self, explain: Explain) -> None:
        self._explain = explain

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        del task_function  # of a single run
        self._context, self._config = hydra_context, config

    def sweep(self, arguments: list[str]) -> None:
        settings, resumed = settings_of(self._config), invocation.current.resumed_sweep
        runner = runner_for(settings, self._context, self._config, resumed=resumed is not None)
        overrides = self._parsed(arguments)
        import_everything()
        kind = self._kind(settings, overrides)
        room = slots(settings, gpu_count(str(self._config.device.name)))
        if settings.plan:
            from bigmodel.cli.sweep.plan import show_plan

            show_plan(self._context, self._config, kind.jobs, room)
            return
        folder = Path(str(self._config.hydra.sweep.dir))
        with claimed_sweep(folder, resumed is not None):
            begun, manifest = self._begin(kind, folder, goes_on=resumed is not None)
            invocation.current.sweep, invocation.current.started = manifest, True
            runner.run(begun, manifest, room)
            if text := begun.conclusion():
                print(escape_message(text))  # noqa: T201

    def _parsed(self, arguments: list[str]) -> list[Override]:
        params = self._config.hydra.sweeper.get("params") or {}
        words = [*(f"{key}={value}" for key, value in params.items()), *arguments]
        parser = OverridesParser.create(config_loader=self._context.config_loader)
        return parser.parse_overrides(words)

    def _kind(self, settings: SweepConfig, overrides: Sequence[Override]) -> Kind:
        parts = (overrides, self._context, self._config, self._check)
        if isinstance(settings, SearchConfig):
            return OptunaSearch(settings, *parts)
        if isinstance(settings, ModelsConfig):
            return Models(settings, *parts)
        return Grid(settings, *parts)

    def _check(self, jobs: Sequence[Job]) -> None:
        from bigmodel.cli.sweep.check import JobCheck

        check = partial(JobCheck(self._context, self._config, self._explain), jobs)
        self._context.config_loader.composed = call(check)  # type: ignore[attr-defined]

    def _begin(self, kind: Kind, folder: Path, *, goes_on: bool) -> tuple[Begun, Manifest]:
        """Begins the sweep in its folder, which is ours now, or goes on with it, and records that."""
        words = invocation.current.words
        if goes_on:
            manifest = Manifest.read(folder)  # read again: another process may have held it until now
            catch_up(manifest)
            begun = kind.begin(folder, manifest)
            record_words(manifest, words)
            return begun, manifest
        begun = kind.begin(folder, None)
        manifest = Manifest.create(folder, words, kind.jobs)
        OmegaConf.save(self._config, folder / PLAN)
        return begun, manifest


def gpu_count(device: str) -> int:
    """GPUs that jobs on `device` can use. They are counted without starting CUDA, which a forked process
    could not use then."""
    import torch

    kind = device.partition(":")[0]
    return torch.cuda.device_count() if kind in ("auto", "cuda") else 0
