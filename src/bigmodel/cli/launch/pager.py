"""Long pages on a terminal go through the user's pager; in a pipe they are printed as they are."""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import signal
import sys


def show(text: str) -> None:
    """Prints a text; one longer than the terminal through `$PAGER`, or `less` where that is not set.

    `less` ends by itself where all fits, keeps bold type, and leaves the text on the screen (`-FRX`, as
    git has it), unless `$LESS` says otherwise.
    """
    try:
        pager = shlex.split(os.environ.get("PAGER", "less"))
    except ValueError:  # a quotation mark that nothing closes
        pager = []
    fits = text.count("\n") + 2 <= shutil.get_terminal_size().lines
    plain = not sys.stdout.isatty() or os.environ.get("TERM") in ("dumb", "unknown")
    if plain or fits or not pager or pager == ["cat"] or not _paged(text, pager):
        print(text)  # noqa: T201


def _paged(text: str, pager: list[str]) -> bool:
    """Shows the text in a pager; False if that cannot be started."""
    import subprocess  # not needed for what fits

    try:
        options = {"LESS": "FRX", **os.environ}
        process = subprocess.Popen(pager, stdin=subprocess.PIPE, env=options, encoding="utf-8")
    except OSError:
        return False
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the pager's
    try:
        with contextlib.suppress(BrokenPipeError):  # it was left before the end
            process.communicate(text)
    finally:
        signal.signal(signal.SIGINT, before)
    return True
