"""A search by Optuna: each job is a trial. A sampler chooses its values from the results so far, and a
pruner may end it early.

Optuna is asked and told, and runs nothing itself. Its study is a SQLite file, which its dashboard
opens, and with which a search is resumed. A job's number is that of its trial.
"""

from __future__ import annotations

import contextlib
import math
import warnings
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bigmodel.errors import CheckpointError, ConfigError, first_line, setting
from bigmodel.sweeps.config import SearchConfig
from bigmodel.sweeps.jobs import Job, Outcome
from bigmodel.sweeps.process import call
from bigmodel.sweeps.search_space import Choices, Objective, Range, Space, chosen_pruner, shuffled_grid

if TYPE_CHECKING:
    import optuna

DATABASE = "search.db"
"""The study's file in a sweep's folder."""

STUDY = "bigmodel-train"
_SEARCHED = "searched"
_PATIENCE = 10.0
"""Seconds to wait for another process that writes to the file, such as the dashboard."""


class Search:
    """The source of a search's jobs.

    Args:
        config: of the search.
        space: what may be set.
        fixed: what every job sets, as overrides.
        wanted: what to optimize.
        folder: the sweep's.
        evaluations: how often a run is evaluated, for pruners.
        known: jobs of this search that were begun or planned before.

    Raises:
        ConfigError: the study in the file searches something else.
        CheckpointError: its file cannot be read or written.
    """

    def __init__(
        self,
        config: SearchConfig,
        space: Space,
        fixed: Sequence[str],
        wanted: Sequence[Objective],
        folder: Path,
        *,
        evaluations: int = 100,
        known: Sequence[Job] = (),
    ) -> None:
        self._config, self._space, self._fixed, self._wanted = config, dict(space), fixed, wanted
        self._path = folder / DATABASE if config.storage is None else Path(config.storage)
        self._left = config.trials - len(known)
        self._retries = {job.number: config.retries for job in known}
        self._grid = shuffled_grid(self._space, config.seed) if config.sampler == "grid" else None
        if self._grid is not None:
            self._left = min(self._left, len(self._grid) - len(known))
            self._grid = self._grid[len(known) :]
        with _storing(self._path):
            self._study = self._open(evaluations)
            self._again = self._unfinished(known)

    @property
    def to_run(self) -> int:
        """How many jobs are still to be run."""
        return self._left + len(self._again)

    @property
    def unfinished(self) -> list[Job]:
        """Jobs from before whose results have not come in; they come first."""
        return list(reversed(self._again))

    def next(self) -> Job | None:
        if self._again:
            return self._again.pop()
        if self._left <= 0:
            return None
        self._left -= 1
        with _storing(self._path):
            number, values = self._ask()
        own = (f"{key}={_text(values[key])}" for key in self._space)
        job = Job(number, (*self._fixed, *own))
        self._retries[number] = self._config.retries
        return job

    def taken(self, job: Job) -> None:
        self._again = [other for other in self._again if other.number != job.number]

    def evaluated(self, job: Job, evaluation: int, value: float) -> bool:
        with _storing(self._path):
            storage, study = self._study._storage, self._study
            trial = storage.get_trial_id_from_study_id_trial_number(study._study_id, job.number)
            if not storage.get_trial(trial).state.is_finished():
                storage.set_trial_intermediate_value(trial, evaluation, value)
            return bool(study.pruner.prune(study, storage.get_trial(trial)))

    def ended(self, job: Job, outcome: Outcome) -> bool:
        self.taken(job)
        if outcome.status == "stopped":
            return False  # it goes on if the sweep is resumed
        may_pass = outcome.status == "failed" and outcome.may_pass
        if may_pass and self._retries.get(job.number, 0) > 0:
            self._retries[job.number] -= 1
            self._again.insert(0, job)
            return True
        from optuna.trial import TrialState

        values = [self._value(objective.metric, outcome) for objective in self._wanted]
        state = TrialState.COMPLETE
        if outcome.status == "pruned":
            state = TrialState.PRUNED
        elif outcome.status == "failed" or not all(map(math.isfinite, values)):
            state = TrialState.FAIL
        told = values if state is TrialState.COMPLETE else None
        with _storing(self._path):
            self._study.tell(job.number, told, state, skip_if_finished=True)
        return False

    def best(self) -> list[int]:
        """The numbers of the best jobs: with several metrics, those that no other beats in all."""
        with _storing(self._path):
            from optuna.trial import TrialState

            if not self._study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)):
                return []
            return sorted(trial.number for trial in self._study.best_trials)

    def _unfinished(self, known: Sequence[Job]) -> list[Job]:
        """The jobs whose results have not come in, the first last."""
        from optuna.trial import TrialState

        waiting = (TrialState.RUNNING, TrialState.WAITING)
        trials = {trial.number: trial for trial in self._study.get_trials(False, waiting)}
        if self._config.storage is None:  # asked for by a process that was killed before it made a job
            for number in set(trials) - {job.number for job in known}:
                self._study._storage.set_trial_state_values(trials[number]._trial_id, TrialState.FAIL)
        return [job for job in reversed(known) if job.number in trials]

    def _value(self, metric: str, outcome: Outcome) -> float:
        details = outcome.details
        found = details.get(metric) if "/" not in metric else (details.get("best") or {}).get(metric)
        return math.nan if found is None else float(found)

    def _ask(self) -> tuple[int, dict[str, Any]]:
        """A new trial's number and values."""
        if self._config.sampler == "gp":
            parts = (self._path, self._name, self._config.seed, self._space)
            # This process must not compute with torch: jobs forked from it would hang.
            asked: tuple[int, dict[str, Any]] = call(partial(_ask_alone, *parts))
            return asked
        if self._grid is not None:
            self._study.enqueue_trial(self._grid.pop(0))
        trial = self._study.ask(_distributions(self._space))
        return trial.number, trial.params

    def _open(self, evaluations: int) -> optuna.Study:
        import optuna

        storage = _storage(self._path)
        study = optuna.create_study(
            storage=storage,
            study_name=self._name,
            pruner=_pruner(chosen_pruner(self._config), evaluations),
            directions=["maximize" if one.mode == "max" else "minimize" for one in self._wanted],
            load_if_exists=True,
        )
        searched = {words.partition("=")[0]: words for words in self._fixed}
        searched |= {key: f"{key}: {values}" for key, values in self._space.items()}
        searched["sweep.metrics"] = ", ".join(f"{one.metric} ({one.mode})" for one in self._wanted)
        before = study.user_attrs.get(_SEARCHED)
        if before is None:
            study.set_user_attr(_SEARCHED, searched)
            study.set_metric_names([objective.metric for objective in self._wanted])
        elif changed := sorted(key for key, _ in before.items() ^ searched.items()):
            raise ConfigError(
                f"{self._path}: holds a search with other values of {', '.join(dict.fromkeys(changed))}."
                " Leave out what changes it, start another sweep, or name another search with"
                " sweep.study=<name>."
            )
        # Another seed for each start: the same would draw the first values again.
        seed = self._config.seed + len(study.get_trials(deepcopy=False))
        study.sampler = _sampler(self._config.sampler, seed)
        return study

    @property
    def _name(self) -> str:
        return self._config.study or STUDY


