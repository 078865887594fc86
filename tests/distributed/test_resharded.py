"""Runs whose weights lie on several ranks stop, and go on with the same ranks or with others."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.distributed.rank_runs import RESUME, Cases, last_weights, records, train_on
from tests.distributed.test_sharded import BLOCKS, MODERN, agree, blocks, shared

BEGUN: Cases = {
    "schedule-free": BLOCKS | {"optimizer": "schedule_free_adamw"},
    "modern": blocks(**MODERN) | {"trainer.ema": 0.9},
}
DROPOUT = blocks(dropout=0.2)
WHOLE, STOPPED = 9, 4
TWO = ("shard=2", "tensor=2")
OTHERS = {1: ("alone",), 2: TWO, 3: ("shard=3",)}
PLANS = [plan for plans in OTHERS.values() for plan in plans]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """By plan of the ranks, a folder of runs: NAME; `NAME stopped` after four steps; `NAME from PLAN`,
    which goes on with what other ranks have stopped, and `NAME of PLAN`, with no step to go."""
    folder = tmp_path_factory.mktemp("resharded")
    begun: Cases = {
        f"{name}{suffix}": settings | {"trainer.max_steps": steps}
        for name, settings in BEGUN.items()
        for suffix, steps in (("", WHOLE), (" stopped", STOPPED))
    }
    train_on(2, {name: case for plan in TWO for name, case in shared(begun, plan).items()}, folder)
    drawn = DROPOUT | {"trainer.max_steps": STOPPED}
    resumed = DROPOUT | {"trainer.max_steps": WHOLE, RESUME: "shard=2/dropout"}
    both = {**shared({"dropout": drawn}, "shard=2"), **shared({"dropout resumed": resumed}, "tensor=2")}
    train_on(2, both, folder)
    for count, plans in OTHERS.items():
        others: Cases = {
            f"{name} {word} {before}": settings
            | {"trainer.max_steps": steps, RESUME: f"{before}/{name} stopped"}
            for before in TWO
            for name, settings in BEGUN.items()
            for word, steps in (("from", WHOLE), ("of", STOPPED))
        }
        train_on(count, {key: s for plan in plans for key, s in shared(others, plan).items()}, folder)
    return folder


@pytest.mark.parametrize("plan", TWO)
@pytest.mark.parametrize("name", BEGUN)
def test_the_same_ranks_go_on_bit_for_bit(name: str, plan: str, runs: Path) -> None:
    whole, resumed = runs / plan / name, runs / plan / f"{name} from {plan}"
    assert records(whole)[STOPPED:] == records(resumed)
    assert same(last_weights(whole), last_weights(resumed))


@pytest.mark.parametrize("plan", PLANS)
@pytest.mark.parametrize("before", TWO)
@pytest.mark.parametrize("name", BEGUN)
def test_other_ranks_have_the_same_weights_and_go_on(
    name: str, before: str, plan: str, runs: Path
) -> None:
    assert same(
        last_weights(runs / before / f"{name} stopped"),
        last_weights(runs / plan / f"{name} of {before}"),
    )
    agree(records(runs / before / name)[STOPPED:], records(runs / plan / f"{name} from {before}"))


def test_ranks_that_share_layers_draw_the_same_numbers_whoever_began(runs: Path) -> None:
    """Otherwise the weights that all of them hold would drift apart, which `whole_weights` looks for."""
    assert len(records(runs / "tensor=2" / "dropout resumed")) == WHOLE - STOPPED
    assert last_weights(runs / "tensor=2" / "dropout resumed")


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)
