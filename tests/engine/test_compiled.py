"""Runs of compiled steps are those of eager ones, but for rounding: they stop and meet faults alike.

All of them share one compiled step, since they differ in nothing that its code follows from.
"""

from __future__ import annotations

import math
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from bigmodel.build.resumed_run import resume_run
from bigmodel.checkpointing import checkpoint
from bigmodel.engine.native import compiler
from bigmodel.errors import NonFiniteError
from bigmodel.reporting.base import Record
from bigmodel.runtime.signals import Stopped
from bigmodel.training.loop import fit
from bigmodel.training.run import Run
from tests.engine.steps import needs_compiler
from tests.small_runs import STEPS_PER_EPOCH, Recorder, built

pytestmark = needs_compiler

LONG, EPOCHS = 34, 6
"""204 steps, and 36; each epoch's last batch is smaller."""
SETTINGS = {
    "model.dropout": 0.3,
    "scheduler": "one_cycle",
    "trainer.ema": 0.9,
    "trainer.clip_norm": 0.5,
    "trainer.epochs": EPOCHS,
    "trainer.eval_every": 3,
}


def run_of(folder: Path, engine: str, **more: Any) -> tuple[Run, Recorder]:
    return built(folder, SETTINGS | {"device.engine": engine} | more)


def step_by_step(folder: Path, engine: str, epochs: int = EPOCHS) -> tuple[Run, Recorder]:
    settings = {"trainer.record_every_steps": 1, "trainer.epochs": epochs}
    return run_of(folder, engine, **settings)


def is_compiled(run: Run) -> bool:
    return run.engine.name == "compiled"


def weights_of(run: Run) -> dict[str, torch.Tensor]:
    assert run.state.ema is not None
    own = {f"averaged {name}": value for name, value in run.state.ema.weights.items()}
    return {**run.state.model.state_dict(), **own}


def assert_near(one: Run, other: Run) -> None:
    theirs = weights_of(other)
    for name, value in weights_of(one).items():
        torch.testing.assert_close(value, theirs[name], rtol=1e-4, atol=1e-5)


def assert_equal(one: Run, other: Run) -> None:
    theirs = weights_of(other)
    assert all(torch.equal(value, theirs[name]) for name, value in weights_of(one).items())


def without_speed(record: Record) -> Record:
    return {key: value for key, value in record.items() if key != "samples_per_second"}


def stop_after(run: Run, recorder: Recorder, step: int) -> None:
    """Has the process be asked to stop when the record of a step is there."""

    class Stopping(Recorder):
        def record(self, record: Record, best: Record) -> None:
            super().record(record, best)
            if record["step"] == step:
                run.signals._asked_to_stop(signal.SIGTERM, None)

    stopping = Stopping()
    stopping.records = recorder.records
    with pytest.raises(Stopped):
        fit(replace(run, sinks=stopping))


def test_losses_and_records_are_those_of_the_eager_steps(tmp_path: Path) -> None:
    eager, wanted = step_by_step(tmp_path / "eager", "eager", LONG)
    fit(eager)
    fast, got = step_by_step(tmp_path / "compiled", "compiled", LONG)
    fit(fast)
    assert is_compiled(fast)
    assert "ms (compiled) instead of " in got.messages[-1]
    assert len(got.records) == LONG * STEPS_PER_EPOCH > 200
    for ours, theirs in zip(got.records, wanted.records, strict=True):
        assert ours.keys() == theirs.keys() >= {"grad_norm", "lr", "train/accuracy"}
        for name in ours.keys() - {"samples_per_second"}:
            assert ours[name] == pytest.approx(theirs[name], rel=1e-5, abs=1e-6), (ours["step"], name)
    assert_near(fast, eager)


def test_many_steps_in_a_call_are_the_same_steps(tmp_path: Path) -> None:
    """To the bit: a whole epoch in one go, and one record after another."""
    one, by_step = step_by_step(tmp_path / "one", "compiled")
    fit(one)
    many, by_epoch = run_of(tmp_path / "many", "compiled")
    calls: list[int] = []
    engine = many.engine
    original = type(engine).__call__

    def counted(batches: Any, factors: Any, measure: bool) -> int:
        calls.append(original(engine, batches, factors, measure))
        return calls[-1]

    fit(replace(many, engine=_Called(engine, counted)))  # type: ignore[arg-type]
    assert max(calls) == STEPS_PER_EPOCH - 1, "the whole batches of an epoch"
    assert sum(calls) == EPOCHS * STEPS_PER_EPOCH
    assert_equal(one, many)
    for record in by_epoch.records:
        own = [r for r in by_step.records if r["epoch"] == record["epoch"]]
        assert record["lr"] == own[-1]["lr"]
        assert record["grad_norm"] == own[-1]["grad_norm"]
        losses = [r["train/loss"] * size for r, size in zip(own, [12] * 5 + [4], strict=True)]
        assert record["train/loss"] == pytest.approx(sum(losses) / 64)


class _Called:
    """An engine whose calls go elsewhere."""

    def __init__(self, engine: Any, call: Any) -> None:
        self._engine, self._call = engine, call

    def __call__(self, *arguments: Any, **more: Any) -> int:
        done: int = self._call(*arguments, **more)
        return done

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)


