"""Steps as CUDA graphs on the fake device: what cannot be captured is refused beforehand, a capture that
fails ends the run, and the graph is the first to go if memory runs out."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from bigmodel.errors import DeviceError
from bigmodel.training.loop import fit
from bigmodel.training.run import Run
from tests.fake_cuda.device import BROKEN_CAPTURE, device
from tests.fake_cuda.training import SMALL, settings_of
from tests.small_runs import Recorder, built

NO_MEMORY = "CUDA out of memory. Tried to allocate 2.00 GiB."


@pytest.fixture
def run(tmp_path: Path) -> tuple[Run, Recorder]:
    """A run of ten steps with `device.engine=graph`; the last batch of each epoch is smaller."""
    more = {"model": SMALL["fnn"], "trainer.max_steps": 10}
    settings = settings_of(tmp_path, "features", "bf16", more)
    return built(tmp_path / "run", settings | {"device.engine": "graph"})


def changed(run: Run, change: Callable[[Tensor], Any]) -> None:
    """Calls `change` with the model's outputs in training."""
    model = run.state.model
    forward: Callable[..., Any] = model.forward

    def altered(*args: Any, **kwargs: Any) -> Any:
        outputs = forward(*args, **kwargs)
        if model.training:
            change(outputs)
        return outputs

    model.forward = altered  # type: ignore[method-assign]


def test_steps_are_replayed(run: tuple[Run, Recorder]) -> None:
    trained, told = run
    assert fit(trained).status == "finished"
    assert trained.engine.name == "graph", told.messages
    assert device.captures == 1
    assert device.capture_modes == {"thread_local"}, (
        "threads that gather batches may take memory meanwhile"
    )
    assert device.replays > 7
    assert device.sync_debug == 0
    assert all(p.grad is None or p.grad.is_cuda for p in trained.state.model.parameters())


@pytest.mark.parametrize("mode", [0, 1])
def test_a_step_that_waits_is_refused_before_the_capture(run: tuple[Run, Recorder], mode: int) -> None:
    trained, told = run
    device.sync_debug = mode
    changed(trained, lambda outputs: outputs.sum().item())
    assert fit(trained).steps == 10
    assert trained.engine.name == "eager"
    assert device.captures == 0
    assert device.sync_debug == mode
    (message,) = [message for message in told.messages if "eagerly" in message]
    assert re.search(r"within a step the host waits for the device \(\w+\.py, line \d+\)\.$", message)
    assert "\n" not in message


def test_a_capture_that_fails_ends_the_run(run: tuple[Run, Recorder]) -> None:
    trained, told = run

    def fails(_: Tensor) -> None:
        if torch.cuda.is_current_stream_capturing():
            raise ValueError("no")

    changed(trained, fails)
    with pytest.raises(DeviceError, match=r"device\.engine=eager") as caught:
        fit(trained)
    assert BROKEN_CAPTURE in str(caught.value)
    assert trained.summary.status == "failed"
    assert device.sync_debug == 0
    assert not any("eagerly" in message for message in told.messages)


def test_a_graph_that_finds_no_memory_is_done_without(run: tuple[Run, Recorder]) -> None:
    trained, told = run

    def full(_: Tensor) -> None:
        if torch.cuda.is_current_stream_capturing():
            raise torch.OutOfMemoryError(NO_MEMORY)

    changed(trained, full)
    assert fit(trained).steps == 10
    assert trained.engine.name == "eager"
    assert device.freed == ["graph", "cache"]
    assert any("there is not enough memory to record one" in message for message in told.messages)
    assert trained.state.accumulation.micro_batch == 12


@pytest.mark.parametrize("times", [1, 2])
@pytest.mark.parametrize("when", ["training", "evaluation"])
def test_where_memory_runs_out_the_graph_goes_before_anything_is_halved(
    run: tuple[Run, Recorder], when: str, times: int
) -> None:
    trained, told = run
    model, left = trained.state.model, times
    forward: Callable[..., Any] = model.forward

    def full(*args: Any, **kwargs: Any) -> Any:
        nonlocal left
        begun = trained.engine.name == "graph" or left < times
        if begun and left and model.training == (when == "training"):
            left -= 1
            raise torch.OutOfMemoryError(NO_MEMORY)
        return forward(*args, **kwargs)

    model.forward = full  # type: ignore[method-assign]
    assert fit(trained).steps == 10
    assert device.replays > 0
    assert left == 0
    assert device.freed == ["graph", "cache"]
    assert trained.engine.name == "eager"
    assert trained.state.choice.engine == "eager"
    halved = trained.state.accumulation.micro_batch < 12 or bool(trained.state.progress.evaluation_batch)
    assert halved == (times == 2)
    assert "the memory of device.engine=graph is released" in " ".join(told.messages)


def test_a_checkpoint_needs_no_page_locked_memory(
    run: tuple[Run, Recorder], monkeypatch: pytest.MonkeyPatch
) -> None:
    trained, _ = run
    empty = torch.empty

    def scarce(*args: Any, pin_memory: bool = False, **kwargs: Any) -> Tensor:
        if pin_memory:
            raise RuntimeError("CUDA error: out of memory")
        return empty(*args, **kwargs)

    monkeypatch.setattr(torch, "empty", scarce)
    assert fit(trained).steps == 10
