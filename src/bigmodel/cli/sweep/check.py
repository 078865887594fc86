"""Checks what a sweep's jobs set before the first of them begins."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

from hydra._internal.core_plugins.basic_launcher import BasicLauncher
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, OverrideType
from hydra.types import HydraContext
from omegaconf import DictConfig

from bigmodel.build.dataset import read_dataset
from bigmodel.build.new_run import build_run
from bigmodel.cli.job import check_new
from bigmodel.cli.launch.sweep_loader import ComposedParts
from bigmodel.cli.sweep.compose import composed, put
from bigmodel.cli.sweep.resume import key_of
from bigmodel.cli.sweep.settings import is_plugin
from bigmodel.config import GROUPS, RunConfig, parse
from bigmodel.errors import ConfigError, DataError, MetricError
from bigmodel.reporting.base import Sink
from bigmodel.runtime.device import find_device
from bigmodel.sweeps.jobs import FOLD, Job


class JobCheck:
    """Checks jobs. Each set of choices is composed once, and each other value is checked once beside
    them.

    Args:
        context: Hydra's, which composes configurations.
        config: the sweep's own configuration.
        explain: says in words what is wrong; None for a fault that is not the user's.
    """

    def __init__(
        self, context: HydraContext, config: DictConfig, explain: Callable[[Exception], str | None]
    ) -> None:
        self._context, self._config, self._explain = context, config, explain
        self._parser = OverridesParser.create(config_loader=context.config_loader)
        self._composed: dict[tuple[str, ...], dict[str, Any]] = {}
        self._seen: set[tuple[tuple[str, ...], str]] = set()
        self._metrics: set[str] = set()

    def __call__(self, jobs: Sequence[Job]) -> ComposedParts:
        """Checks all jobs, and returns what was composed for that.

        Raises:
            ConfigError: what a job sets is wrong; it names the job.
        """
        for job in jobs:
            try:
                self._check(job)
            except Exception as error:
                if (message := self._explain(error)) is None:
                    raise
                words = " ".join(job.overrides)
                raise ConfigError(f"Job {job.number} ({words}): {message}") from error
        parts: ComposedParts = self._context.config_loader.composed  # type: ignore[attr-defined]
        return parts

    def _check(self, job: Job) -> None:
        overrides = {word: self._parser.parse_override(word) for word in job.overrides}
        plain = {word: o for word, o in overrides.items() if _is_plain_value(o)}
        choices = tuple(word for word in overrides if word not in plain)
        if choices not in self._composed:
            self._composed[choices] = composed(self._context, self._config, job.overrides)
            self._check_values(deepcopy(self._composed[choices]))
            self._seen |= {(choices, word) for word in plain}
        new = {word: o for word, o in plain.items() if (choices, word) not in self._seen}
        if not new:
            return
        values = deepcopy(self._composed[choices])
        for override in new.values():
            put(values, override.key_or_group, override.value())
        self._check_values(values)
        self._seen |= {(choices, word) for word in new}

    def _check_values(self, values: dict[str, Any]) -> None:
        config = parse(values)
        check_new(config)
        if config.top.find is not None:
            raise ConfigError(
                f"find={config.top.find}: is for one run, not for a sweep. Leave -m out; in a sweep,"
                " optimizer.lr=auto finds the learning rate of each job."
            )
        if config.device.ranks not in (None, 1):
            raise ConfigError(
                f"device.ranks={config.device.ranks}: a job of a sweep trains in one process. Leave it"
                " out."
            )
        if self._config.sweep.launcher == "local":  # else the jobs' machines have other devices
            find_device(config.device.name)
            self._check_index(config.device.name)
        self._check_metrics(config)

    def _check_index(self, device: str) -> None:
        """A job of ours sees one GPU, which is the first to it."""
        kind, _, index = device.partition(":")
        if kind == "cuda" and index and is_plugin(self._config.hydra.launcher, BasicLauncher):
            raise ConfigError(
                f"device={device}: the jobs of a sweep are given a GPU each. Choose which by"
                f" device={kind} sweep.gpus=[{index}]"
            )

    def _check_metrics(self, config: RunConfig) -> None:
        """Builds a run for each metric that is named, since only its data tells whether there is such a
        metric. Whatever else is wrong with it is for the job itself to tell."""
        trainer = config.trainer
        names = (trainer.checkpoint.monitor, trainer.early_stopping.monitor)
        key = json.dumps([names, config.values["data"]], default=str)
        if set(names) == {"auto"} or key in self._metrics:
            return
        self._metrics.add(key)
        try:
            build_run(config, Path(os.devnull), console=lambda _: Sink())
        except MetricError:
            raise
        except Exception:
            pass


def check_folds(context: HydraContext, master: DictConfig, jobs: Sequence[Job]) -> None:
    """Reads the data of each cross-validation once, since only the samples tell whether it can be cut
    into so many folds: a fold is refused for the same reasons as all others.

    Args:
        context: Hydra's, which composes configurations.
        master: the sweep's own configuration.
        jobs: of the sweep, each with a fold.

    Raises:
        ConfigError, DataError: the data cannot be read, or not be cut into the folds.
    """
    distinct = {tuple(word for word in job.overrides if _is_of_data(word)): job for job in jobs}
    for words, job in distinct.items():
        try:
            read_dataset(parse(composed(context, master, job.overrides)))
        except (ConfigError, DataError) as error:
            own = " ".join(word for word in words if key_of(word) != "data.folds")
            where = f"{own}: " if len(distinct) > 1 and own else ""
            raise type(error)(f"{where}{error}") from error


_OF_BATCHES = ("batch_size", "batch_tokens", "drop_last", "on_device", "workers", "timeout", "augment")


def _is_of_data(word: str) -> bool:
    """Whether an override may change which samples there are, or how they are cut into folds."""
    group, *rest = key_of(word).split(".")
    if group == "data" and rest and rest[0] in _OF_BATCHES:
        return False
    return key_of(word) != FOLD and group in ("data", "experiment", "debug", "plugins")


def _is_plain_value(override: Override) -> bool:
    """Whether it sets one value that needs no composing."""
    first, *rest = override.key_or_group.split(".")
    return (
        override.type in (OverrideType.CHANGE, OverrideType.FORCE_ADD)
        and override.package is None
        and "/" not in first
        and ((first in GROUPS and bool(rest)) or (not rest and first == "seed"))
        and "${" not in (override.input_line or "")
    )
