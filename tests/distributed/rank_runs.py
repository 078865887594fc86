"""Trains small runs on several ranks, in a process of its own: `python -m tests.distributed.rank_runs`.

Forking from a test's process, which computes with torch, is not safe; one that has only imported it can.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from bigmodel.build.new_run import build_run
from bigmodel.build.resumed_run import resume_run
from bigmodel.checkpointing.checkpoint import load_newest
from bigmodel.distributed.launcher import launch
from bigmodel.distributed.layout import Part
from bigmodel.distributed.ranks import ALONE, Ranks
from bigmodel.errors import BigModelError
from bigmodel.training.loop import fit
from bigmodel.training.run import Run
from tests.small_runs import config

ROOT = Path(__file__).resolve().parents[2]
Cases = Mapping[str, Mapping[str, Any]]
EVERY_STEP = {"trainer.record_every_steps": 1, "trainer.epochs": 3, "device.engine": "eager"}
SPOIL = "spoil"
"""A case's setting that is none of the configuration: what goes wrong, a key of `SPOILERS`."""
RESUME = "resume"
"""Another one: the name of an earlier case whose run goes on."""
ERROR, WHOLE = "error.txt", "whole.safetensors"


def train(cases: Cases, folder: Path, ranks: Ranks = ALONE) -> None:
    """One run after another, each in its own folder, where one that has to fail leaves its message."""
    for name, settings in cases.items():
        place, settings = folder / name, dict(settings)
        place.mkdir(parents=True, exist_ok=True)
        spoil, begun = settings.pop(SPOIL, None), settings.pop(RESUME, None)
        try:
            run = build_run(config(EVERY_STEP | settings), place, ranks=ranks)
            SPOILERS[spoil](run, ranks)
            if begun is not None:
                resume_run(run, load_newest(folder / begun / "checkpoints", ranks), ["trainer"])
            fit(run)
        except BigModelError as error:
            if spoil is None:
                raise
            (place / f"{ranks.rank}.{ERROR}").write_text(str(error))
            continue
        whole = whole_weights(run)
        if ranks.is_first:
            save_file(whole, place / WHOLE)


def whole_weights(run: Run) -> dict[str, Tensor]:
    """The weights and buffers of a run, put together from the parts of all ranks.

    Raises:
        AssertionError: ranks that hold the same numbers differ, or nobody holds some of them.
    """
    own = {name: value.detach().clone() for name, value in run.state.model.state_dict().items()}
    whole: dict[str, Tensor] = {}
    for tensors, parts in run.ranks.gather((own, dict(run.state.parts))):
        for name, tensor in tensors.items():
            _put(whole, name, tensor, parts.get(name))
    assert all(not value.isnan().any() for value in whole.values())
    return whole


def _put(whole: dict[str, Tensor], name: str, tensor: Tensor, part: Part | None) -> None:
    if part is None:
        part = Part(tuple(tensor.shape), tuple(((0, size),) for size in tensor.shape))
    before = whole.setdefault(name, torch.full(part.shape, math.nan, dtype=tensor.dtype))
    held = part.cut(before)
    assert bool((held.isnan() | (held == tensor)).all()), f"ranks hold different {name}"
    part.paste(tensor, before)


def _nothing(run: Run, ranks: Ranks) -> None:
    pass


def _poison_rows(run: Run, ranks: Ranks) -> None:
    """The last rank's outputs are NaN in its third pass of training."""
    if ranks.rank < ranks.size - 1:
        return
    calls = 0

    def spoilt(module: nn.Module, _: Any, outputs: Tensor) -> Tensor:
        nonlocal calls
        calls += module.training
        return outputs * math.nan if module.training and calls == 3 else outputs

    run.step.parallel.model.register_forward_hook(spoilt)


def _poison_weight(run: Run, ranks: Ranks) -> None:
    """The last rank's part of a weight becomes infinite in an update."""
    if ranks.rank < ranks.size - 1:
        return
    optimizer, updates = run.step.optimizer, 0
    step = optimizer.step
    weight = next(p for p in run.state.model.parameters() if p.numel())

    def spoilt(*arguments: Any) -> Any:
        nonlocal updates
        updates += 1
        result = step(*arguments)
        if updates == 3:
            weight.data.view(-1)[0] = math.inf
        return result

    optimizer.step = spoilt  # type: ignore[method-assign]


SPOILERS: dict[str | None, Callable[[Run, Ranks], None]] = {
    None: _nothing,
    "settings": _nothing,
    "rows": _poison_rows,
    "weight": _poison_weight,
}


def train_on(count: int, cases: Cases, folder: Path) -> None:
    """The same on so many ranks, or in one process of its own.

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


def last_weights(folder: Path) -> dict[str, Tensor]:
    """Those that a run ended with, put together from all ranks."""
    return load_file(folder / WHOLE)


def difference(before: Mapping[str, Tensor], after: Mapping[str, Tensor]) -> float:
    """The norm of the difference of all weights, relative to the norm of the first ones."""
    assert before.keys() == after.keys()
    square = sum(float((before[key] - after[key]).double().square().sum()) for key in before)
    return math.sqrt(square / sum(float(value.double().square().sum()) for value in before.values()))


def main(count: int, folder: Path) -> int:
    cases = json.load(sys.stdin)
    if count == 1:
        train(cases, folder)
        return 0
    ended = launch(count, partial(train, cases, folder), lambda: None)
    if ended.failed:
        sys.stderr.write(f"rank {ended.rank}: {ended.error!r} {ended.status}")
    return int(ended.failed)


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), Path(sys.argv[2])))
