"""A sweep over lists: its jobs are every combination of the values that are typed."""

from __future__ import annotations

import contextlib
import itertools
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from hydra.core.override_parser.types import Override
from hydra.types import HydraContext
from omegaconf import DictConfig, OmegaConf

from bigmodel.cli.launch.hydra_patches import check_sweep
from bigmodel.cli.sweep.kinds import Begun
from bigmodel.cli.sweep.resume import key_of, merge_jobs, to_run
from bigmodel.errors import ConfigError, DataError, did_you_mean
from bigmodel.sweeps.config import SweepConfig
from bigmodel.sweeps.jobs import FOLD, Job, JobList, changes, in_one_line
from bigmodel.sweeps.manifest import Manifest
from bigmodel.sweeps.process import call


class Grid:
    """Jobs that are known beforehand: every combination of what is typed, with the seeds and folds that
    the sweep's settings add.

    Args:
        overrides: what was typed.
        context: Hydra's, which composes configurations.
        master: the sweep's own configuration.
        check_jobs: checks what jobs set.

    Raises:
        ConfigError: what is typed stands for no jobs or for too many; what a job sets is wrong; or all
            jobs have the same folder.
        DataError: the data cannot be cut into the folds that are asked for.
    """

    def __init__(
        self,
        settings: SweepConfig,
        overrides: Sequence[Override],
        context: HydraContext,
        master: DictConfig,
        check_jobs: Callable[[Sequence[Job]], None],
    ) -> None:
        self._settings, self._context, self._master = settings, context, master
        with _as_of_sweep(settings.folds):
            self.jobs: Sequence[Job] = [
                Job(number, words) for number, words in enumerate(self._listed(overrides))
            ]
            self._check_folders()
            check_jobs(self.jobs)
            self._check_folds([job for job in self.jobs if FOLD in map(key_of, job.overrides)])

    def _listed(self, overrides: Sequence[Override]) -> list[tuple[str, ...]]:
        check_sweep(overrides)
        first = int(self._master.seed)
        seeds = range(first, first + (self._settings.seeds or 0))
        return combinations(overrides, self._settings.zip, seeds, self._settings.folds or 0)

    def _check_folders(self) -> None:
        sweep: Any = OmegaConf.to_container(self._master.hydra.sweep, resolve=False)
        if len(self.jobs) > 1 and "${" not in str(sweep["subdir"]):
            raise ConfigError(
                f"hydra.sweep.subdir={sweep['subdir']}: is the same folder for all jobs. Use one that"
                " depends on the job, such as 'hydra.sweep.subdir=${hydra.job.num}'."
            )

    def _check_folds(self, jobs: Sequence[Job]) -> None:
        from bigmodel.cli.sweep.check import check_folds  # brings torch

        if jobs:
            call(partial(check_folds, self._context, self._master, jobs))

    def begin(self, folder: Path, resumed: Manifest | None) -> Begun:  # noqa: ARG002
        every = left = self.jobs
        if resumed is not None:
            merge_jobs(resumed, self.jobs, self._settings.extend)
            every = resumed.jobs
            left = to_run(resumed, retry=self._settings.retries > 0)
        own = changes(every)
        source = JobList(left, self._settings.retries)
        return Begun(source, len(left), lambda job: in_one_line(own[job.number]), left)


@contextlib.contextmanager
def _as_of_sweep(folds: int | None) -> Iterator[None]:
    """Within it, errors about folds name the setting that was typed."""
    try:
        yield
    except (ConfigError, DataError) as error:
        if str(error).startswith(typed := f"sweep.folds={folds}"):
            raise
        message = re.sub(rf"(\+\+)?\bdata\.folds={folds}\b", typed, str(error))
        raise type(error)(message) from error


