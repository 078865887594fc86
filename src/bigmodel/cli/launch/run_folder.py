"""The folder of a run or sweep: claimed by one process, recorded at the start, cleaned up afterwards."""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
import re
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

from omegaconf import DictConfig, OmegaConf, open_dict

from bigmodel.checkpointing import retention
from bigmodel.cli.launch import lock
from bigmodel.errors import ConfigError, shell_quoted
from bigmodel.redaction import PER_INVOCATION
from bigmodel.runtime import disk

OUT_OF_FOLD = "out_of_fold.csv"
"""Predictions of a cross-validation, in the folders of its sweep and of each fold; see
`bigmodel.training.out_of_fold`."""

CALIBRATION = "calibration.safetensors"
"""How far a model was off on the validation set; see `bigmodel.training.calibration`."""

RECORD = ".hydra"
WRITTEN = (
    *("checkpoints", "metrics.jsonl", OUT_OF_FOLD, CALIBRATION),
    *("profile", "summary.json", "tensorboard", "trackers", "train.log"),
)
"""What a run writes to its folder, besides its record."""

TABLE = "data.parquet"
"""The table that a run was given by a program, which it keeps."""

PLAN = "multirun.yaml"
"""What Hydra writes to a sweep's folder before the first job."""

LEADERBOARD = "leaderboard.csv"

SWEEP = "sweep.jsonl"
"""The record of a sweep; see `bigmodel.sweeps.manifest`."""

LOGS = "logs"
"""In a sweep's folder: what its jobs print beside their own logs."""

_RECORDED = ("config.yaml", "hydra.yaml", "overrides.yaml")
_LEFTOVER = re.compile(r"\.[\w.-]+\.\d+\.tmp")
"""Names of unfinished files and folders that a killed process leaves behind."""

_created_parents: dict[Path, list[Path]] = {}
"""For each folder that this process has claimed, the parents that were created with it."""


def kept_table(folder: Path, path: object) -> Path | None:
    """The table that a run keeps, if its `data.path` is that, or was it before the folder was moved."""
    table = folder.absolute() / TABLE
    return table if isinstance(path, str) and Path(path).name == TABLE and table.is_file() else None


def register_resolver() -> None:
    """Registers `${new_folder:PATH}` for configurations: a folder that no other run has."""
    OmegaConf.register_new_resolver("new_folder", claim, use_cache=True, replace=True)


def claim(path: str) -> str:
    """Creates the folder `path`, or `path_1`, `path_2`, … if it is taken, for this run alone.

    Only a `mkdir` that fails on existing folders separates two runs of the same second.

    Raises:
        ConfigError: it cannot be created.
    """
    try:
        missing = [parent for parent in Path(path).parents if not parent.exists()]
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        for attempt in itertools.count():
            folder = Path(f"{path}_{attempt}" if attempt else path)
            with contextlib.suppress(FileExistsError):
                folder.mkdir()
                _created_parents[folder.resolve()] = missing
                return str(folder)
    except OSError as error:
        raise ConfigError(_unwritable(Path(path), error)) from error
    raise AssertionError("count never ends")


def check_free(folder: Path, key: str) -> None:
    """Checks that a folder can be written to, and holds nothing that a run would overwrite.

    Args:
        key: the setting that names the folder.

    Raises:
        ConfigError: it holds a run or files of a run's names, or it cannot be written to.
    """
    existing = [
        name
        for name in (RECORD, *WRITTEN)
        if os.path.lexists(folder / name) and not _is_our_log(folder / name)
    ]
    if RECORD in existing or "summary.json" in existing:
        raise ConfigError(
            f"{key}: {folder} already holds a run. Name another folder with {key}=<folder>.",
            f"Or resume the run with {shell_quoted(f'resume={folder}')}",
        )
    if existing:
        raise ConfigError(
            f"{key}: {folder} holds {', '.join(existing)} already, which a run would overwrite. Name"
            f" another folder with {key}=<folder>, or move them away."
        )
    if not os.access(folder, os.W_OK):
        raise ConfigError(_unwritable(folder, PermissionError("no permission to write")))


def _is_our_log(path: Path) -> bool:
    """Whether Hydra has just created the file for this job, as with `hydra/job_logging=default`."""
    handlers = [handler for handler in logging.root.handlers if isinstance(handler, logging.FileHandler)]
    return any(Path(handler.baseFilename) == path.absolute() for handler in handlers)


@contextlib.contextmanager
def claimed_sweep(folder: Path, resumed: bool = False) -> Iterator[None]:
    """Creates a sweep's folder and holds its lock within the block.

    Args:
        folder: the sweep's.
        resumed: whether the sweep in it goes on.

    Raises:
        ConfigError: the folder already holds a sweep, or cannot be created.
        CheckpointError: another process uses it.
    """
    is_new = not folder.is_dir()
    try:
        disk.make_folder(folder)
    except OSError as error:
        raise ConfigError(
            f"hydra.sweep.dir: {folder} cannot be created: {error.strerror or error}. Name another "
            "folder with hydra.sweep.dir=<folder>."
        ) from error
    if resumed:
        with lock.locked(folder):
            yield
        return
    _check_no_sweep(folder)
    try:
        with lock.locked(folder):
            _check_no_sweep(folder)  # another process may have been quicker
            yield
    finally:
        if is_new:
            with contextlib.suppress(OSError):  # it holds a sweep, as it should
                folder.rmdir()


