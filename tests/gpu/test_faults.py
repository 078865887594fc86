"""Faults on CUDA: too little memory, updates that are masked on the device, saves beside training.

pytest -m gpu
"""

import math
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from bigmodel.checkpointing import checkpoint
from bigmodel.checkpointing.saver import Saver
from bigmodel.registry import optimizers
from bigmodel.training.loop import fit
from tests.faults.test_first_update import overflowing
from tests.faults.test_nonfinite import finite, poison
from tests.small_runs import built

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]

CUDA = {"device": {"name": "cuda", "precision": "fp32", "tf32": False}}
EVERY_STEP = {"trainer.record_every_steps": 1, "trainer.checkpoint.every_steps": 1}


@pytest.fixture
def _little_memory() -> Iterator[None]:
    """Half a GiB beyond what is taken now."""
    torch.cuda.empty_cache()
    taken = torch.cuda.memory_reserved() + 2**29
    torch.cuda.set_per_process_memory_fraction(taken / torch.cuda.get_device_properties(0).total_memory)
    yield
    torch.cuda.set_per_process_memory_fraction(1.0)
    torch.cuda.empty_cache()


@pytest.mark.usefixtures("_little_memory")
def test_a_batch_too_large_for_the_device_is_cut(tmp_path: Path) -> None:
    """Forty layers keep 160,000 × 64 activations each, 1.6 GiB in all, where half a GiB is to be had."""
    deep = {"model": {"name": "fnn", "hidden_sizes": [64] * 40, "dropout": 0.0}}
    data = {"data": {"name": "synthetic", "samples": 200_000, "batch_size": 160_000, "shape": [8]}}
    run, told = built(tmp_path, CUDA | deep | data | {"trainer.max_steps": 3})
    fit(run)
    assert run.state.accumulation.micro_batch < 160_000
    assert any("Out of memory with 160000 samples at once" in message for message in told.messages)
    _, facts = checkpoint.load(tmp_path / "checkpoints" / "last")
    assert facts["micro_batch"] == run.state.accumulation.micro_batch


@pytest.mark.parametrize("by", ["loss", "gradient"])
@pytest.mark.parametrize("name", optimizers.names())
def test_a_bad_update_is_none(tmp_path: Path, name: str, by: str) -> None:
    settings = CUDA | EVERY_STEP | {"optimizer": {"name": name}, "trainer.on_nonfinite": "skip"}
    run, told = built(tmp_path / "run", settings | {"trainer.max_steps": 3})
    poison(run, 3, by)
    fit(run)
    assert run.summary.skipped == 1
    assert math.isnan(told.records[-1]["train/loss"])
    before, _ = built(tmp_path / "before", settings | {"trainer.max_steps": 2})
    fit(before)
    for key, value in before.state.model.state_dict().items():
        torch.testing.assert_close(run.state.model.state_dict()[key], value)
    assert finite(tmp_path / "run" / "checkpoints" / "last")


@pytest.mark.parametrize("name", optimizers.names())
def test_the_first_overflow_of_fp16_leaves_nothing(tmp_path: Path, name: str) -> None:
    half = {"device": {"name": "cuda", "precision": "fp16"}, "optimizer": {"name": name}}
    weights = []
    for folder, scales in (("overflow", [2.0**127, 2.0**8]), ("never", [2.0**8])):
        run, _ = built(tmp_path / folder, half)
        batches = list(run.train.epoch(0))
        overflowing(run, batches[:1] if len(scales) > 1 else [], scales[0])
        overflowing(run, batches[1:4], scales[-1])
        weights.append(run.state.model.state_dict())
    for key, value in weights[1].items():
        torch.testing.assert_close(weights[0][key], value)


@pytest.mark.filterwarnings("ignore:Synchronization debug mode:UserWarning")  # a prototype in torch
@pytest.mark.parametrize("name", ["nadam", "radam", "rmsprop", "muon"])
def test_masking_never_waits_for_the_device(tmp_path: Path, name: str) -> None:
    run, _ = built(tmp_path, CUDA | {"optimizer": {"name": name}, "trainer.ema": 0.9})
    batches = list(run.train.epoch(0))[:3]
    for batch in batches:
        run.step(batch)
    torch.cuda.set_sync_debug_mode("error")
    try:
        for batch in batches:
            run.step(batch)
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_a_copy_for_the_disk_is_what_the_device_held(tmp_path: Path) -> None:
    saver = Saver(tmp_path, keep=1, interval=0)
    live = {"model": {"w": torch.randn(1000, 1000, device="cuda")}}
    for step in range(5):
        expected = live["model"]["w"].cpu()
        saver.offer(live, {"progress": {"step": step}}, best=False, last=True, now=True)
        live["model"]["w"].add_(1.0)  # training goes on at once
        saver.flush()
        assert torch.equal(checkpoint.load(tmp_path / "last")[0]["model"]["w"], expected)
    saver.close()
