"""JSON from untrusted files: its depth is checked first, since deep nesting may crash the parser."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

MOST = 100
"""The most levels of nested lists and objects."""


def loads(text: str, object_hook: Callable[[dict[str, Any]], Any] | None = None) -> Any:
    """As `json.loads`.

    Raises:
        ValueError: the text is no valid JSON, or nested deeper than `MOST`; the message names the line.
    """
    line = deep_line(text.encode(errors="surrogatepass"))
    if line is not None:
        raise ValueError(f"line {line + 1:,} is nested more than {MOST} levels deep, which is not read")
    return json.loads(text, object_hook=object_hook)


def deep_line(text: bytes) -> int | None:
    """The first line, counted from 0, in which lists and objects are nested deeper than `MOST`.

    Text after a syntax error may be counted wrongly, but the parser does not get there.
    """
    if text.count(b"[") + text.count(b"{") <= MOST:
        return None
    import numpy as np

    kinds = np.zeros(256, np.int8)
    kinds[[*b"[{"]], kinds[[*b"]}"]], kinds[ord('"')] = 1, -1, 2
    plain = text.replace(b"\\\\", b"  ").replace(b'\\"', b"  ")  # each quotation mark is one of a string
    marks = kinds[np.frombuffer(plain, np.uint8)]
    places = np.flatnonzero(marks)
    marks = marks[places]
    quotes = marks == 2
    marks[quotes | (np.cumsum(quotes) % 2 == 1)] = 0
    deep = np.cumsum(marks, dtype=np.int64) > MOST
    return text.count(b"\n", 0, int(places[deep.argmax()])) if deep.any() else None
