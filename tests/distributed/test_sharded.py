"""The same losses, gradients and weights when ranks share the weights or compute layers together.

Attention without `qk_norm` has a weight whose gradient is zero but for rounding: the key's bias, which
softmax does not see. Optimizers that divide by a gradient's size make it as large as any other, so that
such a run's weights are those of its rounding errors. Transformers here have no bias, or `qk_norm`.
"""

from __future__ import annotations

import csv
import functools
import math
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from bigmodel import registry
from tests.distributed.rank_runs import (
    ERROR,
    SPOIL,
    Cases,
    difference,
    last_weights,
    records,
    train,
    train_on,
)

PLUGIN = "tests.distributed.odd_models"  # not imported here: it would be a model of every other test
SMALL = {"name": "transformer", "dim": 16, "num_heads": 4, "depth": 2, "dropout": 0.0, "bias": False}
SEQUENCES = {"data.input": "sequence", "data.shape": [6, 5]}
BLOCKS = {"model": SMALL, "trainer.clip_norm": 0.5, "trainer.epochs": 2, **SEQUENCES}
MODERN = {
    "qk_norm": True,
    "bias": True,
    "activation": "swiglu",
    "mlp_ratio": 6.0,
    "num_kv_heads": 2,
    "norm": "rmsnorm",
    "position": "rotary",
}
HALF = {
    **BLOCKS,
    "device.precision": "bf16",
    "data.target": "values",
    "data.samples": 157,
    "data.val_fraction": 0.618,
    "trainer.epochs": 1,
}
"""The last batch of an evaluation, of 97 samples in batches of 96, has a sample for one rank only."""


def blocks(**options: Any) -> dict[str, Any]:
    return BLOCKS | {"model": SMALL | options}


def model(name: str, **options: Any) -> dict[str, Any]:
    return SEQUENCES | {"model": {"name": name, **options}, "trainer.epochs": 2}


def odd(kind: str, **settings: Any) -> dict[str, Any]:
    plugin = {"plugins": [PLUGIN], "model": {"name": "odd", "kind": kind}}
    return plugin | {"trainer.epochs": 2, "trainer.clip_norm": 0.5} | settings


ALLOWED = [name for name in registry.optimizers.names() if name != "muon"]
OPTIMIZERS: Cases = {f"optimizer={name}": {"optimizer": name} for name in ALLOWED}
MODELS: Cases = {
    "model=attention": model("attention", dim=8, num_heads=2, hidden_size=8, dropout=0.0)
    | {"optimizer": "sgd"},
    "model=cnn": {
        "data.input": "image",
        "data.shape": [1, 6, 6],
        "trainer.epochs": 2,
        "model": {"name": "cnn", "channels": [4, 6], "batch_norm": False},
    },
    "model=rnn": model("rnn", hidden_size=6, num_layers=2),
    "model=fnn": {"model": {"name": "fnn", "hidden_sizes": [8, 8, 8]}, "data.batch_size": 10},
}
TRAINING: Cases = {
    "blocks": BLOCKS,
    "modern blocks": blocks(**MODERN),
    "blocks with biases": blocks(bias=True) | {"optimizer": "sgd"},
    "rows that ranks do not divide": BLOCKS | {"data.batch_size": 10},
    # Clipped so far that some gradients are no larger than Adam's usual eps, and their rounding matters.
    "accumulation": BLOCKS
    | {"data.batch_size": 5, "trainer.accumulate": 3, "trainer.clip_norm": 0.1}
    | {"optimizer.eps": 1e-6},
    "averages": BLOCKS | {"trainer.ema": 0.9},
    "a fold": BLOCKS | {"data.folds": 4, "data.val_fold": 1},
    "frozen parts": blocks(freeze=["embedding", "blocks.0", "*.bias"])
    | {"trainer.ema": 0.9, "optimizer.layer_decay": 0.5, "optimizer.rates": {"head": 3.0}},
    "frozen parts in bf16": blocks(dim=128, freeze=["blocks.0"], frozen_precision="bf16"),
    "recomputed blocks": BLOCKS | {"trainer.recompute": "blocks"},
    "weighted classes": BLOCKS | {"loss": "cross_entropy", "loss.class_weights": [1.0, 2.0, 0.5]},
    "one value": BLOCKS | {"data.target": "values", "data.outputs": 1, "data.batch_size": 7},
    "flags": BLOCKS | {"data.target": "flags"},
    "a bias of one number": {"data.target": "values", "data.outputs": 1, "data.batch_size": 7},
}
ODD: Cases = {
    **{kind: odd(kind) for kind in ("listed", "unlisted", "number", "buffer", "frozen", "unused")},
    "skipping": odd("skipping", optimizer={"name": "sgd", "momentum": 0.0}),
}


