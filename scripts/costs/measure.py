"""Runs the command for each size of a series, and notes seconds and bytes."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from benchmarks.hosts import Setting

from costs.series import SMALLEST, Series

RATE, LEAST = 2e10, 3e-4
"""Operations a second, and seconds of the least step, by which the number of steps is chosen."""

ONE_THREAD = ("device=cpu", "device.threads=1")
CLOCK = "GROWTH_CLOCK"
"""The variable that names the file for what `timed` notes."""

WINDOWS = 6
"""Records of a run that is timed by the step; the first of them is warming up."""


@dataclass(frozen=True)
class Point:
    """What a size cost.

    Attributes:
        seconds: of the processor, for a step, or for a whole run less those of a run that only starts;
            None: not measured.
        bytes: at most, less those of a run that only starts.
        whole: seconds of the whole run.
        cpu: seconds of the processor for it.
        note: why there are no figures.
    """

    size: int
    seconds: float | None = None
    bytes: float | None = None
    whole: float = 0.0
    cpu: float = 0.0
    note: str = ""


def measure(setting: Setting, series: Series, engine: str, bound: float) -> list[dict[str, object]]:
    """The points of a series, as plain values.

    Args:
        engine: `device.engine`.
        bound: seconds; what would take longer, by the size before, is left out.
    """
    start = _start(setting, engine)
    points: list[Point] = []
    for size in series.tiny if setting.tiny else series.sizes:
        expected = _expected(series, size, points, start)
        if expected > bound:
            points.append(Point(size, note=f"left out, about {expected:.0f} s"))
        else:
            points.append(_point(setting, series, size, engine, start, bound))
        print(f"{series.key} {size:,} ({engine}): {points[-1]}", file=sys.stderr)
    return [asdict(point) for point in points]


def _start(setting: Setting, engine: str) -> Point:
    """The cost of a run that does next to nothing, measured once."""
    if "start" not in setting.measured:
        setting.measured["start"] = _run(setting, [*SMALLEST, f"device.engine={engine}"], 600)[0]
    start: Point = setting.measured["start"]
    return start


def _expected(series: Series, size: int, before: Sequence[Point], start: Point) -> float:
    """Seconds that a size will take, by what the one before took."""
    if not before:
        return 0.0
    last = before[-1]
    if last.seconds is None:
        return float("inf") if "left out" not in last.note else 10 * float(last.note.split()[-2])
    more = series.work(size) / series.work(last.size)
    if series.batch is None:
        return start.cpu + last.seconds * more
    return start.cpu + WINDOWS * last.seconds * more


def _point(
    setting: Setting, series: Series, size: int, engine: str, start: Point, bound: float
) -> Point:
    words = [*series.words(size, setting.folder), f"device.engine={engine}"]
    every = 1
    if series.batch is not None:
        seconds = 0.02 if setting.tiny else 3.0
        every = max(1, round(seconds / WINDOWS / max(LEAST, series.work(size) / RATE)))
        words += [
            *(f"trainer.max_steps={WINDOWS * every}", f"trainer.record_every_steps={every}"),
            *("trainer.eval_every_steps=1000000", "trainer.limit.val=1", "scheduler=constant"),
        ]
    try:
        ran, steps = _run(setting, words, 10 * bound, by_step=series.batch is not None)
    except subprocess.TimeoutExpired:
        return Point(size, note=f"took more than {10 * bound:.0f} s")
    except MemoryError:
        return Point(size, note="did not fit into memory")
    seconds = max(0.0, ran.cpu - start.cpu)
    if series.batch is not None:
        seconds = statistics.median(steps)
    return Point(size, seconds, max(0.0, (ran.bytes or 0) - (start.bytes or 0)), ran.whole, ran.cpu)


def _run(
    setting: Setting, words: Sequence[str], limit: float, *, by_step: bool = False
) -> tuple[Point, list[float]]:
    """One process from start to end, with an empty cache; and seconds of a step between its records.

    Raises:
        subprocess.TimeoutExpired: it took longer than `limit` seconds, and was ended.
        MemoryError: the system has ended it.
    """
    with tempfile.TemporaryDirectory(dir=setting.folder) as name:
        folder, log, clock = Path(name), Path(name) / "log.txt", Path(name) / "clock.txt"
        where = "hydra.sweep.dir" if "-m" in words else "hydra.run.dir"
        module = "costs.timed" if by_step else "bigmodel"
        environment = setting.environment("ours", folder / "caches") | {CLOCK: str(clock)}
        began = time.perf_counter()
        with log.open("w", encoding="utf-8") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", module, *ONE_THREAD, *words, f"{where}={folder / 'run'}"],
                stdout=output,
                stderr=output,
                cwd=folder,
                env=environment,
            )
            usage = _ended(process, began + limit)
        whole = time.perf_counter() - began
        if process.returncode == -9:
            raise MemoryError
        if process.returncode:
            said = log.read_text(encoding="utf-8", errors="replace").strip()[-1500:]
            sys.exit(f"The run failed: {' '.join(words)}\n{said}")
        lines = clock.read_text(encoding="utf-8").splitlines() if by_step else []
    marks = [(int(step), float(seconds)) for step, seconds in map(str.split, lines)]
    steps = [(b[1] - a[1]) / (b[0] - a[0]) for a, b in pairwise(marks)]
    unit = 1 if sys.platform == "darwin" else 1024
    cpu = usage.ru_utime + usage.ru_stime
    return Point(0, cpu, float(usage.ru_maxrss * unit), whole, cpu), steps


def _ended(process: subprocess.Popen[bytes], until: float) -> Any:
    """What the process and those that it started have used, once it has ended.

    Raises:
        subprocess.TimeoutExpired: it did not end in time, and was ended.
    """
    while True:
        pid, status, usage = os.wait4(process.pid, os.WNOHANG)
        if pid:
            process.returncode = os.waitstatus_to_exitcode(status)
            return usage
        if time.perf_counter() > until:
            process.kill()
            process.wait()
            raise subprocess.TimeoutExpired(process.args, until)
        time.sleep(0.02)
