"""Texts that are safe to print: names come from data and files, and terminals obey control characters.

They set colours, titles, links, even the clipboard. So they are printed as Python escapes them. Files
that programs read keep values as they are.
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
_OBEYED = _escapes(
    {
        *range(0x20),
        *range(0x7F, 0xA0),
        *(0x2028, 0x2029),  # end a line, as \n does
        *range(0x202A, 0x202F),  # turn the direction of what follows,
        *range(0x2066, 0x206A),
        *range(0xD800, 0xE000),  # bytes of a file's name that are no text
    }
    - _LAYOUT
)
_OF_A_LINE = _OBEYED | _escapes(_LAYOUT)


def escape(text: str) -> str:
    r"""A text with its control characters shown, such as `\x1b`; its lines and tabs stay."""
    return text.translate(_OBEYED)


def escape_line(text: str) -> str:
    r"""The same for what has to stay on one line, such as a name: `\n` is escaped too."""
    return text.translate(_OF_A_LINE)


def escape_message(text: str) -> str:
    """The same of a message, with its further lines indented: no name in it can pass for another one."""
    first, *rest = escape(text).split("\n")
    indented = (line if line.startswith(" ") or not line else f"  {line}" for line in rest)
    return "\n".join([first, *indented])


def escape_library_output() -> None:
    """Escapes what libraries print as well: log records, warnings and uncaught tracebacks."""
    import logging  # takes longer than a page of help, which needs none

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
    import traceback  # --help has to be quick

    sys.stderr.write(escape("".join(traceback.format_exception(kind, error, trace))))
