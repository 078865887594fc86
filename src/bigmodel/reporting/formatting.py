"""Reports as plain text: the same on a terminal, in a pipe and in `train.log`."""

from __future__ import annotations

import math
import os
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path

from bigmodel.errors import counted, program, shell_quoted
from bigmodel.reporting.base import ProgressReport, Record, RunInfo, Summary

SPEEDS = ("samples_per_second", "tokens_per_second", "mfu", "memory_gib")
_NOT_FIGURES = ("epoch", "step", "lr", "grad_norm", *SPEEDS)


def figure(value: float | int) -> str:
    """A metric to 4 decimals, or to 3 significant digits if those would show nothing."""
    if isinstance(value, int):
        return f"{value:,}"
    if value != 0 and abs(value) < 1e-4:
        return f"{value:.3g}"
    return f"{value:,.4f}" if abs(value) < 1e6 or not math.isfinite(value) else f"{value:.4g}"


def duration(seconds: float) -> str:
    """A duration: `3.2 s`, `2 min 05 s`, `1 h 02 min`."""
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60:,} h {minutes % 60:02d} min"


def clock(seconds: float) -> str:
    """A duration as a clock shows it: `0:12`, `1:02:05`."""
    minutes, rest = divmod(max(0, round(seconds)), 60)
    return f"{minutes}:{rest:02d}" if minutes < 60 else f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"


def log_line(record: Record, steps_per_epoch: int = 1) -> str:
    """`Epoch 10, Loss: 0.1234, val/loss: 0.0987, val/accuracy: 0.9722`, as the article prints it.

    In the middle of an epoch it ends with the step.

    Args:
        record: the figures; validation figures are shown if there are any.
        steps_per_epoch: optimizer steps in an epoch.
    """
    parts = [f"Epoch {record['epoch']}", *log_figures(record).values()]
    if record["step"] % steps_per_epoch:
        parts.append(f"step: {record['step']:,}")
    return ", ".join(parts)


def wrapped(line: str, width: int) -> str:
    """A log line wrapped after commas to `width` columns, so that figures stay with their names."""
    held = line.replace(": ", ":\0")
    broken = textwrap.fill(
        held, width, subsequent_indent="    ", break_long_words=False, break_on_hyphens=False
    )
    return broken.replace("\0", " ")


def log_figures(record: Record) -> dict[str, str]:
    """The figures of a log line with their labels, by metric name."""
    shown = {"train/loss": f"Loss: {figure(record['train/loss'])}"}
    return shown | {n: f"{n}: {figure(v)}" for n, v in record.items() if n.startswith("val/")}


def progress_line(progress: ProgressReport, info: RunInfo) -> str:
    """`Epoch 3, Loss: 0.1234, val/accuracy: 0.9722, step: 1,200 of 3,000, 12,345 samples/s`."""
    parts = [f"Epoch {progress.epoch}"]
    if progress.loss is not None:
        parts.append(f"Loss: {figure(progress.loss)}")
    if progress.metric is not None:
        parts.append(f"{info.monitor}: {figure(progress.metric)}")
    parts.append(f"step: {progress.step:,} of {info.total_steps:,}")
    return ", ".join([*parts, *speeds(progress).values()])


def speeds(progress: ProgressReport) -> dict[str, str]:
    """`speed`, of tokens if samples are texts, and on a GPU `mfu` and `memory`, as text."""
    texts = {"speed": f"{progress.samples_per_second:,.0f} samples/s"}
    if progress.tokens_per_second is not None:
        texts["speed"] = f"{progress.tokens_per_second:,.0f} tokens/s"
    if progress.mfu is not None:
        texts["mfu"] = f"MFU {100 * progress.mfu:.{1 if progress.mfu < 0.1 else 0}f} %"
    if progress.memory_gib is not None:
        texts["memory"] = f"{progress.memory_gib:.1f} GiB"
    return texts


def header_rows(info: RunInfo) -> list[tuple[str, str]]:
    """The header's labels and texts, including where a resumed run continues."""
    rows = list(info.rows)
    if info.first_step:
        epoch = info.first_step // info.steps_per_epoch
        at = f"after step {info.first_step:,} of {info.total_steps:,}"
        rows.append(("Resuming", f"{at}, {counted(epoch, 'epoch')} done"))
    return rows


