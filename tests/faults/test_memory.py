"""Too little memory: fewer samples at once, the same batches, the same gradient."""

import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from bigmodel.build.new_run import build_run
from bigmodel.build.resumed_run import resume_run
from bigmodel.checkpointing import checkpoint
from bigmodel.errors import DeviceError
from bigmodel.runtime.signals import Stopped
from bigmodel.training.loop import fit
from bigmodel.training.run import Run
from tests.small_runs import Recorder, built, config

SETTINGS = {"trainer.record_every_steps": 1, "trainer.checkpoint.every_steps": 1}
CNN = {
    "model": {"name": "cnn", "channels": [4], "batch_norm": True},
    "data.input": "image",
    "data.shape": [1, 8, 8],
}


def little_memory(run: Run, most: int, where: str = "forward", after: int = 0) -> None:
    """Has the model find too little memory for more than `most` samples in training, from some call on.

    Args:
        where: `forward`, or `backward`, when running statistics and a part of the gradients are there.
    """
    model, calls = run.state.model, 0
    forward: Callable[[Tensor], Tensor] = model.forward

    def limited(inputs: Tensor) -> Tensor:
        nonlocal calls
        calls += model.training
        full = model.training and calls > after and len(inputs) > most
        if full and where == "forward":
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        outputs = forward(inputs)
        if full:
            outputs.register_hook(_no_memory)
        return outputs

    model.forward = limited  # type: ignore[method-assign]


def _no_memory(_: Tensor) -> Tensor:
    raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes.")


def losses(told: Recorder) -> list[float]:
    return [record["train/loss"] for record in told.records]


@pytest.mark.parametrize("where", ["forward", "backward"])
def test_the_batch_stays_and_its_gradient(tmp_path: Path, where: str) -> None:
    plain, expected = built(tmp_path / "plain", SETTINGS)
    fit(plain)
    run, told = built(tmp_path / "run", SETTINGS)
    little_memory(run, 4, where, after=3)
    fit(run)
    assert losses(told) == pytest.approx(losses(expected), rel=1e-5)
    for ours, theirs in zip(told.records, expected.records, strict=True):
        assert ours["train/accuracy"] == pytest.approx(theirs["train/accuracy"])  # no sample twice
    assert [m.split(".")[0] for m in told.messages if "Out of memory" in m] == [
        "Out of memory with 12 samples at once",
        "Out of memory with 6 samples at once",
    ]
    assert checkpoint.load(tmp_path / "run" / "checkpoints" / "last")[1]["micro_batch"] == 3


def test_running_statistics_are_taken_back(tmp_path: Path) -> None:
    """As if the run had had its small micro-batches from the start."""
    settings = SETTINGS | CNN | {"trainer.max_steps": 1}
    run, _ = built(tmp_path / "run", settings)
    little_memory(run, 6, "backward")
    fit(run)
    small, _ = built(tmp_path / "small", settings)
    small.state.accumulation.micro_batch = 6
    fit(small)
    for name, value in small.state.model.state_dict().items():
        assert torch.equal(run.state.model.state_dict()[name], value), name


def test_a_resumed_run_keeps_what_was_found_out(tmp_path: Path) -> None:
    run, _ = built(tmp_path, SETTINGS | {"trainer.max_steps": 6, "model.dropout": 0.3})
    little_memory(run, 6)
    fit(run)
    again = build_run(config(SETTINGS | {"model.dropout": 0.3}), tmp_path)
    again = replace(resume_run(again), sinks=Recorder())
    fit(again)
    assert again.state.accumulation.micro_batch == 6
    assert not [message for message in again.sinks.messages if "Out of memory" in message]


def test_evaluation_takes_fewer_at_once_too(tmp_path: Path) -> None:
    plain, expected = built(tmp_path / "plain")
    fit(plain)
    run, told = built(tmp_path / "run")
    forward: Callable[[Tensor], Tensor] = run.state.model.forward

    def limited(inputs: Tensor) -> Tensor:
        if not run.state.model.training and len(inputs) > 5:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return forward(inputs)

    run.state.model.forward = limited  # type: ignore[method-assign]
    fit(run)
    assert [m for m in told.messages if "samples evaluated at once" in m]
    assert run.state.progress.evaluation_batch is not None
    for ours, theirs in zip(told.records, expected.records, strict=True):
        assert ours["val/loss"] == pytest.approx(theirs["val/loss"], rel=1e-6)
        assert ours["val/accuracy"] == theirs["val/accuracy"]


def test_an_interrupted_evaluation_keeps_what_was_found_out(tmp_path: Path) -> None:
    run, _ = built(tmp_path, SETTINGS)
    forward: Callable[[Tensor], Tensor] = run.state.model.forward

    def limited(inputs: Tensor) -> Tensor:
        if run.state.model.training:
            return forward(inputs)
        if len(inputs) > 5:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        raise Stopped(signal.SIGTERM)

    run.state.model.forward = limited  # type: ignore[method-assign]
    with pytest.raises(Stopped):
        fit(run)
    _, facts = checkpoint.load(tmp_path / "checkpoints" / "last")
    assert 1 < facts["progress"]["evaluation_batch"] <= 5


def test_the_test_part_keeps_what_was_found_out(tmp_path: Path) -> None:
    run, told = built(tmp_path)
    run = replace(run, test=run.val)
    forward: Callable[[Tensor], Tensor] = run.state.model.forward

    def limited(inputs: Tensor) -> Tensor:
        if run.over and len(inputs) > 5:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return forward(inputs)

    run.state.model.forward = limited  # type: ignore[method-assign]
    fit(run)
    assert run.state.progress.evaluation_batch is not None
    assert 1 < run.state.progress.evaluation_batch <= 5
    size = run.state.progress.evaluation_batch
    assert [m for m in told.messages if f"samples evaluated at once; from now on {size}." in m]


@pytest.mark.parametrize(
    ("settings", "most", "words"),
    [
        ({"trainer.on_oom": "stop"}, 6, "Out of memory with 12 samples at once: CUDA out of memory"),
        ({}, 0, "Out of memory with 1 sample at once"),
    ],
    ids=["not wanted", "not one sample fits"],
)
def test_where_halving_is_not_wanted_or_does_not_help(
    tmp_path: Path, settings: dict[str, Any], most: int, words: str
) -> None:
    run, _ = built(tmp_path, settings)
    little_memory(run, most)
    with pytest.raises(DeviceError, match=words) as caught:
        fit(run)
    assert "trainer.accumulate" in str(caught.value)


@pytest.mark.parametrize(
    "settings", [{}, {"device.precision": "fp16", "trainer.clip_norm": 1.0}], ids=str
)
def test_within_the_update_nothing_can_be_taken_back(tmp_path: Path, settings: dict[str, Any]) -> None:
    """Half of the weights may be updated: the run ends, and what was saved before is good."""
    run, _ = built(tmp_path, SETTINGS | settings)
    real = run.state.optimizer.step

    def full(*args: Any, **more: Any) -> Any:
        if run.state.progress.step == 3:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return real(*args, **more)

    run.state.optimizer.step = full  # type: ignore[method-assign]
    with pytest.raises(DeviceError, match="Out of memory"):
        fit(run)
    assert checkpoint.load(tmp_path / "checkpoints" / "last")[1]["progress"]["step"] == 3


def test_another_error_is_no_lack_of_memory(tmp_path: Path) -> None:
    run, _ = built(tmp_path)

    def broken(_: Tensor) -> Tensor:
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    run.state.model.forward = broken  # type: ignore[method-assign]
    with pytest.raises(RuntimeError, match="mat1 and mat2"):
        fit(run)
