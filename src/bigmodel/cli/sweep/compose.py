"""A job's configuration as plain values, for what is looked at without training it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hydra.types import HydraContext
from omegaconf import DictConfig, open_dict

from bigmodel.cli.launch.hydra_patches import set_globals
from bigmodel.config import to_plain


def composed(context: HydraContext, master: DictConfig, overrides: Sequence[str]) -> dict[str, Any]:
    """The configuration of a job, without Hydra's own.

    Args:
        context: Hydra's, which composes configurations.
        master: the sweep's own configuration.
        overrides: what the job sets.

    Raises:
        ConfigError, HydraException: it cannot be composed.
    """
    set_globals()
    config = context.config_loader.load_sweep_config(master, list(overrides))
    with open_dict(config):
        del config["hydra"]
    return to_plain(config)


def put(values: dict[str, Any], key: str, value: Any) -> None:
    """Sets a value by its dotted key."""
    *path, last = key.split(".")
    for part in path:
        values = values.setdefault(part, {})
    values[last] = value
