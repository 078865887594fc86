"""Resuming from every step of two epochs; shared by the tests and `scripts/prove_reliability.py`."""

from __future__ import annotations

import contextlib
import random
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch

from bigmodel import registry
from bigmodel.build.new_run import build_run
from bigmodel.build.resumed_run import resume_run
from bigmodel.checkpointing import checkpoint
from bigmodel.config import parse
from bigmodel.training.loop import fit
from tests.faults import trials

BASE: dict[str, dict[str, Any]] = {
    "model": {"name": "fnn", "hidden_sizes": [16]},
    "data": {"name": "digits", "batch_size": 64},
    "loss": {"name": "auto"},
    "optimizer": {"name": "adamw"},
    "scheduler": {"name": "one_cycle"},
    "device": {"name": "cpu", "threads": 1},
    "trainer": {
        "epochs": 2,
        "record_every_steps": 1,
        "checkpoint": {"every_steps": 1},
        "limit": {"train": 10, "val": 1},
    },
}
"""Ten steps an epoch."""

README = str(Path(__file__).parents[2] / "README.md")
WRITER = {"model": {"name": "transformer", "dim": 16, "depth": 1, "num_heads": 2, "dropout": 0.2}}

VARIANTS: dict[str, dict[str, Any]] = {
    "shuffling": {},
    "a text": WRITER
    | {"data": {"name": "text", "path": README, "unit": "byte", "context": 32, "batch_size": 16}},
    "pairs": WRITER
    | {
        "data": {
            "name": "pairs",
            "source": README,
            "target": README,
            "vocab_size": 400,
            "length": 32,
            "batch_tokens": 512,
            "batch_size": 16,
            "bleu_pairs": 2,
        },
        "trainer.accumulate": 2,
    },
    "dropout": {"model.dropout": 0.3},
    "augmentation": {"data.augment": {"shift": 1, "flip": 0.5, "erase": 0.5}},
    "2 workers": {"data.augment": {"shift": 1, "erase": 0.5}, "data.workers": 2},
    "batch norm": {"model.name": "cnn", "model.hidden_sizes": None, "model.channels": [4]},
    "ema": {"trainer.ema": 0.9},
    "early stopping": {"trainer.early_stopping": {"patience": 9}, "trainer.eval_every_steps": 1},
    "early stopped": {
        "trainer.early_stopping": {"patience": 2, "min_delta": 0.9},
        "trainer.eval_every_steps": 5,
    },
    "schedule_free": {"optimizer.name": "schedule_free_adamw", "scheduler.name": "constant"},
    "muon": {"optimizer.name": "muon", "model.hidden_sizes": [16, 16]},
    "fp16": {"device.precision": "fp16"},
    "clipping": {"trainer.clip_norm": 0.5},
    "compiled": {  # a step like that of tests/engine/test_compiled.py, so that it is compiled only once
        "data": {
            "name": "synthetic",
            "shape": [5],
            "target": "classes",
            "outputs": 3,
            "samples": 200,
            "batch_size": 12,
        },
        "device.engine": "compiled",
        "model.hidden_sizes": [8],
        "model.dropout": 0.3,
        "trainer.ema": 0.9,
        "trainer.clip_norm": 0.5,
    },
    "accumulation": {"trainer.accumulate": 2, "model.dropout": 0.3},
    **{
        f"{name} ({interval})": {
            "scheduler.name": name,
            "scheduler.interval": interval,
            "trainer.eval_every_steps": 3,
            **({"scheduler.milestones": [3, 7]} if name == "multistep" else {}),
        }
        for name in registry.schedulers.names()
        for interval in ("step", "epoch")
    },
}
"""Settings by dotted key, None to leave one out, or a whole group.

An epoch has ten steps, or five with accumulation.
"""


def configured(changes: Mapping[str, Any]) -> dict[str, Any]:
    """A whole configuration with changes."""
    whole = {group: dict(settings) for group, settings in BASE.items()}
    for key, value in changes.items():
        group, _, name = key.partition(".")
        if not name:
            whole[group] = dict(value)
        elif value is None:
            del whole[group][name]
        else:
            whole[group][name] = value
    return whole


def checkpoints_of(folder: Path, changes: Mapping[str, Any], pieces: bool = False) -> list[Path]:
    """Does the whole run in `folder`, and gives every checkpoint that it took, in order.

    Args:
        pieces: take one between any two micro-batches of a step as well.
    """
    kept: list[Path] = []
    real = checkpoint.replace

    def keeping(source: Path, target: Path) -> None:
        real(source, target)
        if target.name == "last":
            kept.append(Path(shutil.copytree(target, folder / "all" / f"{len(kept):04d}")))

    run = build_run(parse(configured(changes)), folder)
    if pieces:
        run.signals.urgent = lambda: True  # type: ignore[method-assign]
    with patch.object(checkpoint, "replace", keeping):
        fit(run)
    return kept


def differing(folder: Path, changes: Mapping[str, Any], kept: Iterable[Path]) -> list[str]:
    """Goes on from each checkpoint, in a new run that was seeded otherwise, to the end.

    Args:
        folder: of the whole run.
        kept: which of its checkpoints.

    Returns:
        The checkpoints from which the end was another.
    """
    expected, wrong = trials.digest(folder), []
    for path in kept:
        again = path.with_name(f"from-{path.name}")
        shutil.copytree(path, again / "checkpoints" / "last")
        shutil.copytree(folder / "tensorboard", again / "tensorboard")
        shutil.copy(folder / "metrics.jsonl", again)
        wrong.append(path.name)  # until it is shown to be right
        run = build_run(parse(configured(changes)), again)
        for seed in (torch.manual_seed, random.seed, np.random.seed):
            seed(123)
        fit(resume_run(run))
        with contextlib.suppress(AssertionError):  # a step twice, or missing
            if trials.digest(again) == expected:
                wrong.pop()
        shutil.rmtree(again)
    return wrong
