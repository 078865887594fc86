"""JSON lines, one object a line, as batches of rows."""

from __future__ import annotations

import io
import json
import re
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from bigmodel import nested_json
from bigmodel.data.plain_files import (
    check_not_wide,
    check_utf8,
    in_utf8,
    is_packed,
    name_without_gz,
)
from bigmodel.errors import DataError

_BLOCK = 8 << 20  # bytes parsed at once
_LONG_DIGITS = 16  # from which on not every whole number is a float64
_LONG = re.compile(rb"(?<![\d.])\d{%d,}(?![\d.eE])" % _LONG_DIGITS)


def batches_of_lines(
    path: Path, refuse: Callable[[str], None], encoding: str = "utf-8"
) -> Iterator[Any]:
    """The objects of a JSON lines file as Arrow batches, with a column for each key.

    The file is read twice: a column is of the kind that all of its values together are of, whole
    numbers and broken ones alike, and what looks like a date in some of them stays text. Numbers of a
    column become text as they stand there where float64 would take some whole ones for others.

    Args:
        path: the file, gzip or not.
        refuse: told of each line that is no JSON object; what it raises ends the reading.
        encoding: see `in_utf8`.

    Raises:
        DataError: it is not of the encoding, or a key holds text in one line and a number in another.
    """
    import pyarrow as pa

    kinds: dict[str, Any] = {}
    long: set[str] = set()
    for first, block in _blocks(path, refuse, encoding):
        kinds = _types(path, first, block, kinds)
        long |= _with_long_numbers(block)
    exact = {name for name in long if pa.types.is_floating(kinds[name])}
    kinds |= dict.fromkeys(exact, pa.string())
    schema = pa.schema(list(kinds.items()))
    if not kinds:
        raise DataError(f"{path}: no line holds an object with a key.")
    yield pa.RecordBatch.from_pylist([], schema=schema)
    for first, block in _blocks(path, lambda _: None, encoding):
        yield from _parsed(path, first, block, schema, exact).to_batches()


def _blocks(path: Path, refuse: Callable[[str], None], encoding: str) -> Iterator[tuple[int, bytes]]:
    """Whole lines of a file, many at once, with the number of the first, counted from 0."""
    with in_utf8(path, encoding) as file:
        line, rest = 0, b""
        while piece := file.read(_BLOCK):
            if line == 0 and not rest:
                _check_start(path, piece)
            whole, newline, rest = (rest + piece).rpartition(b"\n")
            if newline:
                yield line, _objects(path, line, whole + newline, refuse)
                line += whole.count(b"\n") + 1
        if rest.strip():
            yield line, _objects(path, line, rest + b"\n", refuse)


def _check_start(path: Path, head: bytes) -> None:
    check_not_wide(path, head[:4096])
    if head.lstrip().startswith(b"["):
        lines = path.with_name(Path(name_without_gz(path)).stem + "-lines.jsonl")
        plain, bare = shlex.quote(str(lines)), shlex.quote(str(path))
        convert = f"gunzip -c {bare} | jq -c '.[]'" if is_packed(path) else f"jq -c '.[]' {bare}"
        raise DataError(
            f"{path}: it holds one JSON list, but an object on each line is needed. Convert it:"
            f" {convert} > {plain}"
        )


def _objects(path: Path, first: int, block: bytes, refuse: Callable[[str], None]) -> bytes:
    """The lines of a block that are JSON objects; the others are refused."""
    try:
        block.decode()  # Arrow takes any bytes for text here
    except UnicodeDecodeError:
        check_utf8(path)
    lines = block.split(b"\n")
    deep = any(nested_json.deep_line(line) is not None for line in lines)  # on which Arrow would crash
    if not deep and _arrow(block, None) is not None:
        return block
    for place, line in enumerate(lines):
        fault = _fault(line) if line.strip() else None
        if fault is not None:
            refuse(f"line {first + place} (counted from 0) {fault}")
            lines[place] = b""  # the lines below keep their numbers
    return b"\n".join(lines)


def _fault(line: bytes) -> str | None:
    """What is wrong with a line; None where it is an object."""
    if nested_json.deep_line(line) is not None:
        return (
            f"is nested more than {nested_json.MOST} levels deep: {line[:60].decode()!r}. A table has a"
            " value for each key: make it flat."
        )
    try:
        value = nested_json.loads(line.decode())
    except ValueError as error:
        return f"is not JSON: {error}: {line[:60].decode(errors='replace')!r}."
    return None if isinstance(value, dict) else f"is not an object but {_KINDS[type(value)]}."


