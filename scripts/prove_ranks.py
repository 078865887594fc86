"""Measures how far losses, gradients and weights of several ranks are from those of one.

    python scripts/prove_ranks.py                  # 2 and 4 ranks on the processor
    python scripts/prove_ranks.py --docs           # and puts the table into docs/distributed.md

Each run is the command itself: 50 steps of a character model of 0.8 million parameters on a made-up
text, in fp32, without dropout. Losses and gradient norms are those of every step's record; their
differences are relative. Of the weights, all numbers of the last checkpoint as one vector: the norm of
the difference, over the norm.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

from benchmarks.peers import ROOT
from marks import replace_between

PAGE = ROOT / "docs" / "distributed.md"
STEPS = 50
PLANS = {
    "2: a copy each": "replicate=2",
    "2: shards": "shard=2",
    "2: layers shared": "tensor=2",
    "3: shards": "shard=3",
    "4: a copy each": "replicate=4",
    "4: shards": "shard=4",
    "4: 2 copies × 2 shards": "replicate=2 shard=2",
    "4: layers shared": "tensor=4",
    "4: 2 shards × layers shared by 2": "shard=2 tensor=2",
}
MODEL = (
    *("dim=128", "depth=4", "num_heads=4", "qk_norm=true", "position=rotary", "norm=rmsnorm"),
    *("bias=false", "dropout=0.0"),
)
SETTINGS = (
    *("model=transformer", *(f"model.{word}" for word in MODEL), "data=text", "data.context=64"),
    *("data.batch_size=12", "data.cache=null", "optimizer=adamw", "trainer.clip_norm=1.0"),
    *("device=cpu", "device.engine=eager", "device.threads=1", "device.precision=fp32"),
    *(f"trainer.max_steps={STEPS}", "trainer.record_every_steps=1", "trainer.tensorboard=false"),
)


class Differences(NamedTuple):
    """The largest relative differences of losses and gradient norms, and that of the weights."""

    losses: float
    norms: float
    weights: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--docs", action="store_true", help="put the table into docs/distributed.md")
    parser.add_argument("--set", nargs="*", default=[], help="other settings of all runs")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "text.txt").write_text(made_up_text())
        one = run(folder, "", arguments.set)
        found = {}
        for label, plan in PLANS.items():
            found[label] = compare(one, run(folder, plan, arguments.set))
            print(label, *(f"{value:.1e}" for value in found[label]), flush=True)
    if arguments.docs:
        replace_between(PAGE, "agreement", table(found))


def made_up_text() -> str:
    """Sentences of words that have a few letters each, in an order that can be learnt in part."""
    chance = random.Random(0)
    words = ["".join(chance.choices("abcdefghijklmnop", k=chance.randint(2, 7))) for _ in range(200)]
    lines = (" ".join(chance.choices(words[:: chance.randint(1, 5)], k=8)) for _ in range(1500))
    return "\n".join(lines)


def run(folder: Path, plan: str, more: list[str]) -> Path:
    """Trains; returns the run's folder."""
    degrees = dict(word.split("=") for word in plan.split())
    ranks = math.prod(map(int, degrees.values()))
    target = folder / (plan.replace("=", "").replace(" ", "-") or "one")
    words = [f"device.parallel.{key}={value}" for key, value in degrees.items()]
    command = [sys.executable, "-m", "bigmodel", *SETTINGS, *words, *more, f"device.ranks={ranks}"]
    subprocess.run(
        [*command, "data.path=text.txt", f"hydra.run.dir={target}"],
        cwd=folder,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        check=True,
        stdout=subprocess.DEVNULL,
    )
    return target


def compare(one: Path, several: Path) -> Differences:
    import torch

    from bigmodel.checkpointing.checkpoint import load

    records = list(zip(*(_records(folder) for folder in (one, several)), strict=True))
    assert len(records) >= STEPS
    losses, norms = (
        max(abs(b[key] / a[key] - 1) for a, b in records) for key in ("train/loss", "grad_norm")
    )
    before, after = (load(folder / "checkpoints" / "last")[0]["model"] for folder in (one, several))
    assert before.keys() == after.keys()
    whole, other = (
        torch.cat([weights[name].flatten().double() for name in sorted(before)])
        for weights in (before, after)
    )
    return Differences(losses, norms, float((whole - other).norm() / whole.norm()))


def _records(folder: Path) -> list[dict[str, float]]:
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def table(found: dict[str, Differences]) -> str:
    """The differences, as Markdown."""
    lines = ["| ranks | losses | gradient norms | weights |", "|---|---|---|---|"]
    lines += [
        f"| {label} | " + " | ".join(f"{value:.1e}" for value in differences) + " |"
        for label, differences in found.items()
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
