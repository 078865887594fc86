"""Checkpoints: written completely or not at all, and verified before use. They never hold code.

A checkpoint is a folder. Tensors are in safetensors files, one per group; everything else is in
`state.json`; `manifest.json`, written last, gives the size and SHA-256 of each. This makes it safe:

* the folder is filled under a temporary name, synced to disk, and renamed, so that a folder with a
  checkpoint's name is complete;
* a `last` that is replaced becomes `previous` first, so that a complete one is always on the disk;
* every byte is compared with the manifest before any of it is used, and the manifest with its own hash.

Of several ranks that share the tensors, each writes files of its own into that folder (`save_shards`);
the first one, in `save`, waits for them before it writes the manifest.
"""

from __future__ import annotations

import contextlib
import math
import os
import re
import shutil
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from safetensors import SafetensorError

from bigmodel.checkpointing import exact_json, manifest, retention, tensor_files
from bigmodel.checkpointing.manifest import BEST, GENERATIONS, STATE
from bigmodel.checkpointing.serialization import TensorGroups, upgrade
from bigmodel.checkpointing.tensor_files import Parts
from bigmodel.checkpointing.writers import Writers
from bigmodel.distributed.ranks import ALONE, Ranks
from bigmodel.errors import CheckpointError, DamagedError
from bigmodel.runtime import disk

T = TypeVar("T")

_UNFINISHED = re.compile(r"\.(last|best)\.\d+(\.\d+)?\.tmp")
"""Names of folders that are being written."""


def save(
    folder: Path,
    groups: TensorGroups,
    facts: dict[str, Any],
    *also: Path,
    place: disk.HeldFolder | None = None,
    parts: Parts | None = None,
    writers: Writers | None = None,
) -> None:
    """Writes a checkpoint and replaces `folder` by it.

    Args:
        folder: such as `checkpoints/last`; its parent has to exist.
        groups: tensors by group and name.
        facts: anything that `exact_json` can hold.
        also: further folders for the same checkpoint, such as `checkpoints/best`; they get it first.
        place: the run's folder; nothing is written if it has been moved away.
        parts: which part of a tensor this rank, the first of several, holds; the others are in
            `save_shards` meanwhile.
        writers: the ranks; None if this one alone writes.

    Raises:
        CheckpointError: it cannot be written. The old checkpoint is untouched, and no unfinished one
            is left. The message says how many bytes are needed and how many are free.
        ClosedError: `writers` was closed; the same holds.
    """
    folders, made = (folder, *also), list[Path]()
    text = ""
    try:
        text = exact_json.dumps(facts)
        made = [_temporary(each) for each in folders]
        if writers is not None:
            made = writers.next_folders(folders)
        for temporary in made:
            shutil.rmtree(temporary, ignore_errors=True)
            temporary.mkdir()
        _write_files(made, groups, text, parts, writers)
        for temporary, target in [*zip(made[1:], also, strict=True), (made[0], folder)]:
            if place is not None:
                place.check()
            replace(temporary, target)
    except BaseException as error:
        for temporary, target in zip(made, folders, strict=False):  # none is made yet if facts are wrong
            if writers is not None:  # gone in one moment, for another rank may be writing to it
                with contextlib.suppress(OSError):
                    temporary = temporary.rename(_temporary(target))
            shutil.rmtree(temporary, ignore_errors=True)
        if isinstance(error, TypeError):
            raise CheckpointError(f"{folder}: the state cannot be saved: {error}") from error
        if not isinstance(error, OSError | SafetensorError):
            raise
        raise disk.write_error(
            folder, error, (_bytes(groups, parts) + len(text)) * len(folders)
        ) from error


def save_shards(folder: Path, groups: TensorGroups, *also: Path, parts: Parts, writers: Writers) -> None:
    """Writes the files of a rank that is not the first, which is in `save` with the same folders.

    Args:
        folder, also: as for `save`.
        groups: the tensors that this rank holds, by group and name.
        parts: which part of a tensor that is.
        writers: the ranks.

    Raises:
        CheckpointError: they cannot be written; the first rank gets the same error. If that one has
            failed itself, none is raised here.
        ClosedError: `writers` was closed.
    """
    made = writers.next_folders((folder, *also))
    try:
        writers.wait_for(made)
    except OSError as error:
        raise disk.write_error(folder, error, _bytes(groups, parts) * len(made)) from error
    try:
        files = tensor_files.write(made[0], groups, parts, writers.rank, writers.size)
        for other in made[1:]:
            _copy(files, other)
        writers.tell(made[0], files)
    except (OSError, SafetensorError) as error:
        if not made[0].is_dir():
            return
        failure = disk.write_error(folder, error, _bytes(groups, parts) * len(made))
        writers.tell_failure(made[0], failure)
        raise failure from error


def load(folder: Path, ranks: Ranks = ALONE) -> tuple[TensorGroups, dict[str, Any]]:
    """Reads and verifies a checkpoint; an old schema is upgraded.

    Tensors are whole, whoever has written them. Those of several files are put together at the moment
    when one is asked for.

    Args:
        ranks: those that load it at the same time: each verifies a share of it, and all get the same
            error.

    Raises:
        CheckpointError: it does not exist, is damaged, or is from a newer version.
    """
    schema, files = _agreed(ranks, lambda: manifest.verify(folder, ranks.rank, ranks.size))
    return _agreed(ranks, lambda: _read(folder, schema, files))


def _read(folder: Path, schema: int, files: Sequence[str]) -> tuple[TensorGroups, dict[str, Any]]:
    if STATE not in files:
        raise DamagedError(f"{folder}: the checkpoint is damaged: {STATE} is missing.")
    try:
        groups = tensor_files.read(folder, files)
        facts: dict[str, Any] = exact_json.loads((folder / STATE).read_text(encoding="utf-8"))
        return upgrade(schema, groups, facts)
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise CheckpointError(f"{folder}: the checkpoint cannot be read: {error}") from error


