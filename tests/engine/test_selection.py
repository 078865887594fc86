"""Which engine is taken, by faked clocks and faked engines: nothing is compiled here."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch

from bigmodel.build.resumed_run import resume_run
from bigmodel.engine import candidates, selection
from bigmodel.engine.base import Engine
from bigmodel.engine.fixed_shape import FixedShapeEngine
from bigmodel.engine.selection import SHORT_RUN, AutoEngine, StepTimer
from bigmodel.runtime.device import Choice
from bigmodel.training.loop import fit
from tests.engine.fakes import Fake
from tests.engine.steps import begun, make_batch, small_step
from tests.models.cases import spec
from tests.small_runs import built

FEATURES = spec("features")


class Made:
    """Stands for `selection.select_engine`: makes fakes, and keeps what it was asked."""

    def __init__(self, there: bool = True) -> None:
        self.kinds: list[str] = []
        self.asked: list[bool] = []
        self.engines: list[Fake] = []
        self.there = there

    def __call__(
        self, candidate: candidates.CompileCandidate, kind: str, *_: object
    ) -> FixedShapeEngine | None:
        self.kinds.append(kind)
        self.asked.append(candidate.is_required)
        if not self.there:
            return None
        self.engines.append(Fake(candidate.step, candidate.example))
        return self.engines[-1]


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> Made:
    fakes = Made()
    monkeypatch.setattr(selection, "select_engine", fakes)
    return fakes


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    yield
    torch.set_num_threads(1)


def chooser(wanted: Any = "auto", choice: Choice | None = None, **more: Any) -> AutoEngine:
    return AutoEngine(small_step(**more), choice or Choice(), wanted, False, {}, 6)


def train(engine: Engine, steps: int, count: int = 6) -> int:
    return sum(engine([make_batch(FEATURES, count)], [1.0], False) for _ in range(steps))


@pytest.mark.parametrize(("wanted", "left"), [("auto", SHORT_RUN), ("eager", 10_000)])
def test_a_short_run_and_one_that_is_told_choose_nothing(made: Made, wanted: str, left: int) -> None:
    engine = chooser(wanted)
    engine.start(left, pytest.fail, nullcontext)
    assert train(engine, 20) == 20
    assert made.kinds == []
    assert engine.name == "eager"


def test_a_longer_one_tries_once_and_goes_on_with_what_it_found(made: Made) -> None:
    choice = Choice()
    engine = chooser(choice=choice)
    engine.start(SHORT_RUN + 1, lambda _: None, nullcontext)
    train(engine, 20)
    assert (made.kinds, made.asked) == (["compiled"], [False])
    assert (engine.name, choice) == ("compiled", Choice("compiled", None))
    assert made.engines[0].calls == 13, "all but the seven that were timed"


def test_what_is_asked_for_need_not_pay(made: Made) -> None:
    engine = chooser("compiled")
    engine.start(20, lambda _: None, nullcontext)
    train(engine, 10)
    assert made.asked == [True]


def test_nothing_found_is_remembered(made: Made) -> None:
    made.there, choice = False, Choice()
    engine = chooser(choice=choice)
    engine.start(1000, lambda _: None, nullcontext)
    train(engine, 20)
    assert made.kinds == ["compiled"], "once"
    assert choice.engine == "eager"
    again = chooser(choice=choice)
    again.start(1000, lambda _: None, nullcontext)
    train(again, 20)
    assert made.kinds == ["compiled"]


def test_the_piece_is_made_for_the_largest_batches(made: Made) -> None:
    """An epoch's last and smaller one may come first, or where the choice is due."""
    choice = Choice()
    engine = chooser(choice=choice)
    engine.start(1000, lambda _: None, nullcontext)
    for count in (4, 6, 6, 6, 6, 6, 6, 4, 4, 6, 4, 6):
        train(engine, 1, count)
    assert made.engines[0].calls == 2, "both that are whole, from the choice on"


def test_a_resumed_run_takes_what_was_chosen(made: Made) -> None:
    engine = chooser(choice=Choice("compiled", None))
    begun(engine.step, FEATURES)
    engine.start(10, lambda _: None, nullcontext)
    train(engine, 1, count=4)
    assert made.kinds == [], "not for a batch of another size"
    train(engine, 3)
    assert (made.kinds, made.asked, made.engines[0].calls) == (["compiled"], [True], 3)


def test_the_number_of_threads_is_kept_and_only_where_it_is_to_be_chosen() -> None:
    for threads, expected in ((True, 2), (False, 1)):
        torch.set_num_threads(1)
        engine = AutoEngine(small_step(), Choice("eager", 2), "auto", threads, {}, 6)
        engine.start(1000, pytest.fail, nullcontext)
        assert torch.get_num_threads() == expected


def test_batches_of_many_shapes_are_done_one_by_one(made: Made) -> None:
    messages: list[str] = []
    engine = AutoEngine(small_step(), Choice(), "compiled", False, {}, None)
    engine.start(1000, messages.append, nullcontext)
    train(engine, 20)
    assert (engine.name, made.kinds) == ("eager", [])
    assert messages == ["Steps run eagerly: batches have many shapes."]


def test_an_interruption_of_the_choice_is_between_two_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(selection, "select_engine", interrupted)
    engine = chooser()
    engine.start(1000, lambda _: None, nullcontext)
    assert train(engine, 7) == 7
    with pytest.raises(KeyboardInterrupt):
        train(engine, 1)
    assert len(engine.step.drain()) == 7
    assert {int(state["step"]) for state in engine.step.optimizer.state.values()} == {7}


