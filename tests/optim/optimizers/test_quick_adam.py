"""Adam's update by one call: the same bits as torch's, whatever happens between two updates."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from bigmodel.optim.optimizers.quick_adam import quick

KINDS = {
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
}


def pair(name: str, **options: Any) -> tuple[list[nn.Parameter], Any, list[nn.Parameter], Any]:
    kind = KINDS[name]
    ours = [nn.Parameter(torch.randn(3, 4)), nn.Parameter(torch.randn(5))]
    theirs = deepcopy(ours)
    groups = [[{"params": [p]} for p in weights] for weights in (ours, theirs)]
    options = {"lr": 0.01, "fused": True, "weight_decay": 0.1, **options}
    return ours, quick(kind)(groups[0], **options), theirs, kind(groups[1], **options)


def update(weights: list[nn.Parameter], optimizer: Any, gradients: list[Tensor | None]) -> None:
    for weight, gradient in zip(weights, gradients, strict=True):
        weight.grad = None if gradient is None else gradient.clone()
    optimizer.step()


@pytest.mark.parametrize("amsgrad", [False, True])
@pytest.mark.parametrize("name", KINDS)
def test_bits_are_torchs(name: str, amsgrad: bool) -> None:
    ours, quick_one, theirs, torchs = pair(name, amsgrad=amsgrad)
    for turn in range(12):
        gradients: list[Tensor | None] = [torch.randn(3, 4), torch.randn(5)]
        if turn == 4:
            gradients[1] = None
        if turn == 6:
            for optimizer in (quick_one, torchs):
                optimizer.load_state_dict(deepcopy(optimizer.state_dict()))
        if turn == 8:
            for optimizer in (quick_one, torchs):
                optimizer.param_groups[0]["lr"] = 0.003
        for weights, optimizer in ((ours, quick_one), (theirs, torchs)):
            update(weights, optimizer, gradients)
        assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True)), turn
        for a, b in zip(quick_one.state.values(), torchs.state.values(), strict=True):
            assert all(torch.equal(a[key], b[key]) for key in b)
    assert len(quick_one._gathered) == 2  # the quick way was taken


def test_what_is_not_as_usual_is_left_to_torch() -> None:
    ours, quick_one, _, _ = pair("adam", fused=False)
    for _ in range(3):
        update(ours, quick_one, [torch.randn(3, 4), torch.randn(5)])
    assert not quick_one._gathered
    assert type(quick_one).__name__ == "Adam"  # as checkpoints call it
