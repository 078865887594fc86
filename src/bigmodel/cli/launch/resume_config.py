"""The configuration that a run was started with, read back from its folder, or from its checkpoints."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from bigmodel.checkpointing import manifest
from bigmodel.cli.launch import lock
from bigmodel.cli.launch.input_limits import fault_of_file
from bigmodel.errors import CheckpointError, DamagedError
from bigmodel.redaction import PER_INVOCATION
from bigmodel.runtime import disk
from bigmodel.runtime.escaping import escape_message

SECTIONS = ("model", "data", "loss", "optimizer", "scheduler", "device", "trainer")
"""What every run has settings for."""

_FORBIDDEN = ("hydra", "defaults")
"""Keys that no run writes down: Hydra would take orders from them."""


def read_config(folder: Path) -> dict[str, Any]:
    """A run's own configuration as plain nested values.

    Unresolved: what a stranger's interpolation would do is not done before the guard has seen it.

    Raises:
        DamagedError: it is not there, damaged, or no run's.
        CheckpointError: it has settings that no run writes down.
    """
    path = folder / ".hydra" / "config.yaml"
    if (fault := fault_of_file(path)) is not None:
        raise _damaged(path, fault.removesuffix("."))
    try:
        plain = OmegaConf.to_container(OmegaConf.load(path), resolve=False)
    except (OSError, ValueError, yaml.YAMLError, OmegaConfBaseException) as error:
        raise _damaged(path, (str(error) or type(error).__name__).splitlines()[0]) from error
    if not isinstance(plain, dict):
        raise _damaged(path, "it holds no settings")
    if (key := _forbidden_key(plain)) is not None:  # no damage: somebody has put it there
        raise CheckpointError(
            f"{path}: the run's own configuration has been changed: `{key}` is not among a run's own"
            " settings. Remove it to resume; the checkpoints are not affected."
        )
    if wrong := _problem_with(plain):
        raise _damaged(path, wrong)
    return {str(key): value for key, value in plain.items()}


def saved_settings(folder: Path) -> dict[str, Any] | None:
    """The same from a run's newest whole checkpoint; None where none has it."""
    for name in manifest.GENERATIONS:
        try:
            found = manifest.read_facts(folder / "checkpoints" / name).get("settings")
        except CheckpointError:
            continue
        if isinstance(found, dict) and _forbidden_key(found) is None and _problem_with(found) is None:
            return {str(key): value for key, value in found.items()}
    return None


def repair(folder: Path, prefix: str) -> None:
    """Restores a damaged configuration from the settings in the newest checkpoint.

    Raises:
        CheckpointError: no checkpoint has them, or another process has the run.
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
    """Puts a run's damaged configuration back as its checkpoint has it; what is there is kept beside it.

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
    """Settings have no references left but those to the environment; what looks like one is text."""
    if isinstance(value, dict):
        return {key: _literal(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_literal(inner) for inner in value]
    if isinstance(value, str) and "${oc.env:" not in value:
        return value.replace("${", "\\${")
    return value


def comparable(config: DictConfig) -> dict[str, Any]:
    """A composed configuration in the form of `read_config`, less what belongs to one command line."""
    plain: Any = OmegaConf.to_container(config, resolve=False)
    return run_settings({str(key): value for key, value in plain.items()})


def run_settings(settings: dict[str, Any]) -> dict[str, Any]:
    """The settings that say what a run is."""
    return {key: value for key, value in settings.items() if key not in ("hydra", *PER_INVOCATION)}


def is_same_run(theirs: dict[str, Any], ours: dict[str, Any], config_dir: Path) -> bool:
    """Whether two configurations make the same run.

    Args:
        theirs: an older one, of an earlier version perhaps: that did what is now the default of a
            setting that it does not know.
        ours: today's.
        config_dir: our files, which state every setting with its default.
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
    """Nested settings by dotted key."""
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
    """What our files say, by dotted key, for the entries that a configuration has chosen."""
    found = flatten(_plain(config_dir / "train.yaml"))
    for section in SECTIONS:
        chosen = config.get(section)
        for path in sorted((config_dir / section).glob("*.yaml")):
            settings = _plain(path)
            if isinstance(chosen, dict) and settings.get("name") == chosen.get("name"):
                found |= flatten(settings, f"{section}.")
    return found


def _plain(path: Path) -> dict[str, Any]:
    plain = OmegaConf.to_container(OmegaConf.load(path), resolve=False)
    return {str(key): value for key, value in plain.items()} if isinstance(plain, dict) else {}


def _damaged(path: Path, why: str) -> DamagedError:
    return DamagedError(
        f"{path}: the run's own configuration is damaged: {why}. Restore it to resume; the checkpoints"
        " are not affected."
    )
