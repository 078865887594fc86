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
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bigmodel.data.files.samples import DecodedRows, UnreadableFileError, io_threads
from bigmodel.runtime import nested_json
from bigmodel.runtime.caches import user_cache
from bigmodel.runtime.disk import check_regular, read_text

_CHUNK = 1 << 24  # bytes read, written or moved at once
_FORMAT_VERSION = 2  # of an entry; another number makes all older ones unknown


Decode = Callable[[Path, Tensor], Any]
"""Fills the row of a file and gives a note about it.

Raises:
    Unreadable: it cannot be read.
"""


def cache_folder(cache: str | None) -> Path | None:
    """The folder that the option `cache` means; None where nothing is to be kept."""
    if cache == "auto":
        own = user_cache()
        return None if own is None else own / "decoded"
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


def _entry_name(paths: Sequence[Path], contents: Sequence[str], options: Any) -> str:
    """A name for the rows of these files, made with these options."""
    digest = hashlib.sha256(json.dumps([_FORMAT_VERSION, options], sort_keys=True).encode())
    for path, content in zip(paths, contents, strict=True):
        digest.update(f"{path.suffix.lower()}\0{content}\n".encode())  # notes may tell the suffix
    return digest.hexdigest()[:32]


def decode_files(
    paths: Sequence[Path],
    shape: tuple[int, ...],
    dtype: torch.dtype,
    decode: Decode,
    *,
    most_bad: int = 0,
    cache: Path | None = None,
    contents: Sequence[str] = (),
    options: Any = None,
) -> DecodedRows:
    """The rows of files, out of the cache where it has them.

    Args:
        paths: the files.
        shape, dtype: of one row.
        decode: fills a row; called from many threads at once.
        most_bad: unreadable files; with more, nothing is kept in the cache.
        cache: folder of the cache; None: rows are in memory alone.
        contents: what the cache knows the files by, as `contents_of` gave it.
        options: whatever else the rows depend on, as JSON holds it.
    """
    if cache is None:
        return _decode_all(torch.empty((len(paths), *shape), dtype=dtype), paths, decode)
    entry = cache / _entry_name(paths, contents, [options, list(shape), str(dtype)])
    trouble = ""
    if entry.exists():
        try:
            return _read_entry(entry, shape, dtype)
        except (OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
            trouble = f"{entry} is damaged ({_reason(error)}): made anew"
    try:
        return _write_entry(entry, paths, contents, shape, dtype, decode, most_bad, trouble)
    except OSError as error:
        found = decode_files(paths, shape, dtype, decode)
        found.trouble = f"{cache} cannot be written ({_reason(error)}): kept in memory alone"
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
    contents: Sequence[str],
    shape: tuple[int, ...],
    dtype: torch.dtype,
    decode: Decode,
    most_bad: int,
    trouble: str,
) -> DecodedRows:
    """Decodes into a new entry.

    Raises:
        OSError: there is no room for it, or it may not be written.
    """
    entry.parent.mkdir(parents=True, exist_ok=True)
    beside = Path(tempfile.mkdtemp(prefix=".new-", dir=entry.parent))
    try:
        file, count = beside / "rows", len(paths) * math.prod(shape)
        _reserve(file, count * dtype.itemsize)
        rows = torch.from_file(str(file), shared=True, size=count, dtype=dtype)
        found = _decode_all(rows.view(len(paths), *shape), paths, decode)
        if not found.kept or len(found.bad) > most_bad:
            found.rows = found.rows.clone()
            return found
        if file_digests(paths) != list(contents):  # else the entry would give what it is not named by
            found.rows = found.rows.clone()
            found.trouble = "files changed while they were read: kept in memory alone"
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
        found = _read_entry(entry, shape, dtype)
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


def _read_entry(entry: Path, shape: tuple[int, ...], dtype: torch.dtype) -> DecodedRows:
    """An entry, its rows read when they are touched; changing them does not change the file.

    Raises:
        OSError, ValueError, KeyError, TypeError, RuntimeError: it is not what was written.
    """
    about = nested_json.loads(read_text(entry / "about.json"))
    file, count = entry / "rows", len(about["kept"]) * math.prod(shape)
    if file.stat().st_size != count * dtype.itemsize:
        raise ValueError(f"{file.stat().st_size:,} bytes, expected {count * dtype.itemsize:,}")
    if _checksum(file) != about["checksum"]:
        raise ValueError("its checksum differs")
    rows = torch.from_file(str(file), shared=False, size=count, dtype=dtype)
    bad = [(int(index), str(reason)) for index, reason in about["bad"]]
    return DecodedRows(rows.view(-1, *shape), list(about["kept"]), bad, list(about["notes"]))
