"""`sweep=optuna`: from what is typed to a search, with what a run of it says about its metrics."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from hydra.core.override_parser.types import Override
from hydra.types import HydraContext
from omegaconf import DictConfig

from bigmodel.cli.sweep.compose import composed
from bigmodel.cli.sweep.kinds import Begun
from bigmodel.cli.sweep.space import search_space
from bigmodel.errors import ConfigError, join_names
from bigmodel.runtime import run_summary
from bigmodel.sweeps.config import SearchConfig
from bigmodel.sweeps.jobs import Job, Outcome
from bigmodel.sweeps.manifest import Manifest
from bigmodel.sweeps.process import call
from bigmodel.sweeps.search import Search
from bigmodel.sweeps.search_space import Choices, Space, check, chosen_pruner, objectives


class OptunaSearch:
    """A search, whose jobs are chosen while it runs.

    Args:
        overrides: what was typed.
        context: Hydra's, which composes configurations.
        master: the sweep's own configuration.
        check_jobs: checks what jobs set.

    Raises:
        ConfigError: the space, the sampler, the pruner or a metric is wrong, or a run would be refused.
    """

    def __init__(
        self,
        settings: SearchConfig,
        overrides: Sequence[Override],
        context: HydraContext,
        master: DictConfig,
        check_jobs: Callable[[Sequence[Job]], None],
    ) -> None:
        self.jobs: Sequence[Job] = ()
        self._settings = settings
        self._fixed, self._space = search_space(overrides)
        check(settings, self._space)
        examples = [Job(number, (*self._fixed, *w)) for number, w in enumerate(_examples(self._space))]
        check_jobs(examples)
        self._facts = call(partial(_facts, context, master, examples[0].overrides))
        self._wanted = objectives(settings, self._facts.monitor, self._facts.modes)

    def begin(self, folder: Path, resumed: Manifest | None) -> Begun:
        known = {} if resumed is None else resumed.states
        search = Search(
            self._settings,
            self._space,
            self._fixed,
            self._wanted,
            folder,
            evaluations=self._facts.evaluations,
            known=[state.job for state in known.values()],
        )
        for job in search.unfinished:
            own = known[job.number].folder
            if own is not None and run_summary.status(own) == "pruned":  # and its sweep was killed then
                search.ended(job, Outcome("pruned", None, own))
        pruned_by = None if chosen_pruner(self._settings) == "none" else self._wanted[0].metric
        return Begun(
            search,
            search.to_run,
            self._chosen,
            search.unfinished,
            pruned_by,
            partial(self._best, search),
        )

    def _chosen(self, job: Job) -> str:
        return " ".join(job.overrides[len(self._fixed) :])

    def _best(self, search: Search) -> str | None:
        names = [objective.metric for objective in self._wanted]
        if names == [self._facts.monitor]:
            return None
        best = join_names([str(number) for number in search.best()]) or "none"
        if len(names) == 1:
            return f"Best {names[0]}: job {best}."
        return f"Jobs that no other beats in {' and '.join(names)} together: {best}."


def _examples(space: Space) -> Iterator[list[str]]:
    """Jobs that together set every choice and the ends of every range."""
    values = {
        key: list(v.values) if isinstance(v, Choices) else [v.low, v.high] for key, v in space.items()
    }
    first = {key: own[0] for key, own in values.items()}
    changed = ({key: value} for key, own in values.items() for value in own[1:])
    for change in ({}, *changed):
        yield [f"{key}={value}" for key, value in (first | change).items()]


@dataclass(frozen=True)
class _Facts:
    """What a search has to know of its runs.

    Attributes:
        monitor: the metric that chooses the best checkpoint, and that jobs are ranked by.
        modes: `max` or `min` for each metric.
        evaluations: how often a run is evaluated.
    """

    monitor: str
    modes: Mapping[str, str]
    evaluations: int


def _facts(context: HydraContext, master: DictConfig, overrides: Sequence[str]) -> _Facts:
    """Of a job, which is built for it."""
    from bigmodel.build.new_run import build_run
    from bigmodel.config import parse
    from bigmodel.metrics import metric_names

    values = composed(context, master, overrides)
    if master.sweep.launcher != "local":  # this machine may lack the device of the jobs'
        values["device"] |= {"name": "cpu", "precision": "fp32", "engine": "eager"}
    run = build_run(parse(values), Path(os.devnull))
    if not run.monitor.name:
        raise ConfigError(
            "sweep=optuna: chooses by validation figures, and data.validation=false leaves none. Leave"
            " it out."
        )
    of_texts = {} if run.text_sampler is None else run.text_sampler.metrics
    usual = metric_names(run.dataset.spec.target) | of_texts
    metrics = {} if run.val is None else usual | run.chosen_metrics.directions
    modes = {f"val/{name}": mode for name, mode in metrics.items()} | {"train/loss": "min"}
    modes[run.monitor.name] = run.monitor.mode
    evaluations = math.ceil(run.plan.steps / run.plan.evaluate_every)
    return _Facts(run.monitor.name, modes, evaluations)
