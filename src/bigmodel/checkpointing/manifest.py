"""The manifest of a checkpoint: size and SHA-256 of each file, and a checksum of the manifest itself.

    {"schema":2,"files":{"model.safetensors":{"bytes":428,"sha256":"bbee…"}, …},"sha256":"6dd9…"}

Equal content is always written as the same text, so that a change of any byte is noticed.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bigmodel.checkpointing import exact_json
from bigmodel.errors import CheckpointError, DamagedError
from bigmodel.runtime import disk, nested_json
from bigmodel.runtime.disk import check_regular, read_text

SCHEMA = 2
"""Version of a checkpoint's layout. A newer one is refused; older ones keep loading."""
SHARDED_SCHEMA = 3
"""That of a checkpoint with shards, which earlier versions cannot read; others stay as they were."""

NAME = "manifest.json"
STATE = "state.json"
TENSORS = ".safetensors"
SHARD = re.compile(rf"(?P<group>.+)-(?P<number>\d{{5,}})-of-(?P<size>\d{{5,}}){re.escape(TENSORS)}")
"""The name of a file with one rank's parts of tensors."""
GENERATIONS = ("last", "previous")
"""Where a run resumes from, the newest first."""
BEST = ("best", ".best.old")
"""Where the best weights lie; the second is for a save cut off halfway."""
_CHECKSUM_SINCE = 2


def build_manifest(folder: Path, known: Mapping[str, dict[str, Any]] | None = None) -> str:
    """The manifest's text for all files in a folder.

    Args:
        known: fingerprints of files that another rank has written, by name.
    """
    known, paths = known or {}, sorted(folder.iterdir())
    schema = SHARDED_SCHEMA if any(SHARD.fullmatch(path.name) for path in paths) else SCHEMA
    return _text(schema, {path.name: known.get(path.name) or fingerprint(path) for path in paths})


def verify(folder: Path, rank: int = 0, ranks: int = 1) -> tuple[int, list[str]]:
    """Checks every byte of a checkpoint; returns its schema and the names of its files.

    Args:
        rank: the number of this process among `ranks`. Each reads its share of the files, so that an
            error is known to that one alone.

    Raises:
        DamagedError: a file or the manifest is missing, has changed, or leads out of the folder.
        CheckpointError: the checkpoint is of a newer version, or cannot be read.
    """
    schema, files = _read(folder)
    mine = set(_by_size(files)[rank::ranks])
    for name, expected in files.items():
        path = folder / name
        if name != Path(name).name or path.is_symlink():  # a stranger's may not point elsewhere
            raise DamagedError(f"{folder}: {name} points outside the checkpoint and is not read.")
        if not path.is_file():
            raise DamagedError(f"{folder}: the checkpoint is damaged: {name} is missing.")
        if name in mine and fingerprint(path) != expected:
            raise DamagedError(
                f"{folder}: the checkpoint is damaged: {name} has changed since it was saved."
            )
    return schema, list(files)


def read_facts(folder: Path) -> dict[str, Any]:
    """All that a checkpoint holds but its tensors; every byte is verified.

    Raises:
        CheckpointError: see `verify`.
    """
    verify(folder)
    try:
        facts: dict[str, Any] = exact_json.loads(read_text(folder / STATE))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{folder}: the checkpoint cannot be read: {error}") from error
    return facts


def peek_facts(folder: Path) -> dict[str, Any]:
    """The same without verifying it; empty if there is no checkpoint, or its state is no JSON."""
    try:
        facts = exact_json.loads(read_text(folder / STATE))
    except (OSError, ValueError, TypeError):
        return {}
    return facts if isinstance(facts, dict) else {}


def peek_step(folder: Path) -> float:
    """The step of a checkpoint, unverified; infinity if there is none."""
    try:
        return float(peek_facts(folder)["progress"]["step"])
    except (KeyError, TypeError, ValueError, OverflowError):
        return math.inf


def remove(folder: Path) -> None:
    """Removes a checkpoint, complete or not; foreign files in it are kept, in a renamed folder."""
    with contextlib.suppress(OSError):  # what cannot be removed does no harm yet
        for path in sorted(folder.iterdir(), key=lambda path: path.name == NAME):  # the manifest last
            if path.is_file() and _is_part(path):
                path.unlink()
        try:
            folder.rmdir()
        except OSError:
            folder.rename(disk.free_name(folder, "left"))


def _is_part(path: Path) -> bool:
    return path.name in {STATE, NAME} or path.suffix in {TENSORS, ".tmp"}


def _read(folder: Path) -> tuple[int, dict[str, Any]]:
    try:
        check_regular(folder / NAME)
        text = (folder / NAME).read_bytes().decode()
        content = nested_json.loads(text)
        schema, files = int(content["schema"]), dict(content["files"])
    except FileNotFoundError as error:
        raise DamagedError(f"{folder}: incomplete checkpoint: {NAME} is missing.") from error
    except OSError as error:
        raise CheckpointError(f"{folder}: the checkpoint cannot be read: {error}") from error
    except (ValueError, KeyError, TypeError, OverflowError) as error:
        raise DamagedError(f"{folder}: the checkpoint is damaged: {NAME}: {error}") from error
    # The first schema had no checksum; a later one that lost it, or became the first, was changed.
    if (schema >= _CHECKSUM_SINCE or "sha256" in content) and text != _text(schema, files):
        raise DamagedError(f"{folder}: the checkpoint is damaged: {NAME} has changed.")
    if schema > SHARDED_SCHEMA:
        raise CheckpointError(
            f"{folder}: written by a newer version (checkpoint schema {schema}; this version reads up to"
            f" {SHARDED_SCHEMA}). Update bigmodel-train."
        )
    return schema, files


def _text(schema: int, files: dict[str, Any]) -> str:
    body = json.dumps({"schema": schema, "files": files}, separators=(",", ":"))
    return f'{body[:-1]},"sha256":"{hashlib.sha256(body.encode()).hexdigest()}"}}\n'


def _by_size(files: dict[str, Any]) -> list[str]:
    """The names of files, the largest first, so that ranks that take turns read about as much each."""

    def size(name: str) -> int:
        found = files[name].get("bytes") if isinstance(files[name], dict) else None
        return found if isinstance(found, int) else 0

    return sorted(files, key=lambda name: (-size(name), name))


def fingerprint(path: Path) -> dict[str, Any]:
    """Its size and SHA-256, as in a manifest."""
    with path.open("rb") as file:
        return {"bytes": path.stat().st_size, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}
