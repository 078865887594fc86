"""The configuration of a run to resume: read from its folder or checkpoint, repaired and compared."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from bigmodel.checkpointing import manifest
from bigmodel.cli.launch import lock
from bigmodel.cli.launch.input_limits import fault_of_file
from bigmodel.errors import CheckpointError, DamagedError, first_line
from bigmodel.redaction import PER_INVOCATION
from bigmodel.runtime import disk
from bigmodel.runtime.escaping import escape_message

SECTIONS = ("model", "data", "loss", "optimizer", "scheduler", "device", "trainer")
"""The groups of settings that every run has."""

_FORBIDDEN = ("hydra", "defaults")
"""Keys that no run stores: Hydra would obey them."""


def read_config(folder: Path) -> dict[str, Any]:
    """A run's own configuration as plain nested values.

    Interpolations stay unresolved: the file may be a stranger's, and the guard has not yet checked it.

    Raises:
        DamagedError: the file is missing, damaged, or not a run's configuration.
        CheckpointError: it has settings that no run stores.
    """
    path = folder / ".hydra" / "config.yaml"
    if (fault := fault_of_file(path)) is not None:
        raise _damaged(path, fault.removesuffix("."))
    try:
        plain = OmegaConf.to_container(OmegaConf.load(path), resolve=False)
    except (OSError, ValueError, yaml.YAMLError, OmegaConfBaseException) as error:
        raise _damaged(path, first_line(error, type(error).__name__)) from error
    if not isinstance(plain, dict):
        raise _damaged(path, "it holds no settings")
    if (key := _forbidden_key(plain)) is not None:  # not damaged: somebody has added it
        raise CheckpointError(
            f"{path}: the run's own configuration has been changed: `{key}` is not among a run's own"
            " settings. Remove it to resume; the checkpoints are not affected."
        )
    if wrong := _problem_with(plain):
        raise _damaged(path, wrong)
    return {str(key): value for key, value in plain.items()}


def saved_settings(folder: Path) -> dict[str, Any] | None:
    """The same from a run's newest complete checkpoint; None if no checkpoint has it."""
    for name in manifest.GENERATIONS:
        try:
            saved = manifest.read_facts(folder / "checkpoints" / name).get("settings")
        except CheckpointError:
            continue
        if isinstance(saved, dict) and _forbidden_key(saved) is None and _problem_with(saved) is None:
            return {str(key): value for key, value in saved.items()}
    return None


def repair(folder: Path, prefix: str) -> None:
    """Restores a damaged configuration from the settings in the newest checkpoint.

    Raises:
        CheckpointError: no checkpoint has them, or another process uses the run.
    """
    try:
        read_config(folder)
    except DamagedError as error:
        settings = saved_settings(folder)
        if settings is None:
            raise
        with lock.locked(folder):
            _restore(folder, settings)
        why = str(error).partition(". ")[0]
        message = f"{prefix}: {why}; it is restored from the newest checkpoint."
        print(escape_message(message))  # noqa: T201


def _restore(folder: Path, settings: dict[str, Any]) -> None:
    """Replaces a run's damaged configuration by that of its checkpoint; the damaged file is kept.

    Args:
        settings: as `saved_settings` gives them.

    Raises:
        CheckpointError: it cannot be written.
    """
    path = folder / ".hydra" / "config.yaml"
    try:
        disk.make_folder(path.parent)
        if path.exists() and path.stat().st_size:
            path.rename(disk.free_name(path, "damaged"))
    except OSError as error:
        raise disk.write_error(path, error, 0) from error
    disk.write_text(path, OmegaConf.to_yaml(OmegaConf.create({**_literal(settings), "resume": None})))


def _literal(value: Any) -> Any:
    """Escapes `${` except in references to the environment: stored settings have no others."""
    if isinstance(value, dict):
        return {key: _literal(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_literal(inner) for inner in value]
    if isinstance(value, str) and "${oc.env:" not in value:
        return value.replace("${", "\\${")
    return value


def comparable(config: DictConfig) -> dict[str, Any]:
    """A composed configuration in the form of `read_config`, without settings of one command line."""
    plain: Any = OmegaConf.to_container(config, resolve=False)
    return run_settings({str(key): value for key, value in plain.items()})


def run_settings(settings: dict[str, Any]) -> dict[str, Any]:
    """The settings that define a run."""
    return {key: value for key, value in settings.items() if key not in ("hydra", *PER_INVOCATION)}


def is_same_run(theirs: dict[str, Any], ours: dict[str, Any], config_dir: Path) -> bool:
    """Whether two configurations define the same run.

    Args:
        theirs: the older one, perhaps of an earlier version, which behaved as the defaults of newer
            settings say.
        ours: the current one.
        config_dir: the shipped configurations, which state every setting with its default.
    """
    if theirs == ours:
        return True
    old, new = flatten(theirs), flatten(ours)
    newer = new.keys() - old.keys()
    if not newer or any(key not in new or old[key] != new[key] for key in old):
        return False
    shipped = _shipped(ours, config_dir)
    return all(key in shipped and shipped[key] == new[key] for key in newer)


def flatten(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings as a flat mapping of dotted keys."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, dict):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def _forbidden_key(plain: dict[Any, Any]) -> str | None:
    return next((key for key in _FORBIDDEN if key in plain), None)


def _problem_with(plain: dict[Any, Any]) -> str | None:
    lacking = [name for name in SECTIONS if not _is_section(plain.get(name))]
    if lacking:
        return f"it lacks the settings of {', '.join(lacking)}"
    plugins = plain.get("plugins") or []
    if not isinstance(plugins, list) or not all(isinstance(name, str) for name in plugins):
        return "plugins: expected a list of names"
    return None


def _is_section(value: Any) -> bool:
    return isinstance(value, dict) or (isinstance(value, str) and value.startswith("${"))


def _shipped(config: dict[str, Any], config_dir: Path) -> dict[str, Any]:
    """The shipped defaults, by dotted key, of the entries that a configuration has chosen."""
    defaults = flatten(_plain(config_dir / "train.yaml"))
    for section in SECTIONS:
        chosen = config.get(section)
        for path in sorted((config_dir / section).glob("*.yaml")):
            settings = _plain(path)
            if isinstance(chosen, dict) and settings.get("name") == chosen.get("name"):
                defaults |= flatten(settings, f"{section}.")
    return defaults


def _plain(path: Path) -> dict[str, Any]:
    plain = OmegaConf.to_container(OmegaConf.load(path), resolve=False)
    return {str(key): value for key, value in plain.items()} if isinstance(plain, dict) else {}


def _damaged(path: Path, why: str) -> DamagedError:
    return DamagedError(
        f"{path}: the run's own configuration is damaged: {why}. Restore it to resume; the checkpoints"
        " are not affected."
    )
