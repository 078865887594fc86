"""Makes texts safe to print: names come from data and files, and terminals obey control characters.

These set colours, titles, links, even the clipboard. So they are printed in Python's escaped form. Files
for programs keep values unchanged.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterable
from types import TracebackType
from typing import Any


def _escapes(numbers: Iterable[int]) -> dict[int, str]:
    return {number: ascii(chr(number))[1:-1] for number in numbers}


_LAYOUT = {ord("\n"), ord("\t")}
_CONTROL = _escapes(
    {
        *range(0x20),
        *range(0x7F, 0xA0),
        *(0x2028, 0x2029),  # line ends, like \n
        *range(0x202A, 0x202F),  # changes of the text's direction,
        *range(0x2066, 0x206A),
        *range(0xD800, 0xE000),  # bytes of file names that are not valid text
    }
    - _LAYOUT
)
_CONTROL_AND_LAYOUT = _CONTROL | _escapes(_LAYOUT)


def escape(text: str) -> str:
    r"""Escapes control characters, such as `\x1b`, but not line ends and tabs."""
    return text.translate(_CONTROL)


def escape_line(text: str) -> str:
    r"""The same for text that must stay on one line, such as a name: `\n` is escaped too."""
    return text.translate(_CONTROL_AND_LAYOUT)


def escape_message(text: str) -> str:
    """The same for a message; further lines are indented, so that none looks like another message."""
    first, *rest = escape(text).split("\n")
    indented = (line if line.startswith(" ") or not line else f"  {line}" for line in rest)
    return "\n".join([first, *indented])


def escape_library_output() -> None:
    """Also escapes output of libraries: log records, warnings and uncaught tracebacks."""
    import logging  # slow to import, and help does not need it

    class Record(logging.LogRecord):
        def getMessage(self) -> str:  # noqa: N802  (logging's name)
            return escape(super().getMessage())

    logging.setLogRecordFactory(Record)
    warnings.formatwarning = _formatted
    sys.excepthook = _uncaught


_FORMAT = warnings.formatwarning


def _formatted(*args: Any, **more: Any) -> str:
    return escape(_FORMAT(*args, **more))


def _uncaught(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    import traceback  # --help must be fast

    sys.stderr.write(escape("".join(traceback.format_exception(kind, error, trace))))
