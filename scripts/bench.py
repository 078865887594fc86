"""Speed, side by side: each line runs ours and a bare alternative in turns and prints the median ratio.

    python scripts/bench.py              # all lines
    python scripts/bench.py --only fit   # one of them

Both sides of `fit` do the same work on one thread: the same network from the same weights, the same
number of batches in a new order each epoch, AdamW with the same schedule, every loss recorded, the
validation part judged after each epoch, a checkpoint written at the end. Ours also adds up the training
accuracy, gives top-5 and F1 of the validation part, and syncs its checkpoint to disk with its sums.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from copy import deepcopy
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import torch
from plain_writer import PlainWriter
from plain_writer import train as train_plain
from torch import nn

from bigmodel.build import build_run
from bigmodel.config import parse
from bigmodel.loop import fit
from bigmodel.reporting.base import Sink
from bigmodel.run import Run
from bigmodel.saver import Saver
from bigmodel.train import config_dir

PAIRS = 5
TEXT_STEPS = 200

Result = TypeVar("Result")


def composed(*overrides: str) -> dict:
    from hydra import compose, initialize_config_dir
    from omegaconf import OmegaConf

    from bigmodel.launch.folders import register_resolver

    register_resolver()
    with initialize_config_dir(str(config_dir()), version_base="1.3"):
        return OmegaConf.to_container(compose("train", overrides=list(overrides)), resolve=True)


def prepared(folder: Path, reports: bool) -> Run:
    """Ours, built; without reports no figure is printed or written but the checkpoint at the end."""
    run = build_run(
        parse(composed("device=cpu", "device.threads=1", f"trainer.tensorboard={reports}")), folder
    )
    if not reports:
        run.sinks = Sink()
    return run


def bare(run: Run, model: nn.Module, folder: Path) -> list[float]:
    """The loop anyone would write over tensors in memory; returns the validation accuracies."""
    train, val = run.dataset.train, run.dataset.val
    x, y = run.dataset.prepared.model_inputs(train.inputs), train.targets
    x_val, y_val = run.dataset.prepared.model_inputs(val.inputs), val.targets
    options = {k: v for k, v in run.state.optimizer.defaults.items() if k in {"lr", "betas", "eps"}}
    decay = [p for p in model.parameters() if p.ndim > 1]
    rest = [p for p in model.parameters() if p.ndim <= 1]
    weight_decay = max(group["weight_decay"] for group in run.state.optimizer.param_groups)
    optimizer = torch.optim.AdamW(
        [{"params": decay, "weight_decay": weight_decay}, {"params": rest, "weight_decay": 0.0}],
        fused=True,
        **options,
    )
    base, step, losses, accuracies = options["lr"], 0, [], []
    for _ in range(run.plan.epochs):
        model.train()
        for index in torch.randperm(len(x)).split(64):
            for group in optimizer.param_groups:
                group["lr"] = base * run.state.scheduler.factor(step)
            loss = nn.functional.cross_entropy(model(x[index]), y[index])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
            step += 1
        model.eval()
        with torch.no_grad():
            accuracies.append((model(x_val).argmax(1) == y_val).float().mean().item())
    torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, folder / "bare.pt")
    assert step == run.plan.steps
    assert math.isfinite(sum(losses))
    return accuracies


def timed(work: Callable[[], Result]) -> tuple[float, Result]:
    """Seconds that a piece of work takes, and what it gives."""
    began = time.perf_counter()
    result = work()
    return time.perf_counter() - began, result


def report(title: str, ours: list[float], theirs: list[float]) -> None:
    ratios = sorted(a / b for a, b in zip(ours, theirs, strict=True))
    print(
        f"{title}: {statistics.median(ratios):.2f} × (from {ratios[0]:.2f} to {ratios[-1]:.2f},"
        f" {len(ratios)} pairs; medians {statistics.median(ours):.3f} s and"
        f" {statistics.median(theirs):.3f} s)"
    )


def bench_fit(reports: bool) -> None:
    """`fit` of the default run against the bare loop."""
    torch.set_num_threads(1)
    ours, theirs = [], []
    for pair in range(PAIRS + 1):
        with tempfile.TemporaryDirectory() as folder:
            with contextlib.redirect_stdout(io.StringIO()):
                run = prepared(Path(folder), reports)
            model = deepcopy(run.state.model)
            with contextlib.redirect_stdout(io.StringIO()):
                a, _ = timed(partial(fit, run))
            b, accuracies = timed(partial(bare, run, model, Path(folder)))
        final = float(run.summary.final["val/accuracy"])
        assert abs(final - accuracies[-1]) < 0.02, (final, accuracies[-1])
        if pair:  # the first pair warms up
            ours.append(a)
            theirs.append(b)
    what = "with all reports" if reports else "alone"
    report(f"fit on digits (FNN, {run.plan.steps} steps), {what}, against a bare loop", ours, theirs)


class NoSaver(Saver):
    """Takes every state and keeps none."""

    def offer(self, *_: Any, **__: Any) -> None:
        pass


def bench_saves() -> None:
    """A run that saves each epoch, weights and optimizer, against itself without a save.

    Ten million parameters, two epochs of 16,000 samples, with AdamW: 118 MB a save, and twice that where
    the epoch was the best. Both sides take in the wait for the last write.
    """
    ours, theirs = [], []
    sizes = ("model.hidden_sizes=[2200,2200,2200]", "data=synthetic", "data.shape=[64]")
    target = ("data.target=classes", "data.outputs=10", "data.samples=20000", "trainer.epochs=2")
    torch.set_num_threads(1)
    for pair in range(PAIRS + 1):
        seconds = {}
        for saver in (Saver, NoSaver):
            with tempfile.TemporaryDirectory(dir=Path.cwd()) as folder:
                run = build_run(
                    parse(composed("device=cpu", "device.threads=1", *sizes, *target)), Path(folder)
                )
                run.sinks = Sink()
                run.saver = saver(Path(folder) / "checkpoints", keep=1, interval=0)
                seconds[saver], _ = timed(partial(fit, run))
        if pair:
            ours.append(seconds[Saver])
            theirs.append(seconds[NoSaver])
    parameters = sum(p.numel() for p in run.state.model.parameters())
    report(
        f"a save each epoch ({parameters / 1e6:.1f}M parameters, {run.plan.steps} steps), against none",
        ours,
        theirs,
    )


def bench_help() -> None:
    """`bigmodel-train --help` against `import torch`."""
    program = Path(sys.executable).with_name("bigmodel-train")
    quiet: dict[str, Any] = {"stdout": subprocess.DEVNULL, "check": True, "env": os.environ}
    ours, theirs = [], []
    for pair in range(PAIRS + 1):
        a, _ = timed(partial(subprocess.run, [program, "--help"], **quiet))
        b, _ = timed(partial(subprocess.run, [sys.executable, "-c", "import torch"], **quiet))
        if pair:
            ours.append(a)
            theirs.append(b)
    report("bigmodel-train --help against import torch", ours, theirs)


SIZES = ("model.dim=128", "model.depth=4", "model.num_heads=4", "data.context=64", "data.batch_size=12")
RECIPES = {
    "the recipe, with Muon": ("experiment=shakespeare_char_cpu",),
    "same layers, AdamW": (
        *("model=transformer", "data=text", "optimizer=adamw", "scheduler=linear"),
        *(*SIZES, "model.dropout=0"),
    ),
}


def bench_text(recipe: str) -> None:
    """Tokens per second of `experiment=shakespeare_char_cpu` against a plain loop over torch's modules.

    Args:
        recipe: of `RECIPES`: the experiment as it stands, whose optimizer does more in a step, or one
            with the same layers and optimizer as the plain loop.
    """
    torch.set_num_threads(1)
    text = random_text()
    ours, theirs = [], []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "text.txt"
        path.write_text(text)
        for pair in range(PAIRS + 1):
            with contextlib.redirect_stdout(io.StringIO()):
                run = build_run(
                    parse(
                        composed(
                            *RECIPES[recipe],
                            f"data.path={path}",
                            f"trainer.max_steps={TEXT_STEPS}",
                            "device=cpu",
                            "device.threads=1",
                            "trainer.tensorboard=false",
                            "trainer.limit.val=1",
                        )
                    ),
                    Path(folder) / str(pair),
                )
            run.sinks = Sink()
            size, stream = run.train.batch_size, run.dataset.train.stream.long()
            plain = PlainWriter(run.dataset.spec.input.vocab_size, dim=128, depth=4, heads=4, context=64)
            if "same" in recipe:
                parameters = [sum(p.numel() for p in m.parameters()) for m in (run.state.model, plain)]
                assert parameters[0] == parameters[1], parameters
            a, _ = timed(partial(fit, run))
            b, _ = timed(partial(train_plain, plain, stream, TEXT_STEPS, size, lr=1e-3))
            if pair:
                ours.append(a)
                theirs.append(b)
    rates = [TEXT_STEPS * size * 64 / statistics.median(seconds) for seconds in (ours, theirs)]
    report(
        f"a text letter by letter, {recipe}, {rates[0]:,.0f} tokens/s against {rates[1]:,.0f} of a plain"
        " loop, in seconds",
        ours,
        theirs,
    )


def random_text() -> str:
    """A million letters of 65 kinds."""
    letters = [chr(33 + kind) for kind in range(65)]
    draws = torch.randint(65, (1_000_000,), generator=torch.Generator().manual_seed(0))
    return "".join(letters[draw] for draw in draws.tolist())


LINES: dict[str, Callable[[], None]] = {
    "fit": lambda: bench_fit(reports=False),
    "reports": lambda: bench_fit(reports=True),
    "help": bench_help,
    "saves": bench_saves,
    "text": lambda: bench_text("same layers, AdamW"),
    "text_recipe": lambda: bench_text("the recipe, with Muon"),
}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", choices=LINES, help="one line instead of all")
    for name in [only] if (only := parser.parse_args().only) else LINES:
        LINES[name]()