def texts(folder: Path) -> Cases:
    """Next tokens of a text, and pairs, whose padding is ignored, with BLEU of what is written."""
    (folder / "text").write_text("to be or not to be, that is the question\n" * 12)
    lines = {"de": "ein kleiner Hund", "en": "one dog"}
    for side, words in lines.items():
        numbered = (f"{words} {'x' * (number % 7)}{number}\n" for number in range(40))
        (folder / side).write_text("".join(numbered))
    text = {"name": "text", "path": str(folder / "text"), "context": 8, "cache": None}
    files = {"source": str(folder / "de"), "target": str(folder / "en"), "vocab_size": 270}
    pairs = {"name": "pairs", "length": 32, "bleu_pairs": 3, "batch_tokens": 160}
    common = {"trainer.epochs": 1}
    small = SMALL | {"depth": 1}
    return {
        "next tokens": common | {"model": small, "data": text | {"batch_size": 12}},
        "tied": common
        | {"model": small | {"tied_embeddings": True}, "data": text | {"batch_size": 7}}
        | {"trainer.accumulate": 2},
        "pairs": common | {"model": small | MODERN, "data": files | pairs | {"batch_size": 6}},
    }


def updates(folder: Path) -> Cases:
    """Low-rank updates of the weights of a run."""
    train({"base": BLOCKS}, folder)
    started = blocks(pretrained=str(folder / "base"), lora={"rank": 2})
    return {"updates": started | {"trainer.ema": 0.9, "optimizer.lr": 0.02}}


def shared(cases: Cases, how: str) -> dict[str, dict[str, Any]]:
    """The same cases with ranks that share a model: `shard=2 tensor=2`."""
    degrees = dict(word.split("=") for word in how.split() if "=" in word)
    parallel = {f"device.parallel.{key}": int(value) for key, value in degrees.items()}
    return {f"{how}/{name}": {**settings, **parallel} for name, settings in cases.items()}


def ranks_of(plan: str) -> int:
    return math.prod(int(word.split("=")[1]) for word in plan.split())


HALVED: Cases = {"bf16": HALF, "modern bf16": HALF | {"model": SMALL | MODERN | {"norm": "layernorm"}}}
PLANS: dict[str, tuple[str, ...]] = {
    "shard=2": (
        *OPTIMIZERS,
        *MODELS,
        *TRAINING,
        *ODD,
        *HALVED,
        "next tokens",
        "tied",
        "pairs",
        "updates",
    ),
    "tensor=2": (
        *(
            "blocks",
            "modern blocks",
            "blocks with biases",
            "accumulation",
            "averages",
            "frozen parts",
            "a fold",
        ),
        *("recomputed blocks", "one value", *HALVED, "next tokens", "pairs"),
    ),
    "shard=3": ("rows that ranks do not divide", "a bias of one number", "skipping", "pairs"),
    "shard=2 tensor=2": ("blocks", "modern blocks", "accumulation", "averages", "pairs", "modern bf16"),
    "replicate=2 shard=2": ("blocks", "accumulation", "number", "skipping", "pairs", "bf16"),
}
RUNS = [
    pytest.param(plan, name, marks=[pytest.mark.slow] * (ranks_of(plan) > 3))
    for plan, names in PLANS.items()
    for name in names
]
BOUNDS = {"bf16": 5e-2, "modern bf16": 5e-2}
"""Half the rows have a gradient that is rounded by itself. All other runs agree to 1e-5."""


