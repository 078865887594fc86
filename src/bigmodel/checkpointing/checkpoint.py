"""Checkpoints: written whole or not at all, verified before they are believed. Never any code inside.

A checkpoint is a folder. Tensors lie in safetensors files, one a group; everything else in `state.json`;
`manifest.json`, written last, gives the size and SHA-256 of each. Why it holds:

* the folder is filled under a temporary name, synced to disk, and renamed: a name means a whole folder;
* the `last` that is replaced becomes `previous` first: at every moment a whole one lies on the disk;
* every byte is compared with the manifest before any of it is used, and the manifest with its own sum.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from bigmodel.checkpointing import exact_json, manifest, retention
from bigmodel.checkpointing.manifest import BEST, GENERATIONS, STATE
from bigmodel.checkpointing.serialization import TensorGroups, upgraded
from bigmodel.errors import CheckpointError, DamagedError
from bigmodel.runtime import disk

_UNFINISHED = re.compile(r"\.(last|best)\.\d+\.tmp")
"""Names of folders that are being filled."""


def save(
    folder: Path,
    groups: TensorGroups,
    facts: dict[str, Any],
    *also: Path,
    place: disk.HeldFolder | None = None,
) -> None:
    """Writes a checkpoint and puts it in the place of `folder`.

    Args:
        folder: such as `checkpoints/last`; what holds it has to be there.
        groups: tensors by group and name.
        facts: anything that `exact_json` can hold.
        also: other places for the same checkpoint, such as `checkpoints/best`; they get it first.
        place: the run's folder, where all this is done only as long as it is there.

    Raises:
        CheckpointError: it cannot be written; what lay there before is still whole, and nothing
            unfinished stays. The message gives the bytes that are needed and those that are free.
    """
    made: list[Path] = []
    text = ""
    try:
        text = exact_json.dumps(facts)
        made.append(_temporary(folder))
        _fill(made[0], groups, text)
        for other in also:
            made.append(_temporary(other))
            _copy(made[0], made[-1])
        for temporary, target in [*zip(made[1:], also, strict=True), (made[0], folder)]:
            if place is not None:
                place.check()
            replace(temporary, target)
    except BaseException as error:
        for temporary in made:
            shutil.rmtree(temporary, ignore_errors=True)
        if isinstance(error, TypeError):
            raise CheckpointError(f"{folder}: the state cannot be saved: {error}") from error
        if not isinstance(error, OSError | SafetensorError):
            raise
        needed = sum(t.nbytes for tensors in groups.values() for t in tensors.values()) + len(text)
        raise disk.write_error(folder, error, needed * (1 + len(also))) from error


def load(folder: Path) -> tuple[TensorGroups, dict[str, Any]]:
    """Reads a checkpoint, every byte of it checked, in the form of the newest schema.

    Raises:
        CheckpointError: it is not there, not whole, or of a newer version.
    """
    schema, files = manifest.verified(folder)
    if STATE not in files:
        raise DamagedError(f"{folder}: the checkpoint is damaged: {STATE} is not part of it.")
    try:
        groups = {
            Path(name).stem: load_file(folder / name) for name in files if name.endswith(".safetensors")
        }
        facts: dict[str, Any] = exact_json.loads((folder / STATE).read_text(encoding="utf-8"))
        return upgraded(schema, groups, facts)
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise CheckpointError(f"{folder}: the checkpoint cannot be read: {error}") from error


class Newest(NamedTuple):
    """What a run goes on from.

    Attributes:
        folder: the newest whole checkpoint.
        groups, facts: its content, as `load` gives it.
        damaged: newer ones that are not whole, and `warning`, which names them; None where there are
            none.
    """

    folder: Path
    groups: TensorGroups
    facts: dict[str, Any]
    damaged: list[Path]
    warning: str | None


def load_newest(checkpoints: Path) -> Newest:
    """The checkpoint to go on from: `last`, or the newest whole one where it is damaged.

    Raises:
        CheckpointError: the run has none that is whole; or the newest is of a newer version, or cannot
            be read although it may be whole.
    """
    there = whole_or_damaged(checkpoints)
    if not there:
        raise CheckpointError(
            f"{checkpoints}: there is no checkpoint to go on from. The run ended before its first save."
        )
    complaints: list[str] = []
    for index, folder in enumerate(there):
        try:
            groups, facts = load(folder)
        except DamagedError as error:
            complaints.append(str(error))
            continue
        warning = " ".join([*complaints, f"Going on from the one before, {folder.name}."])
        return Newest(folder, groups, facts, there[:index], warning if complaints else None)
    raise CheckpointError("\n".join([*complaints, "No whole checkpoint is left to go on from."]))


def whole_or_damaged(checkpoints: Path) -> list[Path]:
    """The checkpoints that a run could go on from, the newest first: to be verified."""
    generations = [checkpoints / name for name in GENERATIONS]
    return [place for place in (*generations, *best_places(checkpoints)) if place.is_dir()]


def best_places(checkpoints: Path) -> list[Path]:
    """Where the best weights lie: the first that is there. The others are for a save cut off halfway."""
    return [*(checkpoints / name for name in BEST), *retention.places(checkpoints)]


def load_best(checkpoints: Path) -> tuple[TensorGroups, dict[str, Any]]:
    """The checkpoint that validation chose.

    Raises:
        CheckpointError: there is none, or it is damaged.
    """
    for place in best_places(checkpoints):
        if place.is_dir():
            return load(place)
    raise CheckpointError(f"{checkpoints}: there is no best checkpoint: nothing was ever the best.")


def replace(source: Path, target: Path) -> None:
    """Renames folder `source` to `target`. An older `last` becomes `previous`; any other goes."""
    if target.exists():
        aside = target.with_name("previous" if target.name == "last" else f".{target.name}.old")
        if aside.exists():
            manifest.remove(aside)
        target.rename(aside)
        source.rename(target)
        if target.name != "last":
            manifest.remove(aside)
    else:
        source.rename(target)
    disk.sync(target.parent)


def tidy(checkpoints: Path) -> None:
    """Removes what a process that was killed in the middle of a save left unfinished.

    Raises:
        CheckpointError: something that is no checkpoint stands in the place of one.
    """
    for place in (checkpoints / name for name in (*GENERATIONS, *BEST)):
        if place.is_symlink() or (place.exists() and not place.is_dir()):
            raise CheckpointError(f"{place}: this is no checkpoint, which is a folder. Move it aside.")
    for path in checkpoints.iterdir():
        if _UNFINISHED.fullmatch(path.name) and path.is_dir() and not path.is_symlink():
            manifest.remove(path)
    old, best = checkpoints / ".best.old", checkpoints / "best"
    if old.exists():
        if best.exists():
            manifest.remove(old)
        else:
            old.rename(best)


def set_aside(folder: Path) -> None:
    """Takes a damaged checkpoint out of the row, so that it never takes a whole one's place."""
    with contextlib.suppress(FileNotFoundError):
        folder.rename(disk.free_name(folder, "damaged"))


def _temporary(folder: Path) -> Path:
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    return temporary


def _fill(folder: Path, groups: TensorGroups, state: str) -> None:
    """Writes all files and has the disk hold them; the manifest comes last."""
    disk.write_bytes(folder / STATE, state.encode())
    for group, tensors in groups.items():
        path = folder / f"{group}.safetensors"
        save_file(_owned(tensors), path)
        shutil.copymode(folder / STATE, path)  # safetensors lets nobody else read it
        disk.sync(path)
    disk.write_bytes(folder / manifest.NAME, manifest.manifest_of(folder).encode())


def _copy(source: Path, target: Path) -> None:
    for path in source.iterdir():
        disk.sync(Path(shutil.copy(path, target)))
    disk.sync(target)


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
