"""Whether bf16 is taken: by faked clocks and processors, and once by what this machine measures."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from bigmodel.build.resumed_run import resume_run
from bigmodel.engine import precision, selection
from bigmodel.engine.precision import TRIAL_PASSES, faster_precision
from bigmodel.engine.selection import AutoEngine
from bigmodel.engine.step import Step
from bigmodel.models.base import Model
from bigmodel.runtime import processors
from bigmodel.runtime.device import Choice
from bigmodel.training.loop import fit
from tests.engine.steps import begun, make_batch, make_step, small_step
from tests.models.cases import build, spec
from tests.small_runs import built

FEATURES = spec("features")
LONG = 20 * TRIAL_PASSES

Clock = Callable[[float], None]


@pytest.fixture
def bf16_takes(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Sets what share of fp32's time a pass takes in bf16."""
    now = [0.0]

    def share(value: float) -> None:
        forward = Step.forward

        def timed(step: Step, inputs: Tensor, targets: Tensor) -> Any:
            now[0] += 1.0 if step.runtime.precision == "fp32" else value
            return forward(step, inputs, targets)

        monkeypatch.setattr(Step, "forward", timed)
        monkeypatch.setattr(precision.time, "perf_counter", lambda: now[0])

    return share


def state_of(step: Step) -> list[Tensor]:
    optimizer = [v for entry in step.optimizer.state.values() for v in entry.values()]
    return [t.clone() for t in (*step.model.state_dict().values(), *optimizer, torch.get_rng_state())]


def test_bf16_is_taken_where_it_is_faster(bf16_takes: Clock) -> None:
    bf16_takes(0.5)
    chosen, reason = faster_precision(small_step(), make_batch(FEATURES, 64))
    assert chosen == "bf16"
    assert reason.startswith("Forward and backward take 500 ms in bf16 and 1e+03 ms in fp32, and losses")
    assert reason.endswith("bf16 is used")


@pytest.mark.parametrize("share", [0.95, 1.0, 3.0])
def test_fp32_stays_where_bf16_gains_nothing(bf16_takes: Clock, share: float) -> None:
    bf16_takes(share)
    chosen, reason = faster_precision(small_step(), make_batch(FEATURES))
    assert chosen == "fp32"
    assert reason.endswith(": fp32 is used")


class Steep(Model):
    """Subtracts what bf16 cannot tell from 1."""

    def __init__(self) -> None:
        super().__init__()
        self.head = torch.nn.Linear(4, 3)

    def features(self, inputs: Tensor) -> Tensor:
        return inputs

    def forward(self, inputs: Tensor) -> Tensor:
        ones = torch.ones(4, 4) / 4
        return 1e4 * ((1.001 + 1e-3 * self.head(inputs)[:, :1]) @ ones[:1, :3] * 4 - 1)


def test_fp32_stays_where_bf16_computes_something_else(bf16_takes: Clock) -> None:
    bf16_takes(0.5)
    step = make_step(Steep(), spec("features"))
    chosen, reason = faster_precision(step, make_batch(FEATURES))
    assert chosen == "fp32"
    assert ", but the " in reason


