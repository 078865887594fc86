"""Measures how much faster documents of a text train packed than each in a row, on one thread of a CPU.

    python scripts/bench_packing.py captions.txt                      # each line is a document
    python scripts/bench_packing.py captions.txt --context 256 --rounds 7

A step is `bigmodel.engine.step` on about as many documents each time: packed into rows of `--context`
tokens; padded to the longest of a batch drawn at random, as is usual elsewhere; padded in batches of
like lengths, as `data.packing=padded` comes; and padded to the context. Ways take turns, and a ratio is
that of neighbours in a round. Only tokens that are asked for count, and seconds of the processor. The
first round warms up.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from bigmodel.build.new_run import build_run
from bigmodel.config import parse
from bigmodel.data.base import Batch
from bigmodel.data.packing import Documents, PackedDocuments
from bigmodel.data.parts import GatherOptions
from bigmodel.spec import IGNORED
from bigmodel.training.run import Run

WAYS = ("packed", "padded at random", "padded by length", "padded to the context")


def built(arguments: argparse.Namespace, folder: Path, packing: str, batch_size: int) -> Run:
    """A run on the documents, arranged in one way."""
    data = {
        "name": "text",
        "path": str(arguments.text),
        "packing": packing,
        "document": "line",
        "context": arguments.context,
        "batch_size": batch_size,
        "unit": "bpe",
        "vocab_size": arguments.vocab_size,
    }
    model = {"name": "transformer", "dropout": 0.0, "dim": arguments.dim, "depth": arguments.depth}
    values: dict[str, Any] = {
        "model": model,
        "data": data,
        "loss": {"name": "auto"},
        "optimizer": {"name": "adamw"},
        "scheduler": {"name": "constant"},
        "device": {"name": "cpu", "engine": "eager", "precision": "fp32"},
        "trainer": {"tensorboard": False},
    }
    return build_run(parse(values), folder / packing)


def epochs(run: Run) -> Iterator[Batch]:
    """The batches of a run, epoch after epoch."""
    return itertools.chain.from_iterable(map(run.train.epoch, itertools.count()))


def at_random(part: Documents, batch_size: int, width: int = 0) -> Iterator[Batch]:
    """Documents in batches drawn at random, as wide as the longest, or of a fixed width."""
    for epoch in itertools.count():
        order = torch.randperm(len(part), generator=torch.Generator().manual_seed(epoch))
        for chosen in torch.split(order, batch_size):
            yield Batch(*part.take(chosen, GatherOptions(width=width)))


def rate(run: Run, batches: Iterator[Batch], seconds: float) -> float:
    """Tokens asked for a second of the processor, over whole steps."""
    asked, began = 0, time.process_time()
    while (passed := time.process_time() - began) < seconds:
        batch = next(batches)
        run.step(batch)
        asked += int((batch.targets != IGNORED).sum())
    run.step.drain()
    return asked / passed


def parse_arguments(words: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line's arguments."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("text", type=Path, help="a text, gzip or not: each line is a document")
    parser.add_argument("--context", type=int, default=128)
    parser.add_argument("--windows", type=int, default=8, help="windows of a packed batch")
    parser.add_argument("--dim", type=int, default=256)
    parser.add_argument("--depth", type=int, default=4)
    parser.add_argument("--vocab-size", type=int, default=8000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=20, help="of each way in a round")
    return parser.parse_args(words)


def main(words: Sequence[str] | None = None) -> None:
    """Measures, and prints the median of each way and of its ratio to packing."""
    arguments = parse_arguments(words)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        packed = built(arguments, Path(name), "documents", arguments.windows)
        part = packed.train.part
        assert isinstance(part, PackedDocuments)
        count = round(arguments.windows * len(part.sizes) / len(part))
        padded = built(arguments, Path(name), "padded", count)
        documents = padded.train.part
        assert isinstance(documents, Documents)
        each = {
            "packed": (packed, epochs(packed)),
            "padded at random": (padded, at_random(documents, count)),
            "padded by length": (padded, epochs(padded)),
            "padded to the context": (padded, at_random(documents, count, arguments.context)),
        }
        print(f"{count} documents a step, in {arguments.windows} windows of {arguments.context} packed")
        rounds = [
            {way: rate(*each[way], arguments.seconds) for way in WAYS}
            for _ in range(arguments.rounds + 1)
        ][1:]
    for way in WAYS:
        rates = [found[way] for found in rounds]
        ratios = [found["packed"] / found[way] for found in rounds]
        print(
            f"{way:22} {statistics.median(rates):9,.0f} tokens/s; packing is"
            f" {statistics.median(ratios):.2f} times as fast ({min(ratios):.2f} to {max(ratios):.2f})"
        )


if __name__ == "__main__":
    main()
