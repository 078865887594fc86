import random
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load, save
from torch import Tensor, nn

from bigmodel import registry
from bigmodel.checkpointing import checkpoint, exact_json
from bigmodel.checkpointing.serialization import flatten_optimizer, unflatten_optimizer
from bigmodel.distributed.ranks import Ranks
from bigmodel.errors import CheckpointError, NonFiniteError
from bigmodel.models.freezing import train_mode
from bigmodel.optim.schedulers import apply
from bigmodel.training.progress import Progress
from bigmodel.training.run import Run
from tests.small_runs import built

RANDOM = {"model.dropout": 0.3, "model.norm": "batch", "model.hidden_sizes": [8, 8]}
FROZEN = {"model.freeze": ["layers.0", "norms.0"], "optimizer.rates": {"head": 2.0}}
AVERAGING = [{"optimizer": "schedule_free_adamw"}, {"trainer.ema": 0.9}]


def step(run: Run, steps: int) -> list[float]:
    """Trains on; returns the losses."""
    model, progress = run.state.model, run.state.progress
    train_mode(model)
    if hasattr(run.state.optimizer, "train"):
        run.state.optimizer.train()
    batches = [batch for epoch in range(2) for batch in run.train.epoch(epoch)]
    for batch in batches[progress.step : progress.step + steps]:
        apply(run.state.optimizer, run.state.schedule.factor(progress.step))
        run.step(batch)
        progress.step += 1
    assert model.training
    return [figure.loss for figure in run.step.drain()]


def everything(run: Run) -> dict[str, Tensor]:
    groups, _ = run.state.save()
    return {f"{group}/{k}": v.clone() for group, tensors in groups.items() for k, v in tensors.items()}


