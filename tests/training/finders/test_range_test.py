"""The range test: it leaves the run as it was, and its suggestion follows from the losses alone."""

import math
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bigmodel.errors import BigModelError, ConfigError, NonFiniteError
from bigmodel.optim.optimizers import training_weights
from bigmodel.reporting.base import Record
from bigmodel.runtime.signals import Stopped
from bigmodel.training.finders import range_test as finder
from bigmodel.training.finders.range_test import range_test, smooth, suggest, use_rate
from bigmodel.training.loop import fit
from bigmodel.training.run import Run
from tests.small_runs import Recorder, built

OPTIMIZERS: list[tuple[str, dict[str, Any]]] = [
    *((name, {"optimizer": name}) for name in ("sgd", "adamw", "adam", "nadam", "radam")),
    *((name, {"optimizer": name}) for name in ("rmsprop", "adagrad", "muon", "schedule_free_adamw")),
    (
        "ema, clipped, accumulated",
        {"trainer.ema": 0.9, "trainer.clip_norm": 1.0, "trainer.accumulate": 2},
    ),
    (
        "batch norm",
        {"model": {"name": "cnn", "channels": [4]}, "data": "digits", "trainer.max_steps": 4},
    ),
    ("dropout", {"model.dropout": 0.5}),
    ("bf16", {"device.precision": "bf16"}),
    (
        "text",
        {
            "model": {"name": "transformer", "dim": 8, "depth": 1, "num_heads": 2},
            "data": {
                "name": "text",
                "path": __file__,
                "unit": "byte",
                "context": 8,
                "batch_size": 16,
                "cache": None,
            },
            "trainer.max_steps": 4,
        },
    ),
]
RATES = np.geomspace(1e-6, 10, 106).tolist()


def whole_state(run: Run) -> dict[str, Any]:
    groups, facts = run.state.save()
    return {"groups": groups, "facts": facts, "buffers": dict(run.state.model.named_buffers())}


def assert_same(got: Any, wanted: Any, where: str = "state") -> None:
    assert type(got) is type(wanted), where
    if isinstance(wanted, dict):
        assert got.keys() == wanted.keys(), where
        for key in wanted:
            assert_same(got[key], wanted[key], f"{where}.{key}")
    elif isinstance(wanted, torch.Tensor):
        assert torch.equal(got, wanted), where
    elif isinstance(wanted, list | tuple):
        assert len(got) == len(wanted), where
        for index, (one, other) in enumerate(zip(got, wanted, strict=True)):
            assert_same(one, other, f"{where}[{index}]")
    else:
        assert got == wanted or (got != got and wanted != wanted), where


@pytest.mark.parametrize("settings", [s for _, s in OPTIMIZERS], ids=[name for name, _ in OPTIMIZERS])
def test_nothing_of_the_run_is_changed(tmp_path: Path, settings: dict[str, Any]) -> None:
    run, _ = built(tmp_path, settings)
    training_weights(run.state.optimizer)  # as at the start of a run
    before = whole_state(run)
    before["groups"] = {
        group: {name: value.clone() for name, value in tensors.items()}
        for group, tensors in before["groups"].items()
    }
    before["buffers"] = {name: value.clone() for name, value in before["buffers"].items()}
    test = range_test(run)
    assert len(test.rates) > 20
    assert_same(whole_state(run), before)


def test_what_an_optimizer_counts_in_its_groups_outlasts_the_rate(tmp_path: Path) -> None:
    """As in a user's own, whose counts nobody else knows; the decay that goes by the rate follows it."""
    run, _ = built(tmp_path, {"optimizer.lr": "auto"})
    for group in run.step.optimizer.param_groups:
        group["count"] = 7
    plain = run.options_at
    run = replace(
        run, options_at=lambda rate: [o | {"count": 0, "eps": rate / 1000} for o in plain(rate)]
    )
    use_rate(run, 0.5)
    for group in run.step.optimizer.param_groups:
        assert (group["lr"], group["eps"], group["count"]) == (0.5, 0.0005, 7)


@pytest.mark.parametrize("settings", [s for _, s in OPTIMIZERS], ids=[name for name, _ in OPTIMIZERS])
def test_the_run_equals_one_with_that_rate(tmp_path: Path, settings: dict[str, Any]) -> None:
    common = settings | {"device.engine": "eager", "device.threads": 1}
    auto, told = built(tmp_path / "auto", common | {"optimizer.lr": "auto"})
    found = fit(auto).found["optimizer.lr"]
    typed, wanted = built(tmp_path / "typed", common | {"optimizer.lr": found})
    fit(typed)
    assert any(message.startswith(f"optimizer.lr=auto: {found:g}, ") for message in told.messages)
    assert [figures(record) for record in told.records] == [figures(r) for r in wanted.records]
    assert auto.state.progress.learning_rate == found


