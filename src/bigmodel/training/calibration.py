"""`calibration.safetensors`: what the validation set tells of how sure predictions are.

It is kept with the run for the weights at its end, the best and the last, each by its step, so that
intervals, sets and calibrated probabilities need no data.
"""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from bigmodel.data.parts import SplitData
from bigmodel.errors import CheckpointError, first_line
from bigmodel.metrics import defined
from bigmodel.metrics.calibration import Calibration
from bigmodel.runtime import disk
from bigmodel.spec import Multitask, NextTokens, Target
from bigmodel.training.run import Run
from bigmodel.training.validation import held_out_outputs, load_best_weights

NAME = "calibration.safetensors"

_MOST_SAMPLES = 20_000  # more hardly change a quantile: its standard error is below 0.3 %
_MOST_OUTPUTS = 1 << 25  # of all samples together


def write_calibration(run: Run) -> None:
    """Writes the file of a run that is at its end; nothing without a validation set, for next tokens or
    several targets.
    The model is left with some of these weights.

    Raises:
        Stopped: the process was asked to stop.
        CheckpointError: the file cannot be written, or a checkpoint not read.
    """
    target, progress = run.dataset.spec.target, run.state.progress
    if run.val is None or isinstance(target, NextTokens | Multitask):
        return
    part = chosen_samples(run.dataset.part("val"), target)
    with run.state.evaluation_weights():
        found = {progress.step: held_out_outputs(run, part)}
    best = progress.best.get("step", progress.step)
    if best != progress.step:
        load_best_weights(run, "Predictions are calibrated")
        found[int(best)] = held_out_outputs(run, part)
    if not run.ranks.is_first:
        return
    targets = part.take(slice(0, len(part)))[1].cpu()
    tensors: dict[str, Tensor] = {}
    for step, outputs in found.items():
        if outputs is None or not defined(outputs, target).all():
            continue  # such weights are of no use
        learnt = Calibration.of(outputs, targets, target).tensors()
        tensors |= {f"{step}.{name}": tensor.contiguous() for name, tensor in learnt.items()}
    path, content = run.info.folder / NAME, save(tensors)
    try:
        disk.write_bytes(path, content)
    except OSError as error:
        raise disk.write_error(path, error, len(content)) from error


def read_calibration(folder: Path, step: int, target: Target) -> Calibration | None:
    """What the folder of a run with a target holds for the weights of a step; None if it is not there.

    Raises:
        CheckpointError: the file is damaged.
    """
    path = folder / NAME
    if not path.is_file():
        return None
    try:
        tensors = load_file(path)
        prefix = f"{step}."
        own = {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
        return Calibration.from_tensors(own, target) if own else None
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise CheckpointError(
            f"{path}: cannot be read: {first_line(error)}. Delete it; what it holds is then computed"
            " from the run's data."
        ) from error


def chosen_samples(part: SplitData, target: Target) -> SplitData:
    """The samples of a validation set to learn from: all, or a random choice from very many."""
    most = min(_MOST_SAMPLES, max(1, _MOST_OUTPUTS // max(1, target.output_size)))
    if len(part) <= most:
        return part
    draw = torch.Generator().manual_seed(0)
    return part.select(torch.randperm(len(part), generator=draw)[:most].sort().values.to(part.device))
