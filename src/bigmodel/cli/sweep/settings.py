"""The settings of a sweep: those of `sweep=`, and Hydra's own for a search in terms of them."""

from __future__ import annotations

from typing import Any

from omegaconf import DictConfig, OmegaConf

from bigmodel.cli import messages
from bigmodel.errors import ConfigError
from bigmodel.registry import validate
from bigmodel.sweeps.config import ModelsConfig, SearchConfig, SweepConfig

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


def is_plugin(config: DictConfig, plugin: type) -> bool:
    """Whether a sweeper or launcher of Hydra's is the one that is configured."""
    return str(config.get("_target_")) == f"{plugin.__module__}.{plugin.__name__}"


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
