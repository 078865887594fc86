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
"""The environment variable that asks for tracebacks, as Hydra has it."""


def stop_status(error: BaseException, signals: Signals) -> int | None:
    """The exit status if the process was asked to stop; None for an error."""
    return None if isinstance(error, BigModelError) else signals.status(error)


def error_text(message: str | None) -> str | None:
    """What to print about the current exception; None: the interpreter is to show its traceback.

    Args:
        message: for the user; None for a fault of ours.
    """
    if message is not None and os.environ.get(FULL_ERROR, "0") in {"0", ""}:
        return message
    import traceback  # slow to import, and hardly ever needed

    text = traceback.format_exc()
    return text if holds_secret(text) else None  # the interpreter would not mask it


def report(message: str, program: str = "bigmodel-train") -> None:
    """Prints a message of the program itself to standard error."""
    print(escape_message(f"{program}: {masked(message)}"), file=sys.stderr)  # noqa: T201


def note(text: str) -> None:
    """Prints what a user should know beside the result, on standard error: results may be piped."""
    progress_messages.note_output()
    print(escape_message(masked(text)), file=sys.stderr, flush=True)  # noqa: T201
