"""Recurrent networks on CUDA: in the precision that was asked for, and with a dropout that goes on.

pytest -m gpu
"""

from pathlib import Path
from typing import Any

import pytest
import torch

from bigmodel.models.layers.recurrent import Recurrent
from bigmodel.training.loop import fit
from tests.models.test_rnn import TORCH
from tests.small_runs import built

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]

LAYERS = {"name": "rnn", "cell": "lstm", "hidden_size": 32, "num_layers": 3, "dropout": 0.3}
SEQUENCES = {"name": "synthetic", "samples": 600, "batch_size": 12, "target": "classes", "outputs": 3}


def settings(**device: Any) -> dict[str, Any]:
    data = SEQUENCES | {"input": "sequence", "shape": [6, 8]}
    return {"data": data, "model": LAYERS, "device": {"name": "cuda"} | device}


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("dropout", [0.0, 0.5])
@pytest.mark.parametrize("cell", TORCH)
def test_bf16_has_the_range_of_fp32(cell: str, dropout: float) -> None:
    """In fp16 these inputs, and the gradient of their sum, are infinite."""
    model = Recurrent(cell, 5, 7, num_layers=2, dropout=dropout).to("cuda")
    inputs = torch.full((4, 6, 5), 1e6, device="cuda", requires_grad=True)
    with torch.autocast("cuda", torch.bfloat16):
        outputs = model(inputs)
        assert outputs.dtype == torch.float32
    (1e6 * outputs).sum().backward()
    gradients = [p.grad for p in model.parameters()]
    assert all(bool(value.isfinite().all()) for value in (outputs, inputs.grad, *gradients))


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_dropout_between_layers_goes_on_as_it_was(tmp_path: Path, precision: str) -> None:
    same = settings(precision=precision, deterministic=True)
    run, _ = built(tmp_path / "whole", same | {"trainer.max_steps": 8})
    fit(run)
    half, _ = built(tmp_path / "half", same | {"trainer.max_steps": 4})
    fit(half)
    again, _ = built(tmp_path / "again", same | {"trainer.max_steps": 8})
    again.state.load(*half.state.save())
    fit(again)
    ours, theirs = again.state.model.state_dict(), run.state.model.state_dict()
    assert all(torch.equal(value, theirs[name]) for name, value in ours.items())


def test_a_graph_draws_its_dropout_anew(tmp_path: Path) -> None:
    run, told = built(tmp_path, settings(engine="graph") | {"trainer.epochs": 4})
    fit(run)
    assert run.engine.name == "graph", told.messages
    batch = next(iter(run.train.epoch(0)))
    run.state.optimizer.param_groups[0]["initial_lr"] = 0.0
    run.step.drain()
    run.engine([batch], [0.0], False)
    run.engine([batch], [0.0], False)
    first, second = run.step.drain()
    assert first.loss != second.loss
