"""`resume=`: settled before Hydra starts, which would compose the default model over the old run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, OmegaConf

from bigmodel.errors import CheckpointError, ConfigError
from bigmodel.launch.folders import register_resolver

FREE = ("trainer", "device", "output_dir", "plugins", "resume")
"""What may differ when a run goes on; of the trainer, all but what `FIXED` names."""

FIXED = (
    "trainer.accumulate",
    "trainer.clip_norm",
    "trainer.ema",
    "trainer.limit.train",
    "trainer.limit.val",
    "trainer.checkpoint.monitor",
    "trainer.checkpoint.mode",
    "trainer.early_stopping.monitor",
    "trainer.early_stopping.mode",
)
"""What would change the steps themselves, or what the best so far was measured by."""

GROUPS = ("model", "data", "loss", "optimizer", "scheduler")
PRESETS = ("experiment", "debug", "trainer")


def settle(argv: list[str], config_dir: Path) -> tuple[list[str], Path | None]:
    """Turns `resume=` into arguments with which Hydra composes the old run's own configuration.

    Args:
        argv: the command line without the program's name.
        config_dir: our configurations.

    Returns:
        The arguments for Hydra, and the folder to go on with, or None for a new run.

    Raises:
        ConfigError, CheckpointError: it is not a run that can go on.
    """
    wanted = [word.split("=", 1)[1] for word in argv if word.startswith("resume=")]
    if not wanted or wanted[-1] in {"null", ""}:
        return argv, None
    if {"-m", "--multirun"} & set(argv):
        raise ConfigError("resume goes with one run, not with a sweep (-m). Leave one of the two out.")
    rest = [word for word in argv if not word.startswith("resume=")]
    if wanted[-1] == "auto":
        found = newest_unfinished(rest, config_dir)
        if found is None:
            print("resume=auto: no unfinished run of this configuration; a new one starts.")  # noqa: T201
            return rest, None
        print(f"resume=auto: going on with {found}")  # noqa: T201
        return _arguments(_overrides_of(found), found), found
    folder = Path(wanted[-1].strip("'\""))
    _check_is_run(folder)
    return _arguments(rest, folder), folder


def newest_unfinished(argv: list[str], config_dir: Path) -> Path | None:
    """The newest run that is not finished, has a checkpoint, and was started with the same config."""
    register_resolver()
    overrides, extra = _split(argv)
    with initialize_config_dir(str(config_dir), version_base="1.3"):
        search = [f"hydra.searchpath=[file://{Path(extra).resolve()}]"] if extra else []
        config = compose("train", overrides=[*overrides, *search])
    ours = _comparable(config)
    runs = sorted(Path(config.output_dir).glob("*/*/.hydra/config.yaml"), key=_started, reverse=True)
    for path in runs:
        folder = path.parent.parent
        if _status(folder) != "finished" and _has_checkpoint(folder):
            theirs = OmegaConf.load(path)
            if isinstance(theirs, DictConfig) and _comparable(theirs) == ours:
                return folder
    return None


def check_same(folder: Path, config: DictConfig) -> None:
    """Makes sure that nothing differs from the old run which may not.

    Args:
        folder: the old run's.
        config: what it shall go on with, as composed.

    Raises:
        ConfigError: each difference, old and new.
    """
    theirs, ours = _read_config(folder), _comparable(config)
    old, new = flatten(theirs), flatten(ours)
    changed = sorted(key for key in old.keys() | new.keys() if old.get(key) != new.get(key))
    refused = [key for key in changed if key in FIXED or key.split(".")[0] not in FREE]
    if refused:
        listed = "\n".join(f"  {key}: was {old.get(key)!r}, now {new.get(key)!r}" for key in refused)
        raise ConfigError(
            f"resume={folder}: this would be another run:\n{listed}\n"
            "Leave these as they were, or start anew."
        )
    forgotten = [plugin for plugin in theirs.get("plugins") or [] if plugin not in ours["plugins"]]
    if forgotten:
        raise ConfigError(
            f"resume={folder}: the run uses plugins, whose code runs only when you name them again:"
            f" plugins=[{','.join(forgotten)}]"
        )


def flatten(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings by dotted key."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, dict):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def _arguments(argv: list[str], folder: Path) -> list[str]:
    """Arguments that make Hydra compose a run's own config, with `argv` on top, into its own folder."""
    overrides, _ = _split(argv)
    flags = [word for word in argv if word not in overrides and not word.startswith("--config-dir")]
    overrides = [kept for word in overrides if (kept := _without_group(word, folder)) is not None]
    quoted = "'" + str(folder.resolve()).replace("'", "\\'") + "'"
    return [
        f"--config-path={(folder / '.hydra').resolve()}",
        "--config-name=config",
        *flags,
        "hydra/job_logging=none",
        "hydra/hydra_logging=none",
        "hydra.output_subdir=null",
        f"hydra.run.dir={quoted}",
        f"resume={quoted}",
        "plugins=[]",
        *overrides,
    ]


