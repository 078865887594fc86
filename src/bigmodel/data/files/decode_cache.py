"""Samples decoded once: rows of one tensor, kept on disk and mapped from there into memory.

An entry is a folder named by what its rows were made from, to the last byte of each file: size and time
would not tell a file from another that took its place. It holds `rows`, just the bytes of the tensor,
and `about.json`, with their checksum. It is written beside and renamed when it is whole, so that runs
that start at once do not disturb each other. Whatever is wrong with the cache, a run goes on without it.
The folder may be deleted at any time.
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
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from bigmodel.runtime import nested_json
from bigmodel.runtime.caches import user_cache
from bigmodel.runtime.disk import check_regular, read_text

_CHUNK = 1 << 24  # bytes read, written or moved at once
_FORMAT_VERSION = 2  # of an entry; another number makes all older ones unknown


class UnreadableFileError(Exception):
    """A file that gives no sample; says why, in a few words."""


@dataclass
class DecodedRows:
    """Rows decoded from files, those of unreadable ones left out.

    Attributes:
        rows: (readable files, *shape).
        kept: which files they are of, in their order.
        bad: which files cannot be read, and why.
        notes: something about each file that is kept, such as its size; as JSON holds it.
        trouble: what was wrong with the cache, in words; empty where nothing was.
    """

    rows: Tensor
    kept: list[int]
    bad: list[tuple[int, str]]
    notes: list[Any]
    trouble: str = field(default="", compare=False)


Decode = Callable[[Path, Tensor], Any]
"""Fills the row of a file and gives a note about it.

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


def cache_folder(cache: str | None) -> Path | None:
    """The folder that the option `cache` means; None if nothing is to be kept."""
    if cache == "auto":
        folder = user_cache()
        return None if folder is None else folder / "decoded"
    return None if cache is None else Path(cache).expanduser()


def file_digests(paths: Sequence[Path]) -> list[str]:
    """The digest of what each file holds; empty where it cannot be read."""

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
    """A name for the rows of these files, made with these options."""
    digest = hashlib.sha256(json.dumps([_FORMAT_VERSION, options], sort_keys=True).encode())
    for path, content_digest in zip(paths, digests, strict=True):
        digest.update(f"{path.suffix.lower()}\0{content_digest}\n".encode())  # notes may tell the suffix
    return digest.hexdigest()[:32]


def decode_files(
    paths: Sequence[Path],
    row: RowFormat,
    *,
    max_bad: int = 0,
    cache: Path | None = None,
    digests: Sequence[str] = (),
    options: Any = None,
) -> DecodedRows:
    """The rows of files, out of the cache where it has them.

    Args:
        paths: the files.
        row: what each becomes.
        max_bad: unreadable files; with more, nothing is kept in the cache.
        cache: folder of the cache; None: rows are in memory alone.
        digests: what the cache knows the files by, as `file_digests` gave them.
        options: whatever else the rows depend on, as JSON holds it.
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
        found = decode_files(paths, row)
        found.trouble = f"{cache} cannot be written ({_reason(error)}): kept in memory only"
        return found


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)


def _decode_all(rows: Tensor, paths: Sequence[Path], decode: Decode) -> DecodedRows:
    """Decodes all files at once into their rows, then closes the gaps that unreadable ones leave."""

    def one(index: int) -> tuple[Any, str | None]:
        try:
            return decode(paths[index], rows[index]), None
        except UnreadableFileError as error:
            return None, str(error)

    with ThreadPoolExecutor(io_threads()) as pool:
        found = list(pool.map(one, range(len(paths))))
    kept = [index for index, (_, reason) in enumerate(found) if reason is None]
    bad = [(index, reason) for index, (_, reason) in enumerate(found) if reason is not None]
    if bad:
        for place, index in enumerate(kept):
            if place != index:
                rows[place] = rows[index]
    return DecodedRows(rows[: len(kept)], kept, bad, [found[index][0] for index in kept])


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
        OSError: there is no room for it, or it may not be written.
    """
    entry.parent.mkdir(parents=True, exist_ok=True)
    beside = Path(tempfile.mkdtemp(prefix=".new-", dir=entry.parent))
    try:
        file, count = beside / "rows", len(paths) * math.prod(row.shape)
        _reserve(file, count * row.dtype.itemsize)
        rows = torch.from_file(str(file), shared=True, size=count, dtype=row.dtype)
        found = _decode_all(rows.view(len(paths), *row.shape), paths, row.decode)
        if not found.kept or len(found.bad) > max_bad:
            found.rows = found.rows.clone()
            return found
        if file_digests(paths) != list(digests):  # else the entry would give what it is not named by
            found.rows = found.rows.clone()
            found.trouble = "files changed while they were read: kept in memory only"
            return found
        about = {"kept": found.kept, "bad": found.bad, "notes": found.notes}
        size = found.rows.nbytes
        found.rows = rows = torch.empty(0)  # nothing may be mapped that is cut off
        os.truncate(file, size)
        about["checksum"] = _checksum(file)
        (beside / "about.json").write_text(json.dumps(about), encoding="utf-8")
        shutil.rmtree(entry, ignore_errors=True)
        try:
            beside.rename(entry)
        except OSError:
            if not entry.exists():  # else another run was faster
                raise
        found = _read_entry(entry, row)
        found.trouble = trouble
        return found
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def _reserve(file: Path, size: int) -> None:
    """A file of that size which the disk has room for: a mapped one must never run out of it."""
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
    """An entry, its rows read when they are touched; changing them does not change the file.

    Raises:
        OSError, ValueError, KeyError, TypeError, RuntimeError: it is not what was written.
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


def processors() -> int:
    """How many processors this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def io_threads() -> int:
    """How many threads read files: some more than processors, as a few wait for the disk."""
    return min(32, processors() + 2)
