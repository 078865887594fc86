"""Resumes a run from its newest checkpoint."""

from __future__ import annotations

import math
import platform
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from bigmodel.build.dataset import UNSURE
from bigmodel.checkpointing.checkpoint import Newest, load_newest
from bigmodel.checkpointing.manifest import TENSORS
from bigmodel.checkpointing.tensor_files import Shards
from bigmodel.data.base import Dataset
from bigmodel.data.fingerprint import compare
from bigmodel.data.memory_check import free_memory
from bigmodel.data.preprocessing import Preprocessing
from bigmodel.errors import (
    CheckpointError,
    ConfigError,
    DataError,
    DeviceError,
    counted,
    first_line,
    is_out_of_memory,
)
from bigmodel.optim.schedulers import EXTENSIONS
from bigmodel.reporting.formatting import shown_path
from bigmodel.reporting.jsonl import damaged_lines
from bigmodel.training.finders.range_test import use_rate
from bigmodel.training.run import Run

SHARE = "Use more machines, or have more ranks share the state (device.parallel.shard)."
"""Advice if a state is too large."""


def resume_run(
    run: Run,
    newest: Newest | None = None,
    changed: Sequence[str] | None = None,
    reread: Callable[[], Dataset] | None = None,
) -> Run:
    """Loads a run's newest checkpoint into the run, built from its own configuration.

    Args:
        newest: the newest checkpoint, if it has been read already.
        changed: settings, by dotted key, that the user has changed; the data may differ then, too.
            None: nothing may differ.
        reread: reads the data without the checkpoint's statistics; None: the run was built without
            them.

    Raises:
        CheckpointError: it has no intact checkpoint, or that of another run.
        ConfigError: it has done more steps than it should do now.
        DeviceError: its state does not fit into memory.
        DataError: the data differs from what the run was trained on.
    """
    newest = newest or load_newest(run.saver.checkpoints, run.ranks)
    difference, unsure = None, False
    if newest.facts["data"] is not None:
        saved = newest.facts.get("prepared")
        compared = compare(newest.facts["data"], run.dataset, saved, reread or (lambda: run.dataset))
        difference, unsure = compared.change, compared.unsure
    if difference is not None and changed is None:
        raise DataError(
            f"resume={run.info.folder}: the data differs from what this run was trained on: "
            f"{difference}. Restore the data, or start a new run.",
            "Or add resume_changed=true to continue anyway.",
        )
    keys, words = list(changed or []), list(changed or [])
    if difference is not None:
        keys.append("data")
        words.append(difference)
    _load(run, newest, keys)
    progress = run.state.progress
    info = replace(
        run.info,
        first_step=progress.step,
        last_recorded_step=progress.last_completed_step,
        rows=[*run.info.rows, *_header_rows(run, newest, words, unsure)],
    )
    return replace(run, info=info)


def saved_statistics(newest: Newest, changed: Sequence[str] | None = None) -> Preprocessing | None:
    """What a run has learnt from its data (statistics, vocabularies), by its newest checkpoint.

    Args:
        changed: settings, by dotted key, that have changed.

    Returns:
        None if the checkpoint has none, or the data will be read in another way.
    """
    facts = newest.facts.get("prepared")
    if facts is None or any(key.startswith("data.") for key in changed or []):
        return None
    try:
        return Preprocessing.from_facts(facts)
    except (DataError, KeyError, TypeError, ValueError):  # from another version: it is computed again
        return None


def _load(run: Run, newest: Newest, changed: Sequence[str]) -> None:
    facts = newest.facts
    try:
        _check_length(run, facts["progress"]["step"])
        if not any(key.startswith("optimizer.") for key in changed):  # its state may not be needed
            _check_memory(run, newest)
        run.state.load(newest.groups, facts | {"scheduler": _schedule_facts(run, facts)}, changed)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise CheckpointError(
            f"{newest.folder}: the saved state does not belong to this kind of run "
            f"({type(error).__name__}: {error})."
        ) from error
    except (RuntimeError, MemoryError) as error:
        if not (isinstance(error, MemoryError) or is_out_of_memory(error)):
            raise
        words = f"memory ran out while it was loaded: {first_line(error, 'MemoryError')}"
        raise DeviceError(f"{newest.folder}: {words} {SHARE}") from error
    _take_rate(run)
    run.saver.damaged = newest.damaged
    # The patience and the time limit may have changed.
    progress, patience = run.state.progress, run.plan.patience
    progress.stopped_early = patience is not None and progress.bad_evaluations >= patience
    minutes = run.config.max_minutes
    progress.out_of_time = minutes is not None and progress.seconds >= 60 * minutes