def _check_no_sweep(folder: Path) -> None:
    existing = [
        name for name in (PLAN, LEADERBOARD, OUT_OF_FOLD, SWEEP) if os.path.lexists(folder / name)
    ]
    if existing:
        raise ConfigError(
            f"hydra.sweep.dir: {folder} holds {', '.join(existing)} already, as a sweep would. Name"
            " another folder with hydra.sweep.dir=<folder>, or go on with the sweep there:"
            f" -m {shell_quoted(f'sweep.resume={folder}')}"
        )


def remove_leftovers(folder: Path) -> None:
    """Removes the unfinished files of a killed process from a folder that this process holds."""
    places = (folder, *(folder / name for name in (RECORD, "checkpoints", "tensorboard")))
    for path in (path for place in places if place.is_dir() for path in place.iterdir()):
        if not _LEFTOVER.fullmatch(path.name) or path.is_symlink():
            continue
        if path.is_dir():
            _remove_unfinished_record(path)
        elif _is_our_name(path.name):
            path.unlink(missing_ok=True)


def _is_our_name(name: str) -> bool:
    written = (*_RECORDED, *WRITTEN, retention.NAME, "events.out.tfevents")
    return name.startswith(tuple(f".{ours}." for ours in written))


def _remove_unfinished_record(path: Path) -> None:
    """Removes an unfinished record if it holds only the files of one."""
    names = {inner.name for inner in path.iterdir()}
    is_ours = all(name in _RECORDED or _is_our_name(name) for name in names)
    if is_ours and path.name.startswith(f"{RECORD}."):
        shutil.rmtree(path, ignore_errors=True)


def discard(folder: Path) -> None:
    """Removes an unused folder and the parents created with it, if they are empty."""
    with contextlib.suppress(OSError):
        folder.rmdir()
        for parent in _created_parents.pop(folder.resolve(), []):
            parent.rmdir()


def discard_claimed() -> None:
    """Removes the folders claimed for runs that have not started."""
    for folder in list(_created_parents):
        (folder / lock.NAME).unlink(missing_ok=True)  # the process is about to end without releasing it
    discard_refused_sweep()
    for folder in list(_created_parents):
        discard(folder)


def discard_refused_sweep() -> None:
    """Removes the folder of a sweep that failed before its first job; it holds a plan at most."""
    for folder in list(_created_parents):
        if not any(path.is_dir() for path in folder.glob("*")):
            (folder / "multirun.yaml").unlink(missing_ok=True)
            discard(folder)


def record_start(folder: Path, config: DictConfig, hydra: DictConfig) -> None:
    """Writes `.hydra/config.yaml`, `hydra.yaml` and `overrides.yaml`, as Hydra would: all or none.

    Hydra would write them before the configuration is checked, and is configured not to: a mistake must
    leave nothing behind.

    Raises:
        CheckpointError: they cannot be written; then none of them exists.
    """
    wrapped = OmegaConf.create({"hydra": hydra})
    texts = (_stored_text(config), OmegaConf.to_yaml(wrapped), OmegaConf.to_yaml(hydra.overrides.task))
    record, unfinished = folder / RECORD, folder / f"{RECORD}.{os.getpid()}.tmp"
    place = record if record.is_dir() else unfinished
    try:
        place.mkdir(exist_ok=True)
        for name, text in zip(_RECORDED, texts, strict=True):
            disk.write_bytes(place / name, text.encode())
        if place is unfinished:
            unfinished.rename(record)
        for path in _possibly_new(folder):
            disk.sync(path)
    except OSError as error:
        raise disk.write_error(record, error, sum(map(len, texts))) from error
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _possibly_new(folder: Path) -> Iterable[Path]:
    """A folder and the parents that may have been created for it; the current folder existed before."""
    old = (Path.cwd(), *Path.cwd().parents)
    return [folder, *(path for path in folder.absolute().parents if path not in old[1:])]


def write_config(folder: Path, config: DictConfig) -> None:
    """Writes `.hydra/config.yaml` atomically, if it has changed.

    Raises:
        CheckpointError: it cannot be written.
    """
    disk.write_text(folder / RECORD / "config.yaml", _stored_text(config))


def _stored_text(config: DictConfig) -> str:
    """The configuration as stored: `resume` is null, since Hydra overrides only existing keys."""
    config = config.copy()
    with open_dict(config):
        for key in PER_INVOCATION:
            config.pop(key, None)
        config.resume = None
    return OmegaConf.to_yaml(config)


def _unwritable(path: Path, error: OSError) -> str:
    return (
        f"output_dir: {path} cannot be created or written: {error.strerror or error}."
        " Use a folder that can be written, such as output_dir=outputs."
    )
