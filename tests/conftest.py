"""Settings of every test: one thread, a known seed, and a cache folder that is not the user's own."""

import gc
import os
import shutil
import signal
import tempfile
from pathlib import Path

import pytest
import torch

torch.set_num_threads(1)  # the fastest for small tensors

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # a shell starts a command so in the background
    signal.signal(signal.SIGINT, signal.default_int_handler)

_SHARED_MEMORY = Path("/dev/shm")


def _fits_in_memory(folder: Path) -> bool:
    """Whether there is room, and what is compiled there may be run: containers often forbid it."""
    if not (folder.is_dir() and os.access(folder, os.W_OK)):
        return False
    executable = not os.statvfs(folder).f_flag & os.ST_NOEXEC
    return executable and shutil.disk_usage(folder).free > 3 << 30


# These are set here and not in a fixture because the workers of pytest-xdist, and processes forked from
# a server, take the environment as it is when they start.
if "PYTEST_XDIST_WORKER" not in os.environ:
    # Runs wait for the disk after each file of a checkpoint, which would be a third of the suite's time.
    _root = str(_SHARED_MEMORY) if _fits_in_memory(_SHARED_MEMORY) else None
    if _root is not None:
        os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", _root)
    _cache = tempfile.TemporaryDirectory(prefix="bigmodel-cache-", dir=_root)
    os.environ["BIGMODEL_CACHE"] = os.environ["XDG_CACHE_HOME"] = _cache.name  # never the user's own


def pytest_collection_finish() -> None:
    """Leaves thousands of tests and modules out of each garbage collection to come."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)