def _agreed(ranks: Ranks, act: Callable[[], T]) -> T:
    """What `act` returns, unless it raises a CheckpointError on any rank: then that, on all of them."""
    done: list[T] = []
    error: CheckpointError | None = None
    try:
        done.append(act())
    except CheckpointError as own:
        error = own
    for verdict in ranks.gather(error):
        if verdict is not None:
            raise verdict
    return done[0]


class Newest(NamedTuple):
    """The checkpoint to resume from.

    Attributes:
        folder: the newest intact checkpoint.
        groups, facts: its content, as `load` returns it.
        damaged: newer ones that are damaged; `warning` names them, and is None if there are none.
    """

    folder: Path
    groups: TensorGroups
    facts: dict[str, Any]
    damaged: list[Path]
    warning: str | None


def load_newest(checkpoints: Path, ranks: Ranks = ALONE) -> Newest:
    """The checkpoint to resume from: `last`, or the newest intact one if that is damaged.

    Args:
        ranks: those that load it at the same time; see `load`. All get the same one.

    Raises:
        CheckpointError: the run has no intact one; or the newest is from a newer version, or cannot be
            read although it may be intact.
    """
    candidates = ranks.from_first(resume_candidates(checkpoints))
    if not candidates:
        raise CheckpointError(
            f"{checkpoints}: there is no checkpoint to resume from. The run ended before its first save."
        )
    messages: list[str] = []
    for index, folder in enumerate(candidates):
        try:
            groups, facts = load(folder, ranks)
        except DamagedError as error:
            messages.append(str(error))
            continue
        warning = " ".join([*messages, f"Resuming from the previous one, {folder.name}."])
        return Newest(folder, groups, facts, candidates[:index], warning if messages else None)
    raise CheckpointError("\n".join([*messages, "No intact checkpoint is left to resume from."]))


def resume_candidates(checkpoints: Path) -> list[Path]:
    """The unverified checkpoints that a run could resume from, the newest first."""
    generations = [checkpoints / name for name in GENERATIONS]
    return [place for place in (*generations, *best_candidates(checkpoints)) if place.is_dir()]


def best_candidates(checkpoints: Path) -> list[Path]:
    """Folders of the best weights. The first that exists counts: the second is there if a save was
    interrupted halfway, and the others hold earlier bests."""
    return [*(checkpoints / name for name in BEST), *retention.kept_checkpoints(checkpoints)]


def load_best(checkpoints: Path, ranks: Ranks = ALONE) -> tuple[TensorGroups, dict[str, Any]]:
    """The checkpoint that validation chose.

    Args:
        ranks: those that load it at the same time; see `load`.

    Raises:
        CheckpointError: there is none, or it is damaged.
    """
    found = ranks.from_first([place for place in best_candidates(checkpoints) if place.is_dir()])
    if found:
        return load(found[0], ranks)
    raise CheckpointError(
        f"{checkpoints}: there is no best checkpoint: no evaluation improved the monitored metric."
    )


def replace(source: Path, target: Path) -> None:
    """Renames folder `source` to `target`. An older `last` becomes `previous`; any other is deleted."""
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


def remove_unfinished(checkpoints: Path) -> None:
    """Removes what a killed process left unfinished.

    Raises:
        CheckpointError: a checkpoint's name belongs to something else, such as a file.
    """
    for place in (checkpoints / name for name in (*GENERATIONS, *BEST)):
        if place.is_symlink() or (place.exists() and not place.is_dir()):
            raise CheckpointError(f"{place}: expected a checkpoint folder, found a file. Move it away.")
    for path in checkpoints.iterdir():
        if _UNFINISHED.fullmatch(path.name) and path.is_dir() and not path.is_symlink():
            manifest.remove(path)
    old, best = checkpoints / ".best.old", checkpoints / "best"
    if old.exists():
        if best.exists():
            manifest.remove(old)
        else:
            old.rename(best)


def set_aside(folder: Path, why: str) -> None:
    """Renames a checkpoint that must not be used any more, to `folder.why`."""
    with contextlib.suppress(FileNotFoundError):
        folder.rename(disk.free_name(folder, why))


def _temporary(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.{os.getpid()}.tmp")


def _write_files(
    folders: Sequence[Path],
    groups: TensorGroups,
    state: str,
    parts: Parts | None,
    writers: Writers | None,
) -> None:
    """Writes and syncs all files, in each of the folders; the manifest comes last."""
    first, rank, size = folders[0], 0, 1
    if writers is not None:
        rank, size = writers.rank, writers.size
    disk.write_bytes(first / STATE, state.encode())
    files = [first / STATE, *tensor_files.write(first, groups, parts, rank, size)]
    for other in folders[1:]:
        _copy(files, other)
    written_elsewhere = {} if writers is None else writers.collect(folders)
    text = manifest.build_manifest(first, written_elsewhere).encode()
    for folder in folders:
        disk.write_bytes(folder / manifest.NAME, text)


def _copy(files: Iterable[Path], target: Path) -> None:
    for path in files:
        disk.sync(Path(shutil.copy(path, target)))


def _bytes(groups: TensorGroups, parts: Parts | None) -> int:
    """Those of the whole tensors: all ranks write their parts to the same disk."""
    total = 0
    for group, tensors in groups.items():
        parts_of_group = (parts or {}).get(group, {})
        for name, tensor in tensors.items():
            part = parts_of_group.get(name)
            total += tensor.itemsize * (tensor.numel() if part is None else math.prod(part.shape))
    return total
