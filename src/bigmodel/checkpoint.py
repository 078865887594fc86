"""Checkpoints: written whole or not at all, verified before they are believed. Never any code inside.

A checkpoint is a folder. Tensors lie in safetensors files, one a group; everything else in `state.json`;
`manifest.json`, written last, gives the size and SHA-256 of each. The folder is filled under a temporary
name, synced to disk, and renamed. The one it replaces becomes `previous` first, so that at every moment
at least one whole checkpoint lies on the disk.
"""

from __future__ import annotations

import copy
import hashlib
import json
import os
import shutil
import time
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from bigmodel.errors import CheckpointError
from bigmodel.state import TensorGroups

SCHEMA = 1
"""Version of the folder's layout. A newer one is refused; older ones keep loading."""

MANIFEST = "manifest.json"
GENERATIONS = ("last", "previous")
"""Where a run goes on from: the newest first."""
BEST = ("best", ".best.old", "best-2")
"""Where the best weights lie: the first that is there. The others are for a save cut off halfway."""


def save(folder: Path, groups: TensorGroups, facts: dict[str, Any]) -> None:
    """Writes a checkpoint and puts it in the place of `folder`.

    Args:
        folder: such as `checkpoints/last`.
        groups: tensors by group and name.
        facts: anything that JSON can hold.

    Raises:
        CheckpointError: it cannot be written; what lay there before is still whole.
    """
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    try:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        for group, tensors in groups.items():
            save_file(_owned(tensors), temporary / f"{group}.safetensors")
        _write_json(temporary / "state.json", facts)
        files = {path.name: _fingerprint(path) for path in sorted(temporary.iterdir())}
        _write_json(temporary / MANIFEST, {"schema": SCHEMA, "files": files})
        for path in temporary.iterdir():
            _sync(path)
        _sync(temporary)
        replace(temporary, folder)
    except OSError as error:
        shutil.rmtree(temporary, ignore_errors=True)
        raise CheckpointError(f"{folder}: the checkpoint cannot be written: {error}") from error


class Saver:
    """Keeps `last` and the best checkpoints of a run, writing no more often than makes sense.

    Between two writes at least `interval` seconds pass, so that epochs of a few milliseconds are not
    spent on the disk; what is due meanwhile is kept in memory until the next write, or until `flush`.

    Args:
        checkpoints: the folder for all of them.
        keep: how many of the best are kept.
        interval: seconds.
    """

    def __init__(self, checkpoints: Path, keep: int, interval: float) -> None:
        self.checkpoints = checkpoints
        self._keep = keep
        self._interval = interval
        self._written = time.monotonic()
        self._best: tuple[TensorGroups, dict[str, Any]] | None = None
        self._last: tuple[TensorGroups, dict[str, Any]] | None = None

    def offer(
        self, groups: TensorGroups, facts: dict[str, Any], *, best: bool, last: bool, now: bool
    ) -> None:
        """Takes a state to be saved, now or when the interval is over.

        Args:
            groups, facts: as `save` takes them; copied where they are kept.
            best: it is the best so far.
            last: it is one to go on from.
            now: write it at once, whenever the last write was.

        Raises:
            CheckpointError: the disk does not take it.
        """
        now = now or time.monotonic() - self._written >= self._interval
        state = (groups, facts) if now else _copied(groups, facts)
        if best:
            self._best = state
        if last or now:  # a write for the best's sake takes the newest state along
            self._last = state
        if now:
            self.flush()

    def flush(self) -> None:
        """Writes what is held back.

        Raises:
            CheckpointError: the disk does not take it.
        """
        if self._best is not None:
            keep_best(self.checkpoints, self._keep)
            save(self.checkpoints / "best", *self._best)
        if self._last is not None:
            save(self.checkpoints / "last", *self._last)
        self._best = self._last = None
        self._written = time.monotonic()


def load(folder: Path) -> tuple[TensorGroups, dict[str, Any]]:
    """Reads a checkpoint, every byte of it checked.

    Raises:
        CheckpointError: it is not there, not whole, or of a newer version.
    """
    manifest = _manifest(folder)
    if "state.json" not in manifest["files"]:
        raise CheckpointError(f"{folder}: the checkpoint is damaged: {MANIFEST} leaves out state.json.")
    for name, expected in manifest["files"].items():
        path = folder / Path(name).name  # a stranger's manifest may not point outside its folder
        if not path.is_file():
            raise CheckpointError(f"{folder}: the checkpoint is damaged: {name} is missing.")
        if _fingerprint(path) != expected:
            raise CheckpointError(
                f"{folder}: the checkpoint is damaged: {name} has changed since it was saved."
            )
    try:
        groups = {
            Path(name).stem: load_file(folder / name)
            for name in manifest["files"]
            if name.endswith(".safetensors")
        }
        facts: dict[str, Any] = json.loads((folder / "state.json").read_text())
    except (OSError, ValueError, SafetensorError) as error:
        raise CheckpointError(f"{folder}: the checkpoint cannot be read: {error}") from error
    return groups, facts


