"""Reads JSON lines, one object a line, as batches of rows."""

from __future__ import annotations

import io
import json
import re
import shlex
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from bigmodel.data import text_encoding
from bigmodel.data.libraries import pa, pa_json
from bigmodel.data.tabular.json_values import is_json, json_column
from bigmodel.errors import DataError
from bigmodel.runtime import nested_json

Refuse = Callable[[str], None]
"""Called with a message for each line that is wrong; may raise."""

_BLOCK = 8 << 20  # bytes parsed at once
_LONG = re.compile(rb"(?<![\d.])\d{16,}(?![\d.eE])")  # integers that float64 may not hold exactly


def read_json_batches(path: Path, refuse: Refuse, encoding: str = "utf-8") -> Iterator[Any]:
    """The objects of a JSON lines file as Arrow batches, with a column for each key.

    The file is read twice, as the type of a column depends on all of its values: integers become floats
    if some are floats, and dates stay text. A column with values of several types is kept as JSON; so
    is one of floats with integers that float64 cannot hold exactly.

    Args:
        path: the file, gzip or not.
        refuse: called with a message for each line that is not a JSON object; may raise.
        encoding: see `in_utf8`.

    Raises:
        DataError: it is not in the encoding, or it has no rows.
    """
    kinds: dict[str, Any] = {}
    long: set[str] = set()
    for first, block in _blocks(path, refuse, encoding):
        kinds = _unify_types(kinds, _block_types(path, first, block))
        long |= _with_long_numbers(block)
    exact = [name for name in long if pa.types.is_floating(kinds[name])]
    kinds |= dict.fromkeys(exact, pa.json_())
    schema = pa.schema(list(kinds.items()))
    if not kinds:
        raise DataError(f"{path}: no line holds an object with a key.")
    yield pa.RecordBatch.from_pylist([], schema=schema)
    for first, block in _blocks(path, lambda _: None, encoding):
        yield from _typed_block(path, first, block, schema).to_batches()


def _blocks(path: Path, refuse: Refuse, encoding: str) -> Iterator[tuple[int, bytes]]:
    """Blocks of complete lines, each with the number of its first line, counted from 0."""
    with text_encoding.open_as_utf8(path, encoding) as file:
        line, rest = 0, b""
        while piece := file.read(_BLOCK):
            if line == 0 and not rest:
                _check_start(path, piece)
            whole, newline, rest = (rest + piece).rpartition(b"\n")
            if newline:
                yield line, _valid_lines(path, line, whole + newline, refuse)
                line += whole.count(b"\n") + 1
        if rest.strip():
            yield line, _valid_lines(path, line, rest + b"\n", refuse)


def _check_start(path: Path, head: bytes) -> None:
    text_encoding.check_not_utf16(path, head[:4096])
    if head.lstrip().startswith(b"["):
        lines = path.with_name(Path(text_encoding.name_without_gz(path)).stem + "-lines.jsonl")
        plain, bare = shlex.quote(str(lines)), shlex.quote(str(path))
        packed = text_encoding.is_gzip(path)
        convert = f"gunzip -c {bare} | jq -c '.[]'" if packed else f"jq -c '.[]' {bare}"
        raise DataError(
            f"{path}: it holds one JSON list, but an object on each line is needed. Convert it:"
            f" {convert} > {plain}"
        )


def _valid_lines(path: Path, first: int, block: bytes, refuse: Refuse) -> bytes:
    """The lines of a block that are JSON objects; the others are refused."""
    try:
        block.decode()  # Arrow does not check
    except UnicodeDecodeError:
        text_encoding.check_utf8(path)
    lines = block.split(b"\n")
    deep = any(nested_json.deep_line(line) is not None for line in lines)  # on which Arrow would crash
    if not deep and _parse_block(block, None) is not None:
        return block
    for place, line in enumerate(lines):
        error = _line_error(line) if line.strip() else None
        if error is not None:
            refuse(f"line {first + place} (counted from 0) {error}")
            lines[place] = b""  # the lines below keep their numbers
    return b"\n".join(lines)


def _line_error(line: bytes) -> str | None:
    """What is wrong with a line; None if it is an object."""
    if nested_json.deep_line(line) is not None:
        return (
            f"is nested more than {nested_json.MOST} levels deep: {line[:60].decode()!r}. A table has a"
            " value for each key: make it flat."
        )
    try:
        value = nested_json.loads(line.decode())
    except ValueError as error:
        return f"is not JSON: {error}: {line[:60].decode(errors='replace')!r}."
    return None if isinstance(value, dict) else f"is not an object but {_TYPE_NAMES[type(value)]}."