def _arrow(block: bytes, schema: Any) -> Any:
    """A block as an Arrow table; None where Arrow cannot read it."""
    import pyarrow as pa
    import pyarrow.json as pa_json

    if not block.strip():
        return pa.table({})
    try:
        return pa_json.read_json(
            io.BytesIO(block),
            read_options=pa_json.ReadOptions(use_threads=False, block_size=len(block) + 1),
            parse_options=pa_json.ParseOptions(
                explicit_schema=schema,
                unexpected_field_behavior="infer" if schema is None else "ignore",
            ),
        )
    except pa.ArrowInvalid:
        return None


def _types(path: Path, first: int, block: bytes, known: dict[str, Any]) -> dict[str, Any]:
    """The type of each key, as far as this block and those before it tell."""
    import pyarrow as pa

    found = _arrow(block, None)
    if found is None:
        raise _mixed(path, first, block, known)
    kinds = dict(known)
    for field in found.schema:
        kind = pa.string() if pa.types.is_timestamp(field.type) else field.type
        before = kinds.get(field.name, kind)
        try:
            kinds[field.name] = pa.unify_schemas(
                [pa.schema([("", before)]), pa.schema([("", kind)])], promote_options="permissive"
            )[0].type
        except (pa.ArrowInvalid, pa.ArrowTypeError):
            raise _mixed(path, first, block, known) from None
    return kinds


def _with_long_numbers(block: bytes) -> set[str]:
    """The keys that hold a whole number which may be no float64."""
    if _LONG.search(block) is None:
        return set()
    return {
        name
        for line in block.split(b"\n")
        if _LONG.search(line)
        for name, value in json.loads(line, parse_int=_Whole).items()
        if isinstance(value, _Whole) and len(value.lstrip("-")) >= _LONG_DIGITS
    }


class _Whole(str):
    """The digits of a whole number."""


def _parsed(path: Path, first: int, block: bytes, schema: Any, exact: set[str]) -> Any:
    import pyarrow as pa

    rough = pa.schema([field for field in schema if field.name not in exact])
    found = _arrow(block, rough)
    if found is None:
        raise _mixed(path, first, block, {field.name: field.type for field in schema})
    if not exact:
        return found.select(schema.names) if found.num_rows else schema.empty_table()
    rows = [_as_it_stands(line) for line in block.split(b"\n") if line.strip()]
    columns = [
        pa.array([row.get(name) for row in rows], pa.string()) if name in exact else found.column(name)
        for name in schema.names
    ]
    return pa.table(columns, schema=schema) if rows else schema.empty_table()


def _as_it_stands(line: bytes) -> dict[str, Any]:
    """The object of a line, its numbers as text."""
    row: dict[str, Any] = json.loads(line, parse_int=str, parse_float=str)
    return row


_KINDS = {
    bool: "true or false",
    int: "a number",
    float: "a number",
    str: "text",
    list: "a list",
    dict: "an object",
    type(None): "null",
}


def _mixed(path: Path, first: int, block: bytes, known: dict[str, Any]) -> DataError:
    """Which key is of several kinds, and where the second one stands."""
    kinds = {name: _kind_of(found) for name, found in known.items()}
    for number, line in enumerate(block.split(b"\n"), start=first):
        if not line.strip():
            continue
        for name, value in nested_json.loads(line.decode()).items():
            kind = _KINDS[type(value)]
            before = kinds.setdefault(name, kind)
            if before == "null":
                kinds[name] = kind
            elif kind not in ("null", before):
                return DataError(
                    f"{path}: in line {number} (counted from 0), '{name}' is {kind} ({value!r:.60}), but"
                    f" {before} in those above. Make it one kind; what is missing is null."
                )
    return DataError(f"{path}: the lines from {first} (counted from 0) on cannot be read as a table.")


def _kind_of(kind: Any) -> str:
    import pyarrow as pa

    for matches, word in (
        (pa.types.is_null, "null"),
        (pa.types.is_boolean, "true or false"),
        (pa.types.is_string, "text"),
        (pa.types.is_list, "a list"),
        (pa.types.is_struct, "an object"),
    ):
        if matches(kind):
            return word
    return "a number"
