"""`trainer.recompute`: less memory for more time (Chen et al. 2016, arXiv:1604.06174)."""

from __future__ import annotations

import functools
from collections.abc import Callable
from itertools import chain
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from bigmodel.model_parts import repeated_blocks


def recompute_blocks(model: nn.Module) -> bool:
    """Has each block of a model's stacks keep nothing but its inputs for the backward pass, which then
    computes the block again: with the same random numbers, and so to the same bits.

    Returns:
        Whether the model has such blocks.
    """
    blocks = repeated_blocks(model)
    for block in blocks:
        block.forward = _recomputed(block, block.forward)
    return bool(blocks)


def _recomputed(block: nn.Module, forward: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(forward)
    def call(*args: Any, **named: Any) -> Any:
        # A frozen block below all that is trained keeps nothing anyway, and torch's compiler refuses to
        # compute one with dropout again.
        used = chain(args, named.values(), block.parameters())
        if not torch.is_grad_enabled() or not any(getattr(one, "requires_grad", False) for one in used):
            return forward(*args, **named)
        return checkpoint(forward, *args, use_reentrant=False, **named)

    return call