@contextlib.contextmanager
def _storing(path: Path) -> Iterator[None]:
    """Within it, Optuna is quiet, and what its file cannot do is said in a message."""
    import optuna
    from sqlalchemy.exc import SQLAlchemyError

    optuna.logging.set_verbosity(optuna.logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except (optuna.exceptions.StorageInternalError, SQLAlchemyError) as error:
        cause = error.__cause__ or error
        text = first_line(getattr(cause, "orig", None) or cause)
        hint = f"Name another file with {setting('sweep.storage', 'my.db')}."
        if "locked" in text:
            hint = "Another program writes to it: wait until it is done, or end it."
        raise CheckpointError(f"{path}: the search cannot use this file: {text}. {hint}") from error


def _text(value: Any) -> str:
    """A value as an override has it; six digits are enough for any setting."""
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _distributions(space: Space) -> dict[str, Any]:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    def of(values: Choices | Range) -> Any:
        if isinstance(values, Choices):
            return CategoricalDistribution(values.values)
        if values.whole:
            step = 1 if values.step is None else int(values.step)
            return IntDistribution(int(values.low), int(values.high), values.log, step)
        return FloatDistribution(values.low, values.high, values.log, values.step)

    return {key: of(values) for key, values in space.items()}


def _storage(path: Path) -> Any:
    import optuna
    from sqlalchemy.pool import NullPool

    # A connection for each transaction: none is open when a job's process is forked.
    options = {"poolclass": NullPool, "connect_args": {"timeout": _PATIENCE}}
    return optuna.storages.RDBStorage(f"sqlite:///{path}", engine_kwargs=options)


def _sampler(name: str, seed: int) -> Any:
    from optuna import samplers

    match name:
        case "tpe":
            return samplers.TPESampler(seed=seed, constant_liar=True)
        case "cmaes":
            from bigmodel.sweeps.cmaes import ReplayedCmaEs

            return ReplayedCmaEs(seed=seed, warn_independent_sampling=False)
        case "gp":
            return samplers.GPSampler(seed=seed, warn_independent_sampling=False)
        case "qmc":
            return samplers.QMCSampler(seed=seed, scramble=True, warn_independent_sampling=False)
        case _:
            return samplers.RandomSampler(seed=seed)


def _pruner(name: str, evaluations: int) -> Any:
    from optuna import pruners

    match name:
        case "median":
            return pruners.MedianPruner()
        case "hyperband":
            return pruners.HyperbandPruner(min_resource=1, max_resource=max(1, evaluations))
        case "successive_halving":
            return pruners.SuccessiveHalvingPruner(min_resource=1)
        case _:
            return pruners.NopPruner()


def _ask_alone(path: Path, study_name: str, seed: int, space: Space) -> tuple[int, dict[str, Any]]:
    """A new trial by Gaussian processes, which are computed with torch."""
    import optuna
    import torch

    torch.set_num_threads(1)
    with _storing(path):
        study = optuna.load_study(study_name=study_name, storage=_storage(path))
        study.sampler = _sampler("gp", seed + len(study.get_trials(deepcopy=False)))
        trial = study.ask(_distributions(space))
    return trial.number, trial.params