def load_newest(checkpoints: Path) -> tuple[Path, TensorGroups, dict[str, Any], str | None]:
    """The checkpoint to go on from: `last`, or the one before where `last` is damaged.

    Returns:
        Its folder, its content as `load` gives it, and a warning where it is not the newest.

    Raises:
        CheckpointError: the run has none that is whole.
    """
    there = [name for name in GENERATIONS if (checkpoints / name).is_dir()]
    if not there:
        raise CheckpointError(
            f"{checkpoints}: there is no checkpoint to go on from. The run ended before its first save."
        )
    complaints = []
    for name in there:
        try:
            groups, facts = load(checkpoints / name)
        except CheckpointError as error:
            complaints.append(str(error))
            continue
        warning = f"{complaints[0]} Going on from the one before, {name}." if complaints else None
        return checkpoints / name, groups, facts, warning
    raise CheckpointError("\n".join([*complaints, "No whole checkpoint is left to go on from."]))


def load_best(checkpoints: Path) -> tuple[TensorGroups, dict[str, Any]]:
    """The checkpoint that validation chose.

    Raises:
        CheckpointError: there is none, or it is damaged.
    """
    for name in BEST:
        if (checkpoints / name).is_dir():
            return load(checkpoints / name)
    raise CheckpointError(f"{checkpoints}: there is no best checkpoint: nothing was ever the best.")


def replace(source: Path, target: Path) -> None:
    """Renames folder `source` to `target`. An older `last` becomes `previous`; any other goes."""
    if target.exists():
        aside = target.with_name("previous" if target.name == "last" else f".{target.name}.old")
        shutil.rmtree(aside, ignore_errors=True)
        target.rename(aside)
        source.rename(target)
        if target.name != "last":
            shutil.rmtree(aside, ignore_errors=True)
    else:
        source.rename(target)
    _sync(target.parent)


def keep_best(checkpoints: Path, keep: int) -> None:
    """Makes room for a new `best`: yesterday's becomes `best-2`, and so on; `keep` of them stay.

    Args:
        keep: how many best checkpoints are kept, at least 1.
    """
    names = ["best", *(f"best-{rank}" for rank in range(2, keep + 1))]
    for older, newer in zip(reversed(names[1:]), reversed(names[:-1]), strict=True):
        if (checkpoints / newer).exists():
            shutil.rmtree(checkpoints / older, ignore_errors=True)
            (checkpoints / newer).rename(checkpoints / older)


def _copied(groups: TensorGroups, facts: dict[str, Any]) -> tuple[TensorGroups, dict[str, Any]]:
    clones = {
        group: {n: t.detach().clone() for n, t in tensors.items()} for group, tensors in groups.items()
    }
    return clones, copy.deepcopy(facts)


def _manifest(folder: Path) -> dict[str, Any]:
    path = folder / MANIFEST
    try:
        manifest: dict[str, Any] = json.loads(path.read_text())
        schema = int(manifest["schema"])
        dict(manifest["files"])
    except FileNotFoundError as error:
        raise CheckpointError(f"{folder}: no whole checkpoint: {MANIFEST} is missing.") from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{folder}: the checkpoint is damaged: {MANIFEST}: {error}") from error
    if schema > SCHEMA:
        raise CheckpointError(
            f"{folder}: written by a newer version (checkpoint schema {schema}; this one knows up to"
            f" {SCHEMA}). Update bigmodel-train."
        )
    return manifest


def _owned(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Contiguous copies on the CPU where needed: safetensors takes no shared or strided memory."""
    seen: set[int] = set()
    owned = {}
    for name, tensor in tensors.items():
        value = tensor.detach().to("cpu").contiguous()
        if value.numel() and value.untyped_storage().data_ptr() in seen:
            value = value.clone()
        seen.add(value.untyped_storage().data_ptr())
        owned[name] = value
    return owned


def _fingerprint(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        return {"bytes": path.stat().st_size, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=1))


def _sync(path: Path) -> None:
    """Has the disk hold what was written to a file, or renamed in a folder."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
