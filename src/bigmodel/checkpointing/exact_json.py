"""JSON that also keeps what plain JSON loses: integer keys, tuples, NaN and infinity.

Those are written as an object with one key that begins with `!`:

    {1: "a"}        {"!dict": [[1, "a"]]}
    (0.9, 0.999)    {"!tuple": [0.9, 0.999]}
    nan             {"!float": "nan"}
"""

from __future__ import annotations

import json
import math
from typing import Any

from bigmodel.runtime import nested_json


def dumps(value: Any) -> str:
    """The value as text: one line, valid JSON.

    Raises:
        TypeError: it holds something other than None, bool, int, float, str, list, tuple and dict. The
            message says where.
    """
    return json.dumps(_encode(value, "state"), allow_nan=False, separators=(",", ":"))


def loads(text: str) -> Any:
    """The value that `dumps` wrote; plain JSON is read as by `json.loads`.

    Raises:
        ValueError: the text is no JSON, nested too deep, or has an object of a kind that `dumps` never
            writes.
    """
    return nested_json.loads(text, object_hook=_decode)


def _encode(value: Any, path: str) -> Any:
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else {"!float": repr(float(value))}
    if isinstance(value, tuple):
        return {"!tuple": _encode_all(value, path)}
    if isinstance(value, list):
        return _encode_all(value, path)
    if isinstance(value, dict):
        if all(isinstance(key, str) and not key.startswith("!") for key in value):
            return {key: _encode(item, f"{path}.{key}") for key, item in value.items()}
        pairs = [[_encode(k, f"{path} key"), _encode(v, f"{path}.{k}")] for k, v in value.items()]
        return {"!dict": pairs}
    raise TypeError(f"{path}: a {type(value).__name__} cannot be stored as JSON: {value!r}")


def _encode_all(values: list[Any] | tuple[Any, ...], path: str) -> list[Any]:
    return [_encode(item, f"{path}[{index}]") for index, item in enumerate(values)]


def _decode(value: dict[str, Any]) -> Any:
    kind = next(iter(value), "")
    if not kind.startswith("!"):
        return value
    content = value[kind]
    match kind:
        case "!float" if content in {"nan", "inf", "-inf"}:
            return float(content)
        case "!tuple" if isinstance(content, list):
            return tuple(content)
        case "!dict" if isinstance(content, list):
            return dict(content)
    raise ValueError(f"{kind}: unsupported type of value")
