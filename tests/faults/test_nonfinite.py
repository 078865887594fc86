"""A loss or gradient that is not finite never reaches weights, averages or checkpoints; the run meets it
as it was told to."""

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from bigmodel.checkpointing import checkpoint
from bigmodel.data.base import Batch
from bigmodel.errors import NonFiniteError
from bigmodel.optim.optimizers.masked import step_and_blend, step_in_kernel, step_on_device
from bigmodel.registry import optimizers
from bigmodel.training.loop import fit
from bigmodel.training.run import Run
from tests.small_runs import built
from tests.training.test_loop_exits import falsify

SETTINGS = {
    "trainer.record_every_steps": 1,
    "trainer.checkpoint.every_steps": 1,
    "trainer.ema": 0.9,
    "model.dropout": 0.2,
}


class Poisoned(nn.Module):
    """A loss whose value is fine and whose gradient is not, for the batches in which it finds `mark`."""

    def __init__(self, true: nn.Module, marked: Tensor, by: str) -> None:
        super().__init__()
        self.true, self.marked, self.by = true, marked, by

    def forward(self, outputs: Tensor, targets: Tensor) -> Tensor:
        total: Tensor = self.true(outputs, targets)
        if targets.shape != self.marked.shape or not torch.equal(targets, self.marked):
            return total
        if self.by == "loss":
            return total * math.nan
        return total + (outputs - outputs.detach()).abs().sqrt().sum()  # 0, with a slope of NaN

    def normaliser(self, targets: Tensor) -> Tensor | int:
        weight: Tensor | int = self.true.normaliser(targets)  # type: ignore[operator]
        return weight


def poison(run: Run, step: int, by: str) -> None:
    """Has the batch of step `step`, of the first epoch, be bad whenever it comes."""
    batches: list[Batch] = list(run.train.epoch(0))
    run.step.loss = Poisoned(run.loss, batches[step - 1].targets, by)  # type: ignore[assignment]


def finite(folder: Path) -> bool:
    groups, _ = checkpoint.load(folder)
    floats = [t for tensors in groups.values() for t in tensors.values() if t.is_floating_point()]
    return all(bool(t.isfinite().all()) for t in floats)


@pytest.mark.parametrize("by", ["loss", "gradient"])
def test_skip_leaves_everything_as_it_was_and_goes_on(tmp_path: Path, by: str) -> None:
    run, told = built(tmp_path, SETTINGS | {"trainer.on_nonfinite": "skip"})
    poison(run, 3, by)
    fit(run)
    assert run.summary.skipped == 1
    assert "1 of 12 updates was skipped: NaN or infinity." in told.messages
    assert [message for message in told.messages if "at step 3 " in message and "skipped" in message]
    assert len(told.records) == 12
    assert [record["step"] for record in told.records if math.isnan(record["train/loss"])] == [3]
    assert all(finite(tmp_path / "checkpoints" / name) for name in ("last", "previous", "best"))
    # Weights after step 3 are those after step 2.
    other, _ = built(tmp_path / "other", SETTINGS | {"trainer.max_steps": 2})
    fit(other)
    third, _ = built(
        tmp_path / "third", SETTINGS | {"trainer.max_steps": 3, "trainer.on_nonfinite": "skip"}
    )
    poison(third, 3, by)
    fit(third)
    for name, value in other.state.model.state_dict().items():
        assert torch.equal(value, third.state.model.state_dict()[name])


