"""Checks what a sweep's jobs set before the first of them begins."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import deepcopy
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, OverrideType
from hydra.types import HydraContext
from omegaconf import DictConfig

from bigmodel.cli.sweep.compose import composed, put
from bigmodel.config import GROUPS, parse
from bigmodel.errors import ConfigError
from bigmodel.runtime.device import find_device
from bigmodel.sweeps.jobs import Job


class JobCheck:
    """Checks jobs. Composing takes a tenth of a second: each set of choices is composed once, and each
    other value is checked once beside them.

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

    def __call__(self, jobs: Sequence[Job]) -> None:
        """Checks all jobs.

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

    def _check(self, job: Job) -> None:
        overrides = {word: self._parser.parse_override(word) for word in job.overrides}
        plain = {word: o for word, o in overrides.items() if _is_plain_value(o)}
        choices = tuple(word for word in overrides if word not in plain)
        if choices not in self._composed:
            self._composed[choices] = composed(self._context, self._config, job.overrides)
            _check_values(deepcopy(self._composed[choices]))
            self._seen |= {(choices, word) for word in plain}
        new = {word: o for word, o in plain.items() if (choices, word) not in self._seen}
        if not new:
            return
        values = deepcopy(self._composed[choices])
        for override in new.values():
            put(values, override.key_or_group, override.value())
        _check_values(values)
        self._seen |= {(choices, word) for word in new}


def _check_values(values: dict[str, Any]) -> None:
    find_device(parse(values).device.name)


def _is_plain_value(override: Override) -> bool:
    """Whether it sets one value that needs no composing."""
    first, *rest = override.key_or_group.split(".")
    return (
        override.type is OverrideType.CHANGE
        and override.package is None
        and "/" not in first
        and ((first in GROUPS and bool(rest)) or (not rest and first == "seed"))
        and "${" not in (override.input_line or "")
    )