def _take_rate(run: Run) -> None:
    """Goes on with the rate that was found for `optimizer.lr=auto`, whatever else has changed.

    Raises:
        ConfigError: none was looked for, as the run was started with another `optimizer.lr`.
    """
    progress = run.state.progress
    if not run.finds_rate:
        progress.learning_rate = None  # the user has set another
        _take_decay(run)
    elif progress.learning_rate is not None:
        use_rate(run, progress.learning_rate)
    elif progress.step:
        raise ConfigError(
            f"resume={run.info.folder}: optimizer.lr=auto is found at the start of a run, and this one"
            f" has done {counted(progress.step, 'step')} with another. Leave it out, or name a rate."
        )


def _take_decay(run: Run) -> None:
    """Goes on with the weight decay of this run where it goes by its length, which may have changed."""
    options = run.settings["optimizer"]
    if options.get("weight_decay") == "auto":
        groups = run.state.optimizer.param_groups
        for group, own in zip(groups, run.options_at(options["lr"]), strict=True):
            group["weight_decay"] = own["weight_decay"]


def _check_memory(run: Run, newest: Newest) -> None:
    """Refuses a state that several ranks have shared where it cannot fit: if the processors' memory runs
    out, the system ends the process without a word.

    Raises:
        DeviceError: the parts of this machine's ranks are larger than its free memory.
    """
    if run.runtime.device.type != "cpu" or not isinstance(newest.groups.get("optimizer"), Shards):
        return
    size = sum(path.stat().st_size for path in newest.folder.glob(f"optimizer*{TENSORS}"))
    parts = run.state.parts.values()
    whole = sum(math.prod(part.shape) for part in parts)
    share = sum(math.prod(part.part_shape) for part in parts) / whole if whole else 1.0
    here = platform.node()
    needed = sum(n for host, n in run.ranks.gather((here, int(size * share))) if host == here)
    free = free_memory()
    words = (
        f"{newest.folder}: the optimizer's state takes {needed:,} bytes on this machine, where {free:,}"
        f" bytes of memory are free. {SHARE}"
    )
    for verdict in run.ranks.gather(words if needed > free else None):
        if verdict is not None:
            raise DeviceError(verdict)


def _header_rows(run: Run, newest: Newest, words: Sequence[str], unsure: bool) -> list[tuple[str, str]]:
    warnings = (newest.warning, damaged_lines(run.info.folder))
    rows = [
        ("Checkpoint", shown_path(newest.folder)),
        ("Changed", "; ".join(words)),
        ("Data", UNSURE if unsure else ""),
        *(("Warning", warning or "") for warning in warnings),
        ("Schedule", _schedule_change(run)),
    ]
    if run.state.optimizer_reset:
        rows.append(("Reset", "the optimizer's state, which does not fit the new settings"))
    return [(label, text) for label, text in rows if text]


def _check_length(run: Run, done: int) -> None:
    """Raises ConfigError if a run has done more steps than it should do now."""
    trainer, plan = run.config, run.plan
    if done <= plan.steps:
        return
    key, wanted = ("epochs", plan.epochs) if trainer.max_steps is None else ("max_steps", plan.steps)
    unit, per = ("epoch", plan.steps_per_epoch) if key == "epochs" else ("step", 1)
    unit += "" if wanted == 1 else "s"
    raise ConfigError(
        f"resume={run.info.folder}: trainer.{key}={wanted}: the run is already past {wanted:,} {unit}:"
        f" it has done {done / per:,g}. To continue, raise it, for example to"
        f" trainer.{key}={2 * math.ceil(done / per)}."
    )


def _schedule_facts(run: Run, facts: dict[str, Any]) -> dict[str, Any]:
    """The schedule's saved state. Earlier versions did not save its planned length, which follows from
    their settings."""
    trainer = (facts.get("settings") or {}).get("trainer") or {}
    epochs = trainer.get("epochs")
    steps = trainer.get("max_steps")
    if steps is None and isinstance(epochs, int):
        steps = epochs * run.plan.steps_per_epoch
    span = {"span": run.state.schedule.planned(steps)} if steps else {}
    return {**span, **facts["scheduler"]}


def _schedule_change(run: Run) -> str:
    """How a new length of the run changes its learning rate; empty if the length is the same."""
    change = run.state.schedule.change
    if change is None:
        return ""
    first = run.state.optimizer.param_groups[0]
    rate = float(first.get("initial_lr", first["lr"]))
    extend = run.settings["scheduler"].get("extend", EXTENSIONS[0])
    others = " or ".join(choice for choice in EXTENSIONS if choice != extend)
    return (
        f"{counted(run.plan.steps, 'step')} instead of {change.planned:,}:"
        f" at step {run.state.progress.step:,}"
        f" the learning rate goes from {rate * change.before:.3g} to {rate * change.after:.3g} by"
        f" scheduler.extend={extend} ({others}: otherwise)"
    )