@pytest.mark.parametrize("step", [1, 2, 6, 7, 20])
def test_a_resumed_run_ends_as_one_that_was_never_stopped(tmp_path: Path, step: int) -> None:
    whole, wanted = step_by_step(tmp_path / "whole", "compiled")
    fit(whole)
    first, recorder = step_by_step(tmp_path / "stopped", "compiled")
    stop_after(first, recorder, step)
    again, rest = step_by_step(tmp_path / "stopped", "compiled")
    torch.manual_seed(123)
    fit(resume_run(again))
    assert is_compiled(again)
    assert_equal(again, whole)
    records = [*recorder.records, *rest.records]
    assert list(map(without_speed, records)) == list(map(without_speed, wanted.records))


def test_from_eager_to_compiled_and_back(tmp_path: Path) -> None:
    eager, _ = step_by_step(tmp_path / "eager", "eager")
    fit(eager)
    first, recorder = step_by_step(tmp_path / "turns", "eager")
    stop_after(first, recorder, 10)
    second, recorder = step_by_step(tmp_path / "turns", "compiled")
    second = resume_run(second, changed=["device.engine"])
    stop_after(second, recorder, 20)
    assert is_compiled(second)
    third, _ = step_by_step(tmp_path / "turns", "eager")
    fit(resume_run(third, changed=["device.engine"]))
    assert not is_compiled(third)
    assert_near(third, eager)


def spoil(run: Run) -> None:
    """Makes a sample of the second batch of the first epoch no number."""
    order = run.train.order(0)  # type: ignore[attr-defined]
    run.train.part.inputs[order[15]] = math.nan  # type: ignore[union-attr]


def test_bad_batches_are_skipped_as_by_eager_steps(tmp_path: Path) -> None:
    runs = []
    for engine in ("eager", "compiled"):
        run, recorder = run_of(tmp_path / engine, engine, **{"trainer.on_nonfinite": "skip"})
        spoil(run)
        fit(run)
        runs.append(run)
        assert run.summary.skipped == EPOCHS
        assert [message for message in recorder.messages if "at step 2 " in message]
    assert is_compiled(runs[1])
    assert_near(*runs)


def test_rewinds_skip_the_same_batches_as_eager_steps(tmp_path: Path) -> None:
    """There is nothing to go back to but the start, where the optimizer keeps nothing yet."""
    settings = {"trainer.on_nonfinite": "rewind", "trainer.epochs": 3}
    runs = []
    for engine in ("eager", "compiled"):
        run, recorder = run_of(tmp_path / engine, engine, **settings)
        spoil(run)
        fit(run)
        runs.append(run)
        assert len(run.state.progress.skipped_steps) == 3
        assert recorder.rewound[0] == 0
    assert is_compiled(runs[1])
    assert runs[0].state.progress.skipped_steps == runs[1].state.progress.skipped_steps
    assert_near(*runs)


def test_a_bad_batch_ends_the_run_as_by_eager_steps(tmp_path: Path) -> None:
    words = []
    for engine in ("eager", "compiled"):
        run, _ = run_of(tmp_path / engine, engine)
        spoil(run)
        with pytest.raises(NonFiniteError) as caught:
            fit(run)
        words.append(str(caught.value))
    assert words[0] == words[1]
    assert "at step 2 (epoch 1)" in words[0]


@pytest.fixture
def _handlers() -> Iterator[None]:
    before = signal.getsignal(signal.SIGINT)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("_handlers")
def test_a_stop_while_compiling_is_heeded_at_once(tmp_path: Path) -> None:
    whole, _ = run_of(tmp_path / "whole", "compiled")
    fit(whole)
    stopped, recorder = run_of(tmp_path / "stopped", "compiled")

    def slow(*_: object) -> None:
        signal.raise_signal(signal.SIGINT)
        raise AssertionError("it goes on compiling")

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BIGMODEL_CACHE", str(tmp_path / "cache"))
        patch.setattr(compiler, "build", slow)
        with stopped.signals.installed(), pytest.raises(Stopped):
            fit(stopped)
    assert "Compiling the step" in recorder.messages[-1]
    _, facts = checkpoint.load(tmp_path / "stopped" / "checkpoints" / "last")
    assert (facts["progress"]["step"], facts["choice"]["engine"]) == (1, None)
    again, _ = run_of(tmp_path / "stopped", "compiled")
    fit(resume_run(again))
    assert_equal(again, whole)


def test_each_step_of_a_call_keeps_its_own_metrics(tmp_path: Path) -> None:
    """Without dropout no library is called; torch then gives its outputs in one and the same memory."""
    plain = {"model.dropout": 0.0, "trainer.epochs": 3, "trainer.eval_every": 3}
    losses = {}
    for engine in ("eager", "compiled"):
        run, recorder = run_of(tmp_path / engine, engine, **plain)
        fit(run)
        losses[engine] = [record["train/loss"] for record in recorder.records]
        assert len(recorder.records) == 3
    assert is_compiled(run)
    assert losses["compiled"] == pytest.approx(losses["eager"], rel=1e-5)
    engine_of = run.engine._engine  # type: ignore[attr-defined]
    batches = next(iter(run.train.blocks(0)))[:4]
    run.step.discard_step_metrics()
    done = engine_of(batches, [0.0] * 4, False)  # nothing is learnt: the losses follow from the batches
    found = [metrics.loss for metrics in run.step.drain()]
    assert done == 4
    expected = []
    for batch in batches:
        run.step.discard_step_metrics()
        run.step(batch)
        expected.append(run.step.drain()[0].loss)
        break  # the weights have moved
    assert found[0] == pytest.approx(expected[0], rel=1e-4)
    assert len(set(found)) == 4
