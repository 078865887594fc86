"""`sweep=optuna`: from what is typed to a search, with what a run of it says about its metrics."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.types import Override
from hydra.core.utils import setup_globals
from hydra.types import HydraContext
from omegaconf import DictConfig, OmegaConf, open_dict

from bigmodel.cli import messages
from bigmodel.cli.launch import run_folder
from bigmodel.cli.sweep.space import search_space
from bigmodel.errors import ConfigError, join_names
from bigmodel.registry import validate
from bigmodel.sweeps.config import ModelsConfig, SearchConfig, SweepConfig
from bigmodel.sweeps.jobs import Job, Outcome
from bigmodel.sweeps.manifest import JobState
from bigmodel.sweeps.process import call
from bigmodel.sweeps.search import Choices, Objective, Search, Space, check, chosen_pruner, objectives

_OF_HYDRA = {"n_trials": "trials", "n_jobs": "jobs", "study_name": "study", "storage": "storage"}
"""Settings of Hydra's own Optuna sweeper, and ours."""


def settings_of(config: DictConfig) -> SweepConfig:
    """The sweep's settings: of `sweep=`, and those of `hydra/sweeper=optuna` in ours.

    Raises:
        ConfigError: one is wrong.
    """
    plain: Any = OmegaConf.to_container(config.sweep)
    if is_hydra_search(config):
        plain |= {"search": "optuna"} | _translated(config.hydra.sweeper)
    if plain.get("storage") is not None:
        plain["storage"] = _as_path(str(plain["storage"]))
    schema: type[SweepConfig] = SweepConfig
    if "search" in plain:
        schema = SearchConfig
    elif "baselines" in plain:
        schema = ModelsConfig
    return validate(schema, plain, "sweep")


def is_hydra_search(config: DictConfig) -> bool:
    """Whether `hydra/sweeper=optuna` was chosen."""
    return "n_trials" in config.hydra.sweeper and "_target_" not in config.hydra.sweeper


def _translated(sweeper: DictConfig) -> dict[str, Any]:
    if sweeper.direction is not None:
        messages.note(
            f"hydra.sweeper.direction={sweeper.direction} has no effect: the metric says which way it is"
            " better. Choose it with sweep.metrics, and its direction with trainer.checkpoint.mode."
        )
    found = {ours: sweeper[theirs] for theirs, ours in _OF_HYDRA.items()}
    found |= {"sampler": sweeper.sampler.name, "seed": sweeper.sampler.seed}
    return {name: value for name, value in found.items() if value is not None}


def _as_path(storage: str) -> str:
    """A file, which may be given as Optuna has it: `sqlite:///search.db`."""
    scheme, slashes, path = storage.rpartition(":///" if ":///" in storage else "://")
    if slashes and scheme != "sqlite":
        raise ConfigError(
            f"sweep.storage: a search is kept in a SQLite file, not in a database of the kind {scheme}."
            " Name one, such as sweep.storage=search.db"
        )
    return path


@dataclass(frozen=True)
class SearchPlan:
    """A search that is checked and may start.

    Attributes:
        fixed: what every job sets.
        wanted: what is optimized.
        monitor: the metric that jobs are ranked by.
        evaluations: how often a run is evaluated.
    """

    config: SearchConfig
    space: Space
    fixed: Sequence[str]
    wanted: Sequence[Objective]
    monitor: str
    evaluations: int

    @property
    def pruned_by(self) -> str | None:
        """The metric by which jobs are pruned; None: none is."""
        return None if chosen_pruner(self.config) == "none" else self.wanted[0].metric

    def shown(self, job: Job) -> str:
        """What the search has chosen for a job, in one line."""
        return " ".join(job.overrides[len(self.fixed) :])

    def start(self, folder: Path, known: Mapping[int, JobState]) -> Search:
        """The source of its jobs.

        Args:
            folder: the sweep's.
            known: by number, jobs from before, if the search is resumed.

        Raises:
            ConfigError, CheckpointError: see `Search`.
        """
        parts = (self.config, self.space, self.fixed, self.wanted, folder)
        search = Search(
            *parts, evaluations=self.evaluations, known=[state.job for state in known.values()]
        )
        for job in search.unfinished:
            own = known[job.number].folder
            if own is not None and run_folder.status(own) == "pruned":  # and its sweep was killed then
                search.ended(job, Outcome("pruned", None, own))
        return search

    def result(self, search: Search) -> str | None:
        """What the table of jobs does not say; None: nothing."""
        names = [objective.metric for objective in self.wanted]
        if names == [self.monitor]:
            return None
        best = join_names([str(number) for number in search.best()]) or "none"
        if len(names) == 1:
            return f"Best {names[0]}: job {best}."
        return f"Jobs that no other beats in {' and '.join(names)} together: {best}."


def plan_search(
    config: SearchConfig,
    overrides: Sequence[Override],
    context: HydraContext,
    master: DictConfig,
    check_jobs: Callable[[list[Job]], None],
) -> SearchPlan:
    """Checks all of a search before anything of it starts.

    Args:
        context: Hydra's, which composes configurations.
        master: the sweep's own configuration.
        check_jobs: checks what jobs set.

    Raises:
        ConfigError: the space, the sampler, the pruner or a metric is wrong, or a run would be refused.
    """
    fixed, space = search_space(overrides)
    check(config, space)
    examples = [Job(number, (*fixed, *words)) for number, words in enumerate(_examples(space))]
    check_jobs(examples)
    facts = call(partial(_facts, context, master, examples[0].overrides))
    wanted = objectives(config, facts["monitor"], facts["modes"])
    return SearchPlan(config, space, fixed, wanted, facts["monitor"], facts["evaluations"])


def _examples(space: Space) -> Iterator[list[str]]:
    """Jobs that together set every choice and the ends of every range."""
    values = {
        key: list(v.values) if isinstance(v, Choices) else [v.low, v.high] for key, v in space.items()
    }
    first = {key: own[0] for key, own in values.items()}
    changed = ({key: value} for key, own in values.items() for value in own[1:])
    for change in ({}, *changed):
        yield [f"{key}={value}" for key, value in (first | change).items()]


def _facts(context: HydraContext, master: DictConfig, overrides: Sequence[str]) -> dict[str, Any]:
    """The metrics of a run with `max` or `min`, which one chooses its best checkpoint, and how often it
    is evaluated. For that it is built."""
    from bigmodel.cli.job import prepare
    from bigmodel.metrics import metric_names

    setup_globals()
    config = context.config_loader.load_sweep_config(master, list(overrides))
    HydraConfig.instance().set_config(config)
    with open_dict(config):
        del config["hydra"]
    run = prepare(config, Path(os.devnull))
    of_texts = {} if run.text_sampler is None else run.text_sampler.figures
    figures = metric_names(run.dataset.spec.target) | of_texts
    modes = {f"val/{name}": mode for name, mode in figures.items()} | {"train/loss": "min"}
    modes[run.monitor.name] = run.monitor.mode
    evaluations = math.ceil(run.plan.steps / run.plan.evaluate_every)
    return {"monitor": run.monitor.name, "modes": modes, "evaluations": evaluations}
