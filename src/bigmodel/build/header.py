"""The header of a run, printed before it starts."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from pathlib import Path

import torch
from torch import nn

from bigmodel.config import RunConfig
from bigmodel.data.base import Dataset
from bigmodel.errors import counted
from bigmodel.losses import Loss
from bigmodel.models.fine_tuning import FineTuningConfig
from bigmodel.models.layers.frozen import FrozenEmbedding, FrozenLinear, LoRALinear
from bigmodel.models.summary import Layer
from bigmodel.optim.optimizers.adaptive import USUAL_DECAY, AdamWConfig
from bigmodel.optim.rates_config import RatesConfig
from bigmodel.reporting.base import RunInfo
from bigmodel.reporting.formatting import label_rows, shown_path
from bigmodel.runtime import torch_internals
from bigmodel.runtime.device import Runtime
from bigmodel.spec import Target, Values
from bigmodel.training.plan import Monitored, Plan


def run_info(
    config: RunConfig,
    dataset: Dataset,
    layers: list[Layer],
    runtime: Runtime,
    plan: Plan,
    monitor: Monitored,
    folder: Path,
    loss: Loss,
    part_rows: list[tuple[str, str]],
) -> RunInfo:
    """Describes a run to the sinks, with the rows of its header.

    Args:
        part_rows: rows about model and loss, label and text.
    """
    model, parameters = config.model.name, sum(layer.parameters for layer in layers)
    length = f"{counted(plan.epochs, 'epoch')} × {counted(plan.steps_per_epoch, 'step')}"
    if config.trainer.max_steps is not None:
        length = counted(plan.steps, "step")
    length += f" ({plan.auto})" if plan.auto else ""
    rate = "auto" if config.finds_rate else f"{getattr(config.optimizer, 'lr', math.nan):g}"
    decay = ""
    if isinstance(config.optimizer, AdamWConfig) and config.optimizer.weight_decay != USUAL_DECAY:
        decay = f", weight decay {config.optimizer.weight_decay:.3g}"
    without = ", ".join(torch_internals.missing())
    rows = [
        *label_rows(config.top.run.model_dump()),
        ("Model", f"{model}, {counted(parameters, 'parameter')}{_trained(layers)}"),
        ("Data", str(dataset.spec)),
        *dataset.header_rows,
        *([("Left out", _listed(dataset.left_out))] if dataset.left_out else []),
        (
            "Optimizer",
            f"{config.optimizer.name}, learning rate {rate}{_factors(config.rates)}{decay},"
            f" {config.scheduler.name} schedule",
        ),
        ("Loss", describe_loss(loss, dataset.spec.target)),
        ("Device", str(runtime)),
        *([("Torch", f"{torch.__version__} without {without}")] if without else []),
        *part_rows,
        ("Training", f"{length}, batches of {_batch(config)}"),
        *([("Validation", "none, so that the last weights count")] if dataset.val is None else []),
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
        monitor=monitor.name,
        labels=config.top.run,
        evaluate_every=plan.evaluate_every,
        changed=config.changed,
        in_sweep=config.in_sweep,
    )


def _trained(layers: list[Layer]) -> str:
    """Which share of the parameters is trained, unless all are."""
    whole = sum(layer.parameters for layer in layers)
    trained = whole - sum(layer.frozen for layer in layers)
    return "" if trained == whole else f", of which {trained:,} are trained ({trained / whole:.2%})"


def _factors(rates: RatesConfig) -> str:
    """By what the learning rate of a model's parts is multiplied."""
    factors = [f"{part} × {factor:g}" for part, factor in rates.rates.items()]
    if rates.layer_decay != 1:
        factors.insert(0, f"× {rates.layer_decay:g} from each block to the one below")
    return f" ({', '.join(factors)})" if factors else ""


def tuned(model: nn.Module, config: FineTuningConfig, new: Collection[str]) -> list[tuple[str, str]]:
    """Which layers have low-rank updates, which are stored in fewer bits, and a warning about parts that
    were neither loaded nor are trained.

    Args:
        new: names of parameters that were not loaded from `model.pretrained`.
    """
    rows = []
    updates = {name: layer for name, layer in model.named_modules() if isinstance(layer, LoRALinear)}
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    if updates:
        names = [name for name in updates if f"{name}.lora_a" in trained]
        whole = [name.split(".") for name, p in model.named_parameters() if p.requires_grad]
        parts = dict.fromkeys(path[0] for path in whole if path[-1] not in ("lora_a", "lora_b"))
        first = ": " + _first(names) if names else ""
        beside = f"; in full: {', '.join(parts)}" if parts else ""
        text = f"rank {config.lora.rank} in {counted(len(names), 'layer')}{first}{beside}"
        rows.append(("LoRA", text))
    if config.frozen_precision != "fp32":
        kinds = FrozenLinear | FrozenEmbedding
        layers = [layer for layer in model.modules() if isinstance(layer, kinds)]
        count = sum(layer.weight.dtype != torch.float32 for layer in layers)
        more = "; what else is frozen is small or shared, and in fp32"
        rows.append(("Frozen", f"{counted(count, 'layer')} in {config.frozen_precision}{more}"))
    frozen = {name for name, parameter in model.named_parameters() if not parameter.requires_grad}
    if random := [name for name in new if name in frozen]:
        text = f"model.freeze: {_first(random)} were not loaded, and stay as they began, at random"
        rows.append(("Warning", text))
    return rows


def _first(names: Sequence[str]) -> str:
    return ", ".join(names[:4]) + (", …" if len(names) > 4 else "")


def describe_loss(loss: Loss, target: Target) -> str:
    """The loss; for real values also its unit, since other metrics are in the target's own.

    `mse, of the target in units of its standard deviation, 77.2`
    """
    if not isinstance(target, Values):
        return loss.described
    if target.count > 1:
        return f"{loss.described}, of the targets, each in units of its standard deviation"
    unit = f"{target.std[0]:,.4g}" if target.std[0] < 10_000 else f"{target.std[0]:,.0f}"
    return f"{loss.described}, of the target in units of its standard deviation, {unit}"


def _batch(config: RunConfig) -> str:
    """How large a batch is, in words."""
    samples, tokens = config.data.batch_size, config.data.token_bound
    accumulate = config.trainer.accumulate
    if tokens is None:
        return f"{samples * accumulate:,}"
    return f"up to {tokens * accumulate:,} tokens, {counted(samples * accumulate, 'sample')}"


def _listed(counts: dict[str, int]) -> str:
    return ", ".join(f"{count:,} {reason}" for reason, count in counts.items())
