"""Measures how much memory the ways to train parts of a model take, on one thread of a CPU.

    python scripts/bench_tuning.py all-MiniLM-L6-v2                   # what model.pretrained names
    python scripts/bench_tuning.py all-MiniLM-L6-v2 --batch-size 8 --length 512

Each way trains in a process of its own, on texts of random tokens. Bytes are those of weights, of
gradients and of the optimizer's state after a step; the peak is what the system counts from before the
model is built to the last step. Seconds are of the processor, the median of the steps after the first.
"""

from __future__ import annotations

import argparse
import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from bigmodel.build.new_run import build_run
from bigmodel.config import parse
from bigmodel.runtime.peak_memory import PeakMemory
from bigmodel.training.run import Run

LORA = {"lora": {"rank": 8}}
BELOW = ("embedding*", "positions", "token_types")  # what lies below the blocks of a BERT
WAYS: dict[str, tuple[dict[str, Any], str]] = {
    "everything": ({}, "none"),
    "the last blocks": ({"freeze": [*BELOW, "blocks.0-3"]}, "none"),
    "LoRA": (LORA, "none"),
    "LoRA, bf16": (LORA | {"frozen_precision": "bf16"}, "none"),
    "LoRA, int8": (LORA | {"frozen_precision": "int8"}, "none"),
    "LoRA, int8, recomputed": (LORA | {"frozen_precision": "int8"}, "blocks"),
}
"""The settings of the model, and `trainer.recompute`."""


class Measured(NamedTuple):
    """Bytes, seconds of a step, and how many parameters of how many are trained."""

    weights: int
    gradients: int
    optimizer: int
    peak: int
    seconds: float
    trained: int
    parameters: int


def built(arguments: argparse.Namespace, folder: Path, way: str) -> Run:
    """A run that trains in one of the ways."""
    tuning, recompute = WAYS[way]
    data = {
        "name": "synthetic",
        "input": "tokens",
        "shape": [arguments.length],
        "vocab_size": arguments.vocab_size,
        "target": "classes",
        "outputs": 2,
        "samples": 2 * arguments.batch_size,
        "batch_size": arguments.batch_size,
    }
    values: dict[str, Any] = {
        "model": {"name": "transformer", "pretrained": str(arguments.pretrained)} | tuning,
        "data": data,
        "loss": {"name": "auto"},
        "optimizer": {"name": "adamw"},
        "scheduler": {"name": "constant"},
        "device": {"name": "cpu", "engine": "eager", "precision": "fp32"},
        "trainer": {"tensorboard": False, "recompute": recompute},
    }
    return build_run(parse(values), folder)


def measure(arguments: argparse.Namespace, way: str) -> Measured:
    """Trains for some steps."""
    torch.set_num_threads(1)
    memory = PeakMemory(torch.device("cpu"))
    memory.begin()
    with tempfile.TemporaryDirectory() as folder:
        run = built(arguments, Path(folder), way)
        run.state.model.train()
        batch = next(iter(run.train.epoch(0)))
        seconds = []
        for _ in range(arguments.steps):
            began = time.process_time()
            run.step(batch)
            seconds.append(time.process_time() - began)
    parameters = list(run.state.model.parameters())
    state = run.state.optimizer.state.values()
    return Measured(
        weights=_bytes(parameters),
        gradients=_bytes([p.grad for p in parameters if p.grad is not None]),
        optimizer=_bytes([v for slots in state for v in slots.values() if isinstance(v, Tensor)]),
        peak=memory.peak(),
        seconds=statistics.median(seconds[1:]),
        trained=run.summary.trained_parameters,
        parameters=run.summary.parameters,
    )


def _bytes(tensors: Sequence[Tensor]) -> int:
    return sum(tensor.nbytes for tensor in tensors)


def parse_arguments(words: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line's arguments."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("pretrained", type=Path, help="a model of texts, as model.pretrained has it")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--length", type=int, default=64, help="tokens of a text")
    parser.add_argument("--vocab-size", type=int, default=30522)
    parser.add_argument("--steps", type=int, default=5)
    return parser.parse_args(words)


def main(words: Sequence[str] | None = None) -> None:
    """Measures, and prints a table in Markdown."""
    arguments = parse_arguments(words)
    print("| trained | parameters | weights, gradients, optimizer | peak | seconds a step |")
    print("|---|---|---|---|---|")
    processes = multiprocessing.get_context("spawn")
    for way in WAYS:
        with processes.Pool(1) as pool:
            found = pool.apply(measure, (arguments, way))
        parts = (found.weights, found.gradients, found.optimizer)
        each = " + ".join(f"{part / 1e6:.1f}" for part in parts)
        share = f"{found.trained:,} ({found.trained / found.parameters:.2%})"
        total, peak = f"{each} = {sum(parts) / 1e6:.0f} MB", f"{found.peak / 1e6:.0f} MB"
        print(f"| {way} | {share} | {total} | {peak} | {found.seconds:.2f} |", flush=True)


if __name__ == "__main__":
    main()
