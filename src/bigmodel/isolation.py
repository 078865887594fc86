"""Modules come from where they are installed, never from the folder that a command is called in.

What lies there may be a stranger's data. A plugin there is looked for by `registry.load_plugins`.
"""

from __future__ import annotations

import os
import sys


def isolate() -> None:
    """Keeps the processes that are started from now on, torch's among them, from looking for modules in
    the current folder, as `python -c` and `python -m` do by themselves."""
    os.environ["PYTHONSAFEPATH"] = "1"


def leave_start_folder() -> None:
    """Takes away the folder that Python has put first because a module or script was named to it.

    What Python itself loads before the first line of that module is beyond our reach.
    """
    if not sys.flags.safe_path:
        del sys.path[0]
