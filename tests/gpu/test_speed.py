"""Speed, memory and the profile of a run on CUDA."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from bigmodel.training.loop import fit
from bigmodel.training.throughput import peak_of, training_flops
from tests.small_runs import built

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]

CUDA = {"device": {"name": "cuda"}, "data": {"name": "digits", "batch_size": 128}}


@pytest.mark.parametrize("model", ["fnn", "cnn", "rnn", "transformer"])
def test_the_share_of_the_peak_and_memory_are_recorded(tmp_path: Path, model: str) -> None:
    run, told = built(tmp_path, CUDA | {"model": {"name": model}})
    fit(run)
    known = peak_of(torch.cuda.get_device_name(), run.runtime.precision, True) is not None
    for record in told.records:
        assert 0 < record["memory_gib"] <= torch.cuda.mem_get_info()[1] / 2**30
        assert ("mfu" in record) == known
        if known:
            assert 0 < record["mfu"] < 1


@pytest.mark.parametrize("cell", ["rnn", "lstm", "gru"])
def test_recurrent_layers_are_counted_alike_on_both_devices(tmp_path: Path, cell: str) -> None:
    """cuDNN's kernel is one operator; the CPU's falls into products that torch counts itself."""
    counted = []
    for device in ("cpu", "cuda"):
        settings: dict[str, Any] = {"model": {"name": "rnn", "cell": cell}, "device": {"name": device}}
        run, _ = built(tmp_path, CUDA | settings)
        sample = next(iter(run.train.epoch(0))).inputs[:1]
        counted.append(training_flops(run.state.model, sample))
    assert counted[1] == pytest.approx(counted[0], rel=0.02)


def test_kernels_stand_in_the_phase_that_launched_them(tmp_path: Path) -> None:
    settings = {"model": {"name": "cnn"}, "profile": True, "trainer.max_steps": 40}
    run, told = built(tmp_path, CUDA | settings)
    fit(run)
    profiled = next(text for text in told.messages if text.startswith("Profile of steps"))
    assert "device ms" in profiled
    rows = {line.split()[0]: line.split() for line in profiled.splitlines()[2:8]}
    for phase in ("forward", "backward", "optimizer"):
        assert float(rows[phase][3]) > 0
    with gzip.open(tmp_path / "profile" / "trace.json.gz", "rt", encoding="utf-8") as file:
        events = json.load(file)["traceEvents"]
    assert {"forward", "backward", "optimizer", "data", "step"} <= {event["name"] for event in events}
    assert any(event.get("cat") == "kernel" for event in events)
