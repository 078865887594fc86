"""Cells of any type as text and as JSON, to compare them and to write them."""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from bigmodel.data.libraries import pa, pc

TICKS_PER_SECOND = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
"""Of Arrow's units of time."""


def to_castable(column: Any) -> Any:
    """A column that Arrow can cast to text: lists and objects are JSON; bytes and durations are text.

    Values from `to_json_column` become text as written, words without quotation marks.
    """
    kind = column.type
    if is_json(kind):
        cells = _json_strings(column)
        return pa.array((json.loads(c) if c and c[0] == '"' else c for c in cells), pa.string())
    if pa.types.is_nested(kind):
        return pa.array(_written_as_json(column), pa.string())
    if _is_binary(kind) or pa.types.is_duration(kind):
        return pa.array(json_values(column), pa.string())
    if pa.types.is_timestamp(kind):
        return _timestamps(column)
    return column.cast(pa.string()) if pa.types.is_string_view(kind) else column


def json_values(column: Any) -> list[Any]:
    """The cells of a column as JSON values.

    Times are text. So are bytes, in base64 if they are not UTF-8. NaN and infinity are null.
    """
    column = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    kind = column.type
    if is_json(kind):
        strings = _json_strings(column)
        return [None if cell is None else _json_value(json.loads(cell)) for cell in strings]
    if pa.types.is_dictionary(kind):
        return json_values(column.dictionary_decode())
    if pa.types.is_struct(kind):
        return _struct_values(column)
    if pa.types.is_nested(kind):
        return _list_values(column)
    if pa.types.is_duration(kind):
        ticks = column.cast(pa.int64()).to_pylist()
        second = TICKS_PER_SECOND[kind.unit]
        return [None if tick is None else _duration(tick, second) for tick in ticks]
    if pa.types.is_timestamp(kind) and kind.unit == "ns":
        return list(_timestamps(column).to_pylist())
    if pa.types.is_time64(kind) and kind.unit == "ns":  # `to_pylist` fails, or rounds if pandas is there
        return list(column.cast(pa.string()).to_pylist())
    try:
        return [_json_value(cell) for cell in column.to_pylist()]
    except (OverflowError, ValueError):  # out of the range of Python's dates and times
        text = _timestamps(column) if pa.types.is_timestamp(kind) else column.cast(pa.string())
        return list(text.to_pylist())


def is_json(kind: Any) -> bool:
    """Whether a column holds JSON: values of several types, each as it is written."""
    return isinstance(kind, pa.JsonType)


def json_column(cells: Sequence[str | None]) -> Any:
    """A column of such values."""
    return pa.ExtensionArray.from_storage(pa.json_(), pa.array(cells, pa.string()))


def to_json_column(column: Any) -> Any:
    """A column of any type as JSON, which values of other types can be appended to."""
    if is_json(column.type):
        return column
    return pa.chunked_array([json_column(_written_as_json(column))])


def _written_as_json(column: Any) -> list[str | None]:
    values = json_values(column)
    return [None if cell is None else json.dumps(cell, ensure_ascii=False) for cell in values]


def _json_strings(column: Any) -> list[str | None]:
    return list(column.cast(pa.string()).to_pylist())


def _json_value(cell: Any) -> Any:
    if isinstance(cell, float):
        return cell if math.isfinite(cell) else None
    if cell is None or isinstance(cell, str | int | list | dict):
        return cell
    if isinstance(cell, bytes):
        try:
            return cell.decode()
        except UnicodeDecodeError:
            return base64.b64encode(cell).decode()
    return str(cell)


def _is_binary(kind: Any) -> bool:
    of_any_size = pa.types.is_binary(kind) or pa.types.is_large_binary(kind)
    return bool(of_any_size or pa.types.is_fixed_size_binary(kind) or pa.types.is_binary_view(kind))


def _struct_values(column: Any) -> list[Any]:
    names = [column.type.field(place).name for place in range(column.type.num_fields)]
    fields = [json_values(values) for values in column.flatten()]
    rows = zip(*fields, strict=True) if fields else iter([()] * len(column))
    both = zip(rows, column.is_valid().to_pylist(), strict=True)
    return [dict(zip(names, row, strict=True)) if filled else None for row, filled in both]


def _list_values(column: Any) -> list[Any]:
    """Lists; maps become objects."""
    is_map = pa.types.is_map(column.type)
    if is_map:
        entries = pa.struct([("key", column.type.key_type), ("value", column.type.item_type)])
        column = column.cast(pa.list_(entries))
    cells = iter(json_values(column.flatten()))
    lengths = pc.list_value_length(column).to_pylist()
    rows: list[Any] = [None if size is None else [next(cells) for _ in range(size)] for size in lengths]
    return [_by_key(row) if is_map and row is not None else row for row in rows]


def _by_key(entries: list[dict[str, Any]]) -> Any:
    by_key = {str(entry["key"]): entry["value"] for entry in entries}
    return by_key if len(by_key) == len(entries) else entries


def _timestamps(column: Any) -> Any:
    """Dates and times as text, in their own zone, in any year."""
    text = pc.cast(column, pa.string())
    if not pc.any(pc.starts_with(text, "<"), min_count=0).as_py():  # as in "<value out of range: …>"
        return text
    ticks = pc.fill_null(pc.cast(column, pa.int64()), 0).to_numpy(zero_copy_only=False)
    far = np.datetime_as_string(ticks.astype(f"M8[{column.type.unit}]"))
    return pc.if_else(pc.starts_with(text, "<"), pa.array(far, pa.string()), text)


def _duration(ticks: int, per_second: int) -> str:
    """As pandas writes it: `1 days 02:03:04.5`."""
    seconds, rest = divmod(ticks, per_second)
    days, seconds = divmod(seconds, 86_400)
    fraction = f".{rest:0{len(str(per_second)) - 1}d}" if rest else ""
    clock = f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}{fraction}"
    return f"{days} days {'+' if days < 0 else ''}{clock}"
