"""Whole programs in turns: ours, and scripts of other libraries that do the same."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.driver import Measured
from benchmarks.hosts import BenchError, FailedError, Run, Setting, on_one_core
from benchmarks.lines import Line
from benchmarks.tables import written_table

HERE = Path(__file__).resolve().parent
OURS = ("-m", "bigmodel.cli.train")
SKLEARN = str(HERE / "with_sklearn.py")

LEAST_SCORES = {"7-run": 0.93, "9": 0.7, "10": 0.93}
"""By line, the validation accuracy or R² that all have to have reached, or else one did less."""


def program(setting: Setting, line: Line, side: str, epochs: int) -> tuple[str, ...]:
    """Arguments of Python for one side of a line.

    Args:
        epochs: of the run of ours before.
    """
    match line.key, side:
        case "7-help", "ours":
            return (*OURS, "--help")
        case "7-help", _:
            return (str(HERE / "hydra_lightning.py"), "--help")
        case "7-run", "ours":
            return ("-m", "benchmarks.first_step")
        case "7-run", _:
            return (str(HERE / "hydra_lightning.py"), f"epochs={epochs}")
        case "9", "ours":
            table = written_table(setting.folder, setting.tiny)
            return (*OURS, "data=table", f"data.path={table}", "data.target=y", "trainer.epochs=1")
        case "9", _:
            return (SKLEARN, side.split("-")[1], str(written_table(setting.folder, setting.tiny)))
        case "10", "ours":
            return (*OURS, "trainer.epochs=30")
        case "10", _:
            return (SKLEARN, "classifier")
    raise ValueError(line.key)


def measure(setting: Setting, line: Line) -> Measured:
    """Runs the programs of a line in turns, each in an empty folder; ours comes first."""
    found = Measured()
    sides = [line.ours, *(side for contest in line.contests for side in contest.sides)]
    sides = list(dict.fromkeys(sides))
    for side in sides:
        if note := setting.lacking(side):
            found.notes[side] = note
    for side in found.left(sides):
        found.rounds[side], found.warm[side] = [], []
    epochs = 0
    for pair in range(setting.pairs + 1):
        for side in found.left(sides):
            with found.spared(side):
                run = _run(setting, line, side, epochs)
                epochs = run.get("epochs", epochs)
                if pair == 0:  # with empty caches, and files that nobody has read yet
                    found.cold[side] = run["total"]
                else:
                    found.rounds[side].append(run)
                    found.warm[side].append(run["total"])
        print(f"  {line.key}: round {pair}", file=sys.stderr)
    _compare(setting, line, found)
    return found


def _compare(setting: Setting, line: Line, found: Measured) -> None:
    """All have to have learnt, in as many steps.

    Raises:
        BenchError: they have not.
    """
    last = {side: runs[-1] for side, runs in found.rounds.items() if "score" in runs[-1]}
    for side in set(last) - {line.ours}:
        runs = (last[line.ours], last[side])
        scores, steps = ([run[what] for run in runs] for what in ("score", "steps"))
        found.checked[side] = f"validation score {scores[0]:.3f} of ours and {scores[1]:.3f} of theirs"
        if steps[1]:
            found.checked[side] += f", after {steps[0]:,} and {steps[1]:,} steps"
        if min(scores) < LEAST_SCORES[line.key] and not setting.tiny:
            raise BenchError(f"One side has not learnt: {found.checked[side]}.")
        if steps[1] not in (0, steps[0]):
            raise BenchError(f"{side} does other work than ours: {found.checked[side]}.")


def _run(setting: Setting, line: Line, side: str, epochs: int) -> Run:
    """One program from start to end, in seconds, with what it notes or leaves in a summary."""
    caches = setting.folder / "caches" / f"{line.key}-{side}"
    arguments = program(setting, line, side, epochs)
    with tempfile.TemporaryDirectory(dir=setting.folder) as folder:
        notes = Path(folder) / "notes"
        environment = setting.environment(side, caches) | {"BENCH_NOTES": str(notes)}
        began, clock = time.time(), time.perf_counter()
        done = subprocess.run(
            [sys.executable, *arguments],
            cwd=folder,
            env=environment,
            preexec_fn=on_one_core(setting.device, side),
            capture_output=True,
            text=True,
            check=False,
        )
        run: Run = {"total": time.perf_counter() - clock}
        if done.returncode:
            output = f"{done.stdout[-500:]}\n{done.stderr[-1500:]}"
            raise FailedError(f"{side} failed at {line.key}", output)
        if notes.is_file():
            run |= json.loads(notes.read_text())
        for path in Path(folder).rglob("summary.json"):
            run |= _summarised(json.loads(path.read_text()))
    if "first_step_at" in run:
        run["first_step"] = run["first_step_at"] - began
    return run


def _summarised(summary: Run) -> Run:
    """Of a run of ours: epochs, steps, engine and score."""
    best = summary["best"]
    return {
        "epochs": round(summary["epochs"]),
        "steps": summary["steps"],
        "engine": summary["environment"]["engine"],
        "score": best.get("val/accuracy", best.get("val/r2")),
    }
