"""The process that sides run in: `python -m benchmarks.worker LOG`, one order a line, one answer a line.

An order is a JSON object, see `Order`; whatever is printed on the way goes to the file LOG. One process
can do many orders, so that several can take turns without starting again.
"""

from __future__ import annotations

import gc
import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

from benchmarks.works import CHECKED_STEPS, WORKS, Work


def side_of(name: str, work: Work, folder: Path, check: bool) -> Callable[..., dict[str, Any]]:
    """Does a work; called with `on_end`, which it calls when its last step is done."""
    match name.split("-"):
        case ["ours", *how]:
            from benchmarks import ours

            return partial(ours.run, work, reports="quiet" not in how, saves="unsaved" not in how)
        case ["bare", *how]:
            from benchmarks import plain

            work = replace(work, fused=True if "fused" in how else None)
            return partial(
                plain.run,
                work,
                folder,
                check=check,
                compiled="compiled" in how,
                own_rnn="cudnn" in how,
                graphs="graphs" in how,
                workers=2 if "workers" in how else 0,
            )
        case ["lightning", *how]:
            from benchmarks import with_lightning

            workers = 2 if "workers" in how else 0
            return partial(with_lightning.run, work, folder, check=check, workers=workers)
        case ["jax", *how]:
            from benchmarks import with_jax

            return partial(with_jax.run, work, folder, check=check, unroll=4 if "unrolled" in how else 1)
        case ["keras"]:
            from benchmarks import with_keras

            return partial(with_keras.run, work, folder, check=check)
        case ["transformers", *how]:
            from benchmarks import with_transformers

            return partial(with_transformers.run, work, folder, check=check, compiled="compiled" in how)
    raise ValueError(name)


def peak_memory(work: Work) -> int:
    """Most bytes that were held so far, on the GPU or by this process."""
    if work.device == "cuda":
        import torch

        return torch.cuda.max_memory_allocated()
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def answered(work: Work, side: Callable[..., dict[str, Any]]) -> dict[str, Any]:
    """One run, and what it was like."""
    figures: dict[str, Any] = {}

    def on_end() -> None:
        figures["ended"], figures["peak_memory"] = time.time(), peak_memory(work)

    figures |= side(on_end=on_end)
    marks = figures.pop("marks")
    losses = figures.get("losses", [])
    if "curve" not in figures:  # the mean loss of each stretch that ends with a mark, as ours tells it
        steps = [0, *(step for step, _ in marks)]
        figures["curve"] = [statistics.fmean(losses[a:b]) for a, b in pairwise(steps)]
    figures["losses"] = losses[:CHECKED_STEPS]
    if len(marks) > 1:
        (first, began), (last, ended) = marks[0], marks[-1]
        figures |= {"steady_steps": last - first, "steady_seconds": ended - began}
    return figures


def between_runs(work: Work) -> None:
    """Gives memory back, so that the next run finds it free and its peak is its own."""
    gc.collect()
    if work.device == "cuda":
        import torch

        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


LEARNING_STEPS = 500
FILLING_STEPS = 100
"""Steps of a run that is there to compile: a step's code does not depend on their number."""


@dataclass(frozen=True)
class Order:
    """What a worker is to do.

    Attributes:
        mode: `prepare`: ours leaves what all begin from; `check`: the first steps; `fill`: ours compiles
            its step and keeps it, which is left out where one run alone would not gain by it; `time`: a
            whole run; `compile`: ours until its first compiled step; `learn`: the validation loss of
            ours after `LEARNING_STEPS`; `multiply`: matrices, to see how fast that is.
        part: do only this part of the steps: 1 / part.
    """

    mode: Literal["prepare", "check", "fill", "verify", "time", "compile", "learn", "multiply"]
    side: str
    work: str
    device: str
    folder: str
    tiny: bool = False
    part: int = 1


def done(order: Order) -> dict[str, Any]:
    """The answer to an order."""
    folder = Path(order.folder)
    work = WORKS[order.work](order.device, order.tiny, folder)
    if "bf16" in order.side:
        work = replace(work, precision="bf16")
    if order.mode == "multiply":
        from benchmarks.multiply import matrix_rate

        return {"flops": matrix_rate(order.device, order.tiny)}
    if order.mode in ("prepare", "verify"):
        from benchmarks import ours

        answer = (ours.prepare if order.mode == "prepare" else ours.verify)(work, folder)
        between_runs(work)
        return answer
    if order.mode in ("compile", "learn"):
        from benchmarks import ours

        if order.mode == "compile":
            return {"compile": ours.compile_seconds(work, folder)}
        steps = work.steps if order.tiny else LEARNING_STEPS
        overrides = (*work.overrides, "trainer.limit.val=50")
        long = replace(work, overrides=overrides, steps=steps, mark_every=steps)
        return {"val_loss": ours.run(long, reports=False)["val_loss"]}
    if order.mode == "fill":
        compiled = (*work.overrides, "device.engine=compiled")
        few = replace(work, overrides=compiled, steps=min(work.steps, FILLING_STEPS))
        return answered(few, side_of("ours-quiet", few, folder, check=False))
    if order.mode == "check":
        return answered(work, side_of(order.side, work, folder, check=True))
    whole = work.steps
    work = replace(work, steps=max(2 * work.mark_every, whole // order.part))
    figures = answered(work, side_of(order.side, work, folder, check=False))
    between_runs(work)
    return figures | {"steps": work.steps, "whole": whole}


def main() -> None:
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    log = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    for line in sys.stdin:
        print(json.dumps(done(Order(**json.loads(line)))), file=answers)


if __name__ == "__main__":
    main()
