"""Figures from the runs: ratios of pairs, their median and spread, and the file that keeps them."""

from __future__ import annotations

import datetime
import importlib.metadata
import json
import os
import platform
import re
import statistics
from collections.abc import Iterable
from itertools import zip_longest
from pathlib import Path
from typing import Any

from benchmarks import instructions, peers
from benchmarks.driver import Measured, per_step, whole_seconds
from benchmarks.hosts import Run, Setting
from benchmarks.lines import Contest, Line
from benchmarks.works import WORKS

RESULTS = peers.ROOT / "scripts" / "results" / "speed"
PACKAGES = (
    "torch",
    "lightning",
    "transformers",
    "accelerate",
    "hydra-core",
    "jax",
    "optax",
    "keras",
    "scikit-learn",
)
"""Those whose versions are kept."""

SLOWER_BY_CHANCE = 1.05
"""A total that is longer than the bare loop's by less than this counts as equal."""


def spread(values: Iterable[float]) -> dict[str, float | int]:
    """Median, least and most of some values, and how many there are."""
    known = sorted(values)
    return {
        "median": statistics.median(known),
        "low": known[0],
        "high": known[-1],
        "pairs": len(known),
    }


def compared(contest: Contest, ours: Run, theirs: list[Run], matrix_seconds: float = 0.0) -> float:
    """The figure of one round; see `lines.Measure`.

    Args:
        theirs: the runs of all sides that the contest names; the best one counts.
        matrix_seconds: those that a step would take at the rate of matrix products, for `rate`.
    """
    match contest.measure:
        case "steady":
            return min(map(per_step, theirs)) / per_step(ours)
        case "slowed":
            return per_step(ours) / min(map(per_step, theirs))
        case "added":
            return (per_step(ours) - min(map(per_step, theirs))) * 1e6
        case "fit":
            return float(ours["fit"]) / min(float(run["fit"]) for run in theirs)
        case "memory":
            return float(ours["peak_memory"]) / min(float(run["peak_memory"]) for run in theirs)
        case "rate":
            return matrix_seconds / per_step(ours)
        case "compile":
            return float(ours["compile"])
        case "cold":
            return min(map(whole_seconds, theirs)) / whole_seconds(ours)
        case "help":
            return min(float(run["total"]) for run in theirs) / float(ours["total"])
        case key:
            return min(float(run[key]) for run in theirs) / float(ours[key])


def result(setting: Setting, line: Line, found: Measured) -> dict[str, Any]:
    """The results of a line, as plain values."""
    cells = [_cell(setting, line, contest, found) for contest in line.contests]
    seconds = {
        side: {"median_ms_per_step": 1e3 * statistics.median(map(per_step, runs))}
        for side, runs in found.rounds.items()
        if runs and "steady_seconds" in runs[0]
    }
    totals = {
        side: {"cold": found.cold.get(side), "warm": statistics.median(runs) if runs else None}
        for side, runs in found.warm.items()
        if line.whole
    }
    work = WORKS[line.work](setting.device, setting.tiny, setting.folder) if line.work else None
    return {
        "title": line.title,
        "cells": cells,
        "steady": seconds,
        "totals": totals,
        "filling": found.filling if line.whole else 0.0,
        "engines": sorted({run["engine"] for run in found.rounds.get(line.ours, []) if "engine" in run}),
        "parameters": found.parameters,
        "note": work.data_note if work else "",
        "steps": work.steps if work else None,
        "date": datetime.date.today().isoformat(),
        "machine": machine(setting.device),
        "versions": versions(),
    }


