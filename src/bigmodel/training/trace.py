"""A profiler's trace: written, and added up by phase of a step and by operator.

A trace is a list of events in Chrome's Trace Event Format, as torch.profiler writes it: times in
microseconds; what the host does has a thread, and each kernel of a device the number of the call that
launched it.
"""

from __future__ import annotations

import contextlib
import gzip
import json
import os
import shutil
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

STEP, CALL = "step", "engine"
"""Names of the marks around everything between two calls of an engine, and around a call."""

WHOLE = "compiled step"
"""What a call of an engine is that has no phases within it."""

PHASES = ("data", "forward", "backward", "optimizer", WHOLE)
WAITING, OTHER = "waiting", "other"
MOST_OPERATORS = 10

_DEVICE = {"kernel", "gpu_memcpy", "gpu_memset"}
_CALLS = {"cuda_runtime", "cuda_driver"}
_WAITS = ("cudaDeviceSynchronize", "cudaStreamSynchronize", "cudaEventSynchronize", "cudaMemcpy")
_AUTOGRAD = "autograd::engine::evaluate_function: "  # what it does around a node, whose name follows
_WIDEST = 44  # characters of an operator's name
_MS = 1e-3  # milliseconds in a microsecond

Event = dict[str, Any]


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
        steps: how many were looked at; all else is the mean over them.
        ms: from the beginning of a step to the next one's.
        host: by phase, what the training thread did; `waiting` is for the device, for workers or for
            the disk, and `other` what has no mark. They add up to `ms`.
        device: the same of kernels, each in the phase that launched it; `waiting` is the time in which
            none ran. None where there is no device but the host.
        operators: those that take most, the first the most; kernels' time where there is a device.
    """

    steps: int
    ms: float
    host: dict[str, float]
    device: dict[str, float] | None
    operators: Sequence[Operator]


def breakdown(events: Iterable[Event], steps: int, waited: float = 0.0) -> Breakdown | None:
    """Adds up a trace between the beginning of the first mark `step` and the end of the last.

    Args:
        events: of the trace.
        steps: optimizer steps within these marks.
        waited: seconds of the phase `data` in which the process did nothing.

    Returns:
        None where no step is marked.
    """
    whole = [event for event in events if event.get("ph") == "X" and "dur" in event]
    marks = [event for event in whole if event.get("cat") == "user_annotation"]
    taken = [event for event in marks if event["name"] == STEP]
    if not taken or steps < 1:
        return None
    start, end = min(event["ts"] for event in taken), max(_end(event) for event in taken)
    whole = [event for event in whole if start <= event["ts"] < end]
    thread = taken[0]["tid"]
    spans = _Spans([e for e in marks if start <= e["ts"] < end])
    host = _host(whole, spans, thread, end - start, waited * 1e6)
    device = _device(whole, spans, start, end)
    return Breakdown(
        steps=steps,
        ms=(end - start) * _MS / steps,
        host={name: spent * _MS / steps for name, spent in host.items()},
        device=None if device is None else {k: spent * _MS / steps for k, spent in device.items()},
        operators=_operators(whole, device is not None, steps),
    )


class _Spans:
    """The marks of phases, which never overlap: when each begins and ends."""

    def __init__(self, marks: Sequence[Event]) -> None:
        phases = [mark for mark in marks if mark["name"] in PHASES]
        for call in marks:
            if call["name"] == CALL and not any(_is_within(phase, call) for phase in phases):
                phases.append({**call, "name": WHOLE})
        self.marks = sorted(phases, key=lambda mark: mark["ts"])
        self._starts = [mark["ts"] for mark in self.marks]

    def phase(self, moment: float) -> str:
        """The phase of a moment; `other` between two of them."""
        place = bisect_right(self._starts, moment) - 1
        if place < 0 or moment >= _end(self.marks[place]):
            return OTHER
        name: str = self.marks[place]["name"]
        return name


def _host(
    events: Sequence[Event], spans: _Spans, thread: Any, whole: float, waited: float
) -> dict[str, float]:
    """Microseconds of the training thread."""
    spent: defaultdict[str, float] = defaultdict(float)
    for mark in spans.marks:
        spent[mark["name"]] += mark["dur"]
    spent[OTHER] = whole - sum(spent.values())
    waited = min(waited, spent.get("data", 0.0))
    if waited:
        spent["data"] -= waited
    spent[WAITING] = waited
    for event in events:
        if event.get("cat") in _CALLS and event["tid"] == thread and event["name"] in _WAITS:
            spent[spans.phase(event["ts"])] -= event["dur"]
            spent[WAITING] += event["dur"]
    return dict(spent)


def _device(events: Sequence[Event], spans: _Spans, start: float, end: float) -> dict[str, float] | None:
    """Microseconds of the device: of kernels that run side by side, what each adds to the others."""
    launched = {
        event["args"]["correlation"]: event["ts"]
        for event in events
        if event.get("cat") in _CALLS and "correlation" in event.get("args", {})
    }
    kernels = sorted((e for e in events if e.get("cat") in _DEVICE), key=lambda event: event["ts"])
    if not kernels:
        return None
    spent: defaultdict[str, float] = defaultdict(float)
    covered = start
    for kernel in kernels:
        launch = launched.get(kernel.get("args", {}).get("correlation"))
        phase = OTHER if launch is None else spans.phase(launch)
        last = min(_end(kernel), end)
        spent[phase] += max(0.0, last - max(kernel["ts"], covered))
        covered = max(covered, last)
    spent[WAITING] = end - start - sum(spent.values())
    return dict(spent)


def _operators(events: Sequence[Event], on_device: bool, steps: int) -> list[Operator]:
    """Own time by name: kernels by the operator that launched them, or else operators of the host."""
    operators = [event for event in events if event.get("cat") == "cpu_op"]
    spent: defaultdict[str, list[float]] = defaultdict(list)
    if on_device:
        names = {event.get("args", {}).get("External id"): event["name"] for event in operators}
        for event in events:
            if event.get("cat") in _DEVICE:
                name = names.get(event.get("args", {}).get("External id"))
                spent[name or event["name"]].append(event["dur"])
    else:
        for event, own in _own_times(operators):
            spent[event["name"]].append(own)
    rows = [Operator(name, len(s) / steps, sum(s) * _MS / steps) for name, s in spent.items()]
    return sorted(rows, key=lambda row: -row.ms)[:MOST_OPERATORS]


def _own_times(operators: Iterable[Event]) -> Iterable[tuple[Event, float]]:
    """Each operator with its time less that of the operators it calls."""
    own: list[float] = []
    within: defaultdict[Any, list[int]] = defaultdict(list)  # by thread, what has not ended yet
    ordered = sorted(operators, key=lambda event: (event["ts"], -event["dur"]))
    for place, event in enumerate(ordered):
        callers = within[event["tid"]]
        while callers and _end(ordered[callers[-1]]) <= event["ts"]:
            callers.pop()
        if callers:
            own[callers[-1]] -= event["dur"]
        callers.append(place)
        own.append(event["dur"])
    return zip(ordered, own, strict=True)


def table(found: Breakdown) -> str:
    """Phases and operators as lines of text, for any width from 68 columns on."""
    device = found.device
    head = f"{'':16}{'ms/step':>10}{'share':>8}"
    lines = [head if device is None else f"{head}{'device ms':>12}{'share':>8}"]
    for name in (*PHASES, WAITING, OTHER):
        if name not in found.host and name not in (device or {}):
            continue
        host = found.host.get(name, 0.0)
        line = f"  {name:14}{host:10.3f}{host / found.ms:8.1%}"
        if device is not None:
            kernels = device.get(name, 0.0)
            line += f"{kernels:12.3f}{kernels / found.ms:8.1%}"
        lines.append(line)
    what = "operators, by their kernels" if device is not None else "operators"
    lines.append(f"  {what:{_WIDEST}}{'calls':>8}{'ms/step':>9}{'share':>7}")
    for row in found.operators:
        name = row.name.replace(_AUTOGRAD, "autograd: ")
        name = name if len(name) <= _WIDEST else f"{name[: _WIDEST - 1]}…"
        lines.append(f"  {name:{_WIDEST}}{row.calls:8.4g}{row.ms:9.3f}{row.ms / found.ms:7.1%}")
    return "\n".join(lines)


def _is_within(event: Event, other: Event) -> bool:
    return bool(other["ts"] <= event["ts"] < _end(other))


def _end(event: Event) -> float:
    end: float = event["ts"] + event["dur"]
    return end


def written(profiler: Any, path: Path) -> list[dict[str, Any]]:
    """Writes a trace, whole or not at all, and gives its events.

    Raises:
        OSError, RuntimeError, ValueError: it could not be written, or not be read again.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    plain = path.with_name(f".trace.{os.getpid()}.json")
    packed = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with silent():
            profiler.export_chrome_trace(str(plain))
        events: list[dict[str, Any]] = json.loads(plain.read_text("utf-8", "replace"))["traceEvents"]
        with plain.open("rb") as source, gzip.open(packed, "wb", compresslevel=5) as target:
            shutil.copyfileobj(source, target)
        packed.replace(path)
    finally:
        for temporary in (plain, packed):
            temporary.unlink(missing_ok=True)
    return events


@contextlib.contextmanager
def silent() -> Iterator[None]:
    """Keeps torch's profiler from writing lines of its own to standard error, over the bar."""
    try:
        kept = os.dup(2)
    except OSError:  # there is no standard error
        yield
        return
    try:
        with Path(os.devnull).open("wb") as nothing:
            os.dup2(nothing.fileno(), 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
