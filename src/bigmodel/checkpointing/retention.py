"""Which earlier best checkpoints are kept beside `best`: `best-2`, the one before it, and so on.

Users put copies of their own there: `best-2.bak`, `best-20261128`. Those are never renamed or removed,
and their names are not used. The run's own are listed in a small file, by name and content:

    {"saved": true, "kept": {"best-2": ["<SHA-256 of its manifest>"]}}
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import re
from pathlib import Path
from typing import Any

from bigmodel.checkpointing import manifest
from bigmodel.runtime import disk, nested_json
from bigmodel.runtime.disk import read_text

NAME = ".kept.json"
_FORM = re.compile(r"best-([2-9]|[1-9]\d+)")


def initialize(checkpoints: Path) -> None:
    """Writes the list if there is none: for a new run, or one from an earlier version.

    Raises:
        CheckpointError: it cannot be written.
    """
    if not (checkpoints / NAME).exists():
        _write(checkpoints, {"saved": False, "kept": _hashes(_of_earlier_version(checkpoints))})


def has_saved(checkpoints: Path) -> bool:
    """Whether the run has ever saved anything, according to its list."""
    return bool(_read(checkpoints)["saved"])


def mark_saved(checkpoints: Path) -> None:
    """Records in the list that the run has saved something.

    Raises:
        CheckpointError: the list cannot be written.
    """
    listed = _read(checkpoints)
    if not listed["saved"]:
        _write(checkpoints, listed | {"saved": True})


def kept_checkpoints(checkpoints: Path) -> list[Path]:
    """The run's own checkpoints beside `best`, the better first."""
    if not (checkpoints / NAME).exists():
        return _of_earlier_version(checkpoints)
    kept = _read(checkpoints)["kept"]
    found = [checkpoints / name for name in kept if _FORM.fullmatch(name)]
    return sorted((p for p in found if _hash(p) in kept[p.name]), key=_rank)


def rotate(checkpoints: Path, keep: int, step: int) -> None:
    """Frees the name `best` for a new checkpoint: the old one becomes `best-2`, and so on.

    Args:
        keep: how many best checkpoints are kept, the new one included; at least 1.
        step: the new checkpoint's step. Old ones of this step or later are removed: the run was killed
            after them and has gone back, so that it will repeat them.

    Raises:
        CheckpointError: the list cannot be written.
        OSError: a folder cannot be renamed.
    """
    kept = kept_checkpoints(checkpoints)
    older = [p for p in (checkpoints / "best", *kept) if manifest.peek_step(p) < step][: keep - 1]
    ranked = (checkpoints / f"best-{rank}" for rank in itertools.count(2))
    names = (path for path in ranked if path in kept or not os.path.lexists(path))
    moves = [(path, next(names)) for path in older]
    if kept or moves:
        # Before anything is renamed: if the process is killed meanwhile, a checkpoint is listed under
        # its old and its new name, and is the run's own under either.
        listed = _hashes(kept)
        for path, target in moves:
            listed[target.name] = [*listed.get(target.name, []), *filter(None, [_hash(path)])]
        _write(checkpoints, _read(checkpoints) | {"kept": listed})
    for path in kept:
        if path not in older:
            manifest.remove(path)
    moves = [(path, target) for path, target in moves if path != target]
    while moves:  # they keep their order, so that the name of at least one is free
        path, target = next(move for move in moves if not move[1].exists())
        path.rename(target)
        moves.remove((path, target))


def _of_earlier_version(checkpoints: Path) -> list[Path]:
    """What a version without a list kept: at most `keep`, each older than the one before."""
    facts = manifest.peek_facts(checkpoints / "best")
    try:
        keep = int(facts["settings"]["trainer"]["checkpoint"]["keep"])
    except (KeyError, TypeError, ValueError, OverflowError):
        keep = 1
    found, step = [], manifest.peek_step(checkpoints / "best")
    for rank in range(2, keep + 1):
        path = checkpoints / f"best-{rank}"
        if not manifest.peek_step(path) < step:
            break
        found.append(path)
        step = manifest.peek_step(path)
    return found


def _rank(path: Path) -> int:
    return int(path.name.removeprefix("best-"))


def _hashes(found: list[Path]) -> dict[str, list[str]]:
    return {path.name: [hash_] for path in found if (hash_ := _hash(path)) is not None}


def _hash(path: Path) -> str | None:
    try:
        return hashlib.sha256((path / manifest.NAME).read_bytes()).hexdigest()
    except OSError:
        return None


def _read(checkpoints: Path) -> dict[str, Any]:
    """The list; an empty one if it is damaged, so that nothing is renamed or removed."""
    try:
        found = nested_json.loads(read_text(checkpoints / NAME))
        kept = {str(name): list(map(str, sums)) for name, sums in found["kept"].items()}
        return {"saved": bool(found["saved"]), "kept": kept}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {"saved": False, "kept": {}}


def _write(checkpoints: Path, listed: dict[str, Any]) -> None:
    disk.write_text(checkpoints / NAME, json.dumps(listed) + "\n")
