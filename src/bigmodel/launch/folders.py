"""A run's folder: claimed by exactly one run, and told what it was started with."""

from __future__ import annotations

import contextlib
import itertools
import os
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf, open_dict

from bigmodel.errors import ConfigError

_made_on_the_way: dict[Path, list[Path]] = {}
"""For each folder that this process has claimed, the folders above it that were made with it."""


def register_resolver() -> None:
    """Makes `${new_folder:PATH}` known to configurations: a folder that no other run has."""
    OmegaConf.register_new_resolver("new_folder", claim, use_cache=True, replace=True)


def claim(path: str) -> str:
    """Makes the folder `path`, or `path_1`, `path_2`, … where it is taken, for this run alone.

    Only a `mkdir` that fails on what exists can tell two runs of the same second apart.

    Raises:
        ConfigError: it cannot be made.
    """
    try:
        missing = [parent for parent in Path(path).parents if not parent.exists()]
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        for attempt in itertools.count():
            folder = Path(f"{path}_{attempt}" if attempt else path)
            with contextlib.suppress(FileExistsError):
                folder.mkdir()
                _made_on_the_way[folder.resolve()] = missing
                return str(folder)
    except OSError as error:
        raise ConfigError(_unwritable(Path(path), error)) from error
    raise AssertionError("count never ends")


def check_free(folder: Path) -> None:
    """Makes sure that a folder the user named can be written to and holds no run yet.

    Raises:
        ConfigError: it holds one, or cannot be written to.
    """
    check_no_run(folder, "hydra.run.dir")
    if not os.access(folder, os.W_OK):
        raise ConfigError(_unwritable(folder, PermissionError("no permission to write")))


def check_no_run(folder: Path, key: str) -> None:
    """Makes sure that a folder holds no run yet.

    Args:
        key: by which the user can name another.

    Raises:
        ConfigError: it holds one.
    """
    if (folder / "summary.json").exists() or (folder / ".hydra").exists():
        raise ConfigError(
            f"{key}: there is a run in {folder} already. Go on with it by resume={folder}, or name"
            f" another folder with {key}=<folder>."
        )


def discard(folder: Path) -> None:
    """Removes a folder in which nothing began, and those made on the way to it, where they are empty."""
    with contextlib.suppress(OSError):
        folder.rmdir()
        for parent in _made_on_the_way.pop(folder.resolve(), []):
            parent.rmdir()


def discard_claimed() -> None:
    """Removes what was claimed for a run that has not begun."""
    discard_refused_sweep()
    for folder in list(_made_on_the_way):
        discard(folder)


def discard_refused_sweep() -> None:
    """Removes the folder of a sweep that was refused before its first job: it holds a plan at most."""
    for folder in list(_made_on_the_way):
        if not any(path.is_dir() for path in folder.glob("*")):
            (folder / "multirun.yaml").unlink(missing_ok=True)
            discard(folder)


def record_start(folder: Path, config: DictConfig, hydra: DictConfig) -> None:
    """Writes `.hydra/config.yaml`, `hydra.yaml` and `overrides.yaml`, as Hydra would.

    Hydra itself writes them before the configuration is checked; so it is told not to, and a mistake
    leaves nothing behind.
    """
    target = folder / ".hydra"
    target.mkdir(exist_ok=True)
    write_config(folder, config)
    wrapped = OmegaConf.create({"hydra": hydra})
    (target / "hydra.yaml").write_text(OmegaConf.to_yaml(wrapped))
    (target / "overrides.yaml").write_text(OmegaConf.to_yaml(hydra.overrides.task))


def typed(hydra: DictConfig) -> str:
    """What was typed for a run, in one line; what it refers to, such as a secret, stays unresolved."""
    plain: Any = OmegaConf.to_container(hydra.overrides, resolve=False)
    return " ".join(plain["task"])


def write_config(folder: Path, config: DictConfig) -> None:
    """Writes `.hydra/config.yaml`, whole or not at all; a run never says that it resumes itself,
    or is looked at once more when it goes on."""
    config = config.copy()
    with open_dict(config):
        config.resume = None
        for key in ("resume_changed", "profile"):
            config.pop(key, None)
    path = folder / ".hydra" / "config.yaml"
    temporary = path.with_suffix(".tmp")
    temporary.write_text(OmegaConf.to_yaml(config))
    temporary.replace(path)


def _unwritable(path: Path, error: OSError) -> str:
    return (
        f"output_dir: {path} cannot be made or written to: {error.strerror or error}."
        " Name a folder that can, such as output_dir=outputs."
    )
