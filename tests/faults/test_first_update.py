"""A first update that is left out is none: what an optimizer keeps is made by an update that counts."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from bigmodel.engine import step
from bigmodel.engine.functional_step import FunctionalStep, UntraceableError
from bigmodel.optim.optimizers.masked import step_on_device
from bigmodel.optim.schedulers import apply
from bigmodel.registry import optimizers
from bigmodel.training.run import Run
from tests.small_runs import built

OPTIONS: dict[str, dict[str, Any]] = {
    **{name: {"name": name} for name in optimizers.names()},
    "sgd, plain": {"name": "sgd", "momentum": 0.0},
    "sgd, nesterov": {"name": "sgd", "nesterov": True},
    "adam, amsgrad": {"name": "adam", "amsgrad": True},
    "rmsprop, all": {"name": "rmsprop", "momentum": 0.5, "centered": True},
    "adagrad, from 1": {"name": "adagrad", "initial_accumulator_value": 1.0},
}
every_optimizer = pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)


@pytest.fixture(autouse=True)
def _memory_that_nobody_filled_is_nan() -> Iterator[None]:
    torch.use_deterministic_algorithms(True)  # fills it
    yield
    torch.use_deterministic_algorithms(False)


def trained(
    options: dict[str, Any], factors: list[float], hidden: bool = True
) -> tuple[list[Tensor], dict[str, Any]]:
    """Weights and state after an update by each factor times a gradient; NaN is left out on the device,
    and draws no gradient."""
    torch.manual_seed(0)
    more = [nn.Linear(4, 4), nn.LayerNorm(4), nn.Linear(4, 2)] if hidden else []
    model = nn.Sequential(nn.Linear(4, 4), *more)
    optimizer = optimizers.build(optimizers.parse(options), model)
    getattr(optimizer, "train", lambda: None)()
    draw = torch.Generator().manual_seed(1)
    for factor in factors:
        bad = math.isnan(factor)
        inputs = torch.ones(8, 4) if bad else torch.randn(8, 4, generator=draw)
        model.zero_grad()
        (model(inputs).square().sum() * factor).backward()
        step_on_device(optimizer, torch.tensor(float(bad)))
    return [p.detach().clone() for p in model.parameters()], optimizer.state_dict()["state"]


@every_optimizer
@pytest.mark.parametrize("bad", [1, 3])
def test_weights_and_state_are_those_of_a_run_that_never_saw_it(
    options: dict[str, Any], bad: int
) -> None:
    weights, state = trained(options, [math.nan] * bad + [1.0] * 3)
    expected, kept = trained(options, [1.0] * 3)
    assert all(map(torch.equal, weights, expected))
    assert state.keys() == kept.keys()
    for key, values in kept.items():
        for name, value in values.items():
            assert torch.equal(torch.as_tensor(state[key][name]), torch.as_tensor(value)), name


@pytest.mark.parametrize("name", optimizers.names())
def test_a_later_one_leaves_the_weights_of_a_model_without_hidden_matrices(name: str) -> None:
    """Muon is AdamW there, whose kernel has to be told."""
    weights, _ = trained({"name": name}, [1.0, 1.0, math.nan], hidden=False)
    expected, _ = trained({"name": name}, [1.0, 1.0], hidden=False)
    assert all(map(torch.equal, weights, expected))


def test_an_optimizer_that_keeps_nothing_waits_for_the_device_once() -> None:
    class Flag:
        def __init__(self) -> None:
            self.read = 0

        def item(self) -> float:
            self.read += 1
            return 0.0

    flag, weight = Flag(), nn.Parameter(torch.ones(2))
    optimizer = torch.optim.SGD([weight], lr=0.1, fused=True)
    weight.grad = torch.ones(2)
    step_on_device(optimizer, flag)  # type: ignore[arg-type]
    optimizer.__dict__["_step_supports_amp_scaling"] = True
    for _ in range(2):
        step_on_device(optimizer, torch.tensor(0.0))
    assert flag.read == 1
    assert torch.allclose(weight, torch.tensor(0.7))


def overflowing(run: Run, batches: list[Any], scale: float) -> None:
    """Steps in fp16 with a scale to begin with."""
    scaler = run.step.scaler
    assert scaler is not None
    scaler.load_state_dict(scaler.state_dict() | {"scale": scale})
    getattr(run.state.optimizer, "train", lambda: None)()
    run.state.model.train()
    for batch in batches:
        apply(run.state.optimizer, 1.0)
        run.step(batch)


@every_optimizer
@pytest.mark.parametrize("on_device", [False, True], ids=["host", "device"])
def test_the_first_overflow_of_fp16_leaves_nothing(
    tmp_path: Path, options: dict[str, Any], on_device: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The scale falls from one at which all overflows to one at which nothing does, with which a run
    that never saw that batch begins."""
    if on_device:
        monkeypatch.setattr(step, "masked_step", step_on_device)
    settings = {"device.precision": "fp16", "optimizer": options, "trainer.clip_norm": 1.0}
    run, _ = built(tmp_path / "overflow", settings)
    never, _ = built(tmp_path / "never", settings)
    batches = list(run.train.epoch(0))
    assert run.step.scaler is not None
    run.step.scaler.set_backoff_factor(2.0**-119)
    overflowing(run, batches[:1], 2.0**127)
    assert run.step.scaler.get_scale() == 2.0**8, "it did overflow"
    overflowing(run, batches[1:4], 2.0**8)
    overflowing(never, batches[1:4], 2.0**8)
    ours, theirs = run.state.model.state_dict(), never.state.model.state_dict()
    assert all(torch.equal(value, theirs[name]) for name, value in ours.items())
    assert all(bool(value.isfinite().all()) for value in ours.values())


def test_a_run_that_is_stopped_before_its_first_update_counts_goes_on_the_same(tmp_path: Path) -> None:
    settings = {"device.precision": "fp16", "optimizer": "sgd"}
    run, _ = built(tmp_path, settings)
    batches = list(run.train.epoch(0))
    overflowing(run, batches[:1], 2.0**127)
    groups, facts = run.state.save()
    again, _ = built(tmp_path, settings)
    again.state.load({k: {n: v.clone() for n, v in g.items()} for k, g in groups.items()}, facts)
    for one in (run, again):
        overflowing(one, batches[1:4], 2.0**8)
    ours, theirs = again.state.model.state_dict(), run.state.model.state_dict()
    assert all(torch.equal(value, theirs[name]) for name, value in ours.items())


@pytest.mark.parametrize("name", ["rmsprop", "sgd", "adam"])
def test_no_engine_is_made_from_a_step_that_was_left_out(tmp_path: Path, name: str) -> None:
    """What it would compile is an update without the state that later ones have."""
    run, _ = built(tmp_path, {"optimizer": {"name": name}})
    batch = next(iter(run.train.epoch(0)))
    batch.inputs.fill_(math.nan)
    apply(run.state.optimizer, 1.0)
    run.step(batch)
    with pytest.raises(UntraceableError, match="no state yet"):
        FunctionalStep(run.step)
