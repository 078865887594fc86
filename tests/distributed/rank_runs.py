"""Trains small runs on several ranks, in a process of its own: `python -m tests.distributed.rank_runs`.

Forking from a test's process, which computes with torch, is not safe; one that has only imported it can.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from torch import Tensor

from bigmodel.build.new_run import build_run
from bigmodel.distributed.launcher import launch
from bigmodel.distributed.ranks import ALONE, Ranks
from bigmodel.training.loop import fit
from tests.small_runs import config

ROOT = Path(__file__).resolve().parents[2]
Cases = Mapping[str, Mapping[str, Any]]
EVERY_STEP = {"trainer.record_every_steps": 1, "trainer.epochs": 3, "device.engine": "eager"}


def train(cases: Cases, folder: Path, ranks: Ranks = ALONE) -> None:
    """One run after another, each in its own folder."""
    for name, settings in cases.items():
        (folder / name).mkdir(parents=True, exist_ok=True)
        fit(build_run(config(EVERY_STEP | dict(settings)), folder / name, ranks=ranks))


def train_on(count: int, cases: Cases, folder: Path) -> None:
    """The same on so many ranks.

    Raises:
        AssertionError: a rank failed.
    """
    command = [sys.executable, "-Werror", "-m", "tests.distributed.rank_runs", str(count), str(folder)]
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    done = subprocess.run(
        command,
        input=json.dumps(cases),
        env=os.environ | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def records(folder: Path) -> list[dict[str, Any]]:
    """A run's metrics, but those of a clock."""
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [
        {key: value for key, value in json.loads(line).items() if "per_second" not in key}
        for line in lines
    ]


def weights(folder: Path) -> dict[str, Tensor]:
    """Those of a run's last checkpoint."""
    return load_file(folder / "checkpoints" / "last" / "model.safetensors")


def main(count: int, folder: Path) -> int:
    ended = launch(count, partial(train, json.load(sys.stdin), folder), lambda: None)
    if ended.failed:
        sys.stderr.write(f"rank {ended.rank}: {ended.error!r} {ended.status}")
    return int(ended.failed)


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), Path(sys.argv[2])))
