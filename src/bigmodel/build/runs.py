"""From a typed configuration to objects: the only place that knows everybody."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from bigmodel import registry
from bigmodel.build import contracts, header
from bigmodel.checkpointing.checkpoint import Newest, load_newest
from bigmodel.checkpointing.saver import Saver
from bigmodel.config import RunConfig
from bigmodel.data.base import Batch, Dataset, PartName
from bigmodel.data.batching.batches import Batches, make_batches
from bigmodel.data.checks import check
from bigmodel.data.fingerprint import compare, fingerprint
from bigmodel.data.parts import Part, SplitData, Texts
from bigmodel.data.prepared import Prepared
from bigmodel.engine.base import Engine
from bigmodel.engine.ema import EMA
from bigmodel.engine.regions import compile_model
from bigmodel.engine.selection import AutoEngine
from bigmodel.engine.step import Step
from bigmodel.errors import CheckpointError, ConfigError, DataError
from bigmodel.losses import Loss
from bigmodel.losses.adapted import build_loss
from bigmodel.metrics import default_monitor, metric_names, metrics_for
from bigmodel.models.summary import Layer, summarize
from bigmodel.optim.schedulers import Schedule
from bigmodel.registry import PER_INVOCATION
from bigmodel.reporting import jsonl, tensorboard
from bigmodel.reporting.base import Sink, Sinks, Summary
from bigmodel.reporting.console import Console
from bigmodel.reporting.formatting import shown_path
from bigmodel.reporting.jsonl import JsonLines, damaged_lines
from bigmodel.runtime import activity
from bigmodel.runtime.device import Runtime, environment, keep_memory, measure_kernels, prepare
from bigmodel.spec import Classes, NextTokens
from bigmodel.training.plan import Monitored, Plan, monitored
from bigmodel.training.run import Run
from bigmodel.training.state import State
from bigmodel.training.text_samples import TextSampler
from bigmodel.training.throughput import Throughput

EVALUATION_BATCHES = 8
"""Training batches that are evaluated as one: faster, with the same figures. No layer's outputs are kept
for gradients, so that they hardly need more memory than one in training. Not where a model has an output
for each token of a vocabulary at each position: there outputs are all that counts."""


def build_run(config: RunConfig, folder: Path, learnt: Prepared | None = None) -> Run:
    """Builds everything that `fit` needs. Nothing is written: that begins with `fit`.

    Args:
        config: checked configuration.
        folder: the run's folder.
        learnt: what the run has learnt from its data, where it goes on; see `dataset_of`.

    Raises:
        ConfigError, SpecError, DataError, DeviceError: parts that are wrong, or do not fit each other.
    """
    trainer = config.trainer
    runtime = prepare(config.device, config.top.seed)
    dataset = dataset_of(config, learnt)
    measure_kernels(dataset.train.lengths is None)  # else each batch is as wide as its longest text
    train, val, test = _batches(dataset, config, runtime)
    plan = Plan.of(trainer, train.steps_per_epoch)
    first = next(iter(val.epoch(0)))
    sample = first.inputs[:1]
    loss, model, layers, told = _model(config, dataset, runtime, first)
    text_sampler, figures = _text_sampler(config, dataset, model, runtime)
    monitor, stop_monitor = _monitors(config, dataset, figures)
    step = _step(config, model, loss, dataset, runtime)
    keep_memory()  # not before the data is there: reading it frees much that is not needed again
    schedule = Schedule(config.scheduler, plan.steps, plan.steps_per_epoch)
    contracts.try_schedule(schedule, plan.steps, config.scheduler)
    told += _rows("Warning", contracts.check_optimizer(step.optimizer, model, config.optimizer))
    state = State(
        model, step.optimizer, schedule, step.metrics, step.accumulation, step.ema, step.scaler, loss
    )
    return Run(
        config=trainer,
        info=header.run_info(config, dataset, layers, runtime, plan, monitor, folder, loss, told),
        plan=plan,
        dataset=dataset,
        fingerprint=_fingerprint(dataset),
        prepared=dataset.prepared.to_facts(),
        settings={k: v for k, v in config.values.items() if k not in PER_INVOCATION},
        train=train,
        val=val,
        test=test,
        loss=loss,
        step=step,
        engine=_engine(config, dataset, step, state),
        state=state,
        val_metrics=metrics_for(dataset.spec.target, runtime.device),
        monitor=monitor,
        stop_monitor=stop_monitor,
        runtime=runtime,
        saver=_saver(config, folder),
        sinks=_sinks(config, folder),
        summary=_summary(monitor, model, dataset, runtime, loss),
        text_sampler=text_sampler,
        throughput=Throughput.of(dataset, model, runtime, sample),
        profiled=config.top.profile,
    )


def _fingerprint(dataset: Dataset) -> dict[str, Any]:
    with activity.report_progress("Taking the data's fingerprint"):
        return fingerprint(dataset)


def resume_run(
    run: Run,
    newest: Newest | None = None,
    changed: Sequence[str] | None = None,
    anew: Callable[[], Dataset] | None = None,
) -> Run:
    """Puts a run, built from its own configuration, where its newest checkpoint left it.

    Args:
        newest: its newest checkpoint, where it has been read already.
        changed: settings, by dotted key, that are others now, as the user wants it; the data may differ
            too then. None: nothing may differ.
        anew: reads the data without what the run has learnt of it; None: so the run was built.

    Raises:
        CheckpointError: it has none that is whole, or another run's.
        ConfigError: it is to be shorter than it is already.
        DataError: the data is not what the run has learnt from.
    """
    newest = newest or load_newest(run.saver.checkpoints)
    facts, difference, unsure = newest.facts, None, False
    if facts["data"] is not None:
        anew = anew or (lambda: run.dataset)
        found = compare(facts["data"], run.dataset, facts.get("prepared"), anew)
        difference, unsure = found.change, found.unsure
    if difference is not None and changed is None:
        raise DataError(
            f"resume={run.info.folder}: the data is not what this run has learnt from: {difference}."
            " Give the data back as it was, start anew, or add resume_changed=true to go on anyway."
        )
    others = [*(changed or []), *([] if difference is None else ["data"])]
    try:
        _check_length(run, facts["progress"]["step"])
        run.state.load(newest.groups, facts | {"scheduler": _with_span(run, facts)}, others)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise CheckpointError(
            f"{newest.folder}: this is no state of such a run ({type(error).__name__}: {error})."
        ) from error
    run.saver.damaged = newest.damaged
    progress, patience = run.state.progress, run.config.early_stopping.patience
    progress.stopped_early = patience is not None and progress.bad_evaluations >= patience
    rows = [*run.info.rows, ("Checkpoint", shown_path(newest.folder))]
    if others:
        told = [*(changed or []), *([] if difference is None else [difference])]
        rows.append(("Changed", "; ".join(told)))
    warnings = (newest.warning, damaged_lines(run.info.folder))
    if unsure:
        rows.append(("Data", UNSURE))
    rows += [("Warning", warning) for warning in warnings if warning is not None]
    if (change := run.state.schedule.change) is not None:
        rows.append(("Schedule", header.extension(change, run)))
    if run.state.optimizer_reset:
        rows.append(("Begun anew", "the optimizer's moments, which do not fit the new settings"))
    info = replace(
        run.info,
        first_step=progress.step,
        last_recorded_step=progress.last_completed_step,
        rows=rows,
    )
    return replace(run, info=info)


def _check_length(run: Run, done: int) -> None:
    """Raises ConfigError where a run that goes on has done more than it is to do."""
    trainer, plan = run.config, run.plan
    if done <= plan.steps:
        return
    key, wanted = ("epochs", trainer.epochs) if trainer.max_steps is None else ("max_steps", plan.steps)
    unit, per = ("epoch", plan.steps_per_epoch) if key == "epochs" else ("step", 1)
    unit += "" if wanted == 1 else "s"
    raise ConfigError(
        f"resume={run.info.folder}: trainer.{key}={wanted}: the run is already past {wanted:,} {unit}:"
        f" it has done {done / per:,g}. Its checkpoints hold what it has learnt until there; to go on,"
        f" give more, such as trainer.{key}={2 * math.ceil(done / per)}."
    )


def _with_span(run: Run, facts: dict[str, Any]) -> dict[str, Any]:
    """What is known of a schedule; earlier versions did not write down what it was planned for, which
    follows from their settings."""
    trainer = (facts.get("settings") or {}).get("trainer") or {}
    steps = trainer.get("max_steps") or trainer.get("epochs", 0) * run.plan.steps_per_epoch
    span = {"span": run.state.schedule.planned(steps)} if steps else {}
    return {**span, **facts["scheduler"]}


def learnt_before(newest: Newest, changed: Sequence[str] | None = None) -> Prepared | None:
    """What a run has learnt from its data, by its newest checkpoint; None where that does not say, or
    the data is to be read in another way now.

    Args:
        changed: settings, by dotted key, that are others now.
    """
    facts = newest.facts.get("prepared")
    if facts is None or any(key.startswith("data.") for key in changed or []):
        return None
    try:
        return Prepared.from_facts(facts)
    except (DataError, KeyError, TypeError, ValueError):  # of another version: it is learnt again
        return None


UNSURE = (
    "as many samples as the run has learnt from; whether they are the same cannot be told, since its"
    " checkpoint is of an earlier version and maybe of another processor"
)


def dataset_of(config: RunConfig, learnt: Prepared | None = None) -> Dataset:
    """The data, read and checked; fewer samples, drawn once, where a quick look is asked for.

    Args:
        config: of the run.
        learnt: statistics and vocabularies that the run has learnt from the data already, which are not
            computed again where the data still fits them.

    Raises:
        ConfigError, DataError: it is not there, or is not what a model can learn from.
    """
    with activity.report_progress("Reading the data"):
        try:
            built = registry.data.build(config.data.going_on(learnt))
        except DataError:
            if learnt is None:
                raise
            built = registry.data.build(config.data)  # it has changed: what it is now is to be told
        dataset = contracts.check_dataset(built, config.data)
        check(dataset)
    limit, tokens = config.trainer.limit, config.data.token_bound

    def cut(part: SplitData, batches: int | None) -> SplitData:
        size = config.data.batch_size
        if tokens is not None and part.lengths is not None:  # about as many as a batch has
            size = min(size, max(1, round(tokens / float(part.lengths.double().mean()))))
        if batches is None or batches * size >= len(part):
            return part
        draw = torch.Generator().manual_seed(config.data.split_seed)
        return part.select(torch.randperm(len(part), generator=draw)[: batches * size])

    parts = {name: cut(part, getattr(limit, name)) for name, part in dataset.parts.items()}
    train = parts["train"]
    told = [
        ("Limited", f"{name} to {len(parts[name]):,} of {len(whole):,}, by trainer.limit.{name}")
        for name, whole in dataset.parts.items()
        if parts[name] is not whole
    ]
    sizes = dataset.spec.sizes | {name: len(part) for name, part in parts.items()}
    target = dataset.spec.target
    if isinstance(target, Classes) and isinstance(train, Part | Texts):
        counts = torch.bincount(train.targets, minlength=target.count).tolist()
        target = replace(target, counts=tuple(counts))
    spec = replace(dataset.spec, sizes=sizes, target=target)
    told = [*dataset.header_rows, *told]
    return replace(
        dataset, train=train, val=parts["val"], test=parts.get("test"), spec=spec, header_rows=told
    )


def _batches(
    dataset: Dataset, config: RunConfig, runtime: Runtime
) -> tuple[Batches, Batches, Batches | None]:
    seed, group = config.top.seed, config.trainer.accumulate
    train = make_batches(dataset, "train", config.data, runtime.device, seed=seed, group=group)

    def in_order(part: PartName) -> Batches:
        several = 1 if isinstance(dataset.spec.target, NextTokens) else EVALUATION_BATCHES
        size = config.data.batch_size * several
        return make_batches(dataset, part, config.data, runtime.device, batch_size=size)

    return train, in_order("val"), None if dataset.test is None else in_order("test")


def _model(
    config: RunConfig, dataset: Dataset, runtime: Runtime, batch: Batch
) -> tuple[Loss, nn.Module, list[Layer], list[tuple[str, str]]]:
    """Loss and model on the device, the model from the seed alone; its summary; lines that there are to
    tell of them."""
    torch.manual_seed(config.top.seed)
    spec = dataset.spec
    loss = build_loss(config.loss, spec).to(runtime.device)
    model: nn.Module = registry.models.build(config.model, spec)
    contracts.check_model(model, config.model)
    model.to(runtime.device)
    told = contracts.try_parts((config.model, config.loss), model, loss, batch, spec)
    layers = summarize(model, batch.inputs[:1])
    compiling = compile_model(model, runtime.device) if config.device.compile else []
    return loss, model, layers, [*_rows("Compiling", compiling), *_rows("Warning", told)]


def _rows(label: str, lines: list[str]) -> list[tuple[str, str]]:
    return [(label, line) for line in lines]


def _text_sampler(
    config: RunConfig, dataset: Dataset, model: nn.Module, runtime: Runtime
) -> tuple[TextSampler | None, dict[str, str]]:
    """What the model writes at an evaluation, and all figures that one gives, with their direction."""
    pairs, beams = getattr(config.data, "bleu_pairs", 0), getattr(config.data, "beams", 1)
    sampler = TextSampler.of(dataset, model, runtime.device, pairs, beams)
    return sampler, metric_names(dataset.spec.target) | ({} if sampler is None else sampler.figures)


def _step(config: RunConfig, model: nn.Module, loss: Loss, dataset: Dataset, runtime: Runtime) -> Step:
    optimizer = registry.optimizers.build(config.optimizer, model)
    return Step(
        model,
        loss,
        optimizer,
        metrics_for(dataset.spec.target, runtime.device, light=True),
        runtime,
        micro_batch=config.data.batch_size,
        micro_tokens=config.data.token_bound,
        clip_norm=config.trainer.clip_norm,
        ema=_ema(config, model, optimizer),
        undoable=config.trainer.on_oom == "halve",
    )


def _engine(config: RunConfig, dataset: Dataset, step: Step, state: State) -> Engine:
    """What does the steps: eager for the sake of the same bits each time, else chosen by trial."""
    device = config.device
    if device.deterministic:
        return Engine(step)
    parts = {name: config.values[name] for name in ("model", "loss")}
    target = dataset.spec.target  # what it counts or measures besides is in tensors
    of = [repr(dataset.spec.input), type(target).__name__, target.output_size]
    facts = None if config.top.plugins else {**parts, "data": of}
    threads = device.threads == "auto" and step.runtime.device.type == "cpu"
    samples = None  # batches are as wide as their longest text
    if dataset.train.lengths is None:
        samples = min(config.data.batch_size * config.trainer.accumulate, len(dataset.train))
    return AutoEngine(step, state.choice, device.engine, threads, facts, samples)


def _ema(config: RunConfig, model: nn.Module, optimizer: torch.optim.Optimizer) -> EMA | None:
    if config.trainer.ema is None:
        return None
    if hasattr(optimizer, "eval"):
        raise ConfigError(
            f"trainer.ema={config.trainer.ema}: optimizer={config.optimizer.name} averages weights"
            " itself. Use trainer.ema=null, or another optimizer."
        )
    return EMA(model, config.trainer.ema)


def _monitors(
    config: RunConfig, dataset: Dataset, figures: dict[str, str]
) -> tuple[Monitored, Monitored]:
    target, saving = dataset.spec.target, config.trainer.checkpoint
    known = {f"val/{name}": mode for name, mode in figures.items()} | {"train/loss": "min"}
    monitor = monitored(
        saving.monitor,
        saving.mode,
        known,
        f"val/{default_monitor(target)}",
        "trainer.checkpoint.monitor",
    )
    stopping = config.trainer.early_stopping
    stop = monitored(
        stopping.monitor, stopping.mode, known, monitor.name, "trainer.early_stopping.monitor"
    )
    if stopping.monitor == "auto" and stopping.mode == "auto":
        stop = monitor
    return monitor, stop


def _summary(
    monitor: Monitored, model: nn.Module, dataset: Dataset, runtime: Runtime, loss: Loss
) -> Summary:
    """What is known of how a run ends before it begins."""
    return Summary(
        status="running",
        monitor=monitor.name,
        mode=monitor.mode,
        loss=loss.described,
        parameters=sum(p.numel() for p in model.parameters()),
        left_out=dataset.left_out,
        environment=environment(runtime),
    )


def _saver(config: RunConfig, folder: Path) -> Saver:
    saving, records = config.trainer.checkpoint, (folder / jsonl.NAME, folder / tensorboard.FOLDER)
    return Saver(folder / "checkpoints", saving.keep, saving.interval, records=records)


def _sinks(config: RunConfig, folder: Path) -> Sink:
    sinks: list[Sink] = [Console(folder), JsonLines(folder)]
    if config.trainer.tensorboard:
        from bigmodel.reporting.tensorboard import TensorBoard  # slow to import

        sinks.append(TensorBoard(folder))
    return Sinks(sinks)