@pytest.mark.parametrize("saved", [0, 3, 9])
def test_rewinding_to_before_and_after_the_choice(made: Made, tmp_path: Path, saved: int) -> None:
    """The choice stays; an optimizer that has no state yet makes it in an eager step."""
    settings = {"device.engine": "auto", "trainer.epochs": 50, "trainer.ema": 0.9}
    run, _ = built(tmp_path, settings | {"device.precision": "fp32"})  # else some processors try bf16
    run.state.model.train()
    run.engine.start(300, lambda _: None, nullcontext)
    batch = next(iter(run.train.epoch(0)))
    for step in range(12):
        if step == saved:
            groups, facts = run.state.save()
            groups = {g: {k: v.clone() for k, v in tensors.items()} for g, tensors in groups.items()}
        assert run.engine([batch], [1.0], False) == 1
    assert run.state.choice.engine == "compiled"
    assert made.engines[0].calls == 5
    run.step.drain()
    run.state.load(groups, facts)
    run.engine.rebind()
    assert run.state.choice == Choice("compiled", run.state.choice.threads)
    torch.set_rng_state(groups["random"]["cpu"])
    for _ in range(4):
        run.engine([batch], [1.0], False)
    assert made.engines[0].calls == (8 if saved == 0 else 9), "all but one in which state is made"
    other, _ = built(tmp_path / "other", {"trainer.epochs": 50, "trainer.ema": 0.9})
    other.state.model.train()
    plain = Engine(other.step)
    for _ in range(saved + 4):
        plain([batch], [1.0], False)
    for name, value in other.state.model.state_dict().items():
        torch.testing.assert_close(run.state.model.state_dict()[name], value, rtol=1e-4, atol=1e-6)


# In whole runs.


def test_the_choice_is_saved_and_kept(made: Made, tmp_path: Path) -> None:
    settings = {"trainer.epochs": 12, "trainer.checkpoint.every_steps": 1}
    run, _ = built(tmp_path, settings)
    fit(run)
    assert made.engines[0].calls == 12 * 5 - 6, "all but the seven tried and the smaller last batches"
    again, _ = built(tmp_path, settings | {"trainer.epochs": 14})
    fit(resume_run(again, changed=["trainer.epochs"]))
    assert again.state.choice.engine == "compiled"
    assert made.kinds == ["compiled", "compiled"]
    assert made.asked == [False, True], "kept without another trial"
    assert made.engines[1].calls == 2 * 5, "all but the smaller last batches"


def test_where_bits_are_to_be_the_same_nothing_is_chosen(tmp_path: Path) -> None:
    settings = {"device.deterministic": True, "device.engine": "compiled"}
    run, _ = built(tmp_path, settings)
    torch.use_deterministic_algorithms(False)
    assert type(run.engine) is Engine
    assert isinstance(built(tmp_path, {})[0].engine, AutoEngine)


def test_accumulated_batches_stay_in_pieces(tmp_path: Path) -> None:
    run, recorder = built(
        tmp_path, {"trainer.accumulate": 2, "device.engine": "compiled", "trainer.epochs": 4}
    )
    fit(run)
    assert "batches go through the model in pieces" in recorder.messages[0]
    assert run.state.choice.engine == "eager"


def timed(
    many: int, seconds: dict[int, float | Sequence[float]], choose: bool = True
) -> tuple[StepTimer, int]:
    """A timer of steps that take the given seconds with each number of threads; how many it timed."""
    torch.set_num_threads(many)
    timer, steps = StepTimer(choose), 0
    while not timer.done:
        timer.begin_step()
        taken = seconds[torch.get_num_threads()]
        timer.end_step(taken if isinstance(taken, float) else taken[steps % len(taken)])
        steps += 1
        assert steps < 100
    return timer, steps


@pytest.mark.parametrize(("one", "expected"), [(1.0, 1), (2.9, 4)])
def test_the_faster_number_of_threads_is_chosen_and_set(one: float, expected: int) -> None:
    timer, steps = timed(4, {4: 2.0, 1: one})
    assert (timer.threads, timer.seconds) == (expected, min(2.0, one))
    assert torch.get_num_threads() == expected
    assert f"A step takes 2e+03 ms with 4 threads and {1000 * one:.3g} ms with 1" in str(timer)
    assert steps == (8 if expected == 1 else 12)


def test_a_clear_difference_takes_few_steps() -> None:
    assert timed(4, {4: 1.0, 1: 20.0})[1] == 8
    assert timed(4, {4: 20.0, 1: 1.0})[1] == 8


def test_a_single_slow_step_decides_nothing() -> None:
    timer, _ = timed(4, {4: [1.0, 1.0, 1.0, 1.0, 50.0, 1.0, 1.0], 1: 1.2})
    assert timer.threads == 4


@pytest.mark.parametrize(("many", "choose"), [(1, True), (4, False)])
def test_without_a_choice_steps_are_timed_alone(many: int, choose: bool) -> None:
    timer, steps = timed(many, {many: [9.0, 9.0, 1.0, 2.0, 3.0, 4.0, 5.0]}, choose)
    assert (timer.compares_threads, timer.threads, timer.seconds, str(timer), steps) == (
        False,
        many,
        3.0,
        "",
        7,
    )
    assert torch.get_num_threads() == many
