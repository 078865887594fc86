"""Python's collector of cyclic garbage, kept from searching where there is none."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


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
