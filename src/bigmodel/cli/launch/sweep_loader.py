"""Composes the configurations of a sweep's jobs.

Composing takes a tenth of a second, most of it for reading files and merging them. Jobs that choose the
same files differ in single values only, which Hydra sets last: their common part is composed once.
"""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from dataclasses import dataclass, field

from hydra._internal.config_loader_impl import ConfigLoaderImpl, get_overrides_dirname
from hydra._internal.config_repository import IConfigRepository
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.types import RunMode
from omegaconf import DictConfig

_MOST = 256
"""Configurations that are kept, of about 20 kB each."""


@dataclass
class ComposedParts:
    """What is known from configurations composed before, here or in another process.

    Attributes:
        groups: whether a key is that of a group of files.
        configs: pickled, by the overrides that choose their files.
    """

    groups: dict[str, bool] = field(default_factory=dict)
    configs: dict[tuple[str, ...], bytes] = field(default_factory=dict)


class SweepLoader(ConfigLoaderImpl):
    """Hydra's loader, which composes only once what jobs of a sweep have in common.

    Attributes:
        composed: what it has composed for jobs so far.
    """

    def __init__(self, config_search_path: object) -> None:
        super().__init__(config_search_path=config_search_path)  # type: ignore[arg-type]
        self.composed = ComposedParts()
        self._repository_of_jobs: IConfigRepository | None = None
        self._for_job = False

    def load_sweep_config(self, master_config: DictConfig, sweep_overrides: list[str]) -> DictConfig:
        self._for_job = True
        try:
            return super().load_sweep_config(master_config, sweep_overrides)
        finally:
            self._for_job = False

    def _load_configuration_impl(
        self,
        config_name: str | None,
        overrides: list[str],
        run_mode: RunMode,
        from_shell: bool = True,
        validate_sweep_overrides: bool = True,
    ) -> DictConfig:
        load = super()._load_configuration_impl
        if not self._for_job:
            return load(config_name, overrides, run_mode, from_shell, validate_sweep_overrides)
        parsed = OverridesParser.create().parse_overrides(overrides)
        self.validate_sweep_overrides_legal(parsed, run_mode=run_mode, from_shell=from_shell)
        choosing = [override for override in parsed if self._chooses(override, config_name, parsed)]
        words = tuple(override.input_line or "" for override in choosing)
        if (stored := self.composed.configs.get(words)) is None:
            stored = pickle.dumps(load(config_name, list(words), run_mode, from_shell))
            if len(self.composed.configs) < _MOST:
                self.composed.configs[words] = stored
        config: DictConfig = pickle.loads(stored)
        self._apply_overrides_to_config([one for one in parsed if one not in choosing], config)
        _record(config, [override for override in parsed if not override.is_hydra_override()])
        return config

    def _chooses(self, override: Override, config_name: str | None, given: Sequence[Override]) -> bool:
        """Whether it decides which files are merged. Hydra's own settings may decide where they are."""
        if override.is_hydra_override():
            return True
        groups, key = self.composed.groups, override.key_or_group
        if key not in groups:
            if self._repository_of_jobs is None:
                words = [one.input_line or "" for one in given if one.is_hydra_override()]
                _, self._repository_of_jobs = self._parse_overrides_and_create_caching_repo(
                    config_name, words
                )
            groups[key] = self._repository_of_jobs.group_exists(key)
        return groups[key] and not isinstance(override.value(), dict)


def _record(config: DictConfig, overrides: list[Override]) -> None:
    """Notes all overrides in Hydra's part, as Hydra does."""
    job = config.hydra.job
    config.hydra.overrides.task = [override.input_line for override in overrides]
    job.override_dirname = get_overrides_dirname(
        overrides=overrides,
        kv_sep=job.config.override_dirname.kv_sep,
        item_sep=job.config.override_dirname.item_sep,
        exclude_keys=job.config.override_dirname.exclude_keys,
    )