def combinations(
    overrides: Sequence[Override], zipped: Sequence[str] = (), seeds: Sequence[int] = (), folds: int = 0
) -> list[tuple[str, ...]]:
    """The overrides of each job, in the order in which they were typed; the last varies fastest.

    Args:
        overrides: what was typed; settings of the sweep itself are left out.
        zipped: keys whose values are taken pairwise, not in every combination.
        seeds: every combination is run with each of them.
        folds: every combination is run with each fold of a cross-validation; 0: without.

    Raises:
        ConfigError: a key is swept over twice, or over an interval, which has no list of values; the
            keys to take pairwise are not swept over, or have different numbers of values.
    """
    overrides = [override for override in overrides if not is_of_sweep(override)]
    check_once(overrides)
    values = {_key(override): _values(override) for override in overrides}
    if seeds:
        if len(values.get("seed", [])) > 1:
            raise ConfigError(
                f"sweep.seeds={len(seeds)}: {' '.join(values['seed'])} are given as well. Leave one of"
                " the two out; the seeds of sweep.seeds count up from the configuration's own."
            )
        values["seed"] = [f"seed={seed}" for seed in seeds]
    if folds:
        if given := [word for key in ("data.folds", "data.val_fold") for word in values.get(key, [])]:
            raise ConfigError(
                f"sweep.folds={folds}: {' '.join(given)} is given as well. Leave one of the two out;"
                " sweep.folds sets data.folds and data.val_fold of each job."
            )
        values |= {  # with pluses, since a user's own YAML need not name all settings of its data
            "data.folds": [f"++data.folds={folds}"],
            "data.val_fold": [f"++data.val_fold={fold}" for fold in range(folds)],
        }
    dimensions: dict[str, list[tuple[str, ...]]] = {}
    for key, words in values.items():
        if key not in zipped:
            dimensions[key] = [(word,) for word in words]
        elif "zip" not in dimensions:
            dimensions["zip"] = _pairs(values, zipped)
    return [tuple(itertools.chain(*chosen)) for chosen in itertools.product(*dimensions.values())]


def _key(override: Override) -> str:
    return str(override.get_key_element().lstrip("+"))


def is_of_sweep(override: Override) -> bool:
    """Whether it sets something of the sweep itself.

    Raises:
        ConfigError: it has several values.
    """
    if override.key_or_group.replace("/", ".").split(".")[0] != "sweep":
        return False
    if override.is_sweep_override():
        raise ConfigError(f"{override.input_line}: a setting of the sweep itself has one value.")
    return True


def _values(override: Override) -> list[str]:
    """What is typed for a key, as an override for each value."""
    if not override.is_sweep_override():
        return [override.input_line or ""]
    key = override.get_key_element()
    if not override.is_discrete_sweep():
        raise ConfigError(
            f"{override.input_line}: an interval has no list of values to run. Use {key}=0.1,0.01 or"
            f" {key}='range(1,5)', or search it with sweep=optuna."
        )
    words = [f"{key}={value}" for value in override.sweep_string_iterator()]
    if twice := [word for word, count in Counter(words).items() if count > 1]:
        raise ConfigError(f"{override.input_line}: {twice[0]} is there more than once. Leave it out.")
    return words


def check_once(overrides: Sequence[Override]) -> None:
    """Raises ConfigError if a key is given more than once, and swept over: all but the last would be
    lost."""
    counts = Counter(map(_key, overrides))
    for override in overrides:
        key = _key(override)
        if override.is_sweep_override() and counts[key] > 1:
            lines = " and ".join(o.input_line or "" for o in overrides if _key(o) == key)
            raise ConfigError(f"{key}: is given more than once ({lines}). Put all its values in one.")


def _pairs(values: dict[str, list[str]], zipped: Sequence[str]) -> list[tuple[str, ...]]:
    """The first values of all zipped keys, then the second ones, and so on.

    Raises:
        ConfigError: a key is not swept over, or they have different numbers of values.
    """
    for key in zipped:
        if key not in values:
            meant = did_you_mean(key, values)
            raise ConfigError(
                f"sweep.zip: {key} is not given any values.{meant} Give them as in {key}=1,2,3."
            )
    counts = {key: len(values[key]) for key in zipped}
    if len(set(counts.values())) > 1:
        given = ", ".join(f"{count} of {key}" for key, count in counts.items())
        raise ConfigError(f"sweep.zip: takes values pairwise, and there are {given}. Give each as many.")
    return list(zip(*(values[key] for key in zipped), strict=True))
