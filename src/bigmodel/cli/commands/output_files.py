"""Writing predictions: to a file, atomically, or to the terminal."""

from __future__ import annotations

import io
import json
import os
import shutil
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import chain, count
from pathlib import Path
from typing import Any, TextIO

from safetensors import SafetensorError

from bigmodel.data.tabular.json_values import json_values
from bigmodel.errors import ConfigError, DataError, did_you_mean
from bigmodel.reporting.table_bytes import as_table, csv_bytes, parquet_bytes
from bigmodel.runtime import disk, standard_streams
from bigmodel.runtime.escaping import escape

TABLES = (".csv", ".tsv", ".parquet", ".jsonl")

_LONGEST = 200  # bytes of a file's name, of which most file systems allow 255


def file_stem(name: str) -> str:
    """A name for a file, from one of a figure or a sample, which a plugin or a user may have chosen."""
    plain = "".join(letter if letter.isalnum() or letter in "-_." else "-" for letter in name)
    return plain.encode()[:_LONGEST].decode(errors="ignore")


def file_stems(names: Sequence[str]) -> list[str]:
    """Names for files that differ, also where letters of both cases are the same, in the same order."""
    taken: set[str] = set()
    found = []
    for name in map(file_stem, names):
        numbered = (f"{name}-{n}" for n in count(2))
        own = next(each for each in chain([name], numbered) if each.casefold() not in taken)
        taken.add(own.casefold())
        found.append(own)
    return found


def check_kind(path: Path, suffixes: Sequence[str], option: str = "--output") -> None:
    """Checks the type of an output file, which `option` names.

    Raises:
        ConfigError: its suffix is none of `suffixes`.
    """
    if path.suffix.lower() not in suffixes:
        wrong = "names no type of file."
        if path.suffix:
            meant = did_you_mean(path.suffix.lower(), suffixes)
            wrong = f"'{path.suffix}' is not a supported type of file.{meant}"
        raise ConfigError(f"{option} {path}: {wrong} Supported: {', '.join(suffixes)}.")


def check_place(path: Path, *, force: bool, option: str = "--output") -> None:
    """Checks that a file can be written, before anything is computed for it.

    Args:
        force: whether an existing file may be replaced.
        option: names the file.

    Raises:
        ConfigError: it already exists, or its folder does not.
    """
    if path.is_dir():
        raise ConfigError(f"{option} {path}: is a folder. Name a file in it.")
    if not path.absolute().parent.is_dir():
        raise ConfigError(
            f"{option} {path}: there is no folder {path.absolute().parent}. Create it first."
        )
    if path.exists() and not force and not disk.is_special(path):
        raise ConfigError(f"{option} {path}: already exists. Add --force to replace it.")


def check_folder_place(path: Path, *, force: bool, option: str = "--output") -> None:
    """Checks that a folder of files can be written, before anything is computed for it.

    Args:
        force: whether files in it may be replaced.
        option: names the folder.

    Raises:
        ConfigError: something is there, or the folder for it is not.
    """
    if not path.absolute().parent.is_dir():
        raise ConfigError(
            f"{option} {path}: there is no folder {path.absolute().parent}. Create it first."
        )
    if path.exists() and not path.is_dir():
        raise ConfigError(f"{option} {path}: is a file. Name a folder, which is made if it is missing.")
    if not force and path.is_dir() and any(path.iterdir()):
        raise ConfigError(f"{option} {path}: already holds files. Add --force to replace those in it.")


def write_columns(columns: Mapping[str, Any], path: Path | None) -> None:
    """Writes columns of equal length as a table; without a path, as CSV to the terminal.

    Raises:
        DataError: the file cannot be written; an existing one is unchanged.
    """
    table = as_table(columns)
    if path is None:
        _print(csv_bytes(table).decode())
        return
    match path.suffix.lower():
        case ".csv":
            write_bytes(csv_bytes(table), path)
        case ".tsv":
            write_bytes(csv_bytes(table, "\t"), path)
        case ".parquet":
            write_bytes(parquet_bytes(table), path)
        case _:
            cells = zip(*(json_values(column) for column in table.columns), strict=True)
            rows = (dict(zip(table.column_names, row, strict=True)) for row in cells)
            lines = (json.dumps(row, ensure_ascii=False) for row in rows)
            write_bytes("".join(f"{line}\n" for line in lines).encode(), path)


def write_lines(lines: Sequence[str], path: Path | None) -> None:
    """Writes one text per line; line ends within a text are written as \\n."""
    text = "".join(line.replace("\r", "\\r").replace("\n", "\\n") + "\n" for line in lines)
    if path is None:
        _print(text)
    else:
        write_bytes(text.encode(), path)


def write_bytes(content: bytes, path: Path) -> None:
    """Writes a file atomically.

    Raises:
        DataError: it cannot be written.
    """
    try:
        disk.write_bytes(path, content)
    except OSError as error:
        raise DataError(f"{path}: cannot be written: {error.strerror or error}.") from error


@contextmanager
def new_files(path: Path, names: Collection[str]) -> Iterator[Path]:
    """Yields an empty folder; at the end of the block its files are in the folder `path`.

    If that is new, it is there whole or not at all. Otherwise files are replaced once all new ones are
    on the disk, those of `names` that are not new are removed, and others stay.

    Raises:
        DataError: it cannot be written.
    """
    path = path.resolve()
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir()
        yield temporary
        for file in temporary.iterdir():
            disk.sync(file)
        if not path.exists():
            disk.sync(temporary)
            temporary.rename(path)
        else:
            made = {file.name: file.replace(path / file.name) for file in sorted(temporary.iterdir())}
            for name in set(names) - made.keys():
                (path / name).unlink(missing_ok=True)
            disk.sync(path)
        disk.sync(path.parent)
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or error
        raise DataError(f"{path}: cannot be written: {reason}.") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def make_folder(path: Path) -> None:
    """Makes a folder for files, unless it is there.

    Raises:
        DataError: it cannot be made.
    """
    try:
        path.mkdir(exist_ok=True)
    except OSError as error:
        raise DataError(f"{path}: cannot be made: {error.strerror or error}.") from error


def data_stream() -> TextIO:
    """Standard output for data: always UTF-8, as in the files written here."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        # Bytes of file names that are not UTF-8 are written unchanged.
        sys.stdout.reconfigure(encoding="utf-8", errors="surrogateescape", newline="\n")
    return sys.stdout


def _print(text: str) -> None:
    stream = data_stream()
    stream.write(escape(text) if stream.isatty() else text)
    standard_streams.check_result()
