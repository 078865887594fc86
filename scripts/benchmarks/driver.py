"""Has the sides of a line run in turns, and gathers what they answer."""

from __future__ import annotations

import statistics
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise

from benchmarks import hosts, instructions
from benchmarks.hosts import BenchError, FailedError, Run, Setting
from benchmarks.lines import Line
from benchmarks.works import WORKS

WHOLE = {"ours", "bare", "bare-compiled"}
"""Sides whose whole runs are compared, from the start of the process."""

TOLERANCES = {("transformers", "text"): 2e-3}
"""Kinds of side whose losses of a work may lie further apart than it says: this head has no bias."""

NEAR = 0.3
"""How far the mean losses of timed runs may lie apart, relatively."""


@dataclass
class Measured:
    """What a line's sides did.

    Attributes:
        rounds: by side, one run for each pair.
        cold, warm: by side, the whole run from the start of its process, in seconds: with empty caches,
            and with those of the run before.
        filling: seconds of the run that filled our compile cache, from the start of its process; 0:
            there was none.
        losses: of ours in its first steps, by eager ones.
        checked: by side, how its first losses compare with those; for ours, those by its faster engine.
        parameters: by side.
        notes: by side, why it was not measured.
        failed: sides that were tried and failed.
        matrix_rates: operations a second of matrix products, in each round.
        val_losses: by side, after as many steps.
    """

    rounds: dict[str, list[Run]] = field(default_factory=dict)
    cold: dict[str, float] = field(default_factory=dict)
    warm: dict[str, list[float]] = field(default_factory=dict)
    checked: dict[str, str] = field(default_factory=dict)
    parameters: dict[str, int] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)
    failed: list[str] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    filling: float = 0.0
    matrix_rates: list[float] = field(default_factory=list)
    val_losses: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def spared(self, *sides: str) -> Iterator[None]:
        """Where sides fail within, they are noted as not measured, and the others go on without them.

        Raises:
            FailedError: ours failed, and there is nothing to compare with.
        """
        try:
            yield
        except FailedError as error:
            if sides[0].startswith("ours"):
                raise
            print(error, file=sys.stderr)
            for side in sides:
                self.failed.append(side)
                self.notes[side] = f"not measured: it failed ({error.reason})"
                self.rounds.pop(side, None)
                self.warm.pop(side, None)
                self.cold.pop(side, None)

    def left(self, sides: Iterable[str]) -> list[str]:
        """Those that can still be measured."""
        return [side for side in sides if side not in self.notes]


def measure(setting: Setting, line: Line) -> Measured:
    """Checks the sides of a line, then runs them in turns: A B C A B C …"""
    sides = {line.ours: 1} | {
        side: contest.parts.get(setting.device, 1) for contest in line.contests for side in contest.sides
    }
    key = (line.work, line.ours, line.fresh)
    before = setting.measured.get(key)
    if before is not None and set(sides) <= {*before.rounds, *before.notes}:
        return before
    found = Measured()
    if line.needs_bf16 and not setting.tiny and not instructions.multiplies_bf16():
        found.notes |= dict.fromkeys(sides, "needs AMX or AVX-512 BF16, which this processor lacks")
        return found
    for side in sides:
        if note := setting.lacking(side):
            found.notes[side] = note
    others = [side for side in found.left(sides) if not side.startswith("ours")]
    if others:
        _check(setting, line, others, found)
    for side in found.left(sides):
        found.rounds[side], found.warm[side] = [], []
    if not line.fresh:
        _whole_runs(setting, line, sides, found)
        _fill(setting, line, sides, found)
    measures = {contest.measure for contest in line.contests}
    if "compile" in measures:
        _compile_times(setting, line, found)
    else:
        _turns(setting, line, sides, found, with_rate="rate" in measures)
        _compare_curves(line, found)
    if "val_loss" in measures:
        found.val_losses |= {
            side: hosts.do(setting, "learn", side, line.work)["val_loss"] for side in found.left(sides)
        }
    setting.measured[key] = found
    return found


def _fill(setting: Setting, line: Line, sides: dict[str, int], found: Measured) -> None:
    """Fills the compile caches of ours, and has its faster engine checked."""
    if setting.device == "cpu":  # a GPU's step is captured again by each run
        found.filling = hosts.do(setting, "fill", line.ours, line.work)["total"]
        if line.ours != "ours" and "ours" in sides:
            hosts.do(setting, "fill", "ours", line.work)
    if found.losses:  # after the runs with empty caches: it leaves what it has compiled
        _check_engine(setting, line, found)


def _compile_times(setting: Setting, line: Line, found: Measured) -> None:
    """Rounds in which ours compiles its step, each with an empty cache."""
    for pair in range(setting.pairs):
        found.rounds[line.ours].append(hosts.do(setting, "compile", line.ours, line.work, fresh=True))
        print(f"  {line.key}: round {pair + 1}", file=sys.stderr)


