"""Compares the time of a sweep with Hydra's launchers, and with as many starts of the command.

    .venv/bin/python scripts/bench_sweeps.py             # 64 jobs, three rounds in turns
    .venv/bin/python scripts/bench_sweeps.py --jobs 16 --rounds 1
    .venv/bin/python scripts/bench_sweeps.py --gaps      # the time between two jobs

Every side trains the FNN on digits for five epochs, with a folder, checkpoints and TensorBoard for each
job. hydra-joblib-launcher has to be installed for its side; starts are timed for an eighth of the jobs.
The median ratios are printed as the table in docs/sweeps.md has them.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

SETTINGS = ("data=digits", "model=fnn", "trainer.epochs=5", "device=cpu")
ROOT = Path(__file__).resolve().parents[1]


def run(*words: str, folder: Path | None = None) -> float:
    """Seconds of a command, in an empty folder unless one is given."""
    if folder is None:
        with tempfile.TemporaryDirectory() as made:
            return run(*words, folder=Path(made))
    path = os.pathsep.join([str(ROOT / "scripts"), str(ROOT / "src")])
    environment = os.environ | {"PYTHONPATH": path, "BENCH_NOTES": str(folder / "notes")}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)  # users have it written once
    began = time.perf_counter()
    done = subprocess.run(
        [sys.executable, *words],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    seconds = time.perf_counter() - began
    if done.returncode:
        sys.exit(f"{' '.join(words)} failed:\n{done.stdout[-1000:]}\n{done.stderr[-2000:]}")
    return seconds


def sweep(program: str, jobs: int, *words: str, folder: Path | None = None) -> float:
    """Seconds of a sweep of so many jobs by one of the programs."""
    return run("-m", program, "-m", f"seed=range({jobs})", *words, *SETTINGS, folder=folder)


def gaps(jobs: int) -> list[float]:
    """Seconds from the last file of each job, its summary, to the first step of the next one, when jobs
    run one after another."""
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        sweep("benchmarks.sweep_steps", jobs, "sweep.jobs=1", folder=folder)
        steps = [float(line) for line in (folder / "notes").read_text().splitlines()]
        ends = sorted(path.stat().st_mtime for path in folder.rglob("summary.json"))
    return [step - end for step, end in zip(steps[1:], ends[:-1], strict=True)]


def starts(jobs: int) -> float:
    part = max(1, jobs // 8)
    return sum(run("-m", "bigmodel", f"seed={seed}", *SETTINGS) for seed in range(part)) * jobs / part


def sides() -> dict[str, Callable[[int], float]]:
    """What ours is compared with: names, and seconds for a number of jobs."""
    hydras = partial(sweep, "benchmarks.hydra_sweep")
    found: dict[str, Callable[[int], float]] = {"Hydra's basic launcher": hydras}
    if importlib.util.find_spec("hydra_plugins.hydra_joblib_launcher") is not None:
        joblib = ("hydra/launcher=joblib", "hydra.launcher.n_jobs=2")
        found["hydra-joblib-launcher, two jobs at a time"] = lambda jobs: hydras(jobs, *joblib)
    return found | {"as many starts of the command": starts}


def main(arguments: Sequence[str] | None = None) -> None:
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--jobs", type=int, default=64)
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--gaps", action="store_true", help="the time between two jobs instead")
    given = options.parse_args(arguments)
    if given.gaps:
        seconds = gaps(given.jobs)
        print(f"median {statistics.median(seconds):.3f} s ({min(seconds):.3f} to {max(seconds):.3f})")
        return
    others = sides()
    ratios: dict[str, list[float]] = {name: [] for name in others}
    for number in range(given.rounds):
        own = sweep("bigmodel", given.jobs)
        print(f"round {number + 1}: ours {own:.1f} s", file=sys.stderr)
        for name, side in others.items():
            seconds = side(given.jobs)
            ratios[name].append(seconds / own)
            print(f"  {name} {seconds:.1f} s", file=sys.stderr)
    print(f"| {given.jobs} jobs, against | times as long |\n|---|---|")
    for name, found in ratios.items():
        print(f"| {name} | {statistics.median(found):.1f} ({min(found):.1f} to {max(found):.1f}) |")


if __name__ == "__main__":
    main()