def figures(record: Record) -> Record:
    return {key: value for key, value in record.items() if not key.endswith("_per_second")}


def test_the_speed_of_training_does_not_count_it(tmp_path: Path, monkeypatch: Any) -> None:
    run, told = built(tmp_path, {"optimizer.lr": "auto"})
    monkeypatch.setattr(finder, "_loss_of_step", lambda *_: time.sleep(0.01) or 1.0)
    fit(run)
    took = 64 / told.records[0]["samples_per_second"]
    assert took < 0.5 * 106 * 0.01


def test_two_searches_agree_and_another_seed_differs(tmp_path: Path) -> None:
    tests = [
        range_test(built(tmp_path / str(number), {"seed": seed})[0])
        for number, seed in enumerate((0, 0, 1))
    ]
    assert tests[0] == tests[1]
    assert tests[0].losses != tests[2].losses


def test_a_small_set_is_gone_through_as_often_as_needed(tmp_path: Path) -> None:
    run, _ = built(tmp_path, {"data.samples": 20, "data.batch_size": 64})
    assert run.train.steps_per_epoch == 1
    assert len(range_test(run).rates) > 50


def test_a_loss_belongs_to_the_rate_of_the_step_before_it(tmp_path: Path, monkeypatch: Any) -> None:
    run, _ = built(tmp_path)
    losses: list[float] = []
    step = finder._loss_of_step

    def spied(*arguments: Any) -> float:
        losses.append(step(*arguments))
        return losses[-1]

    monkeypatch.setattr(finder, "_loss_of_step", spied)
    test = range_test(run)
    assert test.losses == losses[1 : 1 + len(test.losses)]
    assert test.rates == pytest.approx(RATES[: len(test.rates)])


def test_a_group_with_a_rate_of_its_own_keeps_it(tmp_path: Path) -> None:
    settings = {"optimizer": {"name": "muon", "adamw_lr": 0.002}, "model.hidden_sizes": [8, 8]}
    run, _ = built(tmp_path, settings | {"optimizer.lr": "auto"})
    fit(run)
    rates = {group["initial_lr"] for group in run.state.optimizer.param_groups}
    assert rates == {run.state.progress.learning_rate, 0.002}


def test_the_decay_of_a_table_goes_by_the_rate_that_was_found(tmp_path: Path) -> None:
    run, told = built(tmp_path, {"optimizer.lr": "auto"})
    found = fit(run).found["optimizer.lr"]
    typed, _ = built(tmp_path / "typed", {"optimizer.lr": found})
    decays = [group["weight_decay"] for group in run.state.optimizer.param_groups]
    assert decays == [group["weight_decay"] for group in typed.state.optimizer.param_groups]
    assert decays[0] > 0.01
    assert any(f"{found:g}, weight decay {decays[0]:.3g}, by" in message for message in told.messages)


def curve(loss: Callable[[float], float]) -> list[float]:
    return [loss(math.log10(rate)) for rate in RATES]


def fall(x: float, at: float = -2.5, rise: float = -1.0) -> float:
    """From 2 to 0.2 around `at`, and up again after `rise`."""
    return 2.0 - 1.8 / (1 + math.exp(-6 * (x - at))) + max(0.0, x - rise) ** 2


def test_the_suggestion_lies_between_the_fall_and_the_lowest_loss() -> None:
    rate = suggest(RATES, smooth(RATES, curve(fall)))
    assert rate is not None
    assert 10**-2.4 < rate < 10**-1.3  # half of the rate at which the rise begins, at most
    assert float(f"{rate:.2g}") == rate


@pytest.mark.parametrize("factor", [1e-2, 0.1, 10.0])
def test_it_moves_with_the_curve(factor: float) -> None:
    shift = math.log10(factor)
    first = suggest(RATES, smooth(RATES, curve(fall)))
    moved = suggest(RATES, smooth(RATES, curve(lambda x: fall(x, -2.5 + shift, -1.0 + shift))))
    assert first is not None
    assert moved is not None
    assert moved / first == pytest.approx(factor, rel=0.2)


