"""What the command lines print on standard error: error messages and notes, without secrets."""

from __future__ import annotations

import os
import sys

from bigmodel.errors import BigModelError
from bigmodel.redaction import holds_secret, masked
from bigmodel.runtime import progress_messages
from bigmodel.runtime.escaping import escape_message
from bigmodel.runtime.signals import Signals

FULL_ERROR = "HYDRA_FULL_ERROR"
"""Hydra's environment variable that asks for tracebacks."""


def stop_status(error: BaseException, signals: Signals) -> int | None:
    """The exit status if the process was asked to stop; None for an error."""
    return None if isinstance(error, BigModelError) else signals.status(error)


def error_text(message: str | None) -> str | None:
    """The text to print for the current exception; None if the interpreter should print its traceback.

    Args:
        message: for the user; None for a bug.
    """
    if message is not None and os.environ.get(FULL_ERROR, "0") in {"0", ""}:
        return message
    import traceback  # slow to import and rarely needed

    text = traceback.format_exc()
    return text if holds_secret(text) else None  # the interpreter would not mask it


def report(message: str, program: str = "bigmodel-train") -> None:
    """Prints a message to standard error, with the program's name in front."""
    print(escape_message(f"{program}: {masked(message)}"), file=sys.stderr)  # noqa: T201


def note(text: str) -> None:
    """Prints a remark on standard error: the result on standard output may be piped."""
    progress_messages.note_output()
    print(escape_message(masked(text)), file=sys.stderr, flush=True)  # noqa: T201
