"""Several GPUs train what one trains."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from bigmodel.checkpointing.checkpoint import load_newest
from tests.distributed.rank_runs import Cases, records, train, train_on
from tests.faults import trials
from tests.faults.rank_kills import RECIPE, gone

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs"),
]
four = pytest.mark.skipif(torch.cuda.device_count() < 4, reason="needs four GPUs")

EXACT = {"name": "cuda", "precision": "fp32", "tf32": False, "engine": "eager"}
TRANSFORMER = {"name": "transformer", "dim": 16, "depth": 2, "num_heads": 4, "dropout": 0.0}
SEQUENCES = {"data.input": "sequence", "data.shape": [6, 5], "optimizer": "sgd", "model": TRANSFORMER}
IMAGES = {"data.input": "image", "data.shape": [1, 6, 6]}
COPIES: Cases = {
    "plain": {},
    "rows that ranks do not divide": {"data.batch_size": 11},
    "clipped": {"trainer.clip_norm": 0.1, "trainer.accumulate": 2},
    "batch norm": {"model.norm": "batch", "data.batch_size": 11},  # the last batch has 9
    "batch norm of images": IMAGES | {"model": {"name": "cnn", "channels": [4, 6], "residual": True}},
}
SHARES: Cases = {
    "blocks": SEQUENCES | {"trainer.clip_norm": 0.1},
    "rows that ranks do not divide": SEQUENCES | {"data.batch_size": 11, "trainer.accumulate": 2},
    "recomputed": SEQUENCES | {"trainer.recompute": "blocks"},
    "averages": SEQUENCES | {"trainer.ema": 0.9},
}
BOUNDS = {"fp32": 1e-4, "bf16": 3e-2, "fp16": 3e-2}


def on_gpus(cases: Cases, parallel: dict[str, int] | None = None, precision: str = "fp32") -> Cases:
    """The same cases, each rank on a GPU of its own."""
    device: dict[str, Any] = EXACT | {"precision": precision}
    return {
        name: {"device": device | ({"parallel": parallel} if parallel else {})} | dict(settings)
        for name, settings in cases.items()
    }


def weights(folder: Path) -> dict[str, Tensor]:
    """Those of a run's last checkpoint, put together from all ranks' parts."""
    return load_newest(folder / "checkpoints").groups["model"]


def check(
    folder: Path, cases: Cases, count: int, parallel: dict[str, int] | None, precision: str = "fp32"
) -> None:
    """Trains cases on one GPU and on several; records and weights have to agree."""
    bound = BOUNDS[precision]
    train(on_gpus(cases, None, precision), folder / "1")
    train_on(count, on_gpus(cases, parallel, precision), folder / "n")
    for name in cases:
        one, several = records(folder / "1" / name), records(folder / "n" / name)
        assert len(one) == len(several) > 5
        for expected, actual in zip(one, several, strict=True):
            key = "train/loss"
            assert actual[key] == pytest.approx(expected[key], bound, bound), name
        before, after = weights(folder / "1" / name), weights(folder / "n" / name)
        assert before.keys() == after.keys()
        for key, value in before.items():
            torch.testing.assert_close(after[key], value, rtol=bound, atol=bound, msg=f"{name}: {key}")


def test_copies(tmp_path: Path) -> None:
    check(tmp_path, COPIES, 2, None)


@pytest.mark.parametrize("parallel", [{"shard": 2}, {"tensor": 2}], ids=["shards", "tensor"])
def test_ranks_that_share_the_weights(tmp_path: Path, parallel: dict[str, int]) -> None:
    check(tmp_path, SHARES, 2, parallel)


@four
@pytest.mark.parametrize(
    "parallel",
    [{"replicate": 2, "shard": 2}, {"shard": 2, "tensor": 2}, {"replicate": 2, "tensor": 2}],
    ids=["copies of shards", "shards of tensor parts", "copies of tensor parts"],
)
def test_both(tmp_path: Path, parallel: dict[str, int]) -> None:
    check(tmp_path, SHARES, 4, parallel)


@pytest.mark.parametrize("parallel", [None, {"shard": 2}, {"tensor": 2}], ids=str)
@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precision(tmp_path: Path, precision: str, parallel: dict[str, int] | None) -> None:
    if precision == "bf16" and not torch.cuda.is_bf16_supported(including_emulation=False):
        pytest.skip("computes no bf16")
    check(tmp_path, {"blocks": SHARES["blocks"]}, 2, parallel, precision)


def test_batch_norm_of_shards_in_half_precision(tmp_path: Path) -> None:
    cases = {"images": COPIES["batch norm of images"]}
    check(tmp_path, cases, 2, {"shard": 2}, "fp16")


WORDS = (
    *("model=transformer", "model.dim=16", "model.depth=2", "model.num_heads=4", "model.dropout=0"),
    *("data=digits", "optimizer=sgd", "scheduler=constant", "device=cuda", "device.precision=fp32"),
    *("device.tf32=false", "device.engine=eager", "trainer.tensorboard=false"),
)


@pytest.mark.parametrize("back", [2, 1], ids=["on as many", "on one"])
def test_a_run_on_shards_goes_on(tmp_path: Path, back: int) -> None:
    shards = ("device.ranks=2", "device.parallel.shard=2")
    command(tmp_path, *WORDS, *shards, "trainer.epochs=4", "hydra.run.dir=whole")
    command(tmp_path, *WORDS, *shards, "trainer.epochs=2", "hydra.run.dir=halves")
    begun = weights(tmp_path / "halves")
    fewer = () if back == 2 else ("device.ranks=1", "device.parallel.shard=null")
    command(tmp_path, "resume=halves", "trainer.epochs=4", *fewer)
    halves, whole = weights(tmp_path / "halves"), weights(tmp_path / "whole")
    assert any(not torch.equal(halves[name], begun[name]) for name in begun)
    for name, value in whole.items():
        torch.testing.assert_close(halves[name], value, rtol=1e-4, atol=1e-5)


def command(folder: Path, *words: str) -> None:
    attempt = trials.launch(folder, *words)
    assert attempt.wait() == 0, attempt.log


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP], ids=lambda each: each.name)
def test_a_rank_that_ends_or_hangs_ends_the_others(tmp_path: Path, how: signal.Signals) -> None:
    """One that hangs is found out by NCCL's watchdog, which ends the process that has waited for it."""
    words = ("device=cuda", "device.engine=eager", "device.restarts=0", "device.timeout=8")
    attempt = trials.launch(tmp_path, *RECIPE, *words, hold="step 5")
    attempt.wait_until_held()
    attempt.wait_until(lambda: len(attempt.children) == 2)
    ranks = attempt.children
    os.kill(ranks[1], how)
    attempt.release()
    assert attempt.wait() == 1, attempt.log
    assert gone(ranks)
    assert "Traceback" not in attempt.log
    assert "bigmodel-train: device." in attempt.log
