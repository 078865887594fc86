"""What a run says of itself before it begins."""

from __future__ import annotations

import math
from pathlib import Path

from bigmodel.config import RunConfig
from bigmodel.data.base import Dataset
from bigmodel.losses import Loss
from bigmodel.models.summary import Layer
from bigmodel.plan import Monitored, Plan
from bigmodel.reporting.base import RunInfo
from bigmodel.reporting.lines import shown_path
from bigmodel.run import Run
from bigmodel.runtime import Runtime
from bigmodel.schedulers import EXTENSIONS, Change


def run_info(
    config: RunConfig,
    dataset: Dataset,
    layers: list[Layer],
    runtime: Runtime,
    plan: Plan,
    monitor: Monitored,
    folder: Path,
    loss: Loss,
    figures: list[str],
    compiling: list[str],
) -> RunInfo:
    """What is about to run, with a line for each thing to know.

    Args:
        figures: names of the figures that an evaluation gives, without the part.
        compiling: what there is to tell of how the model is compiled.
    """
    model, parameters = config.model.name, sum(layer.parameters for layer in layers)
    length = f"{plan.epochs:,} epochs × {plan.steps_per_epoch:,} steps"
    if config.trainer.max_steps is not None:
        length = f"{plan.steps:,} steps"
    rate = getattr(config.optimizer, "lr", math.nan)
    rows = [
        ("Model", f"{model}, {parameters:,} parameters"),
        ("Data", str(dataset.spec)),
        *dataset.told,
        *([("Left out", _listed(dataset.left_out))] if dataset.left_out else []),
        (
            "Optimizer",
            f"{config.optimizer.name}, learning rate {rate:g}, {config.scheduler.name} schedule",
        ),
        ("Loss", loss.described),
        ("Device", str(runtime)),
        *(("Compiling", line) for line in compiling),
        ("Training", f"{length}, batches of {_batch(config)}"),
        ("Output", shown_path(folder)),
    ]
    if config.top.plugins:
        rows.insert(-1, ("Plugins", ", ".join(config.top.plugins)))
    return RunInfo(
        title=f"{model} on {dataset.spec.name}",
        rows=rows,
        config=config.values,
        layers=layers,
        folder=folder,
        epochs=plan.epochs,
        steps_per_epoch=plan.steps_per_epoch,
        total_steps=plan.steps,
        first_step=0,
        metrics=[f"val/{name}" for name in figures],
        monitor=monitor.name,
        mode=monitor.mode,
    )


def extension(change: Change, run: Run) -> str:
    """What another length of a run that goes on does to its learning rate."""
    first = run.state.optimizer.param_groups[0]
    rate = float(first.get("initial_lr", first["lr"]))
    extend = run.settings["scheduler"].get("extend", EXTENSIONS[0])
    others = " or ".join(choice for choice in EXTENSIONS if choice != extend)
    return (
        f"{run.plan.steps:,} steps instead of {change.planned:,}: at step {run.state.progress.step:,}"
        f" the learning rate goes from {rate * change.before:.3g} to {rate * change.after:.3g} by"
        f" scheduler.extend={extend} ({others}: otherwise)"
    )


def _batch(config: RunConfig) -> str:
    """How large a batch is, in words."""
    samples, tokens = config.data.batch_size, config.data.token_bound
    accumulate = config.trainer.accumulate
    if tokens is None:
        return f"{samples * accumulate:,}"
    return f"up to {tokens * accumulate:,} tokens, {samples * accumulate:,} samples"


def _listed(counts: dict[str, int]) -> str:
    return ", ".join(f"{count:,} {reason}" for reason, count in counts.items())
