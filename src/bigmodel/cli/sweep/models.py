"""`sweep=models`: a few models that suit the data, and plain baselines beside them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path

from hydra.core.override_parser.types import Override
from hydra.types import HydraContext
from omegaconf import DictConfig

from bigmodel.cli.sweep.grid import Grid
from bigmodel.cli.sweep.kinds import Begun
from bigmodel.cli.sweep.resume import key_of
from bigmodel.errors import ConfigError
from bigmodel.reporting.summary import jsonable
from bigmodel.runtime import disk, progress_messages
from bigmodel.sweeps.config import ModelsConfig
from bigmodel.sweeps.jobs import FOLD, Job
from bigmodel.sweeps.manifest import Manifest
from bigmodel.sweeps.process import call

BASELINES = "baselines.json"

_LISTS = {"Features": "tables", "Image": "images", "Sequence": "sequences", "Tokens": "texts"}
"""The list of models for each kind of inputs."""


class Models(Grid):
    """Each combination of what is typed with each model for the kind of data, and baselines beside them.

    For arguments and errors see `Grid`.
    """

    _settings: ModelsConfig

    def _listed(self, overrides: Sequence[Override]) -> list[tuple[str, ...]]:
        return with_models(self._settings, super()._listed(overrides), self._context, self._master)

    def begin(self, folder: Path, resumed: Manifest | None) -> Begun:
        begun = super().begin(folder, resumed)
        if self._settings.baselines:
            fit_baselines(folder, _one_for_each_fold(self.jobs), self._context, self._master)
        return begun

    def _check_folds(self, jobs: Sequence[Job]) -> None:
        """They were, when the kind of data was looked at."""


def _one_for_each_fold(jobs: Sequence[Job]) -> list[Sequence[str]]:
    """The overrides of one job of each fold of a cross-validation, else those of one job."""
    first: dict[str, Sequence[str]] = {}
    for job in jobs:
        fold = next((word for word in job.overrides if key_of(word) == FOLD), "")
        first.setdefault(fold, job.overrides)
    return list(first.values())


def with_models(
    settings: ModelsConfig, typed: Sequence[tuple[str, ...]], context: HydraContext, master: DictConfig
) -> list[tuple[str, ...]]:
    """Each of the typed combinations with each model for the kind of data; what is typed counts.

    Raises:
        ConfigError: something is typed that this sweep chooses itself, or no list is meant for the data.
    """
    several = {key_of(w) for words in typed for w in words if w not in typed[0]}
    for key in sorted({key_of(word) for words in typed for word in words}):
        if key == "model":
            raise ConfigError(
                "sweep=models: chooses the models itself. Leave out model=, or name the settings to try,"
                ' such as sweep.tables=\'["model=fnn","model=attention"]\'.'
            )
        if key.partition(".")[0] == "data" and key in several and key != FOLD:
            raise ConfigError(
                f"sweep=models: {key} has several values, and models are compared on the same data. Give"
                " it one value."
            )
    from bigmodel.cli.sweep import baselines  # brings torch

    kind = call(partial(baselines.kind_of, context, master, typed[0]))
    if kind.inputs not in _LISTS or kind.target not in ("Classes", "Values"):
        raise ConfigError(
            f"sweep=models: compares models that predict classes or real values from tables, images,"
            f" sequences or texts; this data is {kind.described}. Name models instead:"
            " -m model=fnn,transformer."
        )
    listed: list[str] = getattr(settings, _LISTS[kind.inputs])
    if not listed:
        raise ConfigError(f"sweep.{_LISTS[kind.inputs]}=[]: names no settings to try.")
    return [(*words, *_others(entry, words)) for words in typed for entry in listed]


def _others(entry: str, words: Sequence[str]) -> Iterator[str]:
    keys = {key_of(word) for word in words}
    return (word for word in entry.split() if key_of(word) not in keys)


def fit_baselines(
    folder: Path, jobs: Sequence[Sequence[str]], context: HydraContext, master: DictConfig
) -> None:
    """Fits the baselines in a process of their own and writes them into the sweep's folder, unless they
    are there. For arguments see `baselines.fit_baselines`.

    Raises:
        ConfigError, DataError, CheckpointError: the data cannot be read, or the file not written.
    """
    if (folder / BASELINES).is_file():
        return
    from bigmodel.cli.sweep import baselines  # brings torch

    with progress_messages.report_progress("Fitting baselines"):
        found, samples = call(partial(baselines.fit_baselines, context, master, jobs))
    listed = [jsonable(asdict(each)) for each in found]
    text = json.dumps({"validation_samples": samples, "baselines": listed}, indent=2)
    disk.write_text(folder / BASELINES, f"{text}\n")