def label_rows(labels: Mapping[str, str | Sequence[str] | None]) -> list[tuple[str, str]]:
    """What a user calls a run, as label and text: name, tags and notes, each on one line."""
    rows = []
    for key in ("name", "tags", "notes"):
        value = labels.get(key) or ""
        text = value if isinstance(value, str) else ", ".join(value)
        if text := " ".join(text.split()):
            rows.append((key.capitalize(), text))
    return rows


def message_line(text: str, level: str) -> str:
    """A message with its level in front, unless that is `info`."""
    return text if level == "info" else f"{level.capitalize()}: {text}"


def result_lines(summary: Summary) -> list[str]:
    """The best, final and test figures, a line each."""
    lines = []
    for name, record in (("Best", summary.best), ("Final", summary.final), ("Test", summary.test)):
        shown = [f"{key} {figure(value)}" for key, value in figures_of(record).items()]
        if "epoch" in record:
            shown.insert(0, f"epoch {record['epoch']}")
        if shown:
            lines.append(f"{name}: {', '.join(shown)}")
    return lines


def figures_of(record: Record) -> Record:
    """The losses and metrics of a record, without time, speed and learning rate."""
    return {name: value for name, value in record.items() if name not in _NOT_FIGURES}


def outcome(summary: Summary) -> str:
    """How the run ended: `Finished: 30 epochs, 690 steps, 3.2 s`, or why it did not finish."""
    epochs, steps = counted(summary.epochs, "epoch"), counted(summary.steps, "step")
    done = f"{epochs}, {steps}, {duration(summary.seconds)}"
    if summary.status == "finished":
        return f"Finished: {done}"
    reason = f": {summary.error}" if summary.error else ""
    return f"{summary.status.capitalize()} after {done}{reason}"


def next_steps(
    summary: Summary, folder: Path, logdir: Path, resume: str | None = None
) -> list[tuple[str, str]]:
    """What to do next, as label and text: checkpoints, how to resume, the TensorBoard command.

    Args:
        folder: the run's.
        logdir: the folder for TensorBoard.
        resume: what to type to go on; None: `resume=` with the run's folder.
    """
    rows = []
    kept = [name for name in ("best", "last") if (folder / "checkpoints" / name).is_dir()]
    if kept:
        rows.append(("Checkpoints", f"{shown_path(folder / 'checkpoints')} ({', '.join(kept)})"))
    if summary.status != "finished" and "last" in kept:
        words = resume or shell_quoted(f"resume={shown_path(folder)}")
        rows.append(("Resume with", f"{program('bigmodel-train')} {words}"))
    if summary.longer and "last" in kept:
        words = f"{shell_quoted(f'resume={shown_path(folder)}')} {summary.longer}"
        told = f"{summary.monitor} was still improving at the end. To train longer:"
        rows.append(("More", f"{told} {program('bigmodel-train')} {words}"))
    if (folder / "tensorboard").is_dir():
        rows.append(("TensorBoard", tensorboard_command(logdir)))
    return rows


def tensorboard_command(logdir: Path) -> str:
    """The command, ready to paste, that shows the runs under `logdir`."""
    return f"{program('tensorboard')} --logdir {shell_quoted(shown_path(logdir))}"


def logdir_of(folder: Path, root: Path | None) -> Path:
    """The folder for TensorBoard: that of all runs if this one lies in it, else its own."""
    if root is None:
        return folder
    return root if folder.resolve().is_relative_to(root.resolve()) else folder


def shown_path(path: Path) -> str:
    """A path relative to the current folder if it lies in it, else absolute."""
    full, here = path.resolve(), Path.cwd()
    return os.path.relpath(full, here) if full.is_relative_to(here) else str(full)


def aligned(cells: Sequence[Sequence[str]]) -> list[str]:
    """A table as plain lines: rows of cells, each column as wide as its widest cell."""
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return ["  ".join(map(str.ljust, row, widths)).rstrip() for row in cells]