def test_noise_moves_it_by_less_than_a_factor_of_three() -> None:
    noise = np.random.default_rng(0)
    clean = suggest(RATES, smooth(RATES, curve(fall)))
    assert clean is not None
    for _ in range(50):
        noisy = [loss + noise.normal(0, 0.2) for loss in curve(fall)]
        found = suggest(RATES, smooth(RATES, noisy))
        assert found is not None
        assert 1 / 3 < found / clean < 3


def test_a_loss_that_explodes_at_the_end_does_not_reach_into_the_rest() -> None:
    losses = curve(fall)
    wanted = suggest(RATES[:90], smooth(RATES[:90], losses[:90]))
    exploded = [*losses[:88], 1e28, 1e30]
    assert suggest(RATES[:90], smooth(RATES[:90], exploded)) == wanted


@pytest.mark.parametrize("loss", [lambda _: 1.0, lambda x: 1.0 + max(0.0, x)], ids=["flat", "rising"])
def test_a_loss_that_does_not_fall_suggests_nothing(loss: Callable[[float], float]) -> None:
    assert suggest(RATES, smooth(RATES, curve(loss))) is None


def test_a_run_whose_loss_does_not_fall_trains_with_the_default(
    tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.setattr(finder, "suggest", lambda *_: None)
    run, told = built(tmp_path, {"optimizer.lr": "auto"})
    assert fit(run).found == {"optimizer.lr": 0.002}
    assert any("no rate can be suggested" in message for message in told.messages)


def test_it_ends_where_the_loss_is_no_number(tmp_path: Path, monkeypatch: Any) -> None:
    run, _ = built(tmp_path)
    numbers = iter([*[2.0] * 20, math.nan, *[1.0] * 19, *[math.nan] * 3])
    monkeypatch.setattr(finder, "_loss_of_step", lambda *_: next(numbers))
    test = range_test(run)
    assert test.diverged
    assert test.losses == [2.0] * 19 + [1.0] * 19  # one bad batch does not end it
    assert test.rates == pytest.approx(RATES[:19] + RATES[20:39])


def test_a_loss_that_is_no_number_from_the_start_is_not_the_rate_s_fault(
    tmp_path: Path, monkeypatch: Any
) -> None:
    run, _ = built(tmp_path)
    monkeypatch.setattr(finder, "_loss_of_step", lambda *_: math.nan)
    with pytest.raises(NonFiniteError, match="at a learning rate of 1e-06: the data or the loss"):
        range_test(run)


def test_too_little_memory_halves_what_goes_through_at_once(tmp_path: Path, monkeypatch: Any) -> None:
    run, told = built(tmp_path)
    forward = run.step.forward

    def scarce(inputs: torch.Tensor, targets: torch.Tensor) -> Any:
        if len(inputs) > 6:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return forward(inputs, targets)

    monkeypatch.setattr(run.step, "forward", scarce)
    assert len(range_test(run).rates) > 20
    assert any("From now on 6 go through" in message for message in told.messages)
    assert run.state.accumulation.micro_batch == 6


def test_a_request_to_stop_ends_it_and_leaves_the_run_as_it_was(
    tmp_path: Path, monkeypatch: Any
) -> None:
    run, _ = built(tmp_path)
    before = {name: value.clone() for name, value in run.state.model.state_dict().items()}
    calls = iter(range(100))

    def check() -> None:
        if next(calls) == 30:
            raise Stopped(2)

    monkeypatch.setattr(run.signals, "check", check)
    with pytest.raises(Stopped):
        range_test(run)
    assert_same(dict(run.state.model.state_dict()), before)


def test_an_optimizer_that_ignores_the_rate_is_refused(tmp_path: Path) -> None:
    run, _ = built(tmp_path)
    object.__setattr__(run, "options_at", lambda _: [{"lr": 0.1}])
    with pytest.raises(
        ConfigError, match="optimizer=adamw has no learning rate that this setting changes"
    ):
        range_test(run)


def test_a_wrong_rate_is_told(tmp_path: Path) -> None:
    with pytest.raises(BigModelError, match=r"optimizer\.lr='atuo': .*or auto\. Did you mean 'auto'\?"):
        built(tmp_path, {"optimizer.lr": "atuo"})


def test_the_recorder_hears_of_the_search_before_the_first_record(tmp_path: Path) -> None:
    run, told = built(tmp_path, {"optimizer.lr": "auto"})
    assert isinstance(told, Recorder)
    fit(run)
    assert told.calls[0] == "start"
    assert told.records[0]["lr"] == run.state.progress.learning_rate
