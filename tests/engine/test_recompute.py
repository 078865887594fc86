"""Blocks that are computed again in the backward pass: the same bits, from less memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from bigmodel.engine.recompute import recompute_blocks
from bigmodel.errors import ConfigError
from bigmodel.training.loop import fit
from tests.small_runs import built

TRANSFORMER: dict[str, Any] = {
    "model": {"name": "transformer", "dim": 8, "depth": 3, "num_heads": 2, "dropout": 0.2},
    "data.input": "sequence",
    "data.shape": [6, 4],
    "device.engine": "eager",
}


def stack(depth: int) -> nn.Module:
    torch.manual_seed(0)
    blocks = [nn.Sequential(nn.Linear(64, 256), nn.Tanh(), nn.Linear(256, 64)) for _ in range(depth)]
    return nn.Sequential(nn.ModuleList(blocks), nn.Linear(64, 3))


def kept(model: nn.Module, inputs: Tensor) -> int:
    """Bytes that the forward pass keeps for the backward pass, but weights."""
    weights = {parameter.data_ptr() for parameter in model.parameters()}
    storages: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        if tensor.data_ptr() not in weights:
            storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        outputs = inputs
        for block in model[0]:
            outputs = block(outputs)
        model[1](outputs).sum().backward()
    return sum(storages.values())


def test_a_block_keeps_its_inputs_alone() -> None:
    inputs = torch.randn(32, 64)
    before, model = kept(stack(8), inputs), stack(8)
    assert recompute_blocks(model)
    assert kept(model, inputs) < before / 4


def test_frozen_blocks_below_all_that_is_trained_can_be_compiled() -> None:
    """Also with dropout, which torch's compiler refuses to compute again where nothing has gradients."""
    model = nn.Sequential(
        nn.ModuleList(nn.Sequential(nn.Linear(8, 8), nn.Dropout(0.5)) for _ in range(2)),
        nn.Linear(8, 2),
    )
    recompute_blocks(model)
    model[0].requires_grad_(False)
    block: nn.Module = model[0][0]
    block.compile(backend="aot_eager")
    model[1](model[0][1](block(torch.randn(3, 8)))).sum().backward()
    assert {n for n, p in model.named_parameters() if p.grad is not None} == {"1.weight", "1.bias"}


def test_gradients_are_the_same_bits() -> None:
    inputs, gradients = torch.randn(32, 64), []
    for recomputes in (False, True):
        model = stack(4)
        if recomputes:
            recompute_blocks(model)
        kept(model, inputs)
        gradients.append([parameter.grad for parameter in model.parameters()])
    assert all(torch.equal(*pair) for pair in zip(*gradients, strict=True))


def test_a_run_with_dropout_learns_the_same(tmp_path: Path) -> None:
    losses, weights = [], []
    for recompute in ("none", "blocks"):
        (tmp_path / recompute).mkdir()
        run, recorder = built(tmp_path / recompute, TRANSFORMER | {"trainer.recompute": recompute})
        fit(run)
        losses.append([record["train/loss"] for record in recorder.records])
        weights.append(run.state.model.state_dict())
    assert losses[0] == losses[1]
    assert weights[0].keys() == weights[1].keys()
    assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())


def test_batch_norm_is_refused(tmp_path: Path) -> None:
    image = {"data.input": "image", "data.shape": [1, 4, 4]}
    model = {"name": "cnn", "channels": [4, 4]}
    with pytest.raises(ConfigError, match=r"model\.layers\.0\.norm is a batch norm, which would count"):
        built(tmp_path, image | {"model": model, "trainer.recompute": "blocks"})
    built(tmp_path, image | {"model": model | {"batch_norm": False}, "trainer.recompute": "blocks"})


def test_a_model_without_blocks_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"trainer\.recompute=blocks: model=fnn is no stack"):
        built(tmp_path, {"trainer.recompute": "blocks"})
