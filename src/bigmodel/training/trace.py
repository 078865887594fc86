"""Adds up what torch's profiler has recorded, by phase of a step and by operator."""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from torch.autograd import DeviceType  # type: ignore[attr-defined]

from bigmodel.engine.fixed_shape import COMPILED_STEP

PHASES = ("data", "forward", "backward", "optimizer", COMPILED_STEP)
WAITING, OTHER = "waiting", "other"
MOST_OPERATORS = 10

_STEP = "ProfilerStep"  # how torch's names of the marks around steps begin
_SYNCHRONIZE = ("cudaDeviceSynchronize", "cudaStreamSynchronize", "cudaEventSynchronize", "cudaMemcpy")
_AUTOGRAD = "autograd::engine::evaluate_function: "  # what it does around a node, whose name follows
_WIDEST = 44  # characters of an operator's name
_MS = 1e-3  # milliseconds in a microsecond

_CPU = DeviceType.CPU
Event = Any
"""Torch's `FunctionEvent`: something that a thread of the host did, or a kernel of a device."""


@dataclass(frozen=True)
class Operator:
    """One operator: how often it ran, and the milliseconds of its own, both per step."""

    name: str
    calls: float
    ms: float


@dataclass(frozen=True)
class Breakdown:
    """Milliseconds of a step.

    Attributes:
        ms: from the beginning of a step to the next one's; the mean, as all else.
        host: by phase, what the training thread did; `waiting` is for the device or for batches, and
            `other` what has no mark. They add up to `ms`.
        device: the same for kernels, each in the phase that launched it; `waiting` is the time in which
            none ran. None when nothing ran on a device.
        operators: those that take most, the first the most; kernels' time if there is a device.
    """

    ms: float
    host: dict[str, float]
    device: dict[str, float] | None
    operators: Sequence[Operator]


def breakdown(
    events: Sequence[Event], averages: Iterable[Any], steps: int, data_wait: float = 0.0
) -> Breakdown | None:
    """Adds up a profile between the beginning of its first step and the end of the last.

    Args:
        events: the profile's `events()`, times in microseconds.
        averages: its `key_averages()`.
        steps: optimizer steps in it.
        data_wait: seconds of the phase `data` in which the training thread slept.

    Returns:
        None when it has no step.
    """
    marks = [event for event in events if event.is_user_annotation and event.device_type == _CPU]
    taken = [mark for mark in marks if mark.name.startswith(_STEP)]
    if not taken or steps < 1:
        return None
    start = min(mark.time_range.start for mark in taken)
    end = max(mark.time_range.end for mark in taken)
    phases = _Phases(mark for mark in marks if start <= mark.time_range.start < end)
    within = [event for event in events if start <= event.time_range.start < end]
    host = _host(within, phases, taken[0].thread, end - start, 1e6 * data_wait)
    device = _device(within, phases, start, end)
    return Breakdown(
        ms=(end - start) * _MS / steps,
        host={name: spent * _MS / steps for name, spent in host.items()},
        device=None if device is None else {k: spent * _MS / steps for k, spent in device.items()},
        operators=_operators(averages, device is not None, steps),
    )


class _Phases:
    """When each phase begins and ends. They never overlap."""

    def __init__(self, marks: Iterable[Event]) -> None:
        named = (mark for mark in marks if mark.name in PHASES)
        self.marks = sorted(named, key=lambda mark: mark.time_range.start)
        self._starts = [mark.time_range.start for mark in self.marks]

    def at(self, moment: float) -> str:
        """The phase of a moment; `other` between two of them."""
        place = bisect_right(self._starts, moment) - 1
        if place < 0 or moment >= self.marks[place].time_range.end:
            return OTHER
        return str(self.marks[place].name)


def _host(
    events: Iterable[Event], phases: _Phases, thread: int, whole: float, data_wait: float
) -> dict[str, float]:
    """Microseconds of the training thread."""
    spent: defaultdict[str, float] = defaultdict(float)
    for mark in phases.marks:
        spent[mark.name] += mark.time_range.elapsed_us()
    spent[OTHER] = whole - sum(spent.values())
    spent[WAITING] = min(data_wait, spent["data"])
    spent["data"] -= spent[WAITING]
    for event in events:
        if event.thread == thread and event.name in _SYNCHRONIZE:
            spent[phases.at(event.time_range.start)] -= event.time_range.elapsed_us()
            spent[WAITING] += event.time_range.elapsed_us()
    return dict(spent)


def _device(events: list[Event], phases: _Phases, start: float, end: float) -> dict[str, float] | None:
    """Microseconds of the device: of kernels that run side by side, what each adds to the others."""
    kernels = [e for e in events if e.device_type != _CPU and not e.is_user_annotation]
    if not kernels:
        return None
    # A kernel has the number of the call of CUDA's runtime or driver that launched it. Backward is
    # launched by a thread of its own, so it is the time of the launch that tells the phase.
    launched = {
        event.id: event.time_range.start
        for event in events
        if event.device_type == _CPU and event.name.startswith("cu")
    }
    spent: defaultdict[str, float] = defaultdict(float)
    covered = start
    for kernel in sorted(kernels, key=lambda kernel: kernel.time_range.start):
        phase = phases.at(launched[kernel.id]) if kernel.id in launched else OTHER
        last = min(kernel.time_range.end, end)
        spent[phase] += max(0.0, last - max(kernel.time_range.start, covered))
        covered = max(covered, last)
    spent[WAITING] = end - start - sum(spent.values())
    return dict(spent)


def _operators(averages: Iterable[Any], on_device: bool, steps: int) -> list[Operator]:
    """Own time by name: of operators on the host, or of the kernels that they launched.

    Kernels that no operator launched, such as those of a CUDA graph, stand by their own names.
    """
    rows = [row for row in averages if not row.is_user_annotation]
    by_kernels = on_device and not any(
        row.device_type == _CPU and row.self_device_time_total for row in rows
    )
    operators = []
    for row in rows:
        if (row.device_type != _CPU) == by_kernels:
            own = row.self_device_time_total if on_device else row.self_cpu_time_total
            operators.append(Operator(row.key, row.count / steps, own * _MS / steps))
    return sorted(operators, key=lambda row: -row.ms)[:MOST_OPERATORS]


def table(profile: Breakdown) -> str:
    """Phases and operators as lines of text, for any width from 68 columns on."""
    device = profile.device
    heading = f"{'':16}{'ms/step':>10}{'share':>8}"
    lines = [heading if device is None else f"{heading}{'device ms':>12}{'share':>8}"]
    for name in (*PHASES, WAITING, OTHER):
        if name not in profile.host and name not in (device or {}):
            continue
        host = profile.host.get(name, 0.0)
        line = f"  {name:14}{host:10.3f}{host / profile.ms:8.1%}"
        if device is not None:
            kernels = device.get(name, 0.0)
            line += f"{kernels:12.3f}{kernels / profile.ms:8.1%}"
        lines.append(line)
    what = "operators, by their kernels" if device is not None else "operators"
    lines.append(f"  {what:{_WIDEST}}{'calls':>8}{'ms/step':>9}{'share':>7}")
    for row in profile.operators:
        name = row.name.replace(_AUTOGRAD, "autograd: ")
        name = name if len(name) <= _WIDEST else f"{name[: _WIDEST - 1]}…"
        lines.append(f"  {name:{_WIDEST}}{row.calls:8.4g}{row.ms:9.3f}{row.ms / profile.ms:7.1%}")
    return "\n".join(lines)
