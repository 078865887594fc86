"""Whole programs in turns: ours, and a script of Hydra and Lightning that does the same."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.driver import Measured
from benchmarks.hosts import BenchError, FailedError, Run, Setting
from benchmarks.lines import Line

HERE = Path(__file__).resolve().parent

PROGRAMS = {
    ("ours", "help"): ("-m", "bigmodel.cli.train", "--help"),
    ("script", "help"): (str(HERE / "hydra_lightning.py"), "--help"),
    ("ours", "run"): ("-m", "benchmarks.first_step"),
    ("script", "run"): (str(HERE / "hydra_lightning.py"),),
}

LEAST_ACCURACY = 0.93
"""Both have to have learnt the digits, or else one did less."""


def measure(setting: Setting, line: Line) -> Measured:
    """Runs the programs of a line in turns, each in an empty folder."""
    found, what = Measured(), line.key.split("-")[1]
    sides = ["ours", "script"]
    if note := setting.lacking("script"):
        found.notes["script"] = note
    for side in found.left(sides):
        found.rounds[side], found.warm[side] = [], []
    for pair in range(setting.pairs + 1):
        for side in found.left(sides):
            with found.spared(side):
                run = _program(setting, side, what)
                if pair == 0:  # with empty caches, and files that nobody has read yet
                    found.cold[side] = run["total"]
                else:
                    found.rounds[side].append(run)
                    found.warm[side].append(run["total"])
        print(f"  {line.key}: round {pair}", file=sys.stderr)
    sides = found.left(sides)
    if what == "run" and "script" in sides:
        reached = [found.rounds[side][-1]["accuracy"] for side in sides]
        found.checked["script"] = (
            f"best validation accuracy {reached[0]:.3f} of ours and {reached[1]:.3f} of theirs"
        )
        if min(reached) < LEAST_ACCURACY and not setting.tiny:
            raise BenchError(f"One side has not learnt the digits: {found.checked['script']}.")
    return found


def _program(setting: Setting, side: str, what: str) -> Run:
    """One program from start to end, in seconds."""
    caches = setting.folder / "caches" / f"{what}-{side}"
    with tempfile.TemporaryDirectory(dir=setting.folder) as folder:
        notes = Path(folder) / "notes"
        environment = setting.environment(side, caches) | {"BENCH_NOTES": str(notes)}
        began, clock = time.time(), time.perf_counter()
        done = subprocess.run(
            [sys.executable, *PROGRAMS[side, what]],
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        run: Run = {"total": time.perf_counter() - clock}
        if done.returncode:
            raise FailedError(f"{side} failed at {what}", f"{done.stdout[-500:]}\n{done.stderr[-1500:]}")
        if notes.is_file():
            at, accuracy = map(float, notes.read_text().split())
            run |= {"first_step": at - began, "accuracy": accuracy}
    return run