def _parse_block(block: bytes, schema: Any) -> Any:
    """A block as an Arrow table; None if Arrow cannot read it."""
    if not block.strip():
        return pa.table({})
    try:
        return pa_json.read_json(
            io.BytesIO(block),
            read_options=pa_json.ReadOptions(use_threads=False, block_size=len(block) + 1),
            parse_options=pa_json.ParseOptions(
                explicit_schema=schema, unexpected_field_behavior="infer" if schema is None else "ignore"
            ),
        )
    except pa.ArrowInvalid:
        return None


def _block_types(path: Path, first: int, block: bytes) -> dict[str, Any]:
    """The type of each key in a block."""
    table = _parse_block(block, None)
    if table is not None:
        types = {field.name: field.type for field in table.schema}
        times = [name for name, kind in types.items() if pa.types.is_timestamp(kind)]
        return types | dict.fromkeys(times, pa.string())
    rows = [json.loads(line) for line in _nonempty_lines(block)]
    kinds: dict[str, set[str]] = {}
    for row in rows:
        for name, value in row.items():
            kinds.setdefault(name, set()).add(_json_type(value))
    mixed = {name for name, some in kinds.items() if len(some - {"null"}) > 1 or "large" in some}
    nested = {name for name, some in kinds.items() if "nested" in some}  # may have mixed types inside
    for as_json in (mixed, mixed | nested):
        table = _parse_block(_without_keys(rows, as_json), None)
        if table is not None:
            rest = {field.name: field.type for field in table.schema}
            return {name: rest.get(name, pa.json_()) for name in kinds}
    raise _unreadable(path, first)


def _nonempty_lines(block: bytes) -> list[bytes]:
    return [line for line in block.split(b"\n") if line.strip()]


def _without_keys(rows: Iterable[dict[str, Any]], names: set[str]) -> bytes:
    rest = ({name: value for name, value in row.items() if name not in names} for row in rows)
    return "\n".join(map(json.dumps, rest)).encode()


def _json_type(value: Any) -> str:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return "large" if abs(value) > sys.float_info.max else "number"
    return "nested" if isinstance(value, list | dict) else _TYPE_NAMES[type(value)]


def _unify_types(known: dict[str, Any], more: dict[str, Any]) -> dict[str, Any]:
    """The common type of each key in two parts of a file."""
    kinds = dict(known)
    for name, kind in more.items():
        pair = [pa.schema([("", some)]) for some in (kinds.get(name, kind), kind)]
        try:
            kinds[name] = pa.unify_schemas(pair, promote_options="permissive")[0].type
        except (pa.ArrowInvalid, pa.ArrowTypeError):
            kinds[name] = pa.json_()
    return kinds


def _with_long_numbers(block: bytes) -> set[str]:
    """The keys of integers that float64 may not hold exactly."""
    if _LONG.search(block) is None:
        return set()
    return {
        name
        for line in block.split(b"\n")
        if _LONG.search(line)
        for name, value in _RAW_NUMBERS.decode(line.decode()).items()
        if isinstance(value, _RawNumber) and _LONG.fullmatch(value.lstrip("-").encode())
    }


class _RawNumber(str):
    """A number as it is written."""


_RAW_NUMBERS = json.JSONDecoder(parse_int=_RawNumber, parse_float=_RawNumber)


def _typed_block(path: Path, first: int, block: bytes, schema: Any) -> Any:
    as_json = [field.name for field in schema if is_json(field.type)]
    rest = pa.schema([field for field in schema if field.name not in as_json])
    table = _parse_block(block, rest)
    if table is None and as_json:  # a number in them is too large for Arrow, even to skip it
        rows = map(json.loads, _nonempty_lines(block))
        table = _parse_block(_without_keys(rows, set(as_json)), rest)
    if table is None:
        raise _unreadable(path, first)
    if not block.strip():
        return schema.empty_table()
    if not as_json:
        return table.select(schema.names)
    cells: dict[str, list[str | None]] = {name: [] for name in as_json}
    for line in _nonempty_lines(block):
        row = _RAW_NUMBERS.decode(line.decode())
        for name, some in cells.items():
            some.append(_as_written(row.get(name), line, name))
    written = {name: json_column(some) for name, some in cells.items()}
    columns = [written[name] if name in written else table.column(name) for name in schema.names]
    return pa.table(columns, schema=schema)


def _as_written(value: Any, line: bytes, name: str) -> str | None:
    """A value of a line as JSON; a number keeps its digits."""
    if value is None or isinstance(value, _RawNumber):
        return value
    if isinstance(value, list | dict):
        value = json.loads(line)[name]
    return json.dumps(value, ensure_ascii=False)


_TYPE_NAMES = {
    bool: "true or false",
    int: "a number",
    float: "a number",
    str: "text",
    list: "a list",
    dict: "an object",
    type(None): "null",
}


def _unreadable(path: Path, first: int) -> DataError:
    return DataError(f"{path}: the lines from {first} (counted from 0) on cannot be read as a table.")
