"""Where modules are imported from, and imports without garbage collection.

Modules are imported from where they are installed, never from the current folder, which may hold a
stranger's data. `registry.load_plugins` looks for plugins there.
"""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def isolate() -> None:
    """Keeps this process and its future child processes, including torch's, from importing modules from
    the current folder, as `python -c` and `python -m` do by default."""
    os.environ["PYTHONSAFEPATH"] = "1"
    # Python takes an empty entry, as in `PYTHONPATH=$PYTHONPATH:/mine`, for the current folder.
    entries = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    kept = [entry for entry in entries if entry]
    if len(entries) == 1 or "" not in entries:
        return
    os.environ["PYTHONPATH"] = os.pathsep.join(kept)
    here = str(Path.cwd())
    if here in sys.path and here not in map(os.path.abspath, kept):
        sys.path.remove(here)


def leave_start_folder() -> None:
    """Removes the folder that Python puts first when it is called with a module or script.

    Modules that Python loads before the first line of that module cannot be controlled.
    """
    if not sys.flags.safe_path:
        del sys.path[0]


@contextmanager
def importing() -> Iterator[None]:
    """Disables garbage collection during imports, and excludes the imported objects from it afterwards.

    Torch creates half a million objects that live until the process ends. Searching them took a tenth of
    the start-up time, and as long again at exit.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if was_enabled:
            gc.enable()
