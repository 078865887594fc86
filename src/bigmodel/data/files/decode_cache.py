"""Decodes files once: their rows are kept on disk as one tensor, and mapped into memory from there.

The name of an entry, a folder, is a digest of all that its rows depend on, every byte of each file
included: size and time would not reveal that a file was replaced. It holds `rows`, the bytes of the
tensor, and `about.json`, with their checksum. An entry is written under a temporary name and renamed
once it is complete, so that runs that start together do not disturb each other. Whatever is wrong with
the cache, a run continues without it. The folder may be deleted at any time.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
import tempfile
import zlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from bigmodel.runtime import nested_json
from bigmodel.runtime.caches import user_cache
from bigmodel.runtime.disk import check_regular, read_text
from bigmodel.runtime.processors import processors

_CHUNK = 1 << 24  # bytes read, written or moved at once
_FORMAT_VERSION = 2  # of an entry; entries of another version are not used


class UnreadableFileError(Exception):
    """A file that cannot be decoded; the message says why, in a few words."""


@dataclass
class DecodedRows:
    """Rows decoded from files, without unreadable ones.

    Attributes:
        rows: (readable files, *shape).
        kept: indices of the readable files, in their order.
        bad: indices of the unreadable files, and why.
        notes: a JSON value about each readable file, such as its size.
        trouble: what was wrong with the cache; empty if nothing was.
    """

    rows: Tensor
    kept: list[int]
    bad: list[tuple[int, str]]
    notes: list[Any]
    trouble: str = field(default="", compare=False)


Decode = Callable[[Any, Tensor], Any]
"""Fills the row of a file, given its path, and returns a note about it.

Raises:
    UnreadableFileError: it cannot be read.
