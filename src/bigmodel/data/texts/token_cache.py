"""Texts as tokens are made once: kept on disk, and mapped into memory from there.

The name of an entry, a folder, is a digest of all that its tokens depend on, every byte of each text
included. It holds a file of tokens for each part, of the smallest unsigned type that holds them, and
`about.json`, with their checksums. One process makes an entry while others wait; it is written under a
temporary name and renamed once it is complete. Whatever is wrong with the cache, a run continues without
it as long as the tokens fit into memory. The folder may be deleted at any time.

Large files are read to compute a checksum only if they may have changed since that was done last: if
anything is written to a file, the system changes the times that `_signature` compares.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import secrets
import shutil
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from torch import Tensor

from bigmodel.data.files.decode_cache import file_digests
from bigmodel.data.memory_check import free_memory
from bigmodel.data.texts.vocabulary import Ids
from bigmodel.errors import DataError
from bigmodel.runtime import disk, nested_json, progress_messages
from bigmodel.runtime.file_lock import locked

_FORMAT_VERSION = 1  # of an entry; entries of another version are not used
_SMALL = 1 << 26  # bytes that are read to compute a checksum at each start
_SETTLED = 2.0  # seconds after which a change of a file gives it another time, on any file system
_ABOUT, _CHECKED = "about.json", "checked.json"

Signature = list[int]


class StreamWriter:
    """Writes the tokens of one part.

    Attributes:
        dtype: of the tokens, little-endian.
        count: how many have been written.
    """

    def __init__(self, file: BinaryIO, vocabulary_size: int) -> None:
        bits = next(bits for bits in (8, 16, 32) if vocabulary_size <= 1 << bits)
        self.dtype, self.count = np.dtype(f"<u{bits // 8}"), 0
        self._file, self._digest = file, hashlib.sha256()

    def write(self, ids: Ids) -> None:
        """Writes some tokens.

        Raises:
            OSError: the disk is full.
        """
        content = ids.astype(self.dtype).tobytes()
        self._file.write(content)
        self._digest.update(content)
        self.count += len(ids)

    def about(self) -> dict[str, Any]:
        """What is known of the stream, as JSON values."""
        return {"count": self.count, "dtype": self.dtype.str, "sha256": self._digest.hexdigest()}


Create = Callable[[str, int], StreamWriter]
"""Begins the stream of a part, given the size of the vocabulary."""

Tokenize = Callable[[Create], dict[str, Any]]
"""Writes all streams, and returns facts about them, as JSON values."""


@dataclass
class TokenStreams:
    """The tokens of a text.

    Attributes:
        streams: of each part, (tokens,), uint8, uint16 or uint32.
        sums: the SHA-256 of each, by part.
        facts: what was noted about them, as JSON values.
        mapped: they are mapped from files, which nothing changes.
        trouble: what was wrong with the cache; empty if nothing was.
    """

    streams: dict[str, Tensor]
    sums: dict[str, str]
    facts: dict[str, Any]
    mapped: bool = True
    trouble: str = field(default="", compare=False)


def entry_name(options: Any) -> str:
    """The name of an entry.

    Args:
        options: all that tokens depend on, as JSON values.
    """
    return _digest([_FORMAT_VERSION, options])[:32]


def load(folder: Path | None, name: str) -> TokenStreams | None:
    """An entry, mapped; None: there is none, or it is damaged."""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        return None if folder is None else _read_entry(folder / name)
    return None


def load_or_make(folder: Path | None, name: str, tokenize: Tokenize) -> TokenStreams:
    """An entry, made if there is none, or if it is damaged.

    Args:
        folder: of the cache; None: tokens are in memory only.
        name: from `entry_name`.
        tokenize: makes the tokens.

    Raises:
        DataError: they cannot be cached, and do not fit into memory; or whatever `tokenize` raises.
    """
    if folder is None:
        return _in_memory(tokenize, "Set data.cache=auto, which keeps them on disk")
    if (found := load(folder, name)) is not None:
        return found
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with locked(folder / f".{name}.lock") as alone:
            if (found := load(folder, name)) is not None:  # another process has made it
                return found
            trouble = f"{folder / name} was damaged: made again" if (folder / name).exists() else ""
            shutil.rmtree(folder / name, ignore_errors=True)
            own = _write_entry(folder / name, tokenize, alone)
        made = _read_entry(folder / name, check=False) if own else load(folder, name)
        if made is None:
            raise OSError("a damaged entry cannot be removed")
    except OSError as error:
        trouble = f"{folder} cannot be written ({error.strerror or error})"
        made = _in_memory(tokenize, f"{trouble}. Free some space, or set data.cache=<another folder>")
        made.trouble = f"{trouble}: tokens are kept in memory only"
        return made
    made.trouble = trouble
    return made


def text_digests(folder: Path | None, files: Sequence[Path]) -> list[str]:
    """The SHA-256 digest of each file. Those of large files are kept in the cache."""
    signatures = [_signature(file) for file in files]
    if folder is None or sum(size for size, *_ in signatures) <= _SMALL:
        return file_digests(files)
    paths = [str(file.resolve()) for file in files]
    known = folder / f"texts-{entry_name([paths, signatures])}.json"

    def stored() -> list[str] | None:
        with contextlib.suppress(OSError, ValueError):
            content = nested_json.loads(disk.read_text(known))
            return content if isinstance(content, list) and len(content) == len(files) else None
        return None

    if (digests := stored()) is not None:
        return digests
    with (
        contextlib.ExitStack() as stack,
        progress_messages.report_progress("Computing a checksum of the text"),
    ):
        with contextlib.suppress(OSError):
            folder.mkdir(parents=True, exist_ok=True)
            stack.enter_context(locked(known.with_suffix(".lock")))
        if (digests := stored()) is not None:
            return digests
        digests = file_digests(files)
        if all(map(_settled, signatures)):
            with contextlib.suppress(OSError):
                disk.write_bytes(known, json.dumps(digests).encode())
    return digests


@contextlib.contextmanager
def unchanged(files: Sequence[Path]) -> Iterator[None]:
    """Raises DataError at the end if one of the files has changed within it."""
    before = [_signature(file)[:-1] for file in files]  # the last also changes with its name or mode
    yield
    for file, signature in zip(files, before, strict=True):
        if _signature(file)[:-1] != signature:
            raise DataError(
                f"{file}: it changed while it was read. Start again once nothing writes to it any more."
            )


def _signature(file: Path) -> Signature:
    """Size, identity and times of a file: different after any change of its content."""
    try:
        status = file.stat()
    except OSError:
        return [0, 0, 0, 0]
    return [status.st_size, status.st_ino, status.st_mtime_ns, status.st_ctime_ns]


def _settled(signature: Signature) -> bool:
    """Whether a file would get another signature if it changed now."""
    return max(signature[2:]) < time.time_ns() - _SETTLED * 1e9


def _write_entry(entry: Path, tokenize: Tokenize, alone: bool) -> bool:
    """Makes a new entry, unless another process is faster.

    Args:
        alone: no other process makes the same.

    Returns:
        Whether the entry is the one made here.

    Raises:
        OSError: it cannot be written.
    """
    prefix = f".{entry.name}-"
    if alone:
        for abandoned in entry.parent.glob(f"{prefix}*"):  # by a process that was killed
            shutil.rmtree(abandoned, ignore_errors=True)
    unfinished = entry.parent / f"{prefix}{secrets.token_hex(4)}"
    unfinished.mkdir()
    try:
        writers: dict[str, StreamWriter] = {}
        with contextlib.ExitStack() as stack:
            files: list[BinaryIO] = []

            def create(part: str, vocabulary_size: int) -> StreamWriter:
                files.append(stack.enter_context((unfinished / part).open("wb")))
                writers[part] = StreamWriter(files[-1], vocabulary_size)
                return writers[part]

            facts = tokenize(create)
            for file in files:
                file.flush()
                os.fsync(file.fileno())
        content = {"facts": facts, "streams": {part: writer.about() for part, writer in writers.items()}}
        about = {"content": content, "sha256": _digest(content)}
        disk.write_bytes(unfinished / _ABOUT, json.dumps(about).encode())
        try:
            unfinished.rename(entry)
        except OSError:
            if not entry.exists():
                raise
            return False
        disk.sync(entry.parent)
        return True
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _read_entry(entry: Path, *, check: bool = True) -> TokenStreams:
    """An entry, mapped.

    Args:
        check: whether the tokens are as they were written.

    Raises:
        OSError, ValueError, KeyError, TypeError: there is none, or it is damaged.
    """
    about = nested_json.loads(disk.read_text(entry / _ABOUT))
    content = about["content"]
    if _digest(content) != about["sha256"]:
        raise ValueError("its description is damaged")
    streams: dict[str, Any] = content["streams"]
    if check:
        _check_sums(entry, streams)
    tokens = {part: _mapped(entry / part, known["dtype"]) for part, known in streams.items()}
    sums = {part: known["sha256"] for part, known in streams.items()}
    return TokenStreams(tokens, sums, content["facts"])


def _check_sums(entry: Path, streams: dict[str, Any]) -> None:
    """Raises ValueError if a file of tokens is not as it was written."""
    checked: dict[str, Signature] = {}
    with contextlib.suppress(OSError, ValueError, TypeError):
        checked = dict(nested_json.loads(disk.read_text(entry / _CHECKED)))
    found = {part: _signature(entry / part) for part in streams}
    large = any(size > _SMALL for size, *_ in found.values())
    for part, known in streams.items():
        size = known["count"] * np.dtype(known["dtype"]).itemsize
        if found[part][0] != size:
            raise ValueError(f"{found[part][0]:,} bytes, expected {size:,}")
        if large and checked.get(part) == found[part]:
            continue
        with (entry / part).open("rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != known["sha256"]:
                raise ValueError("its checksum differs")
    if large and found != checked and all(map(_settled, found.values())):
        with contextlib.suppress(OSError):  # of a cache that can only be read
            disk.write_bytes(entry / _CHECKED, json.dumps(found).encode())


def _mapped(file: Path, dtype: str) -> Tensor:
    if file.stat().st_size == 0:
        return torch.from_numpy(np.empty(0, dtype))
    # For reading only and shared, so that it does not count as memory that may be needed.
    content = np.memmap(file, dtype, "r")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*not writable")
        return torch.from_numpy(content)


def _in_memory(tokenize: Tokenize, advice: str) -> TokenStreams:
    """Makes tokens in memory.

    Raises:
        DataError: they do not fit, with the advice; or whatever `tokenize` raises.
    """
    buffers: dict[str, _Memory] = {}
    writers: dict[str, StreamWriter] = {}
    most = free_memory() // 2  # a buffer that grows is copied

    def create(part: str, vocabulary_size: int) -> StreamWriter:
        buffers[part] = _Memory(most, advice)
        writers[part] = StreamWriter(buffers[part], vocabulary_size)
        return writers[part]

    facts = tokenize(create)
    tokens = {
        part: torch.from_numpy(np.frombuffer(buffers[part].getbuffer(), writer.dtype))
        for part, writer in writers.items()
    }
    sums = {part: writer.about()["sha256"] for part, writer in writers.items()}
    return TokenStreams(tokens, sums, facts, mapped=False)


class _Memory(io.BytesIO):
    """A file in memory, of at most so many bytes."""

    def __init__(self, most: int, advice: str) -> None:
        super().__init__()
        self._most, self._advice = most, advice

    def write(self, content: Any) -> int:
        if self.tell() + len(content) > self._most:
            raise DataError(
                f"The tokens of the text take more than {self._most:,} bytes, half of the memory that is"
                f" free. {self._advice}."
            )
        return super().write(content)


def _digest(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
