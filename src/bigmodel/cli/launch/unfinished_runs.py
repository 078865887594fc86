"""`resume=auto`: finds the newest unfinished run of a configuration."""

from __future__ import annotations

import contextlib
import glob
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.utils import setup_globals
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from bigmodel.checkpointing import manifest, retention
from bigmodel.cli.launch import lock, resume_config
from bigmodel.cli.launch.redact_overrides import redact_config
from bigmodel.cli.launch.run_folder import RECORD, register_resolver
from bigmodel.cli.launch.safe_loader import check_overrides
from bigmodel.errors import CheckpointError, DamagedError, hydra_value
from bigmodel.runtime import run_summary
from bigmodel.runtime.escaping import escape_message

_ANY = "\0"
"""Stands for the variable parts of a folder's name, such as the date."""


def newest_unfinished(argv: list[str], config_dir: Path) -> Path | None:
    """The newest unfinished run that was started with the same configuration.

    Runs with a checkpoint come before those that ended before their first save. If the configuration
    gives its run a fixed folder, only that is considered, even if the run in it is finished.

    Raises:
        CheckpointError: another process uses the fixed folder.
    """
    register_resolver()
    overrides, extra = split_argv(argv)
    config = compose_config(overrides, config_dir, extra)
    ours = resume_config.comparable(config)
    folders, fixed = _candidate_folders(config)
    without_checkpoint: Path | None = None
    for folder in folders:
        is_older = without_checkpoint is not None and not has_checkpoint(folder)
        if not fixed and (is_older or run_summary.status(folder) == "finished"):
            continue
        if not _was_started_with(folder, ours, config_dir):
            continue
        taken_by = lock.holder(folder)
        if taken_by is not None and fixed:
            raise CheckpointError(
                f"resume=auto: {folder} is already running, in {taken_by}. Wait for it, or stop it."
            )
        if taken_by is not None:
            print(escape_message(f"resume=auto: {folder} is already running, in {taken_by}."))  # noqa: T201
        elif has_checkpoint(folder):
            return folder
        elif not _lost_checkpoints(folder):
            without_checkpoint = folder
    return without_checkpoint


def has_checkpoint(folder: Path) -> bool:
    """Whether a run has a checkpoint, complete or damaged."""
    checkpoints = folder / "checkpoints"
    names = (*manifest.GENERATIONS, *manifest.BEST)
    is_there = any((checkpoints / name).exists() for name in names)
    return is_there or bool(retention.kept_checkpoints(checkpoints))


def check_may_restart(folder: Path) -> None:
    """Checks that a run without checkpoints ended before its first save.

    Raises:
        CheckpointError: it had saved some, and they were removed.
    """
    if _lost_checkpoints(folder):
        raise CheckpointError(
            f"{folder / 'checkpoints'}: there is no checkpoint to resume from: the run had saved some,"
            " and they are gone. Restore them, or start a new run in another folder."
        )


def _lost_checkpoints(folder: Path) -> bool:
    return run_summary.status(folder) == "finished" or retention.has_saved(folder / "checkpoints")


def _candidate_folders(config: DictConfig) -> tuple[list[Path], bool]:
    """The folders of a configuration's runs, the newest first, and whether the folder is fixed."""
    patterns = [f"{config.output_dir}/{_ANY}/{_ANY}"]
    wanted = _wanted_folder(config)
    fixed = wanted is not None and _ANY not in wanted
    if wanted is not None:
        patterns = [wanted] if fixed else [*patterns, wanted]
    paths = {
        Path(path).resolve(): Path(path)
        for pattern in patterns
        for path in glob.glob("*".join(map(glob.escape, pattern.split(_ANY))))  # noqa: PTH207
    }
    runs = [path for path in paths.values() if any((path / n).is_dir() for n in (RECORD, "checkpoints"))]
    return sorted(runs, key=_started, reverse=True), fixed


def _wanted_folder(config: DictConfig) -> str | None:
    """The value of `hydra.run.dir` with `_ANY` for its variable parts; None if it is unknown."""
    try:
        with _placeholders():
            return str(config.hydra.run.dir)
    except (OmegaConfBaseException, ValueError):
        return None


@contextlib.contextmanager
def _placeholders() -> Iterator[None]:
    """Within the block, references to a new folder or the time give placeholders."""
    OmegaConf.register_new_resolver("now", lambda _: _ANY, replace=True)
    OmegaConf.register_new_resolver("new_folder", lambda path: f"{path}{_ANY}", replace=True)
    try:
        yield
    finally:
        setup_globals()
        register_resolver()


def _was_started_with(folder: Path, ours: dict[str, Any], config_dir: Path) -> bool:
    """Whether a run has this configuration; if it is damaged, it is repaired or reported."""
    try:
        theirs = resume_config.read_config(folder)
    except DamagedError as error:
        saved = resume_config.saved_settings(folder)
        if saved is None:
            print(escape_message(f"resume=auto: {error} It is skipped."))  # noqa: T201
            return False
        from bigmodel.config import to_shown  # brings torch

        resolved = resume_config.run_settings(to_shown(OmegaConf.create(ours)))
        same = resume_config.is_same_run(resume_config.run_settings(saved), resolved, config_dir)
        if same and lock.holder(folder) is None:
            resume_config.repair(folder, "resume=auto")
        return same
    except CheckpointError as error:
        print(escape_message(f"resume=auto: {error} It is skipped."))  # noqa: T201
        return False
    return resume_config.is_same_run(resume_config.run_settings(theirs), ours, config_dir)


def compose_config(overrides: list[str], config_dir: Path, extra: str | None) -> DictConfig:
    """Composes the shipped configuration with the files of `--config-dir`."""
    check_overrides(overrides)  # Hydra imports packages named as search paths
    search = [f"hydra.searchpath={hydra_value([f'file://{Path(extra).resolve()}'])}"] if extra else []
    with initialize_config_dir(str(config_dir), version_base="1.3"):
        config = compose("train", overrides=[*overrides, *search], return_hydra_config=True)
    redact_config(config)  # as in the runs that it will be compared with
    return config


def split_argv(argv: list[str]) -> tuple[list[str], str | None]:
    """Splits the command line into the overrides and the value of `--config-dir`."""
    overrides, config_dir, words = [], None, iter(argv)
    for word in words:
        if word in {"--config-dir", "-cd"}:
            config_dir = next(words, None)
        elif word.startswith("--config-dir="):
            config_dir = word.split("=", 1)[1]
        elif word.startswith("~") or ("=" in word and not word.startswith("-")):
            overrides.append(word)
    return overrides, config_dir


def _started(folder: Path) -> float:
    """The time at which a run was started, estimated from its folder."""
    for path in (folder / RECORD / "config.yaml", folder / RECORD, folder):
        with contextlib.suppress(OSError):
            return path.stat().st_mtime
    return 0.0