def _without_group(word: str, folder: Path) -> str | None:
    """An override for a stored config, which has no groups left to choose from.

    A device is turned into its name; a choice that the run has made already says nothing (None).

    Raises:
        ConfigError: another choice, which would make it another run.
    """
    group, _, choice = word.partition("=")
    if group == "device":
        return f"device.name={choice}"
    if group in GROUPS:
        made = _read_config(folder)[group]["name"]
        if choice == made:
            return None
        raise ConfigError(
            f"{word}: the run in {folder} has {group}={made}, and goes on with it."
            " Leave it out, or start anew."
        )
    if group in PRESETS:
        raise ConfigError(
            f"{word}: a preset cannot be put onto a run that has begun."
            " Set single keys, such as trainer.epochs=60."
        )
    return word


def _split(argv: list[str]) -> tuple[list[str], str | None]:
    """Parts the command line into overrides and the value of `--config-dir`."""
    overrides, config_dir, words = [], None, iter(argv)
    for word in words:
        if word in {"--config-dir", "-cd"}:
            config_dir = next(words, None)
        elif word.startswith("--config-dir="):
            config_dir = word.split("=", 1)[1]
        elif word.startswith("~") or ("=" in word and not word.startswith("-")):
            overrides.append(word)
    return overrides, config_dir


def _overrides_of(folder: Path) -> list[str]:
    """What has to be named again on resume although it did not change: the plugins."""
    plugins = _read_config(folder).get("plugins")
    return [f"plugins=[{','.join(plugins)}]"] if plugins else []


def _check_is_run(folder: Path) -> None:
    if not folder.is_dir():
        raise CheckpointError(
            f"resume={folder}: there is no such folder. Give a run's folder, or resume=auto."
        )
    if not (folder / ".hydra" / "config.yaml").is_file():
        raise CheckpointError(
            f"resume={folder}: this is no run's folder: it has no .hydra/config.yaml."
            " Give the folder that holds checkpoints/ and .hydra/."
        )


def _read_config(folder: Path) -> dict[str, Any]:
    # Unresolved: what a stranger's interpolation would do is not done before the guard has seen it.
    plain = OmegaConf.to_container(OmegaConf.load(folder / ".hydra" / "config.yaml"), resolve=False)
    assert isinstance(plain, dict)
    return {str(key): value for key, value in plain.items()}


def _comparable(config: DictConfig) -> dict[str, Any]:
    plain = OmegaConf.to_container(config, resolve=False)
    assert isinstance(plain, dict)
    return {str(key): value for key, value in plain.items() if key not in {"hydra", "resume"}}


def _has_checkpoint(folder: Path) -> bool:
    from bigmodel import checkpoint  # brings torch, which completion and --cfg do without

    return any((folder / "checkpoints" / name).exists() for name in checkpoint.GENERATIONS)


def _status(folder: Path) -> str | None:
    try:
        status: str = json.loads((folder / "summary.json").read_text())["status"]
    except (OSError, ValueError, KeyError):
        return None
    return status


def _started(config: Path) -> float:
    return config.stat().st_mtime
