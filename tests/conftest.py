"""Every test computes on one thread and from a known seed: small tensors are fastest so, and repeatable."""

import pytest
import torch

torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)
