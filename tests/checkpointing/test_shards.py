"""Checkpoints that several ranks write together, each its own part of the tensors."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from bigmodel.checkpointing import checkpoint, manifest, tensor_files
from bigmodel.checkpointing.saver import Saver, ShardSaver
from bigmodel.checkpointing.tensor_files import Parts
from bigmodel.distributed.ranks import Ranks
from tests.distributed.test_layout import random_parts
from tests.distributed.thread_ranks import on_ranks

SHAPES = {"weight": (7, 12), "bias": (5,), "scalar": ()}


def at(step: int) -> dict[str, Any]:
    return {"progress": {"step": step}}


def whole(step: int) -> dict[str, dict[str, Tensor]]:
    """The state of a step."""
    weights = {name: torch.full(shape, float(step)) for name, shape in SHAPES.items()}
    moments = {f"{name}.moment": value.bfloat16() for name, value in weights.items()}
    return {"model": weights, "optimizer": moments, "random": {"cpu": torch.arange(step)}}


def layout(size: int, seed: int = 0) -> list[Parts]:
    """Each rank's parts of that state."""
    chance = random.Random(seed)
    dealt = {name: random_parts(shape, size, chance) for name, shape in SHAPES.items()}
    return [
        {
            "model": {name: parts[rank] for name, parts in dealt.items()},
            "optimizer": {
                f"{name}.moment": parts[rank] for name, parts in dealt.items() if name != "bias"
            },
        }
        for rank in range(size)
    ]


def local(step: int, parts: Parts) -> dict[str, dict[str, Tensor]]:
    """What a rank holds of it."""
    return {
        group: {
            name: parts[group][name].cut(t) if name in parts.get(group, {}) else t
            for name, t in tensors.items()
        }
        for group, tensors in whole(step).items()
    }


def saver_of(folder: Path, ranks: Ranks, keep: int = 1, interval: float = 0) -> Saver:
    if ranks.is_first:
        return Saver(folder, keep, interval, ranks=ranks)
    return ShardSaver(folder, keep, interval, ranks)


def check(folder: Path, step: int) -> None:
    """Checks that a checkpoint is that of a step, and whole."""
    groups, facts = checkpoint.load(folder)
    assert facts == at(step)
    expected = whole(step)
    assert groups.keys() == expected.keys()
    for group, tensors in expected.items():
        assert groups[group].keys() == tensors.keys()
        for name, value in tensors.items():
            assert groups[group][name].dtype == value.dtype
            assert torch.equal(groups[group][name], value), (group, name)


@pytest.mark.parametrize("size", [2, 3, 4])
def test_ranks_save_together(tmp_path: Path, size: int) -> None:
    parts = layout(size)

    def train(ranks: Ranks) -> None:
        saver = saver_of(tmp_path, ranks, keep=2)
        saver.start()
        for step in range(1, 6):
            mine = parts[ranks.rank]
            saver.offer(
                local(step, mine),
                at(step),
                best=step in {2, 3, 4},
                last=step != 4,
                now=step == 3,
                parts=mine,
            )
        saver.flush()
        saver.close()

    assert on_ranks(size, train) == [None] * size
    for name, step in {"last": 5, "best": 4, "best-2": 3}.items():
        check(tmp_path / name, step)
    names = {path.name for path in (tmp_path / "last").iterdir()}
    shards = {tensor_files.shard_name(g, r, size) for g in ("model", "optimizer") for r in range(size)}
    assert names == {*shards, "random.safetensors", "state.json", "manifest.json"}
    assert {path.name for path in tmp_path.iterdir()} == {
        "last",
        "previous",
        "best",
        "best-2",
        ".kept.json",
    }
    assert manifest.verify(tmp_path / "last")[0] == manifest.SHARDED_SCHEMA
