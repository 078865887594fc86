"""The configuration that a run was started with, read back from its folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from bigmodel.errors import CheckpointError

OF_ONE_SITTING = {"hydra", "resume", "resume_changed"}
"""Keys that say nothing of what a run is."""


def read_config(folder: Path) -> dict[str, Any]:
    """A run's own configuration as plain nested values.

    Unresolved: what a stranger's interpolation would do is not done before the guard has seen it.

    Raises:
        CheckpointError: it is not there, damaged, or no run's.
    """
    path = folder / ".hydra" / "config.yaml"
    try:
        plain = OmegaConf.to_container(OmegaConf.load(path), resolve=False)
    except (OSError, ValueError, RecursionError, yaml.YAMLError, OmegaConfBaseException) as error:
        raise _damaged(path, (str(error) or type(error).__name__).splitlines()[0]) from error
    if not isinstance(plain, dict) or not {"model", "data", "optimizer"} & plain.keys():
        raise _damaged(path, "it holds no run's settings")
    return {str(key): value for key, value in plain.items()}


def comparable(config: DictConfig) -> dict[str, Any]:
    """A composed configuration in the form of `read_config`, less what is of one sitting only."""
    plain = OmegaConf.to_container(config, resolve=False)
    assert isinstance(plain, dict)
    return {str(key): value for key, value in plain.items() if key not in OF_ONE_SITTING}


def _damaged(path: Path, why: str) -> CheckpointError:
    return CheckpointError(
        f"{path}: the run's own configuration is damaged: {why}. Put it back as it was to go on; the"
        " checkpoints are not affected."
    )
