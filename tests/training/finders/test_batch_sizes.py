"""Sizes of batches: what is tried, where it ends, and that nothing is left changed."""

from pathlib import Path
from typing import Any

import pytest
import torch

from bigmodel.errors import DeviceError
from bigmodel.runtime.peak_memory import PeakMemory
from bigmodel.training.finders import batch_sizes as finder
from bigmodel.training.finders.batch_sizes import BatchSizes, Trial, batches_of, find_batch_sizes
from bigmodel.training.run import Run
from tests.small_runs import built
from tests.training.finders.test_range_test import assert_same, whole_state

GIB = 2**30


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setattr(finder, "_TIMED_SECONDS", 0.0)
    return built(tmp_path)[0]


def test_powers_of_two_up_to_the_whole_training_set(run: Run) -> None:
    sizes = find_batch_sizes(run)
    assert [trial.size for trial in sizes.trials] == [1, 2, 4, 8, 16, 32, 64]
    assert sizes.end == "the whole training set is one batch"
    assert sizes.fits is None
    assert all(trial.speed > 0 and trial.seconds > 0 for trial in sizes.trials)


def test_nothing_of_the_run_is_changed(run: Run) -> None:
    before = whole_state(run)
    before["groups"] = {
        group: {name: value.clone() for name, value in tensors.items()}
        for group, tensors in before["groups"].items()
    }
    find_batch_sizes(run)
    assert_same(whole_state(run), before)
    assert run.state.accumulation.micro_batch == 12


def test_it_ends_where_memory_runs_out(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    forward = run.step.forward

    def scarce(inputs: torch.Tensor, targets: torch.Tensor) -> Any:
        if len(inputs) > 20:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return forward(inputs, targets)

    monkeypatch.setattr(run.step, "forward", scarce)
    before = whole_state(run)["groups"]["model"]["head.weight"].clone()
    sizes = find_batch_sizes(run)
    assert sizes.largest.size == 16
    assert sizes.end == "memory ran out with 32"
    assert torch.equal(whole_state(run)["groups"]["model"]["head.weight"], before)


def test_a_model_that_fits_with_no_batch_is_told(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def scarce(*_: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(run.step, "forward", scarce)
    with pytest.raises(DeviceError, match="find=batch_size: memory ran out with 1, the smallest size"):
        find_batch_sizes(run)


def test_another_error_is_not_taken_for_too_little_memory(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> Any:
        raise RuntimeError("shapes do not fit")

    monkeypatch.setattr(run.step, "forward", broken)
    with pytest.raises(RuntimeError, match="shapes do not fit"):
        find_batch_sizes(run)


def trials_with(monkeypatch: pytest.MonkeyPatch, seconds: float, memory: int) -> None:
    """Steps that take so many seconds and bytes a sample."""

    def tried(run: Run, batches: Any, size: int, *_: Any) -> Trial:
        del run, batches
        return Trial(size, 1 / seconds, seconds * size, memory * size)

    monkeypatch.setattr(finder, "_try", tried)


def test_on_a_cpu_it_ends_before_memory_would_run_out(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    trials_with(monkeypatch, seconds=1e-3, memory=GIB)
    monkeypatch.setattr(finder, "free_memory", lambda: 12 * GIB)
    sizes = find_batch_sizes(run)
    assert sizes.largest.size == 8  # 16 GiB are more than 70 % of 12
    assert sizes.end == "a step with 16 samples would need about 16.0 GiB of the 12.0 GiB that are free"


def test_it_ends_where_steps_would_take_long_and_tells_what_would_fit(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    trials_with(monkeypatch, seconds=1.0, memory=GIB)
    monkeypatch.setattr(finder, "free_memory", lambda: 50 * GIB)
    sizes = find_batch_sizes(run)
    assert sizes.largest.size == 4
    assert sizes.end == "a step with 8 samples would take about 8 seconds"
    assert sizes.fits == 32
    monkeypatch.setattr(finder, "free_memory", lambda: 1000 * GIB)
    assert find_batch_sizes(run).fits == 64  # all there are


def test_the_fastest_is_the_smallest_of_those_that_are_as_fast() -> None:
    speeds = {1: 10.0, 2: 19.0, 4: 39.0, 8: 40.0, 16: 30.0}
    trials = [Trial(size, speed, 1.0, None) for size, speed in speeds.items()]
    assert BatchSizes("data.batch_size", "samples", trials, "").fastest.size == 4


def test_texts_are_measured_in_tokens_from_the_longest_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(finder, "_TIMED_SECONDS", 0.0)
    for name, word in (("source", "ab "), ("target", "cd ")):
        texts = (word * (1 + number % 5) for number in range(60))
        (tmp_path / name).write_text("\n".join(texts) + "\n")
    files = {name: str(tmp_path / name) for name in ("source", "target")}
    settings = {
        "data": {"name": "pairs", **files, "vocab_size": 300, "bleu_pairs": 0, "batch_tokens": 64},
        "model": {"name": "transformer", "dim": 8, "depth": 1, "num_heads": 2},
    }
    run, _ = built(tmp_path, settings)
    lengths = run.train.part.lengths
    assert lengths is not None
    sizes = find_batch_sizes(run)
    assert (sizes.key, sizes.unit) == ("data.batch_tokens", "tokens")
    tried = [trial.size for trial in sizes.trials]
    assert tried[0] >= int(lengths.max()) > tried[0] // 2
    assert tried[-1] == int(lengths.sum())
    all_of_them = [len(batch) * batch.inputs.shape[-1] for batch in run.train.epoch(0)]
    widest = run.train.largest()
    assert len(widest) * widest.inputs.shape[-1] == max(all_of_them)


def test_batches_of_a_size_hold_the_run_s_own_samples(tmp_path: Path) -> None:
    run, _ = built(tmp_path, {"data.batch_size": 10, "trainer.accumulate": 2, "data.drop_last": True})
    assert len(run.train.largest()) == 20
    sizes = [len(batch) for batch in batches_of(run.train, 48).epoch(0)]
    assert sizes == [48, 16]
    assert batches_of(run.train, 48).part is run.train.part


def test_peak_memory_counts_what_was_in_use_at_once() -> None:
    memory = PeakMemory(torch.device("cpu"))
    memory.begin()
    size = 256 << 20
    held = torch.ones(size // 4)
    del held
    peak = memory.peak()
    if peak is None:
        pytest.skip("the system does not tell")
    assert 0.8 * size < peak < 2 * size
    memory.begin()
    small = torch.ones(size // 16)
    again = memory.peak()
    assert again is not None
    assert small.numel()
    assert again < 0.8 * size  # the peak before does not count