def test_fp32_stays_where_bf16_fails(bf16_takes: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    bf16_takes(0.5)
    step, forward = small_step(), Step.forward

    def failing(step: Step, inputs: Tensor, targets: Tensor) -> Any:
        if step.runtime.precision == "bf16":
            raise RuntimeError("not implemented for 'BFloat16'\nat …")
        return forward(step, inputs, targets)

    monkeypatch.setattr(Step, "forward", failing)
    chosen, reason = faster_precision(step, make_batch(FEATURES))
    assert (chosen, step.runtime.precision) == ("fp32", "fp32")
    assert reason == "fp32 is used: bf16 fails (not implemented for 'BFloat16')"


def test_memory_that_runs_out_is_not_a_matter_of_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> Any:
        raise torch.OutOfMemoryError("out of memory")

    monkeypatch.setattr(Step, "forward", full)
    with pytest.raises(torch.OutOfMemoryError):
        faster_precision(small_step(), make_batch(FEATURES))


@pytest.mark.parametrize("kind", ["fnn", "cnn"])
def test_a_trial_leaves_no_trace(kind: str, bf16_takes: Clock) -> None:
    bf16_takes(0.5)
    of = spec("image")
    model = build(kind, of, dropout=0.5)
    step = begun(make_step(model, of), of)
    batch = make_batch(of, 64)
    before = state_of(step)
    assert faster_precision(step, batch)[0] == "bf16", "dropout is no difference"
    for old, new in zip(before, state_of(step), strict=True):
        assert torch.equal(old, new)
    assert all(p.grad is None for p in model.parameters())
    assert step.runtime.precision == "fp32"
    assert model.training
    assert not step.drain()


def test_here_fp32_is_faster() -> None:
    if processors.multiplies_bf16():
        pytest.skip("this processor multiplies bf16")
    of = spec("features")
    step = make_step(build("fnn", of, hidden_sizes=[512, 512]), of)
    assert faster_precision(step, make_batch(of, 100))[0] == "fp32"


# The engine


def chooser(choice: Choice, **more: Any) -> tuple[AutoEngine, list[str]]:
    engine = AutoEngine(small_step(**more), choice, "eager", False, {}, 64, choose_precision=True)
    return engine, []


def train(engine: AutoEngine, steps: int) -> None:
    for _ in range(steps):
        engine([make_batch(FEATURES, 64)], [1.0], False)


def test_it_is_tried_once_and_kept(bf16_takes: Clock) -> None:
    bf16_takes(0.5)
    choice = Choice()
    engine, messages = chooser(choice)
    engine.start(LONG, messages.append, nullcontext)
    train(engine, 10)
    assert choice.precision == engine.step.runtime.precision == "bf16"
    assert len([message for message in messages if message.endswith("bf16 is used.")]) == 1
    engine.rebind()
    assert choice.precision == "bf16", "a rewind does not forget it"

    resumed, messages = chooser(choice)
    resumed.start(LONG, messages.append, nullcontext)
    assert resumed.step.runtime.precision == "bf16"
    train(resumed, 10)
    assert not any("bf16" in message for message in messages), "it is not tried again"


@pytest.mark.parametrize(("left", "chosen"), [(LONG - 1, None), (LONG, "bf16")])
def test_a_short_run_tries_nothing(bf16_takes: Clock, left: int, chosen: str | None) -> None:
    bf16_takes(0.5)
    choice = Choice()
    engine, messages = chooser(choice)
    engine.start(left, messages.append, nullcontext)
    train(engine, 5)
    assert choice.precision == chosen


# A run


BY_TRIAL = {"trainer.epochs": LONG // 6 + 20, "trainer.eval_every": 20}


@pytest.fixture
def _with_bf16(bf16_takes: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    bf16_takes(0.5)
    monkeypatch.setattr(processors, "multiplies_bf16", lambda: True)
    monkeypatch.setattr(selection, "select_engine", lambda *_: None)


@pytest.mark.usefixtures("_with_bf16")
def test_a_run_takes_it_and_a_resumed_one_too(tmp_path: Path) -> None:
    run, recorder = built(tmp_path / "whole", BY_TRIAL)
    fit(run)
    assert len([message for message in recorder.messages if message.endswith("bf16 is used.")]) == 1
    assert run.runtime.precision == "bf16", "it is evaluated in bf16 as well"

    first = built(tmp_path / "parts", BY_TRIAL | {"trainer.max_steps": LONG + 10})[0]
    fit(first)
    second, recorder = built(tmp_path / "parts", BY_TRIAL)
    fit(resume_run(second))
    assert second.runtime.precision == "bf16"
    for name, value in run.state.model.state_dict().items():
        assert torch.equal(second.state.model.state_dict()[name], value)


@pytest.mark.usefixtures("_with_bf16")
@pytest.mark.parametrize("setting", ["precision=fp32", "deterministic=true", "compile=true"])
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of torch, which calls what it deprecates
def test_a_run_that_is_told_does_not_try(setting: str, tmp_path: Path) -> None:
    name, value = setting.split("=")
    settings = {f"device.{name}": value if name == "precision" else True}
    run = built(tmp_path, BY_TRIAL | settings)[0]
    if setting.startswith("deterministic"):
        torch.use_deterministic_algorithms(False)
    assert not getattr(run.engine, "_choose_precision", False)


@pytest.mark.parametrize(("there", "tries"), [(True, True), (False, False)])
def test_only_a_processor_that_multiplies_bf16_is_tried(
    there: bool, tries: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(processors, "multiplies_bf16", lambda: there)
    assert built(tmp_path)[0].engine._choose_precision is tries  # type: ignore[attr-defined]