def equal(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize(
    ("optimizer", "ema"),
    [
        (name, ema)
        for name in registry.optimizers.names()
        for ema in (None, 0.9)
        if ema is None or name != "schedule_free_adamw"  # which averages weights itself
    ],
)
def test_goes_on_to_the_bit(tmp_path: Path, optimizer: str, ema: float | None, precision: str) -> None:
    settings = RANDOM | {
        "optimizer": optimizer,
        "optimizer.weight_decay": 0.1,
        "scheduler": "cosine",
        "device.precision": precision,
        "trainer.ema": ema,
    }
    run, _ = built(tmp_path, settings)
    step(run, 3)
    checkpoint.save(tmp_path / "last", *run.state.save())
    expected = step(run, 3)
    random.random()

    again, _ = built(tmp_path, settings | {"seed": 1})  # the seed: nothing may come from where it began
    again.state.load(*checkpoint.load(tmp_path / "last"))
    again = replace(again, train=run.train)
    assert again.state.progress == Progress(step=3)
    assert step(again, 3) == expected
    assert equal(everything(again), everything(run))


def test_all_that_json_holds_comes_back(tmp_path: Path) -> None:
    settings = {"scheduler": "plateau", "trainer.ema": 0.9, "device.precision": "fp16"}
    run, _ = built(tmp_path, settings)
    step(run, 4)
    for value in (0.5, 0.4, 0.45):
        run.state.schedule.observe(value, "max", 0)
    best: dict[str, float | int] = {"epoch": 1, "val/loss": 0.1 + 0.2}
    run.state.progress = Progress(
        4, 4, 0.1, 3.0, 1.5, best, 0.3, {}, 2, 0.7, {"val/loss": 1 / 3}, True, 2, 1, [3], 16
    )
    random.seed(5)
    groups, facts = run.state.save()
    expected = (torch.rand(3), random.random(), random.gauss(0, 1))

    again, _ = built(tmp_path, settings | {"seed": 1})
    again.state.load(deepcopy(groups), exact_json.loads(exact_json.dumps(facts)))
    assert again.state.progress == run.state.progress
    assert again.state.schedule.state_dict() == run.state.schedule.state_dict()
    assert again.state.scaler is not None
    assert again.state.scaler.state_dict() == run.state.scaler.state_dict()  # type: ignore[union-attr]
    assert again.state.ema is not None
    assert again.state.ema.updates == 4
    drawn = (torch.rand(3), random.random(), random.gauss(0, 1))
    assert torch.equal(drawn[0], expected[0])
    assert drawn[1:] == expected[1:]


@pytest.mark.filterwarnings("ignore:.*torch.jit.script_method:DeprecationWarning")  # torch's own
def test_what_is_saved_says_nothing_of_how_the_model_was_compiled(tmp_path: Path) -> None:
    plain, compiled = built(tmp_path)[0], built(tmp_path, {"device.compile": True})[0]
    assert compiled.state.save()[0]["model"].keys() == plain.state.save()[0]["model"].keys()


@pytest.mark.parametrize("settings", [*AVERAGING, *(FROZEN | one for one in AVERAGING)], ids=str)
def test_the_training_weights_come_back_to_the_bit(tmp_path: Path, settings: dict[str, Any]) -> None:
    run, _ = built(tmp_path, RANDOM | settings)
    step(run, 5)
    before = {name: value.clone() for name, value in run.state.model.state_dict().items()}
    inside: dict[str, Tensor] = {}

    def interrupted() -> None:
        with run.state.evaluation_weights():
            inside.update({name: value.clone() for name, value in run.state.model.state_dict().items()})
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert equal(before, dict(run.state.model.state_dict()))
    assert not equal(before, inside)
    assert equal(run.state.save()[0]["averaged"], inside)
    assert step(run, 1)  # schedule-free: it is in training again


@pytest.mark.parametrize("settings", [{}, *AVERAGING], ids=str)
def test_a_run_with_frozen_parts_goes_on_to_the_bit(tmp_path: Path, settings: dict[str, Any]) -> None:
    whole, _ = built(tmp_path, RANDOM | FROZEN | settings)
    losses = step(whole, 6)
    halted, _ = built(tmp_path, RANDOM | FROZEN | settings)
    assert step(halted, 3) == losses[:3]
    groups, facts = halted.state.save()
    again, _ = built(tmp_path, RANDOM | FROZEN | settings | {"seed": 1})
    again.state.load(groups, facts)
    again = replace(again, train=whole.train)
    assert step(again, 3) == losses[3:]
    assert equal(everything(again), everything(whole))
    assert any("layers.0" in name for name in everything(whole))  # a checkpoint has all weights


def test_the_weights_to_evaluate_with_are_the_averages(tmp_path: Path) -> None:
    run, _ = built(tmp_path, RANDOM | {"trainer.ema": 0.9})
    step(run, 5)
    assert run.state.ema is not None
    assert equal(run.state.save()[0]["averaged"], run.state.ema.weights)

    free, _ = built(tmp_path, RANDOM | {"optimizer": "schedule_free_adamw"})
    step(free, 5)
    twin = deepcopy(free.state.optimizer)
    twin.eval()  # type: ignore[attr-defined]
    saved = [free.state.save()[0]["averaged"][name] for name, _ in free.state.model.named_parameters()]
    theirs = [parameter for group in twin.param_groups for parameter in group["params"]]
    assert len(saved) == len(theirs)
    assert all(any(torch.equal(mine, other) for other in theirs) for mine in saved)


def test_without_averages_nothing_is_copied(tmp_path: Path) -> None:
    run, _ = built(tmp_path)
    assert "averaged" not in run.state.save()[0]
    before = run.state.model.state_dict()
    with run.state.evaluation_weights():
        inside = run.state.model.state_dict()
    assert all(inside[name].data_ptr() == value.data_ptr() for name, value in before.items())


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("kind", ["parameter", "buffer"])
def test_weights_that_are_not_finite_are_never_saved(tmp_path: Path, value: float, kind: str) -> None:
    run, _ = built(tmp_path, RANDOM)
    step(run, 2)
    model = run.state.model
    chosen = dict(model.named_parameters() if kind == "parameter" else model.named_buffers())
    name = [name for name, tensor in chosen.items() if tensor.is_floating_point()][-1]
    with torch.no_grad():
        chosen[name].view(-1)[-1] = value
    with pytest.raises(NonFiniteError, match="Step 2 left NaN or infinite") as caught:
        run.state.save()
    assert f"values in model {name}." in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (
            {"model.hidden_sizes": [9]},
            "another model: .*mismatch .* shape 8 × 5 from .* model is 9 × 5",
        ),
        ({"model": "rnn", "data.input": "tokens"}, "another model: .*Missing key"),
    ],
    ids=["widths", "kind"],
)
def test_another_model_s_state_is_refused(tmp_path: Path, settings: dict[str, Any], words: str) -> None:
    saved = built(tmp_path)[0].state.save()
    other, _ = built(tmp_path, settings)
    with pytest.raises(CheckpointError, match=f"(?s){words}"):
        other.state.load(*saved)


