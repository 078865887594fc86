"""`resume=auto`: the newest unfinished run of a configuration, wherever its runs are put."""

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
from bigmodel.runtime import nested_json
from bigmodel.runtime.disk import read_text
from bigmodel.runtime.escaping import escape_message

_ANY = "\0"
"""Stands for what is another each time in a folder's name, such as the date."""


def newest_unfinished(argv: list[str], config_dir: Path) -> Path | None:
    """The newest run that is not finished, and was started with the same configuration.

    One with a checkpoint comes before one that ended before its first save. Where the configuration
    names one folder for its run, it is that or none, and a finished one too.
    """
    register_resolver()
    overrides, extra = split_argv(argv)
    config = compose_config(overrides, config_dir, extra)
    ours = resume_config.comparable(config)
    folders, fixed = _candidate_folders(config)
    without_checkpoint: Path | None = None
    for folder in folders:
        is_older = without_checkpoint is not None and not has_checkpoint(folder)
        if not fixed and (is_older or _status(folder) == "finished"):
            continue
        if not _was_started_with(folder, ours, config_dir):
            continue
        taken_by = lock.holder(folder)
        if taken_by is not None:
            print(escape_message(f"resume=auto: {folder} is already running, in {taken_by}."))  # noqa: T201
        elif has_checkpoint(folder):
            return folder
        elif not _lost_checkpoints(folder):
            without_checkpoint = folder
    return without_checkpoint


def has_checkpoint(folder: Path) -> bool:
    """Whether a run has anything to go on from, whole or damaged."""
    checkpoints = folder / "checkpoints"
    names = (*manifest.GENERATIONS, *manifest.BEST)
    is_there = any((checkpoints / name).exists() for name in names)
    return is_there or bool(retention.kept_checkpoints(checkpoints))


def check_may_restart(folder: Path) -> None:
    """Makes sure that a run without any checkpoint has ended before its first save.

    Raises:
        CheckpointError: it had some, and somebody has taken them away.
    """
    if _lost_checkpoints(folder):
        raise CheckpointError(
            f"{folder / 'checkpoints'}: there is no checkpoint to resume from: the run had saved some,"
            " and they are gone. Restore them, or start a new run in another folder."
        )


def _lost_checkpoints(folder: Path) -> bool:
    return _status(folder) == "finished" or retention.has_saved(folder / "checkpoints")


def _candidate_folders(config: DictConfig) -> tuple[list[Path], bool]:
    """Where runs of a configuration lie, the newest first; and whether it names one folder for them."""
    patterns = [f"{config.output_dir}/{_ANY}/{_ANY}"]
    wanted = _wanted_folder(config)
    fixed = wanted is not None and _ANY not in wanted
    if wanted is not None:
        patterns = [wanted] if fixed else [*patterns, wanted]
    found = {
        Path(path).resolve(): Path(path)
        for pattern in patterns
        for path in glob.glob("*".join(map(glob.escape, pattern.split(_ANY))))  # noqa: PTH207
    }
    runs = [path for path in found.values() if any((path / n).is_dir() for n in (RECORD, "checkpoints"))]
    return sorted(runs, key=_started, reverse=True), fixed


def _wanted_folder(config: DictConfig) -> str | None:
    """What `hydra.run.dir` comes to, with marks for what is another each time; None: not known."""
    try:
        with _placeholders():
            return str(config.hydra.run.dir)
    except (OmegaConfBaseException, ValueError):
        return None


@contextlib.contextmanager
def _placeholders() -> Iterator[None]:
    """Within it, no reference to a new folder makes one, and none to the time depends on it."""
    OmegaConf.register_new_resolver("now", lambda _: _ANY, replace=True)
    OmegaConf.register_new_resolver("new_folder", lambda path: f"{path}{_ANY}", replace=True)
    try:
        yield
    finally:
        setup_globals()
        register_resolver()


def _was_started_with(folder: Path, ours: dict[str, Any], config_dir: Path) -> bool:
    """Whether a run has this configuration; one that cannot be read is named, or mended if it can be."""
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
    """The configuration that our own files, and those of `--config-dir`, give."""
    check_overrides(overrides)  # Hydra imports a package that is named as a search path
    search = [f"hydra.searchpath={hydra_value([f'file://{Path(extra).resolve()}'])}"] if extra else []
    with initialize_config_dir(str(config_dir), version_base="1.3"):
        config = compose("train", overrides=[*overrides, *search], return_hydra_config=True)
    redact_config(config)  # as in the runs that it is compared with
    return config


def split_argv(argv: list[str]) -> tuple[list[str], str | None]:
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


def _status(folder: Path) -> str | None:
    try:
        status: str = nested_json.loads(read_text(folder / "summary.json"))["status"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return status


def _started(folder: Path) -> float:
    """When a run was started, or last changed: as well as its folder tells."""
    for path in (folder / RECORD / "config.yaml", folder / RECORD, folder):
        with contextlib.suppress(OSError):
            return path.stat().st_mtime
    return 0.0