KINDS: dict[str, tuple[dict[str, Any], str]] = {
    "classes": ({}, "accuracy"),
    "values": ({"data.target": "values", "data.outputs": 2}, "mae"),
    "flags": ({"data.target": "flags", "data.outputs": 2}, "accuracy"),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("micro_batch", [12, 5])
@pytest.mark.parametrize("by", ["outputs", "gradient"])
def test_training_metrics_are_those_of_the_updates_that_were_done(
    tmp_path: Path, kind: str, micro_batch: int, by: str
) -> None:
    settings, name = KINDS[kind]
    settings = settings | {"trainer.on_nonfinite": "skip", "trainer.epochs": 1, "model.dropout": 0.0}
    found = []
    for rhythm in (1, None):
        run, told = built(tmp_path / str(rhythm), settings | {"trainer.record_every_steps": rhythm})
        run.step.accumulation.micro_batch = micro_batch
        if by == "gradient":
            batches: list[Batch] = list(run.train.epoch(0))
            marked = batches[2].targets[:micro_batch]
            run.step.loss = Poisoned(run.loss, marked, by)  # type: ignore[assignment]
        else:
            break_outputs(run, 1 + 2 * -(-12 // micro_batch))
        fit(run)
        assert run.summary.skipped == 1
        found.append([record[f"train/{name}"] for record in told.records])
    steps, (epoch,) = found
    assert [step for step, value in enumerate(steps, start=1) if math.isnan(value)] == [3]
    sizes = [12, 12, 0, 12, 12, 4]
    expected = sum(n * v for n, v in zip(sizes, steps, strict=True) if n) / sum(sizes)
    assert epoch == pytest.approx(expected, rel=1e-6)


def break_outputs(run: Run, call: int) -> None:
    """Has the model give NaN when it is trained for the `call`-th time."""
    forward, calls = run.state.model.forward, 0

    def broken(inputs: Tensor) -> Tensor:
        nonlocal calls
        calls += run.state.model.training
        outputs: Tensor = forward(inputs)
        return outputs * math.nan if run.state.model.training and calls == call else outputs

    run.state.model.forward = broken  # type: ignore[method-assign]


TEXTS: dict[str, Any] = {
    "model": {"name": "transformer", "dim": 8, "depth": 1, "num_heads": 2},
    "trainer.record_every_steps": 1,
}


@pytest.mark.parametrize("kind", [*KINDS, "text", "pairs"])
def test_a_model_that_gives_nan_has_no_metrics_and_is_never_the_best(tmp_path: Path, kind: str) -> None:
    (tmp_path / "a.txt").write_text("to be or not to be\n" * 40)
    settings = KINDS[kind][0] if kind in KINDS else TEXTS
    if kind == "text":
        settings = settings | {"data": {"name": "text", "path": str(tmp_path / "a.txt"), "context": 8}}
    if kind == "pairs":
        (tmp_path / "de").write_text("".join(f"ein {n} Hund\n" for n in range(40)))
        (tmp_path / "en").write_text("".join(f"one {n} dog\n" for n in range(40)))
        files = {"source": str(tmp_path / "de"), "target": str(tmp_path / "en")}
        more = {"name": "pairs", "vocab_size": 270, "length": 24, "test_fraction": 0.2, "bleu_pairs": 2}
        settings = settings | {"data": files | more, "trainer.checkpoint.monitor": "val/bleu"}
    settings = settings | {
        "optimizer.lr": 1e30,
        "trainer.on_nonfinite": "skip",
        "trainer.max_steps": 4,
        "trainer.eval_every_steps": 1,
        "trainer.log_every_steps": 1,
    }
    run, told = built(tmp_path / "run", settings)
    summary = fit(run)
    assert summary.status == "finished"
    judged = {name for record in told.records for name in record if name.startswith("val/")}
    assert "val/loss" in judged
    assert all(math.isnan(record[name]) for record in told.records for name in judged)
    assert (summary.best, run.state.progress.best_value) == ({}, None)
    assert not (tmp_path / "run" / "checkpoints" / "best").exists()
    assert all(math.isnan(value) for value in summary.test.values())
    said = [message for message in told.messages if "the model gives NaN or infinity" in message]
    assert len(said) == 1, "once, not at each evaluation"
    for _, evaluation in told.evaluations:
        assert evaluation.undefined
        assert evaluation.confusion is None
        assert {sample.prediction for sample in evaluation.samples} <= {"undefined"}
        assert not any(sample.correct for sample in evaluation.samples)
    written = json.loads((tmp_path / "run" / "summary.json").read_text())["final"]
    assert all(written[name] is None for name in judged)


def test_skip_takes_running_statistics_back(tmp_path: Path) -> None:
    """The forward pass of the bad batch has been through them."""
    images = {"data.input": "image", "data.shape": [1, 8, 8], "model": {"name": "cnn", "channels": [4]}}
    settings = SETTINGS | images | {"trainer.on_nonfinite": "skip", "trainer.epochs": 1}
    del settings["model.dropout"]
    run, _ = built(tmp_path, settings)
    forward, calls = run.state.model.forward, 0

    def overflowing(inputs: Tensor) -> Tensor:
        nonlocal calls
        calls += run.state.model.training
        bad = run.state.model.training and calls == 3
        outputs: Tensor = forward(inputs * 1e30 if bad else inputs)
        return outputs

    run.state.model.forward = overflowing  # type: ignore[method-assign]
    fit(run)
    assert run.summary.skipped == 1
    assert finite(tmp_path / "checkpoints" / "last")


def test_without_end_skipping_is_no_way_out(tmp_path: Path) -> None:
    run, told = built(tmp_path, {"trainer.on_nonfinite": "skip", "trainer.epochs": 40})
    falsify(run, math.inf, *range(5, 1000))
    with pytest.raises(NonFiniteError, match="The 100 updates before it were skipped, too"):
        fit(run)
    assert 5 <= len(told.messages) <= 8, "not a line for each"
    assert run.summary.skipped == 101, "not what was drained after the fault"


def test_a_run_that_stops_at_its_first_fault_has_skipped_nothing(tmp_path: Path) -> None:
    """Although more steps like it were done before their losses were fetched."""
    run, told = built(tmp_path, {"trainer.on_nonfinite": "stop"})
    falsify(run, math.nan, *range(2, 1000))
    with pytest.raises(NonFiniteError, match="at step 2 "):
        fit(run)
    assert run.summary.skipped == json.loads((tmp_path / "summary.json").read_text())["skipped"] == 0
    assert not [message for message in told.messages if "skipped: NaN" in message]


@pytest.mark.parametrize("by", ["loss", "gradient"])
def test_rewind_goes_back_and_skips_the_batch(tmp_path: Path, by: str) -> None:
    settings = SETTINGS | {"trainer.on_nonfinite": "rewind", "trainer.checkpoint.every_steps": 2}
    run, told = built(tmp_path, settings)
    poison(run, 4, by)
    fit(run)
    assert told.rewound == [2]
    assert (run.state.progress.skipped_steps, run.summary.skipped) == ([4], 1)
    assert [message for message in told.messages if "Rewound to step 2; the batch of step 4" in message]
    steps = [record["step"] for record in told.records]
    assert steps == [1, 2, 3, 3, *range(4, 13)]  # a recorder forgets nothing; sinks that keep files do
    assert told.records[2] | {"samples_per_second": 0} == told.records[3] | {"samples_per_second": 0}
    assert math.isnan(told.records[4]["train/loss"])
    assert run.summary.status == "finished"


def test_rewind_before_the_first_save_goes_back_to_the_start(tmp_path: Path) -> None:
    run, told = built(tmp_path, {"trainer.on_nonfinite": "rewind"})
    poison(run, 1, "loss")
    fit(run)
    assert told.rewound == [0]


def test_rewinding_ends_after_three_times(tmp_path: Path) -> None:
    run, told = built(tmp_path, SETTINGS | {"trainer.on_nonfinite": "rewind"})
    falsify(run, math.nan, *range(4, 1000))
    with pytest.raises(
        NonFiniteError, match="Rewinding and skipping the batches of steps 4, 5, 6 did not help"
    ):
        fit(run)
    assert told.rewound == [3, 4, 5]
    assert run.summary.skipped == 3, "the skipped batches, not the fault that ended it"
    assert finite(tmp_path / "checkpoints" / "last")
    assert json.loads((tmp_path / "summary.json").read_text())["status"] == "failed"


def test_files_hold_each_step_once_after_rewinding(tmp_path: Path) -> None:
    from bigmodel.reporting.base import Sinks
    from bigmodel.reporting.jsonl import JsonLines
    from bigmodel.reporting.tensorboard import TensorBoard
    from tests.faults.trials import event_scalars

    settings = SETTINGS | {"trainer.on_nonfinite": "rewind", "trainer.checkpoint.every_steps": 5}
    run, _ = built(tmp_path, settings)
    run = replace(run, sinks=Sinks([JsonLines(tmp_path), TensorBoard(tmp_path)]))
    poison(run, 4, "gradient")
    fit(run)
    records = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [record["step"] for record in records] == list(range(1, 13))
    assert [record["train/loss"] is None for record in records].index(True) == 3
    assert [step for step, _ in event_scalars(tmp_path, "train/loss")] == list(range(1, 13))


def test_the_scaler_of_fp16_may_skip_without_a_fault(tmp_path: Path) -> None:
    run, _ = built(tmp_path, {"device.precision": "fp16", "trainer.on_nonfinite": "stop"})
    assert run.step.scaler is not None
    run.step.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**126)
    fit(run)
    assert run.summary.status == "finished"
    assert run.summary.skipped == 0
    assert run.step.scaler.get_scale() < 2.0**126, "it did skip"


@pytest.mark.parametrize("name", optimizers.names())
@pytest.mark.parametrize("step", [step_in_kernel, step_and_blend])
@pytest.mark.parametrize("bad", [0.0, 1.0])
def test_an_update_masked_on_the_device_is_none(name: str, step: Any, bad: float) -> None:
    """The ways of another device than a CPU, taken on one."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 2))
    optimizer = optimizers.build(optimizers.parse({"name": name}), model)
    if step is step_in_kernel and not all(g.get("fused") for g in optimizer.param_groups):
        pytest.skip("not fused")
    getattr(optimizer, "train", lambda: None)()

    def gradients(factor: float) -> None:
        model.zero_grad()
        (model(torch.randn(8, 4)).square().sum() * factor).backward()

    for _ in range(3):
        gradients(1.0)
        optimizer.step()
    before = {n: p.clone() for n, p in model.named_parameters()}
    moments = [v.clone() for s in optimizer.state.values() for v in s.values() if torch.is_tensor(v)]
    gradients(math.nan if bad else 1.0)
    step(optimizer, torch.tensor(bad))
    same = all(torch.equal(before[n], p) for n, p in model.named_parameters())
    after = [v for s in optimizer.state.values() for v in s.values() if torch.is_tensor(v)]
    kept = all(torch.equal(old, new) for old, new in zip(moments, after, strict=True))
    assert (same, kept) == ((True, True) if bad else (False, False))


def test_blending_changes_no_bit_of_a_good_update() -> None:
    twins = []
    for by_blending in (False, True):
        torch.manual_seed(0)
        model = nn.Linear(5, 3)
        optimizer = torch.optim.NAdam(model.parameters(), lr=0.1)
        for _ in range(4):
            optimizer.zero_grad()
            model(torch.randn(6, 5)).square().sum().backward()
            if by_blending:
                step_on_device(optimizer, torch.tensor(0.0))
            else:
                optimizer.step()
        twins.append(model.weight.detach().clone())
    assert torch.equal(*twins)


def test_averages_never_take_weights_that_overflowed(tmp_path: Path) -> None:
    run, _ = built(tmp_path, {"trainer.ema": 0.5})
    assert run.state.ema is not None
    before = {name: value.clone() for name, value in run.state.ema.weights.items()}
    with torch.no_grad():
        next(run.state.model.parameters()).view(-1)[0] = math.inf
    run.state.ema.update()
    assert all(torch.equal(before[name], value) for name, value in run.state.ema.weights.items())
