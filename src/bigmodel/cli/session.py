"""What `main` and the jobs of one command line share: Hydra hands neither arguments nor results on."""

from __future__ import annotations

import os
import sys

from bigmodel.errors import BigModelError
from bigmodel.redaction import holds_secret, masked
from bigmodel.runtime import activity
from bigmodel.runtime.escaping import escape_message
from bigmodel.runtime.signals import Signals

FULL_ERROR = "HYDRA_FULL_ERROR"
"""The environment variable that asks for tracebacks, as Hydra has it."""

TYPE_CHECKING = False  # importing `typing` and `pathlib` would slow down --help
if TYPE_CHECKING:
    from pathlib import Path

    from bigmodel.sweeps.manifest import Manifest


class Session:
    """One command line.

    Attributes:
        signals: requests to stop or to save.
        resumed: the folder of the run to resume; None for a new run.
        may_change: whether it may resume with other settings or data.
        started: whether a job has started, so that more was wanted than printing a configuration.
        folder: of the last run whose training has started.
        error: what ended the only job.
        words: what was typed, without secrets.
        sweep: the sweep's record; None for a single run.
        resumed_sweep: the record of the sweep to go on with; None for a new one.
    """

    def __init__(self) -> None:
        self.signals = Signals()
        self.resumed: Path | None = None
        self.may_change = False
        self.started = False
        self.folder: Path | None = None
        self.error: Exception | None = None
        self.words: list[str] = []
        self.sweep: Manifest | None = None
        self.resumed_sweep: Manifest | None = None


current = Session()


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
    activity.note_output()
    print(escape_message(masked(text)), file=sys.stderr, flush=True)  # noqa: T201