"""


class RowFormat(NamedTuple):
    """What a file becomes: a row of a tensor.

    Attributes:
        shape, dtype: of one row.
        decode: fills a row; called from many threads at once.
    """

    shape: tuple[int, ...]
    dtype: torch.dtype
    decode: Decode


def cache_folder(cache: str | None, kind: str = "decoded") -> Path | None:
    """The folder that the option `cache` names; None: no cache.

    Args:
        kind: of cache, the name of its folder in the user's cache.
    """
    if cache == "auto":
        folder = user_cache()
        return None if folder is None else folder / kind
    return None if cache is None else Path(cache).expanduser()


def file_digests(paths: Sequence[Path]) -> list[str]:
    """The SHA-256 digest of each file; empty if it cannot be read."""

    def one(path: Path) -> str:
        try:
            check_regular(path)
            with path.open("rb") as file:
                return hashlib.file_digest(file, "sha256").hexdigest()
        except OSError:
            return ""

    with ThreadPoolExecutor(io_threads()) as pool:
        return list(pool.map(one, paths))


def _entry_name(paths: Sequence[Path], digests: Sequence[str], options: Any) -> str:
    digest = hashlib.sha256(json.dumps([_FORMAT_VERSION, options], sort_keys=True).encode())
    for path, content_digest in zip(paths, digests, strict=True):
        digest.update(f"{path.suffix.lower()}\0{content_digest}\n".encode())  # notes may have the suffix
    return digest.hexdigest()[:32]


def decode_files(
    paths: Sequence[Any],
    row: RowFormat,
    *,
    max_bad: int = 0,
    cache: Path | None = None,
    digests: Sequence[str] = (),
    options: Any = None,
) -> DecodedRows:
    """The rows of files, from the cache if it has them.

    Args:
        paths: the files; without a cache, whatever the row is decoded from.
        row: what each becomes.
        max_bad: with more unreadable files, nothing is cached.
        cache: folder of the cache; None: rows are in memory only.
        digests: of the files, from `file_digests`; needed with a cache.
        options: whatever else the rows depend on, as JSON values.
    """
    if cache is None:
        return _decode_all(torch.empty((len(paths), *row.shape), dtype=row.dtype), paths, row.decode)
    entry = cache / _entry_name(paths, digests, [options, list(row.shape), str(row.dtype)])
    trouble = ""
    if entry.exists():
        try:
            return _read_entry(entry, row)
        except (OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
            trouble = f"{entry} is damaged ({_reason(error)}): rebuilt"
    try:
        return _write_entry(entry, paths, digests, row, max_bad, trouble)
    except OSError as error:
        trouble = f"{cache} cannot be written ({_reason(error)}): kept in memory only"
        return replace(decode_files(paths, row), trouble=trouble)


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)


def _decode_all(rows: Tensor, paths: Sequence[Any], decode: Decode) -> DecodedRows:
    """Decodes all files in parallel into their rows, then closes the gaps of unreadable ones."""

    def note_and_reason(index: int) -> tuple[Any, str | None]:
        try:
            return decode(paths[index], rows[index]), None
        except UnreadableFileError as error:
            return None, str(error)

    with ThreadPoolExecutor(io_threads()) as pool:
        results = list(pool.map(note_and_reason, range(len(paths))))
    kept = [index for index, (_, reason) in enumerate(results) if reason is None]
    bad = [(index, reason) for index, (_, reason) in enumerate(results) if reason is not None]
    for place, index in enumerate(kept):
        if place != index:
            rows[place] = rows[index]
    return DecodedRows(rows[: len(kept)], kept, bad, [results[index][0] for index in kept])


def _write_entry(
    entry: Path,
    paths: Sequence[Path],
    digests: Sequence[str],
    row: RowFormat,
    max_bad: int,
    trouble: str,
) -> DecodedRows:
    """Decodes into a new entry.

    Raises:
        OSError: it cannot be written, or there is no space for it.
    """
    entry.parent.mkdir(parents=True, exist_ok=True)
    unfinished = Path(tempfile.mkdtemp(prefix=".new-", dir=entry.parent))
    try:
        file, count = unfinished / "rows", len(paths) * math.prod(row.shape)
        _reserve(file, count * row.dtype.itemsize)
        rows = torch.from_file(str(file), shared=True, size=count, dtype=row.dtype)
        decoded = _decode_all(rows.view(len(paths), *row.shape), paths, row.decode)
        # Bytes that changed since their digest was taken must not be stored under its name.
        changed = file_digests(paths) != list(digests)
        if changed or not decoded.kept or len(decoded.bad) > max_bad:
            trouble = "files changed while they were read: kept in memory only" if changed else ""
            return replace(decoded, rows=decoded.rows.clone(), trouble=trouble)
        about = {"kept": decoded.kept, "bad": decoded.bad, "notes": decoded.notes}
        size = decoded.rows.nbytes
        decoded.rows = rows = torch.empty(0)  # a mapped file must not be truncated
        os.truncate(file, size)
        about["checksum"] = _checksum(file)
        (unfinished / "about.json").write_text(json.dumps(about), encoding="utf-8")
        shutil.rmtree(entry, ignore_errors=True)
        try:
            unfinished.rename(entry)
        except OSError:
            if not entry.exists():  # else another run was faster
                raise
        return replace(_read_entry(entry, row), trouble=trouble)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _reserve(file: Path, size: int) -> None:
    """A new file with its space allocated: writing to a mapped file must not run out of space."""
    with file.open("wb") as out:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(out.fileno(), 0, size)
            return
        for start in range(0, size, _CHUNK):
            out.write(bytes(min(_CHUNK, size - start)))


def _checksum(file: Path) -> int:
    total = 0
    with file.open("rb") as content:
        while piece := content.read(_CHUNK):
            total = zlib.crc32(piece, total)
    return total


def _read_entry(entry: Path, row: RowFormat) -> DecodedRows:
    """An entry, its rows mapped into memory; changing them does not change the file.

    Raises:
        OSError, ValueError, KeyError, TypeError, RuntimeError: it is damaged.
    """
    about = nested_json.loads(read_text(entry / "about.json"))
    file, count = entry / "rows", len(about["kept"]) * math.prod(row.shape)
    if file.stat().st_size != count * row.dtype.itemsize:
        raise ValueError(f"{file.stat().st_size:,} bytes, expected {count * row.dtype.itemsize:,}")
    if _checksum(file) != about["checksum"]:
        raise ValueError("its checksum differs")
    rows = torch.from_file(str(file), shared=False, size=count, dtype=row.dtype)
    bad = [(int(index), str(reason)) for index, reason in about["bad"]]
    return DecodedRows(rows.view(-1, *row.shape), list(about["kept"]), bad, list(about["notes"]))


def io_threads() -> int:
    """How many threads read files: some more than processors, as a few wait for the disk."""
    return min(32, 2 + processors())
