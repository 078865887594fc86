"""Losses of single tokens add up to the loss of an evaluation."""

import pytest
import torch

from bigmodel.data.parts import TextPairs, Windows
from bigmodel.models.base import eval_mode
from bigmodel.training.outputs import token_losses
from tests.small_runs import built

MODEL = {"name": "transformer", "dim": 16, "depth": 1, "num_heads": 2}


@pytest.mark.parametrize("kind", ["text", "pairs"])
def test_the_mean_is_the_loss_of_validation(tmp_path, kind):
    (tmp_path / "a.txt").write_text("".join(f"ein Hund {n}\n" * (1 + n % 3) for n in range(50)))
    (tmp_path / "b.txt").write_text("".join(f"a dog, {n}\n" * (1 + n % 3) for n in range(50)))
    data = {"name": "text", "path": str(tmp_path / "a.txt"), "context": 16}
    if kind == "pairs":
        files = {"source": str(tmp_path / "a.txt"), "target": str(tmp_path / "b.txt")}
        data = {"name": "pairs", **files, "vocab_size": 270, "length": 24}
    run, _ = built(tmp_path / "run", {"model": MODEL, "data": data})
    part = run.dataset.part("val")
    assert isinstance(part, Windows | TextPairs)
    with eval_mode(run.state.model):
        losses = token_losses(run.state.model, part, torch.arange(len(part)), run.runtime)
        inputs, targets = part.take(torch.arange(len(part)))
        logits = run.state.model(inputs).detach()
    assert losses.shape == targets.shape
    assert torch.equal(losses.isnan(), targets == -100)
    expected = torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten())
    assert float(losses.nanmean()) == pytest.approx(float(expected), rel=1e-5)
