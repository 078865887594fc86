"""Builds a run from a typed configuration."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from bigmodel import registry
from bigmodel.build import custom_parts, header
from bigmodel.build.dataset import read_dataset
from bigmodel.build.model import build_model, find_start
from bigmodel.build.pretrained.start import suit_target
from bigmodel.build.ranks import check_ranks, for_ranks, synchronise
from bigmodel.checkpointing.saver import NoSaver, Saver, ShardSaver
from bigmodel.config import RunConfig
from bigmodel.data.base import Dataset, PartName
from bigmodel.data.batching.batches import Batches, make_batches
from bigmodel.data.fingerprint import fingerprint
from bigmodel.data.preprocessing import Preprocessing
from bigmodel.distributed.parallel import Parallel
from bigmodel.distributed.parallelise import parallelise
from bigmodel.distributed.ranks import ALONE, Ranks
from bigmodel.engine.base import Engine
from bigmodel.engine.ema import EMA
from bigmodel.engine.selection import AutoEngine
from bigmodel.engine.step import Step
from bigmodel.errors import ConfigError, require
from bigmodel.losses import Loss
from bigmodel.metrics import choose_metrics, default_monitor, metric_names, metrics_for
from bigmodel.metrics.threshold import is_yes_no
from bigmodel.models.freezing import Unfreezing
from bigmodel.optim.optimizers import own_options
from bigmodel.optim.optimizers.adaptive import AdamWConfig
from bigmodel.optim.rates import scale_rates
from bigmodel.optim.schedulers import Schedule
from bigmodel.redaction import PER_INVOCATION
from bigmodel.reporting import jsonl, tensorboard
from bigmodel.reporting.base import Sink, Sinks, Summary
from bigmodel.reporting.console import Console
from bigmodel.reporting.jsonl import JsonLines
from bigmodel.reporting.summary import write_summary
from bigmodel.runtime import processors, progress_messages, rng
from bigmodel.runtime.device import (
    Runtime,
    environment,
    keep_memory,
    measure_kernels,
    prepare,
)
from bigmodel.spec import DataSpec, Features, NextTokens, Tokens
from bigmodel.training.plan import TEXT_EPOCHS, USUAL_EPOCHS, Monitored, Plan, monitored
from bigmodel.training.run import Run
from bigmodel.training.state import State
from bigmodel.training.text_samples import TextSampler
from bigmodel.training.throughput import Throughput

_EVALUATION_BATCHES = 8
"""Training batches that are evaluated as one: faster, with the same metrics. No layer's outputs are kept
for gradients, so that they hardly need more memory than one in training."""

_EVALUATION_NUMBERS = 1 << 16
"""Numbers in the rows of a table that are evaluated at once, if that is more."""


def evaluation_size(spec: DataSpec, batch_size: int) -> int:
    """How many samples are evaluated at once, if training takes `batch_size`.

    Next tokens are evaluated one batch at a time, since their outputs take most of the memory.
    """
    if isinstance(spec.target, NextTokens):
        return batch_size
    rows = _EVALUATION_NUMBERS // spec.input.count if isinstance(spec.input, Features) else 0
    return max(_EVALUATION_BATCHES * batch_size, rows)


def build_run(
    config: RunConfig,
    folder: Path,
    learnt: Preprocessing | None = None,
    *,
    console: Callable[[Path], Sink] = Console,
    read: Callable[[RunConfig, Preprocessing | None], Dataset] = read_dataset,
    ranks: Ranks = ALONE,
    goes_on: bool = False,
) -> Run:
    """Builds everything that `fit` needs. Nothing is written before `fit`.

    Args:
        config: checked configuration.
        folder: the run's folder.
        learnt: for a resumed run, what it has learnt from its data; see `read_dataset`.
        console: makes the sink that shows the run to the user, given the folder.
        read: reads the data, as `read_dataset` does.
        ranks: the processes that train together; the first one alone writes files and messages.
        goes_on: the run has weights in a checkpoint, which replace those of `model.pretrained`.

    Raises:
        ConfigError, SpecError, DataError, CheckpointError, DeviceError: a part is wrong, or parts do not
            fit each other.
    """
    config, degrees = for_ranks(config, ranks), config.device.parallel.over(ranks.size)
    trainer = config.trainer
    config, start = find_start(config, goes_on)
    runtime = prepare(config.device, config.top.seed, ranks.gpu, ranks.sharing)
    ranks = ranks.sharing_layers(degrees.tensor)
    with ranks.first():
        dataset = read(config, learnt)
    config = suit_target(config, dataset.spec)
    measure_kernels(dataset.train.lengths is None)  # else each batch is as wide as its longest text
    train, val, test = _batches(dataset, config, runtime)
    pretrained, usual_epochs = config.fine_tuning.pretrained is not None, _usual_epochs(dataset.spec)
    plan = Plan.of(trainer, train.steps_per_epoch, pretrained, usual_epochs)
    typed, config = config, _with_decay(config, dataset, plan)
    with closing((val or train).epoch(0)) as batches:
        first = next(batches)
    sample = first.inputs[:1]
    built = build_model(config, dataset.spec, runtime, first, start)
    loss, model, rows = built.loss, built.model, built.rows
    chosen_metrics = choose_metrics(config.metrics, dataset.spec.target)
    rows += _rows("Warning", custom_parts.try_metrics(chosen_metrics))
    _check_threshold(config, dataset)
    text_sampler, metrics = _text_sampler(config, dataset, model, runtime)
    metrics |= chosen_metrics.directions
    monitor, stop_monitor = _monitors(config, dataset, metrics)
    check_ranks(ranks, degrees, train, config)
    synchronise(model, train, dataset, config, runtime, ranks)
    throughput = Throughput.of(dataset, model, runtime, sample, ranks)
    parallel = parallelise(model, ranks, degrees, runtime, all_used=not config.top.plugins)
    if parallel.lockstep and config.top.plugins:
        custom_parts.try_sharded(parallel.model, config.model.name, sample)
    step = _step(config, parallel, loss, dataset, runtime, ranks)
    keep_memory()  # not before the data is there: reading it frees much that is not needed again
    schedule = Schedule(config.scheduler, plan.steps, plan.steps_per_epoch)
    custom_parts.try_schedule(schedule, plan.steps, config.scheduler)
    _check_followed(config, schedule, monitor)
    unfreezing = None
    if (every := config.fine_tuning.unfreeze_every) is not None:
        unfreezing = Unfreezing(step.model, every)
        rows += _rows("Unfreezing", [str(unfreezing)])
        rows += _rows("Warning", unfreezing.warnings(plan.epochs))
    rows += _rows("Ranks", [f"{ranks.size}: {degrees}"] if ranks.size > 1 else [])
    rows += _rows("Warning", custom_parts.check_optimizer(step.optimizer, step.model, config.optimizer))
    state = State(
        *(step.model, step.optimizer, schedule, step.metrics, step.accumulation),
        *(step.ema, step.scaler, loss, ranks, parallel.parts),
        base=built.base,
    )
    rng.seed_rank(config.top.seed, ranks.data_rank)
    with progress_messages.report_progress("Taking the data's fingerprint"):
        data_fingerprint = fingerprint(dataset)
    return Run(
        config=trainer,
        info=header.run_info(config, dataset, built.layers, runtime, plan, monitor, folder, loss, rows),
        plan=plan,
        dataset=dataset,
        fingerprint=data_fingerprint,
        preprocessing=dataset.preprocessing.to_facts(),
        settings={k: v for k, v in config.values.items() if k not in PER_INVOCATION},
        train=train,
        val=val,
        test=test,
        loss=loss,
        step=step,
        engine=_engine(config, dataset, step, state, ranks),
        state=state,
        val_metrics=metrics_for(dataset.spec.target, runtime.device),
        monitor=monitor,
        stop_monitor=stop_monitor,
        runtime=runtime,
        saver=_saver(config, folder / "checkpoints", monitor, ranks, shared=bool(parallel.parts)),
        sinks=_sinks(config, folder, console) if ranks.is_first else Sinks([]),
        summary=_summary(config, monitor, metrics, model, dataset, runtime, loss),
        threshold=config.top.threshold,
        chosen_metrics=chosen_metrics,
        text_sampler=text_sampler,
        unfreezing=unfreezing,
        throughput=throughput,
        profiled=config.top.profile and ranks.is_first,
        ranks=ranks,
        options_at=partial(_options_at, typed, dataset, plan, step.model),
        finds_rate=config.finds_rate,
        default_rate=float(getattr(config.optimizer, "lr", 1e-3)),
        write_summary=write_summary if ranks.is_first else _write_nothing,
    )


def _write_nothing(summary: Summary, folder: Path) -> None:
    """For ranks that leave the summary to the first one."""


def _batches(
    dataset: Dataset, config: RunConfig, runtime: Runtime
) -> tuple[Batches, Batches | None, Batches | None]:
    seed, group = config.top.seed, config.trainer.accumulate
    train = make_batches(dataset, "train", config.data, runtime.device, seed=seed, group=group)

    def in_order(part: PartName) -> Batches | None:
        if part not in dataset.parts:
            return None
        size = evaluation_size(dataset.spec, config.data.batch_size)
        return make_batches(dataset, part, config.data, runtime.device, batch_size=size)

    return train, in_order("val"), in_order("test")


def _rows(label: str, lines: list[str]) -> list[tuple[str, str]]:
    return [(label, line) for line in lines]


def _text_sampler(
    config: RunConfig, dataset: Dataset, model: nn.Module, runtime: Runtime
) -> tuple[TextSampler | None, dict[str, str]]:
    """What samples texts at an evaluation, and all of its metrics, each with its direction."""
    pairs, beams = getattr(config.data, "bleu_pairs", 0), getattr(config.data, "beams", 1)
    sampler = TextSampler.of(dataset, model, runtime.device, pairs, beams)
    return sampler, metric_names(dataset.spec.target) | ({} if sampler is None else sampler.metrics)


def _usual_epochs(spec: DataSpec) -> int:
    is_text = isinstance(spec.input, Tokens) and not isinstance(spec.target, NextTokens)
    return TEXT_EPOCHS if is_text else USUAL_EPOCHS


def _with_decay(config: RunConfig, dataset: Dataset, plan: Plan) -> RunConfig:
    """The same with a number for `optimizer.weight_decay=auto`. It goes by the table once the rate is
    known, and not by a few batches, such as those that `debug=overfit` learns by heart."""
    if not isinstance(config.optimizer, AdamWConfig):
        return config
    table = isinstance(dataset.spec.input, Features) and config.trainer.limit.train is None
    rows = len(dataset.train) if table and not config.finds_rate else None
    return replace(config, optimizer=config.optimizer.decided(plan.steps, rows))


def _step(
    config: RunConfig, parallel: Parallel, loss: Loss, dataset: Dataset, runtime: Runtime, ranks: Ranks
) -> Step:
    model = parallel.own
    optimizer = _optimizer(config, model)
    tokens = config.data.token_bound
    return Step(
        model,
        loss,
        optimizer,
        metrics_for(dataset.spec.target, runtime.device, light=True),
        runtime,
        micro_batch=math.ceil(config.data.batch_size / ranks.data_size),
        micro_tokens=None if tokens is None else math.ceil(tokens / ranks.data_size),
        clip_norm=config.trainer.clip_norm,
        ema=_ema(config, model, optimizer),
        undoable=config.trainer.on_oom == "halve",
        ranks=ranks,
        parallel=parallel,
    )


def _options_at(
    typed: RunConfig, dataset: Dataset, plan: Plan, model: nn.Module, rate: float
) -> list[dict[str, Any]]:
    """See `Run.options_at`. Only the optimizer itself knows what it makes of its options."""
    optimizer = typed.optimizer.model_copy(update={"lr": rate})
    config = _with_decay(replace(typed, optimizer=optimizer, finds_rate=False), dataset, plan)
    return own_options(_optimizer(config, model))


def _optimizer(config: RunConfig, model: nn.Module) -> torch.optim.Optimizer:
    optimizer: torch.optim.Optimizer = registry.optimizers.build(config.optimizer, model)
    scale_rates(optimizer, model, config.rates)
    return optimizer


def _engine(config: RunConfig, dataset: Dataset, step: Step, state: State, ranks: Ranks) -> Engine:
    """Eager if the run has to be deterministic, has several ranks or recomputes; else the fastest one,
    found by timing."""
    device = config.device
    # Compiled code and CUDA graphs keep what they like.
    recomputes = config.trainer.recompute != "none"
    if device.deterministic or ranks.size > 1 or recomputes:
        return Engine(step)
    parts = {name: config.values[name] for name in ("model", "loss")}
    target = dataset.spec.target  # everything else about it is in tensors
    of = [repr(dataset.spec.input), type(target).__name__, target.output_size]
    facts = None if config.top.plugins else {**parts, "data": of}
    threads = device.threads == "auto" and step.runtime.device.type == "cpu"
    samples = None  # batches are as wide as their longest text
    if dataset.train.lengths is None:
        samples = min(config.data.batch_size * config.trainer.accumulate, len(dataset.train))
    in_16_bits = device.precision == "auto" and not device.compile and step.runtime.device.type == "cpu"
    tries_bf16 = in_16_bits and processors.multiplies_bf16()
    return AutoEngine(step, state.choice, device.engine, threads, facts, samples, tries_bf16)


def _ema(config: RunConfig, model: nn.Module, optimizer: torch.optim.Optimizer) -> EMA | None:
    if config.trainer.ema is None:
        return None
    if hasattr(optimizer, "eval"):
        raise ConfigError(
            f"trainer.ema={config.trainer.ema}: optimizer={config.optimizer.name} averages weights"
            " itself. Use trainer.ema=null, or another optimizer."
        )
    return EMA(model, config.trainer.ema)


def _monitors(config: RunConfig, dataset: Dataset, modes: dict[str, str]) -> tuple[Monitored, Monitored]:
    target, saving = dataset.spec.target, config.trainer.checkpoint
    known, default = {"train/loss": "min"}, ""
    if dataset.val is not None:
        known = {f"val/{name}": mode for name, mode in modes.items()} | known
        default = f"val/{default_monitor(target)}"
    monitor = monitored(saving.monitor, saving.mode, known, default, "trainer.checkpoint.monitor")
    stopping, key = config.trainer.early_stopping, "trainer.early_stopping"
    stop_monitor = monitor
    if stopping.monitor != "auto" or stopping.mode != "auto":
        stop_monitor = monitored(stopping.monitor, stopping.mode, known, monitor.name, f"{key}.monitor")
    if isinstance(stopping.patience, int) and not stop_monitor.name:
        raise ConfigError(
            f"{key}.patience={stopping.patience}: there is no validation set to watch"
            f" (data.validation=false). Use {key}.patience=null, or {key}.monitor=train/loss."
        )
    return monitor, stop_monitor


def _check_threshold(config: RunConfig, dataset: Dataset) -> None:
    key, target = f"threshold={config.top.threshold}", dataset.spec.target
    if config.top.threshold is None:
        return
    if not is_yes_no(target):
        raise ConfigError(
            f"{key}: a decision threshold needs two classes or yes/no labels, and the target is"
            f" {target}. Leave it out."
        )
    if dataset.val is None:
        raise ConfigError(
            f"{key}: it is chosen on the validation set, and there is none (data.validation=false)."
            " Leave it out."
        )


def _check_followed(config: RunConfig, schedule: Schedule, monitor: Monitored) -> None:
    if schedule.follows_metric and not monitor.name:
        raise ConfigError(
            f"scheduler={config.scheduler.name}: it follows the metric that chooses the best checkpoint,"
            " and there is no validation set to choose by (data.validation=false). Use another schedule,"
            " or trainer.checkpoint.monitor=train/loss."
        )


def _summary(
    config: RunConfig,
    monitor: Monitored,
    directions: dict[str, str],
    model: nn.Module,
    dataset: Dataset,
    runtime: Runtime,
    loss: Loss,
) -> Summary:
    """The summary as far as it is known before training."""
    return Summary(
        status="running",
        monitor=monitor.name,
        mode=monitor.mode,
        directions=directions,
        loss=loss.described,
        parameters=sum(p.numel() for p in model.parameters()),
        trained_parameters=sum(p.numel() for p in model.parameters() if p.requires_grad),
        left_out=dataset.left_out,
        environment=environment(runtime),
        run=config.top.run.model_dump(),
    )


def _saver(
    config: RunConfig, checkpoints: Path, monitor: Monitored, ranks: Ranks, *, shared: bool
) -> NoSaver:
    """What saves a rank's part; if the first rank has all there is, the others save nothing."""
    saving, folder = config.trainer.checkpoint, checkpoints.parent
    keep, records = (
        saving.keep if monitor.name else 0,
        (folder / jsonl.NAME, folder / tensorboard.FOLDER),
    )
    if ranks.is_first:
        together = ranks if shared else ALONE
        return Saver(checkpoints, keep, saving.interval, records=records, ranks=together)
    return ShardSaver(checkpoints, keep, saving.interval, ranks) if shared else NoSaver(checkpoints)


def _sinks(config: RunConfig, folder: Path, console: Callable[[Path], Sink]) -> Sink:
    sinks = Sinks([console(folder), JsonLines(folder)])
    if config.trainer.tensorboard:
        from bigmodel.reporting.tensorboard import TensorBoard  # slow to import

        sinks.sinks.append(TensorBoard(folder))
    if config.top.logger:
        from bigmodel.reporting.trackers.sink import Trackers

        for name in config.top.logger:
            require(name, f"logger=[{name}]")
        sinks.sinks.append(Trackers(config.top.logger, sinks.message))
    return sinks