def _whole_runs(setting: Setting, line: Line, sides: dict[str, int], found: Measured) -> None:
    """A run of each side with empty caches; on a GPU one more with what they hold then, since the
    processes that take turns there stay, and do not start again each time."""
    on_gpu = setting.device == "cuda"
    if not line.whole:
        return
    for side in found.left(sides):
        if on_gpu and side not in WHOLE:
            continue
        with found.spared(side):
            run = hosts.do(setting, "time", side, line.work, sides[side])
            found.cold[side] = whole_seconds(run)
            if on_gpu:
                run = hosts.do(setting, "time", side, line.work, sides[side])
                found.warm[side].append(whole_seconds(run))


def _turns(
    setting: Setting, line: Line, sides: dict[str, int], found: Measured, *, with_rate: bool
) -> None:
    """The rounds that count; a process that stays has to warm up first, as files that nobody has read
    yet have to be where each starts with an empty cache."""
    live = setting.device == "cuda"
    warm_up = live or line.fresh
    for pair in range(setting.pairs + warm_up):
        for side in found.left(sides):
            with found.spared(side):
                run = hosts.do(
                    setting, "time", side, line.work, sides[side], live=live, fresh=line.fresh
                )
                if warm_up and pair == 0:
                    continue
                found.rounds[side].append(run)
                if not live:
                    found.warm[side].append(whole_seconds(run))
        if with_rate and not (warm_up and pair == 0):
            found.matrix_rates.append(hosts.do(setting, "multiply", "bare", line.work)["flops"])
        print(f"  {line.key}: round {pair + 1}", file=sys.stderr)


def _compare_curves(line: Line, found: Measured) -> None:
    """The losses of the timed runs themselves, whose samples come in other orders, have to come near.

    Raises:
        BenchError: they do not.
    """
    for side, runs in found.rounds.items():
        if side == line.ours or not runs or "curve" not in runs[-1]:
            continue
        ours, theirs = found.rounds[line.ours][-1]["curve"], runs[-1]["curve"]
        at = min(len(ours), len(theirs)) - 1
        match = f"mean loss before mark {at + 1} {ours[at]:.4g} of ours and {theirs[at]:.4g} of theirs"
        found.checked[side] = "; ".join([*filter(None, [found.checked.get(side)]), match])
        if not abs(ours[at] - theirs[at]) <= NEAR * ours[at]:
            raise BenchError(f"{side} does other work than ours: {match}")


def whole_seconds(run: Run) -> float:
    """From the start of the process to the end of the whole run; steps that were left out are added at
    the rate of those that were done."""
    left = run["whole"] - run["steps"]
    return float(run["total"]) + (left * per_step(run) if left else 0.0)


def per_step(run: Run) -> float:
    """Seconds a step, between a run's first mark and its last."""
    return float(run["steady_seconds"]) / int(run["steady_steps"])


def _check(setting: Setting, line: Line, others: list[str], found: Measured) -> None:
    """Has every side do the first steps from the same weights on the same batches.

    Raises:
        BenchError: the losses differ.
    """
    work = WORKS[line.work](setting.device, setting.tiny, setting.folder)
    live = setting.device == "cuda"
    ours = hosts.do(setting, "prepare", line.ours, line.work, live=live)
    found.losses, found.parameters[line.ours] = ours["losses"], ours["parameters"]
    for kind in dict.fromkeys(side.split("-")[0] for side in others):
        # Compiling, or having workers, changes nothing in the network: their timed runs are compared.
        alike = [side for side in others if side.split("-")[0] == kind]
        with found.spared(*alike):
            theirs = hosts.do(setting, "check", kind, line.work, live=live)
            bound = max(work.tolerance, TOLERANCES.get((kind, line.work), 0.0))
            apart = _apart(kind, found.losses, theirs["losses"], bound)
            match = f"the first {len(found.losses)} losses differ by at most {apart:.1e}, relatively"
            found.checked |= dict.fromkeys(alike, match)
            if "parameters" in theirs:
                found.parameters[kind] = theirs["parameters"]


def _check_engine(setting: Setting, line: Line, found: Measured) -> None:
    """Has ours do the first steps by its faster engine, which takes many in a call; its losses have to
    be those of its eager steps, from the same weights on the same batches.

    Raises:
        BenchError: they are not.
    """
    work = WORKS[line.work](setting.device, setting.tiny, setting.folder)
    ours = hosts.do(setting, "verify", line.ours, line.work, live=setting.device == "cuda")
    steps = [step for step in ours["steps"] if step <= len(found.losses)]
    eager = [statistics.fmean(found.losses[a:b]) for a, b in pairwise([0, *steps])]
    engine = ours["engine"]
    apart = _apart(f"ours by {engine} steps", eager, ours["losses"][: len(steps)], work.tolerance)
    found.checked[line.ours] = (
        f"by {engine} steps ours has the mean losses until steps {', '.join(map(str, steps))} "
        f"of its eager ones within {apart:.1e}, relatively"
    )


def _apart(side: str, ours: list[float], theirs: list[float], bound: float) -> float:
    """How far the losses lie apart at the most, relatively.

    Raises:
        BenchError: farther than they may.
    """
    apart = max(abs(a - b) / abs(a) for a, b in zip(ours, theirs, strict=True))
    if not apart <= bound:
        raise BenchError(
            f"{side} does other work than ours: the first {len(ours)} losses differ by at most "
            f"{apart:.1e}, relatively; {bound:.0e} is allowed.\nours:   {ours[:5]}\ntheirs: {theirs[:5]}"
        )
    return apart