def test_another_optimizer_s_state_is_refused(tmp_path: Path) -> None:
    run, _ = built(tmp_path, {"optimizer.weight_decay": 0.1})
    step(run, 1)
    other, _ = built(tmp_path, {"optimizer.weight_decay": 0.0})  # one group of parameters, not two
    with pytest.raises(CheckpointError, match="optimizer is not this run's"):
        other.state.load(*run.state.save())


@pytest.mark.parametrize("freeze", [[], ["layers.1"]], ids=["more parts", "a part of the same shape"])
def test_an_optimizer_begins_anew_if_other_parts_are_trained(tmp_path: Path, freeze: list[str]) -> None:
    """Even if its state fits: the moments of one layer are none of another."""
    sizes = {"model.hidden_sizes": [5, 5, 5]}
    run, _ = built(tmp_path / "run", sizes | {"model.freeze": ["layers.0"]})
    step(run, 2)
    other, _ = built(tmp_path / "other", sizes | {"model.freeze": freeze})
    other.state.load(*run.state.save(), changed=["model.freeze"])
    assert other.state.optimizer_reset
    assert not other.state.optimizer.state
    assert equal(other.state.save()[0]["model"], run.state.save()[0]["model"])


def test_a_state_of_another_optimizer_of_the_same_shape_is_refused(tmp_path: Path) -> None:
    run, _ = built(tmp_path, {"optimizer": "adamw"})
    step(run, 1)
    other, _ = built(tmp_path, {"optimizer": "radam"})
    with pytest.raises(CheckpointError, match="optimizer is AdamW, and this run's is RAdam"):
        other.state.load(*run.state.save())


@pytest.mark.parametrize("optimizer", registry.optimizers.names())
def test_an_optimizer_s_state_comes_back_from_its_parts(tmp_path: Path, optimizer: str) -> None:
    run, _ = built(tmp_path, {"optimizer": optimizer, "optimizer.weight_decay": 0.1} | RANDOM)
    step(run, 3)
    state = run.state.optimizer.state_dict()
    tensors, facts = flatten_optimizer(state)
    back = unflatten_optimizer(load(save(tensors)), exact_json.loads(exact_json.dumps(facts)))
    assert_same(back, state)


class Two(Ranks):
    """The first of two ranks, without the other."""

    size = data_size = 2


def test_several_ranks_begin_a_step_of_one_anew(tmp_path: Path) -> None:
    settings = {"data.batch_size": 6, "trainer.accumulate": 2}
    one, _ = built(tmp_path, settings)
    paused = iter([True])
    one.step.should_pause = lambda: next(paused, False)
    assert not one.step(next(one.train.epoch(0)))
    groups, facts = one.state.save()
    assert "accumulation" in groups
    several = replace(built(tmp_path, settings)[0].state, ranks=Two())
    several.accumulation.micro_batch = 3  # a rank's share
    several.load(groups, facts)
    assert several.accumulation.losses == []
    assert all(parameter.grad is None for parameter in several.model.parameters())
    assert several.accumulation.micro_batch == 3
    again = built(tmp_path, settings)[0].state
    shared = {**groups, "random": {**groups["random"], "cpu.1": groups["random"]["cpu"]}}
    again.load(shared, {**facts, "micro_batch": 3})
    assert again.accumulation.micro_batch == 6


def test_odd_states_come_back_too() -> None:
    parameter = nn.Parameter(torch.zeros(2))
    optimizer = torch.optim.SGD([parameter], lr=torch.tensor(0.1))
    state = optimizer.state_dict()
    state["state"] = {0: {"momentum_buffer": torch.ones(2), "seen": 3, "empty": None}}
    tensors, facts = flatten_optimizer(state)
    assert tensors.keys() == {"0.momentum_buffer", "group0.lr"}
    assert_same(
        unflatten_optimizer(load(save(tensors)), exact_json.loads(exact_json.dumps(facts))), state
    )


def assert_same(one: Any, other: Any) -> None:
    """Equal in value and type, tensors to the bit."""
    assert type(one) is type(other)
    if isinstance(one, dict):
        assert one.keys() == other.keys()
        for key in one:
            assert_same(one[key], other[key])
    elif isinstance(one, list | tuple):
        assert len(one) == len(other)
        for left, right in zip(one, other, strict=True):
            assert_same(left, right)
    elif isinstance(one, Tensor):
        assert one.dtype == other.dtype
        assert torch.equal(one, other)
    else:
        assert one == other