def _cell(setting: Setting, line: Line, contest: Contest, found: Measured) -> dict[str, Any]:
    """One contest: its ratio, its goal, and whether that is reached."""
    cell: dict[str, Any] = {
        "against": contest.against,
        "measure": contest.measure,
        "goal": contest.goals.get(setting.device),
        "part": contest.parts.get(setting.device, 1),
        "checked": [
            found.checked[side] for side in (*contest.sides, line.ours) if side in found.checked
        ],
    }
    if notes := [found.notes[side] for side in contest.sides if side in found.notes]:
        return cell | {"note": notes[0]}
    if contest.measure == "val_loss":
        ours, theirs = (found.val_losses[side] for side in (line.ours, *contest.sides))
        apart = 100 * abs(ours / theirs - 1)
        reached = contest.reached(setting.device, apart)
        return cell | {"ratio": spread([apart]), "reached": reached}
    rounds = zip(found.rounds[line.ours], *(found.rounds[side] for side in contest.sides), strict=True)
    operations = _operations(setting, line, found) if found.matrix_rates else 0.0
    seconds = [operations / rate for rate in found.matrix_rates]
    values = [
        compared(contest, ours, list(theirs), at_rate)
        for (ours, *theirs), at_rate in zip_longest(rounds, seconds, fillvalue=0.0)
    ]
    ratio = spread(values)
    reached = contest.reached(setting.device, float(ratio["median"]))
    return cell | {"ratio": ratio, "reached": reached} | _totals(line, contest, found)


def _operations(setting: Setting, line: Line, found: Measured) -> float:
    """Floating point operations of a step: 6 N + 12 L d T for each token."""
    work = WORKS[line.work](setting.device, setting.tiny, setting.folder)
    sizes = work.sizes
    each = 6 * found.parameters[line.ours] + 12 * sizes["depth"] * sizes["dim"] * sizes["context"]
    return float(each * work.batch_size * sizes["context"])


def _totals(line: Line, contest: Contest, found: Measured) -> dict[str, Any]:
    """Whether a whole run of ours takes longer than a bare loop's, with empty or filled caches."""
    bare = [side for side in contest.sides if side.startswith("bare") and side in found.cold]
    if not line.whole or not bare:
        return {}
    later = {
        "cold": (found.cold[line.ours], min(found.cold[side] for side in bare)),
        "warm": tuple(
            min(statistics.median(found.warm[side] or [found.cold[side]]) for side in sides)
            for sides in ([line.ours], bare)
        ),
    }
    return {
        "total_longer": [
            f"{state}: {ours:.1f} s against {theirs:.1f} s"
            for state, (ours, theirs) in later.items()
            if ours > theirs * SLOWER_BY_CHANCE
        ]
    }


def machine(device: str) -> dict[str, Any]:
    """Processor, its widest instructions, cores and GPU."""
    found: dict[str, Any] = {"cpu": instructions.processor(), "cores": os.cpu_count()}
    if widest := instructions.widest():
        found["instructions"] = widest
    if device == "cuda":
        import torch

        found["gpu"] = torch.cuda.get_device_name()
    return found


def versions() -> dict[str, str]:
    """Python, torch and the peers."""
    found = {"python": platform.python_version()}
    path = [str(peers.FOLDER)]
    for name in PACKAGES:
        for known in (
            *importlib.metadata.distributions(name=name),
            *importlib.metadata.distributions(name=name, path=path),
        ):
            found.setdefault(name, known.version)
    return found


def file_of(device: str) -> Path:
    """Where results of this machine are kept: by the processor and its instructions, as in
    `amd-epyc-avx2.json`, or by the GPU. Processors of one name may differ in their instructions."""
    here = machine(device)
    name = here["gpu"] if device == "cuda" else f"{here['cpu']} {here.get('instructions', '')}"
    return RESULTS / f"{re.sub('[^a-z0-9]+', '-', name.lower()).strip('-')}.json"


def keep(path: Path, device: str, results: dict[str, Any | None]) -> None:
    """Writes results, beside those of other lines that are there already; None: a line has none any
    more, as it failed."""
    known = json.loads(path.read_text())["lines"] if path.is_file() else {}
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = {key: result for key, result in (known | results).items() if result is not None}
    text = json.dumps({"device": device, "lines": lines}, indent=1, ensure_ascii=False)
    path.write_text(text + "\n", encoding="utf-8")
