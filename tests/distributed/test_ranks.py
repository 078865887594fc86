"""The same losses, gradients and weights, however many ranks there are."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist

from bigmodel import registry
from bigmodel.build.new_run import build_run
from bigmodel.distributed.ranks import ALONE, LostRankError, Ranks, communication_error
from bigmodel.errors import ConfigError
from tests.distributed.rank_runs import Cases, records, train, train_on, weights
from tests.small_runs import config

SMALL = {"name": "transformer", "dim": 16, "num_heads": 4, "depth": 2, "dropout": 0.0, "bias": False}
CASES: Cases = {
    **{f"optimizer={name}": {"optimizer": name} for name in registry.optimizers.names()},
    "rows that ranks do not divide": {"data.batch_size": 10, "optimizer": "sgd"},
    "accumulation": {"data.batch_size": 5, "trainer.accumulate": 3, "trainer.clip_norm": 0.1},
    "weighted classes": {"loss": "cross_entropy", "loss.class_weights": [1.0, 2.0, 0.5]},
    "averages": {"trainer.ema": 0.9},
    "values": {"data.target": "values", "data.batch_size": 7},
    "flags": {"data.target": "flags"},
    "a set smaller than the ranks in its last batch": {"data.samples": 53, "data.batch_size": 4},
    "metrics of choice": {
        "metrics": ["auc", "average_precision", "ece", "recall"],
        "data.samples": 53,
        "data.batch_size": 4,
    },
    "a threshold": {"data.outputs": 2, "threshold": "f1", "data.samples": 53, "data.batch_size": 4},
    "quantiles of errors": {"data.target": "values", "metrics": ["error_quantiles", "mape"]},
    "unfreezing": {"model": SMALL | {"unfreeze_every": 1}},
    "one set for all": {"data.validation": False},
}
HALVES = {"data.batch_size": 6, "trainer.accumulate": 2, "data.samples": 75}
WHOLE = HALVES | {"data.batch_size": 12, "trainer.accumulate": 1}
UNEVEN = ("optimizer=muon", "rows that ranks do not divide", "accumulation", "averages", "flags")


def rank(number: int, size: int) -> Ranks:
    ranks = Ranks()
    ranks.rank, ranks.size = ranks.data_rank, ranks.data_size = number, size
    return ranks


@pytest.mark.parametrize("size", [1, 2, 3, 7])
@pytest.mark.parametrize("count", [0, 1, 2, 10, 64])
def test_each_row_of_a_batch_belongs_to_one_rank(count: int, size: int) -> None:
    rows = [row for number in range(size) for row in range(count)[rank(number, size).rows(count)]]
    assert rows == list(range(count))
    shares = [len(range(count)[rank(number, size).rows(count)]) for number in range(size)]
    assert max(shares) - min(shares) <= 1


def test_one_process_alone_agrees_with_itself() -> None:
    tensor = torch.ones(2)
    assert ALONE.sum(tensor) is tensor
    assert (ALONE.max(3), ALONE.from_first("a"), ALONE.gather("a")) == (3, "a", ["a"])
    assert ALONE.is_first
    with ALONE.first():
        ALONE.barrier()


NCCL = "NCCL error in: NCCLUtils.cpp:77, {}, NCCL version 2.27.5\n{}\nLast error:\n{}"


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (RuntimeError("[gloo/pair.cc:547] Connection closed by peer"), "all ranks.* ended without"),
        (
            dist.DistBackendError(NCCL.format("remote error", "ncclRemoteError: A call failed.", "")),
            "all ranks.* ended without",
        ),
        (dist.DistBackendError("store->get('0') got error: wait timeout"), "all ranks.* did not"),
        (
            dist.DistBackendError(
                NCCL.format("system error", "ncclSystemError: A call failed.", "No space on /dev/shm")
                + "\nException raised from create at NCCLUtils.cpp:77\nframe #0: …"
            ),
            r"NCCL, .* failed: ncclSystemError: A call failed. Last error: No space on /dev/shm Set",
        ),
    ],
    ids=["gloo", "another rank", "meeting", "system"],
)
def test_what_an_error_of_communication_means(error: RuntimeError, message: str) -> None:
    meaning = communication_error(error, 600)
    assert meaning is not None
    assert isinstance(meaning, LostRankError) == ("all ranks" in message)
    assert re.search(message, str(meaning))
    assert communication_error(RuntimeError("shapes do not fit"), 600) is None


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"device.engine": "compiled"}, "device.engine=compiled: with device.ranks=2 steps run eagerly"),
        ({"data.batch_size": 1}, "device.ranks=2: a batch of 1 sample has no row for each"),
        ({"device.ranks": 3}, "device.ranks=3: only a single run"),
        ({"model.norm": "batch"}, "device.ranks=2: model.norms.0 is a batch norm, whose"),
        (
            {"trainer.histograms": True, "device.parallel": {"shard": 2}},
            "trainer.histograms=true: with device.parallel",
        ),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_what_several_ranks_cannot_do_is_refused(
    tmp_path: Path, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        build_run(config(settings), tmp_path, ranks=rank(0, 2))


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """The folders of all cases' runs, by the number of ranks."""
    folder = tmp_path_factory.mktemp("ranks")
    train({**CASES, "halves": HALVES}, folder / "1")
    train_on(2, {**CASES, "whole batches": WHOLE}, folder / "2")
    train_on(3, {name: CASES[name] for name in UNEVEN}, folder / "3")
    return {count: folder / str(count) for count in (1, 2, 3)}


@pytest.mark.parametrize(
    ("count", "name"), [*((2, name) for name in CASES), *((3, name) for name in UNEVEN)]
)
def test_records_and_weights_are_those_of_one_rank(name: str, count: int, runs: dict[int, Path]) -> None:
    bound = 1e-4 if "muon" in name else 1e-5
    expected, actual = records(runs[1] / name), records(runs[count] / name)
    assert len(expected) == len(actual) > 10
    for one, several in zip(expected, actual, strict=True):
        assert several == {
            key: value and pytest.approx(value, bound, bound) for key, value in one.items()
        }
    before, after = weights(runs[1] / name), weights(runs[count] / name)
    assert before.keys() == after.keys()
    for key, value in before.items():
        torch.testing.assert_close(after[key], value, rtol=bound, atol=bound)


def test_two_ranks_are_one_rank_with_two_halves_of_a_batch(runs: dict[int, Path]) -> None:
    """Bit for bit: the same sums of the same gradients."""
    halves, whole = runs[1] / "halves", runs[2] / "whole batches"
    one, two = weights(halves), weights(whole)
    assert all(torch.equal(one[key], two[key]) for key in one)
    losses = [[record["train/loss"] for record in records(folder)] for folder in (halves, whole)]
    assert losses[0] == losses[1]
    assert all(map(math.isfinite, losses[0]))
