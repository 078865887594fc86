"""Runs on the fake device: every optimizer, every kind of batches, a resumed run, and one on the CPU."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
import torch

from bigmodel import registry
from bigmodel.build.resumed_run import resume_run
from bigmodel.data.batching.batches import make_batches
from bigmodel.training.loop import fit
from tests.fake_cuda.device import device, is_recorded
from tests.fake_cuda.kinds import KINDS, data_of
from tests.fake_cuda.training import MIXED, SMALL, check_waits, settings_of, trained
from tests.small_runs import built


@pytest.mark.parametrize("precision", MIXED)
@pytest.mark.parametrize("optimizer", registry.optimizers.names())
def test_every_optimizer(tmp_path: Path, optimizer: str, precision: str) -> None:
    more = {"optimizer": {"name": optimizer}, "trainer.clip_norm": 1.0}
    trained(tmp_path, settings_of(tmp_path, "features", precision, more))


@pytest.mark.parametrize("on_device", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_no_batch_is_waited_for(tmp_path: Path, kind: str, on_device: bool) -> None:
    config = registry.data.parse(data_of(kind, tmp_path) | {"on_device": on_device})
    for part in ("train", "val"):
        batches = make_batches(registry.data.build(config), part, config, "cuda", seed=1)
        device.waits.clear()
        made = [batch for epoch in (0, 1) for batch in batches.epoch(epoch)]
        assert all(tensor.is_cuda for batch in made for tensor in batch)
        assert device.waits == []


@pytest.mark.parametrize("kind", KINDS)
def test_threads_copy_batches_on_a_stream_of_their_own(tmp_path: Path, kind: str) -> None:
    config = registry.data.parse(data_of(kind, tmp_path) | {"workers": 2})
    batches = make_batches(registry.data.build(config), "train", config, "cuda", seed=1)
    beside, steps = batches.prefetcher._stream, torch.cuda.current_stream()
    vars(device).update(vars(type(device)()))
    made = [batch for epoch in (0, 1) for batch in batches.epoch(epoch)]
    assert device.copy_streams == {beside}
    assert beside in steps.waited_for  # type: ignore[attr-defined]
    assert all(tensor.is_cuda and is_recorded(tensor, steps) for batch in made for tensor in batch)
    assert device.waits == []


@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_run_with_threads(tmp_path: Path, accumulate: int) -> None:
    more = {"model": SMALL["cnn"], "data.workers": 2, "trainer.accumulate": accumulate}
    trained(tmp_path, settings_of(tmp_path, "digits", "bf16", more))
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("prefetch")]


@pytest.mark.parametrize("precision", MIXED)
def test_a_run_goes_on(tmp_path: Path, precision: str) -> None:
    more = {"model": SMALL["fnn"], "trainer.ema": 0.9}
    fit(built(tmp_path, settings_of(tmp_path, "features", precision, more))[0])
    settings = settings_of(tmp_path, "features", precision, {**more, "trainer.max_steps": 4})
    again = resume_run(built(tmp_path, settings)[0], changed=["trainer.max_steps"])
    device.waits.clear()
    assert fit(again).steps == 4
    check_waits(begun=True)
    assert all(p.is_cuda for p in again.state.model.parameters())


def test_a_run_on_the_cpu_takes_no_memory_of_a_gpu(tmp_path: Path) -> None:
    settings = settings_of(tmp_path, "digits", "fp32", {"model": SMALL["fnn"]})
    settings["device"] = {"name": "cpu"}
    assert fit(built(tmp_path, settings)[0]).status == "finished"
    assert device.contexts == set()
    assert device.waits == []
