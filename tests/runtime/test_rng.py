"""Generators go on from a stored state as if nothing had come between."""

import json
import random

import numpy as np
import torch

from bigmodel.runtime import rng


def draws() -> tuple[float, float, float]:
    return random.random(), float(np.random.rand()), float(torch.rand(()))


def test_a_seed_decides_every_generator() -> None:
    rng.seed_all(3)
    first = draws()
    assert draws() != first
    rng.seed_all(3)
    assert draws() == first


def test_states_are_restored_through_json() -> None:
    rng.seed_all(0)
    tensors, facts = rng.torch_states(), json.loads(json.dumps(rng.python_states()))
    expected = draws()
    python, *_ = facts["python"]
    facts["python"] = (
        python,
        tuple(facts["python"][1]),
        facts["python"][2],
    )  # as checkpoints keep tuples
    rng.restore(tensors, facts)
    assert draws() == expected
