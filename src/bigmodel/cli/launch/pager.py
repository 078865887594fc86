"""Shows long pages on a terminal in the user's pager; in a pipe they are simply printed."""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import signal
import sys


def show(text: str) -> None:
    """Prints a text; if it is longer than the terminal, in `$PAGER`, by default `less`.

    `less` exits if the text fits, keeps bold type, and leaves the text on the screen (`-FRX`, as for
    git), unless `$LESS` is set.
    """
    try:
        pager = shlex.split(os.environ.get("PAGER", "less"))
    except ValueError:  # an unclosed quotation mark
        pager = []
    fits = text.count("\n") + 2 <= shutil.get_terminal_size().lines
    plain = not sys.stdout.isatty() or os.environ.get("TERM") in ("dumb", "unknown")
    if plain or fits or not pager or pager == ["cat"] or not _paged(text, pager):
        print(text)  # noqa: T201


def _paged(text: str, pager: list[str]) -> bool:
    """Shows the text in a pager; False if that cannot be started."""
    import subprocess  # only needed for long texts

    try:
        options = {"LESS": "FRX", **os.environ}
        process = subprocess.Popen(pager, stdin=subprocess.PIPE, env=options, encoding="utf-8")
    except OSError:
        return False
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the pager
    try:
        with contextlib.suppress(BrokenPipeError):  # the user left before the end
            process.communicate(text)
    finally:
        signal.signal(signal.SIGINT, before)
    return True
