"""Whether an optimizer can update a part of a weight without the rest."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from bigmodel.optim.optimizers.base import training_weights

_STEPS, _WIDTH = 3, 6


def is_elementwise(build: Callable[[nn.Module], torch.optim.Optimizer]) -> bool:
    """Whether an optimizer changes each number by its own gradients alone: Adam does, Muon does not.

    It is tried out: half the rows of three small matrices have to become the same with and without the
    other half. What it keeps of a matrix has to have its shape, or to be a number without dimensions, so
    that a part of it can be saved.

    Args:
        build: makes the optimizer for a model.
    """
    (whole, optimizer), (half, _) = _trained(build, _WIDTH), _trained(build, _WIDTH // 2)
    same = all(
        torch.allclose(all_rows[: len(rows)], rows, rtol=1e-5, atol=1e-7)
        for all_rows, rows in zip(whole.parameters(), half.parameters(), strict=True)
    )
    return same and all(
        value.shape in (matrix.shape, ())
        for matrix, slots in optimizer.state.items()
        for value in slots.values()
        if isinstance(value, Tensor)
    )


def _trained(
    build: Callable[[nn.Module], torch.optim.Optimizer], rows: int
) -> tuple[nn.Module, torch.optim.Optimizer]:
    """Three matrices, of which the second is a hidden one, after a few updates of their first rows; and
    what has updated them."""
    generator = torch.Generator().manual_seed(0)
    with torch.random.fork_rng(devices=[]):
        model = nn.Sequential(*(nn.Linear(_WIDTH, rows, bias=False) for _ in range(3)))
    values = [torch.randn(_STEPS + 1, _WIDTH, _WIDTH, generator=generator)[:, :rows] for _ in model]
    with torch.no_grad():
        for parameter, value in zip(model.parameters(), values, strict=True):
            parameter.copy_(value[0])
    optimizer = build(model)
    training_weights(optimizer)
    for step in range(1, _STEPS + 1):
        for parameter, value in zip(model.parameters(), values, strict=True):
            parameter.grad = value[step].contiguous()
        optimizer.step()
    return model, optimizer
