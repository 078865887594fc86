"""Which of a run's best checkpoints are kept beside `best`: `best-2`, the best before it, and so on.

Users put copies of their own there: `best-2.bak`, `best-20261128`. What is not ours is never renamed or
removed, and a name that it has is passed over. Ours is what a small file lists, by name and content:

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


def begin(checkpoints: Path) -> None:
    """Makes the list of a run that has none: a new one, or one of an earlier version.

    Raises:
        CheckpointError: it cannot be written.
    """
    if not (checkpoints / NAME).exists():
        _write(checkpoints, {"saved": False, "kept": _sums(_of_earlier_version(checkpoints))})


def has_saved(checkpoints: Path) -> bool:
    """Whether the run has ever saved anything, as far as its list says; it is never taken back."""
    return bool(_read(checkpoints)["saved"])


def note_saved(checkpoints: Path) -> None:
    """Notes that the run has saved something.

    Raises:
        CheckpointError: the list cannot be written.
    """
    listed = _read(checkpoints)
    if not listed["saved"]:
        _write(checkpoints, listed | {"saved": True})


def places(checkpoints: Path) -> list[Path]:
    """The best checkpoints of the run's own that lie beside `best`, the better first."""
    if not (checkpoints / NAME).exists():
        return _of_earlier_version(checkpoints)
    kept = _read(checkpoints)["kept"]
    found = [checkpoints / name for name in kept if _FORM.fullmatch(name)]
    return sorted((p for p in found if _sum(p) in kept[p.name]), key=_rank)


def make_room(checkpoints: Path, keep: int, step: int) -> None:
    """Makes room for a new `best`: yesterday's becomes `best-2`, and so on; `keep` of them stay.

    Args:
        keep: how many best checkpoints are kept, at least 1.
        step: after which the new one is taken. One that is no older is of a future that was lost when
            the run was killed, and comes again: it is no second best.

    Raises:
        CheckpointError: the list cannot be written.
        OSError: a folder cannot be renamed.
    """
    ours = places(checkpoints)
    there = [checkpoints / "best", *ours]
    older = [place for place in there if manifest.step_of(place) < step][: keep - 1]
    ranked = (checkpoints / f"best-{rank}" for rank in itertools.count(2))
    names = (place for place in ranked if place in ours or not os.path.lexists(place))
    moves = [(place, next(names)) for place in older]
    if ours or moves:  # first: whatever is renamed from here on is listed under both its names
        planned = _sums(ours)
        for place, target in moves:
            planned[target.name] = [*planned.get(target.name, []), *filter(None, [_sum(place)])]
        _write(checkpoints, _read(checkpoints) | {"kept": planned})
    for place in ours:
        if place not in older:
            manifest.remove(place)
    moves = [(place, target) for place, target in moves if place != target]
    while moves:  # their order stays, so that one of them has a free place ahead
        place, target = next(move for move in moves if not move[1].exists())
        place.rename(target)
        moves.remove((place, target))


def _of_earlier_version(checkpoints: Path) -> list[Path]:
    """What a version without a list has kept: as many as it was to, each older than the one before."""
    facts = manifest.facts_at_a_glance(checkpoints / "best")
    try:
        keep = int(facts["settings"]["trainer"]["checkpoint"]["keep"])
    except (KeyError, TypeError, ValueError, OverflowError):
        keep = 1
    found, step = [], manifest.step_of(checkpoints / "best")
    for rank in range(2, keep + 1):
        place = checkpoints / f"best-{rank}"
        if not manifest.step_of(place) < step:
            break
        found.append(place)
        step = manifest.step_of(place)
    return found


def _rank(place: Path) -> int:
    return int(place.name.removeprefix("best-"))


def _sums(found: list[Path]) -> dict[str, list[str]]:
    return {place.name: [total] for place in found if (total := _sum(place)) is not None}


def _sum(place: Path) -> str | None:
    try:
        return hashlib.sha256((place / manifest.NAME).read_bytes()).hexdigest()
    except OSError:
        return None


def _read(checkpoints: Path) -> dict[str, Any]:
    """The list; where it is damaged, nothing is known to be ours, and all is left alone."""
    try:
        found = nested_json.loads(read_text(checkpoints / NAME))
        kept = {str(name): list(map(str, sums)) for name, sums in found["kept"].items()}
        return {"saved": bool(found["saved"]), "kept": kept}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {"saved": False, "kept": {}}


def _write(checkpoints: Path, listed: dict[str, Any]) -> None:
    disk.write_text(checkpoints / NAME, json.dumps(listed) + "\n")
