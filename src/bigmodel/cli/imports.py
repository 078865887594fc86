"""How modules are imported: from where, and without a search for garbage.

They come from where they are installed, never from the folder that a command is called in: what lies
there may be a stranger's data. A plugin there is looked for by `registry.load_plugins`.
"""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def isolate() -> None:
    """Keeps this process, and those that it starts from now on, torch's among them, from looking for
    modules in the current folder, as `python -c` and `python -m` do by themselves."""
    os.environ["PYTHONSAFEPATH"] = "1"
    # An empty entry, as `PYTHONPATH=$PYTHONPATH:/mine` leaves one, is the current folder to Python.
    written = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    meant = [entry for entry in written if entry]
    if len(written) == 1 or "" not in written:
        return
    os.environ["PYTHONPATH"] = os.pathsep.join(meant)
    here = str(Path.cwd())
    if here in sys.path and here not in map(os.path.abspath, meant):
        sys.path.remove(here)


def leave_start_folder() -> None:
    """Takes away the folder that Python has put first because a module or script was named to it.

    What Python itself loads before the first line of that module is beyond our reach.
    """
    if not sys.flags.safe_path:
        del sys.path[0]


@contextmanager
def importing() -> Iterator[None]:
    """No collection while modules are imported, nor ever again among what they have made.

    Torch makes half a million objects that stay until the process ends. Searching them took a tenth of a
    start, and again as long at the end, when the interpreter looks at everything once more.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if was_enabled:
            gc.enable()