@pytest.fixture(scope="module", autouse=True)
def _plugin_is_forgotten() -> Iterator[None]:
    yield
    registry.models._entries.pop("odd", None)
    sys.modules.pop(PLUGIN, None)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Does the runs of a plan, or those of one rank; returns their folder."""
    folder = tmp_path_factory.mktemp("sharded")
    cases = {**OPTIMIZERS, **MODELS, **TRAINING, **ODD, **HALVED, **texts(folder), **updates(folder)}

    @functools.cache
    def done(plan: str) -> Path:
        if plan == "":
            train_on(1, cases, folder / "alone")
            return folder / "alone"
        train_on(ranks_of(plan), shared({name: cases[name] for name in PLANS[plan]}, plan), folder)
        return folder / plan

    return done


@pytest.mark.parametrize(("plan", "name"), RUNS)
def test_records_and_weights_are_those_of_one_rank(
    plan: str, name: str, runs: Callable[[str], Path]
) -> None:
    one, several = runs("") / name, runs(plan) / name
    bound = BOUNDS.get(name, 1e-5)
    agree(records(one), records(several), bound)
    assert difference(last_weights(one), last_weights(several)) < bound / 10


def agree(expected: list[dict[str, Any]], actual: list[dict[str, Any]], bound: float = 1e-5) -> None:
    assert len(expected) == len(actual) > 3
    for one, several in zip(expected, actual, strict=True):
        assert several == {
            key: value and pytest.approx(value, bound, bound) for key, value in one.items()
        }


@pytest.mark.parametrize("plan", ["shard=2", "tensor=2"])
def test_what_is_held_out_is_predicted_by_the_whole_model(
    plan: str, runs: Callable[[str], Path]
) -> None:
    one, several = (predicted(runs(which) / "a fold") for which in ("", plan))
    assert several == pytest.approx(one, abs=1e-5)


def predicted(folder: Path) -> list[float]:
    with (folder / "out_of_fold.csv").open(newline="") as file:
        return [float(value) for row in csv.reader(file) for value in row if "." in value]


SPOILT: Cases = {
    "rows": BLOCKS | {SPOIL: "rows", "trainer.on_nonfinite": "skip"},
    "weight": BLOCKS | {SPOIL: "weight", "trainer.checkpoint.every_steps": 1},
}
REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "heads": (
        blocks(num_heads=1) | {"device.parallel.tensor": 2},
        "device.parallel.tensor=2: it does not divide model.num_heads=1. Use another number, or",
    ),
    "key-value heads": (
        blocks(num_kv_heads=1) | {"device.parallel.tensor": 2},
        "device.parallel.tensor=2: it does not divide model.num_kv_heads=1.",
    ),
    "width": (
        blocks(mlp_ratio=0.19) | {"device.parallel.tensor": 2},
        "device.parallel.tensor=2: it does not divide the 3 inner features, which follow from"
        " model.mlp_dim",
    ),
    "no layers": (
        {"device.parallel.tensor": 2},
        "device.parallel.tensor=2: the model has no layers that ranks can compute together",
    ),
    "optimizer": (
        BLOCKS | {"optimizer": "muon", "device.parallel.shard": 2},
        "optimizer=muon: it updates a weight as a whole",
    ),
    "unfreezing": (
        blocks(unfreeze_every=1) | {"device.parallel.shard": 2},
        "model.unfreeze_every=1: with device.parallel.shard or .tensor the same weights are trained",
    ),
    "fewer bits": (
        blocks(freeze=["blocks"], frozen_precision="int8") | {"device.parallel.tensor": 2},
        "device.parallel.tensor=2: with model.frozen_precision=int8 layers are not split over ranks",
    ),
    "shared by blocks": (
        odd("shared") | {"device.parallel.shard": 2},
        "device.parallel.shard: model.layers.0.linear.weight is shared by several blocks",
    ),
    "rows": (
        BLOCKS | {"data.batch_size": 1, "device.parallel.shard": 2},
        "device.ranks=2: a batch of 1 sample has no row for each",
    ),
}


@pytest.fixture(scope="module")
def spoilt(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("spoilt")
    refused = {name: settings | {SPOIL: "settings"} for name, (settings, _) in REFUSED.items()}
    train_on(2, {**shared(SPOILT, "shard=2"), **shared(SPOILT, "tensor=2"), **refused}, folder)
    return folder


def test_a_running_mean_is_that_of_the_first_rank(tmp_path: Path) -> None:
    cases = {"copies": odd("mean"), "shards": odd("mean") | {"device.parallel.shard": 2}}
    train_on(2, cases, tmp_path)  # which compares what the ranks hold
    copies, shards = (last_weights(tmp_path / name) for name in cases)
    assert float(copies["mean"].norm()) > 0
    assert difference(copies, shards) < 1e-6


def messages(folder: Path) -> list[str]:
    return [(folder / f"{rank}.{ERROR}").read_text() for rank in (0, 1)]


@pytest.mark.parametrize("plan", ["shard=2", "tensor=2"])
def test_nan_on_one_rank_skips_the_update_on_all(plan: str, spoilt: Path) -> None:
    done = records(spoilt / plan / "rows")
    assert [record["step"] for record in done if record["train/loss"] is None] == [3]
    assert all(value.isfinite().all() for value in last_weights(spoilt / plan / "rows").values())


@pytest.mark.parametrize("plan", ["shard=2", "tensor=2"])
def test_infinity_in_one_rank_s_part_of_a_weight_stops_all_with_one_message(
    plan: str, spoilt: Path
) -> None:
    first, last = messages(spoilt / plan / "weight")
    assert first == last
    assert first.startswith("Step 3 left NaN or infinite values in model embedding")


@pytest.mark.parametrize("name", REFUSED)
def test_what_ranks_cannot_share_is_refused(name: str, spoilt: Path) -> None:
    for message in messages(spoilt / name):
        assert message.startswith(REFUSED[name][1])
    assert [path.name for path in (spoilt / name).iterdir() if ERROR not in path.name] == []
