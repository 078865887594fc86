"""Runs that train parts of a model."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from bigmodel.build.resumed_run import resume_run
from bigmodel.errors import ConfigError
from bigmodel.training.loop import fit
from bigmodel.training.run import Run
from tests.engine.steps import needs_compiler
from tests.small_runs import built

BLOCKS = {"model": {"name": "transformer", "dim": 8, "depth": 2, "num_heads": 2}}
LAYERS = {"model.hidden_sizes": [8, 8], "model.norm": "batch", "model.freeze": ["layers.0", "norms.0"]}
# A step is compiled for each number of blocks.
ENGINES = ["eager", pytest.param("compiled", marks=[needs_compiler, pytest.mark.slow])]
UNFREEZING = {"model": BLOCKS["model"] | {"unfreeze_every": 1}, "trainer.epochs": 5, "trainer.ema": 0.9}


def weights(run: Run) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in run.state.model.state_dict().items()}


@pytest.mark.parametrize(
    ("engine", "more"),
    [
        ("eager", {}),
        ("eager", {"optimizer": "muon"}),
        pytest.param("compiled", {"trainer.ema": 0.9}, marks=needs_compiler),
    ],
    ids=str,
)
def test_frozen_parts_stay_and_others_learn(tmp_path: Path, engine: str, more: dict[str, Any]) -> None:
    settings = LAYERS | {"device.engine": engine, "trainer.epochs": 3} | more
    run, _ = built(tmp_path, settings)
    before = weights(run)
    fit(run)
    assert run.engine.name == engine
    changed = {name for name, value in weights(run).items() if not torch.equal(value, before[name])}
    frozen = {name for name in before if name.startswith(("layers.0", "norms.0"))}
    assert len(frozen) == 6  # a weight, and a batch norm with its statistics
    assert changed == before.keys() - frozen


def test_a_batch_that_diverges_in_a_new_stage_is_gone_back_from(tmp_path: Path) -> None:
    """The checkpoint is from before it, when the newest block had no state in the optimizer."""
    settings = UNFREEZING | {"device.engine": "eager", "trainer.on_nonfinite": "rewind"}
    run, recorder = built(tmp_path, settings)
    losses, step = [], run.step.forward

    def forward(*batch: torch.Tensor) -> Any:
        outputs, total = step(*batch)
        losses.append(total)
        return outputs, total * math.nan if len(losses) == 8 else total

    run.step.forward = forward  # type: ignore[method-assign]
    assert fit(run).status == "finished"
    assert recorder.rewound
    assert all(p.requires_grad for p in run.state.model.parameters())


def test_what_is_frozen_takes_no_memory_but_its_own(tmp_path: Path) -> None:
    run, _ = built(tmp_path, LAYERS | {"trainer.ema": 0.9})
    fit(run)
    parameters = dict(run.state.model.named_parameters())
    frozen = {name for name, parameter in parameters.items() if not parameter.requires_grad}
    assert len(frozen) == 3
    assert all(parameters[name].grad is None for name in frozen)
    assert {p for p in parameters.values() if p.requires_grad} == set(run.state.optimizer.state)
    assert run.state.ema is not None
    assert not frozen & run.state.ema.weights.keys()


def test_the_header_tells_what_is_trained(tmp_path: Path) -> None:
    run, _ = built(tmp_path, {"model.freeze": ["layers"]})
    assert dict(run.info.rows)["Model"] == "fnn, 75 parameters, of which 27 are trained (36.00%)"
    assert [layer.frozen for layer in run.info.layers] == [48, 0]
    assert run.summary.parameters == 75
    assert run.summary.trained_parameters == 27
    assert "trained" not in dict(built(tmp_path)[0].info.rows)["Model"]


def test_the_header_tells_of_blocks_that_are_never_trained(tmp_path: Path) -> None:
    run, _ = built(tmp_path, UNFREEZING | {"trainer.epochs": 2})
    assert dict(run.info.rows)["Warning"] == (
        "model.unfreeze_every=1: the run ends after 2 epochs, so that the lowest 2 of 4 parts are never"
        " trained. All are in one of trainer.epochs=4 or more."
    )
    assert "Warning" not in dict(built(tmp_path, UNFREEZING)[0].info.rows)


def test_the_header_tells_the_rates(tmp_path: Path) -> None:
    settings = BLOCKS | {"optimizer.layer_decay": 0.5, "optimizer.rates": {"head": 3.0}}
    run, _ = built(tmp_path, settings)
    told = "(× 0.5 from each block to the one below, head × 3)"
    assert told in dict(run.info.rows)["Optimizer"]
    rates = {group["lr"] for group in run.state.optimizer.param_groups}
    assert rates == {0.006, 0.002, 0.001, 0.0005, 0.00025}


@pytest.mark.parametrize("optimizer", ["adamw", "muon", "schedule_free_adamw"])
def test_a_rate_is_found_for_all_parts(tmp_path: Path, optimizer: str) -> None:
    """The factors stay what they are."""
    settings = BLOCKS | {"optimizer.lr": "auto", "optimizer.layer_decay": 0.5, "optimizer": optimizer}
    settings["optimizer"] = {"name": optimizer, "lr": "auto", "layer_decay": 0.5}
    run, _ = built(tmp_path, settings | {"trainer.epochs": 1})
    fit(run)
    rates = {group["initial_lr"] for group in run.state.optimizer.param_groups}
    found = run.state.progress.learning_rate
    assert found is not None
    assert rates == {found, found / 2, found / 4, found / 8}


def test_what_fits_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"model.freeze: 'layer' is no part .* Did you mean 'layers'"):
        built(tmp_path, {"model.freeze": ["layer"]})
    with pytest.raises(ConfigError, match="nothing is left to train"):
        built(tmp_path, {"model.freeze": ["*"]})
    with pytest.raises(ConfigError, match="this model is no stack of equal blocks"):
        built(tmp_path, {"optimizer.layer_decay": 0.5})


@pytest.mark.parametrize("engine", ENGINES)
def test_blocks_learn_from_their_epoch_on(tmp_path: Path, engine: str) -> None:
    run, recorder = built(tmp_path, UNFREEZING | {"device.engine": engine})
    before, seen = weights(run), []

    def record(*_: Any) -> None:
        now = run.state.model.state_dict()
        changed = {name for name, value in before.items() if not torch.equal(value, now[name])}
        seen.append({".".join(name.split(".")[:2]) for name in changed})

    recorder.record = record  # type: ignore[method-assign]
    fit(run)
    top = {"final_norm.weight", "final_norm.bias", "head.weight", "head.bias"}
    assert seen[0] == top
    assert seen[1] == top | {"blocks.1"}
    assert seen[2] == top | {"blocks.0", "blocks.1"}
    assert seen[3] - seen[2] == {"embedding.weight", "embedding.bias"}
    assert seen[4] == seen[3]
    assert run.engine.name == engine
    assert sum("parameters are trained" in message for message in recorder.messages) == 4
    assert dict(run.info.rows)["Unfreezing"] == "one more block every 1 epoch, all from epoch 4 on"


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("stop", [6, 8])  # at an epoch's end, where a block follows, and within one
def test_a_run_that_unfreezes_is_resumed_to_the_bit(tmp_path: Path, engine: str, stop: int) -> None:
    settings = UNFREEZING | {"device.engine": engine}
    whole, _ = built(tmp_path / "whole", settings)
    fit(whole)
    halted, _ = built(tmp_path / "halted", settings | {"trainer.max_steps": stop})
    fit(halted)
    again, _ = built(tmp_path / "halted", settings)
    again = resume_run(again)
    assert again.state.progress.step == stop
    fit(again)
    assert all(torch.equal(value, weights(whole)[name]) for name, value in weights(again).items())
