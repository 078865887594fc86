"""The random number generators: seeded together, saved with a run and restored when it resumes."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

_APART = 1_000_003
"""Between the seeds of two processes; runs with seeds next to each other share none."""


def seed_all(seed: int) -> None:
    """Seeds torch's generators, and Python's and NumPy's, which user code may use."""
    torch.manual_seed(seed)
    random.seed(seed)
    np.random.seed(seed % 2**32)


def seed_rank(seed: int, rank: int) -> None:
    """Seeds the generators of one of several processes, so that each draws other numbers."""
    if rank:
        seed_all((seed + _APART * rank) % 2**63)


def torch_states() -> dict[str, Tensor]:
    """The states of torch's generators by device; CUDA's only if this process uses CUDA: otherwise
    reading it would initialise CUDA, which takes a few hundred MB."""
    states = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        states["cuda"] = torch.cuda.get_rng_state()
    return states


def python_states() -> dict[str, Any]:
    """The states of Python's and NumPy's generators as JSON values."""
    kind, numbers, *rest = np.random.get_state()
    assert isinstance(numbers, np.ndarray)
    return {"python": random.getstate(), "numpy": (kind, numbers.tolist(), *rest)}


def restore_torch(tensors: Mapping[str, Tensor]) -> None:
    """Restores the states of `torch_states`."""
    torch.set_rng_state(tensors["cpu"].cpu())
    if "cuda" in tensors and torch.cuda.is_available():
        torch.cuda.set_rng_state(tensors["cuda"].cpu())


def restore(tensors: Mapping[str, Tensor], facts: dict[str, Any]) -> None:
    """Restores the states of `torch_states` and `python_states`."""
    restore_torch(tensors)
    random.setstate(facts["python"])
    if facts["numpy"] is not None:
        np.random.set_state(facts["numpy"])
