"""Every test computes on one thread, which is fastest for small tensors, and from a known seed; what is
compiled is kept in a folder of the test session, never in the user's own."""

import os
import tempfile

import pytest
import torch

torch.set_num_threads(1)
# Here, not in a fixture, since processes that are forked from a server take what stands there when it
# starts. The workers of pytest-xdist share the folder of the process that has started them.
if "PYTEST_XDIST_WORKER" not in os.environ:
    _cache = tempfile.TemporaryDirectory(prefix="bigmodel-cache-")
    os.environ["BIGMODEL_CACHE"] = _cache.name


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)
