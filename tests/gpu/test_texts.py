"""Texts and pairs on CUDA: the same batches, wherever the data lies; training that learns and goes on.

pytest -m gpu
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from bigmodel import registry
from bigmodel.build.new_run import build_run
from bigmodel.config import parse
from bigmodel.data.batching.batches import make_batches
from bigmodel.models.layers.packing import Packing, kernel
from bigmodel.reporting.base import Sink
from bigmodel.training.loop import fit
from bigmodel.training.run import Run
from tests.small_runs import VALUES

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]

MODEL = {"name": "transformer", "dim": 64, "depth": 2, "num_heads": 4, "dropout": 0.0}


def options(folder: Path, kind: str) -> dict[str, Any]:
    if kind == "text":
        (folder / "text").write_text("How now, brown cow? " * 300)
        return {"name": "text", "path": str(folder / "text"), "context": 32, "batch_size": 16}
    if kind == "packed":
        lines = (f"{'How now, ' * (1 + n % 4)}brown cow?\n" for n in range(300))
        (folder / "lines").write_text("".join(lines))
        packing = {"packing": "documents", "document": "line", "context": 64}
        return {"name": "text", "path": str(folder / "lines"), "batch_size": 8, **packing}
    for side, words in (("a", "eins zwei drei"), ("b", "one two three")):
        (folder / side).write_text("".join(f"{words} {n % 9} " * (1 + n % 4) + "\n" for n in range(300)))
    paths = {"source": str(folder / "a"), "target": str(folder / "b")}
    return {"name": "pairs", "vocab_size": 300, "batch_tokens": 512, **paths}


def built(folder: Path, kind: str, device: str, precision: str = "fp32", **trainer: Any) -> Run:
    values = VALUES | {
        "model": MODEL,
        "data": options(folder, kind),
        "device": {"name": device, "precision": precision, "tf32": False},
        "trainer": VALUES["trainer"] | {"epochs": 4} | trainer,
    }
    return replace(build_run(parse(values), folder / f"{kind}-{device}-{precision}"), sinks=Sink())


@pytest.mark.parametrize("kind", ["text", "packed", "pairs"])
def test_batches_are_those_of_the_cpu_wherever_the_data_lies(tmp_path, kind):
    config = registry.data.parse(options(tmp_path, kind))
    dataset = registry.data.build(config)
    here = list(make_batches(dataset, "train", config).epoch(1))
    for on_device in (True, False):
        kept = config.model_copy(update={"on_device": on_device})
        there = list(make_batches(dataset, "train", kept, "cuda").epoch(1))
        assert len(there) == len(here)
        for ours, theirs in zip(here, there, strict=True):
            assert theirs.inputs.device.type == theirs.targets.device.type == "cuda"
            assert torch.equal(ours.inputs, theirs.inputs.cpu())
            assert torch.equal(ours.targets, theirs.targets.cpu())


@pytest.mark.parametrize("kind", ["text", "packed", "pairs"])
def test_training_is_near_that_of_the_cpu(tmp_path, kind):
    losses = [
        float(fit(built(tmp_path, kind, device)).final["val/perplexity"]) for device in ("cpu", "cuda")
    ]
    assert losses[1] == pytest.approx(losses[0], rel=0.05)


@pytest.mark.parametrize("kind", ["text", "packed", "pairs"])
@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precision_learns(tmp_path, kind, precision):
    run = built(tmp_path, kind, "cuda", precision, epochs=10)
    vocabulary = run.dataset.spec.target.output_size
    assert float(fit(run).best["val/perplexity"]) < vocabulary / 4


@pytest.mark.parametrize("kind", ["text", "packed", "pairs"])
def test_a_step_does_not_wait_for_the_device(tmp_path, kind):
    run = built(tmp_path, kind, "cuda")
    batches = run.train.epoch(0)
    run.step(next(batches))
    torch.cuda.set_sync_debug_mode("error")
    try:
        for _ in range(3):
            run.step(next(batches))
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("width", [8000, 50257])
def test_logits_made_piece_by_piece_are_the_same(width):
    from bigmodel.losses import cross_entropy
    from bigmodel.spec import DataSpec, NextTokens, Tokens

    spec = DataSpec("t", Tokens(64, width), NextTokens(width))
    loss = registry.losses.build(registry.losses.parse({"name": "cross_entropy"}), spec)
    head = torch.nn.Linear(128, width, device="cuda")
    features = torch.randn(64, 64, 128, device="cuda", requires_grad=True)
    targets = torch.randint(width, (64, 64), device="cuda")
    least = cross_entropy._MANY_LOGITS
    results = []
    for many in (1, 1 << 60):
        cross_entropy._MANY_LOGITS = many
        try:
            total = loss.with_head(features, head, targets)
        finally:
            cross_entropy._MANY_LOGITS = least
        results.append((total, *torch.autograd.grad(total, (features, head.weight))))
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kv_heads", [2, 8])
def test_attention_within_packed_texts_is_that_of_the_mask(kv_heads):
    sizes = [[5, 40, 19], [64], [1, 1, 62]]
    positions = torch.cat([torch.arange(size) for row in sizes for size in row]).view(3, 64).cuda()
    packing = Packing(positions, kernel())
    heads = [
        torch.randn(3, count, 64, 32, device="cuda", dtype=torch.bfloat16, requires_grad=True)
        for count in (8, kv_heads, kv_heads)
    ]
    assert packing.can_split(heads[0])
    assert not packing.can_split(heads[0].float())
    masked = torch.nn.functional.scaled_dot_product_attention(
        *(part.float() for part in heads), packing.mask, enable_gqa=True
    )
    split = packing.attention(*heads)
    upstream = torch.randn_like(split)
    torch.testing.assert_close(split.float(), masked, rtol=0.02, atol=0.02)
    ours = torch.autograd.grad(split, heads, upstream)
    theirs = torch.autograd.grad(masked, heads, upstream.float())
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=0.02, atol=0.05)
