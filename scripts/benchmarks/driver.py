"""Starts the sides of a line in turns, and gathers what they answer."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from benchmarks import peers
from benchmarks.lines import Line
from benchmarks.worker import Order
from benchmarks.works import WORKS

NEEDS = {
    "lightning": ("lightning",),
    "transformers": ("transformers", "accelerate"),
    "script": ("lightning", "hydra"),
}
"""Packages that a kind of side asks for."""

WHOLE = {"ours", "bare", "bare-compiled"}
"""Sides whose whole runs are compared, from the start of the process."""

TOLERANCES = {"transformers": 2e-3}
"""Kinds of side whose losses may lie further apart than the work says: this one's head has no bias."""

NEAR = 0.3
"""How far the mean losses of timed runs may lie apart, relatively."""

Run = dict[str, Any]


class BenchError(Exception):
    """A side failed, or does other work than ours."""


@dataclass
class Setting:
    """What holds for all lines.

    Attributes:
        folder: for whatever the sides leave; deleted at the end.
        pairs: rounds that count, after a first one with empty caches.
        peers: a folder to find the peers in, or None.
        trouble: what to say where they could not be installed.
    """

    device: str
    tiny: bool
    folder: Path
    pairs: int
    peers: Path | None = None
    trouble: str = ""
    hosts: dict[str, Host] = field(default_factory=dict)
    measured: dict[str, Measured] = field(default_factory=dict)

    def environment(self, side: str, caches: Path) -> dict[str, str]:
        """What a side's process is started with: one thread on a CPU, and caches of its own."""
        kind = side.split("-")[0]
        path = [str(peers.ROOT / "scripts"), str(peers.ROOT / "src")]
        if kind in NEEDS and self.peers is not None:
            path.append(str(self.peers))
        if before := os.environ.get("PYTHONPATH"):
            path.append(before)
        variables = os.environ | {
            "PYTHONPATH": os.pathsep.join(path),
            "XDG_CACHE_HOME": str(caches),
            "BIGMODEL_CACHE": str(caches / "bigmodel"),
            "TORCHINDUCTOR_CACHE_DIR": str(caches / "inductor"),
            "TRITON_CACHE_DIR": str(caches / "triton"),
            "HF_HUB_OFFLINE": "1",
            "TOKENIZERS_PARALLELISM": "false",
        }
        variables.pop("PYTHONDONTWRITEBYTECODE", None)  # installed packages have theirs already
        if self.device == "cpu":
            variables |= {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
        return variables

    def lacking(self, side: str) -> str:
        """Why a side cannot be measured here, or nothing."""
        folders = [self.peers] if self.peers is not None else []
        if not (names := peers.missing(NEEDS.get(side.split("-")[0], ()), *folders)):
            return ""
        because = f" ({self.trouble})" if self.trouble else ""
        return f"not measured: {' and '.join(names)} is not installed{because}"


class Host:
    """A process that does one order after another."""

    def __init__(self, setting: Setting, side: str, caches: Path) -> None:
        self.log = setting.folder / f"{side}.log"
        self.began = time.perf_counter()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.worker", str(self.log)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=setting.folder,
            env=setting.environment(side, caches),
        )

    def ask(self, order: Order) -> Run:
        """Has an order done; `total` is the time since the process began.

        Raises:
            BenchError: it failed; with the end of its log.
        """
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(asdict(order)) + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        total = time.perf_counter() - self.began
        if not answer:
            said = self.log.read_text(errors="replace").strip()[-1500:] if self.log.is_file() else ""
            raise BenchError(f"{order.side} failed at {order.mode} of {order.work}:\n{said}")
        return json.loads(answer) | {"total": total}

    def close(self) -> None:
        """Lets the process end."""
        self.process.communicate()


@contextmanager
def setting(device: str, tiny: bool, pairs: int, data: Path | None) -> Iterator[Setting]:
    """A folder for everything, and the peers where they can be had."""
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        place = Path(folder)
        if data is not None:
            (place / "pictures").symlink_to(data.resolve(), target_is_directory=True)
        found, trouble = peers.folder()
        made = Setting(device, tiny, place, pairs, found, trouble)
        try:
            yield made
        finally:
            for host in made.hosts.values():
                host.close()


@dataclass
class Measured:
    """What a line's sides did.

    Attributes:
        rounds: by side, one run for each pair.
        cold, warm: by side, the whole run from the start of its process, in seconds: with empty caches,
            and with those of the run before.
        checked: by side, how its first losses compare with ours.
        parameters: by side.
        notes: by side, why it was not measured.
    """

    rounds: dict[str, list[Run]] = field(default_factory=dict)
    cold: dict[str, float] = field(default_factory=dict)
    warm: dict[str, list[float]] = field(default_factory=dict)
    checked: dict[str, str] = field(default_factory=dict)
    parameters: dict[str, int] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)
    matrix_rate: float = 0.0


def measure(setting: Setting, line: Line) -> Measured:
    """Checks the sides of a line, then runs them in turns: A B C A B C …"""
    sides = {line.ours: 1} | {
        side: contest.parts.get(setting.device, 1) for contest in line.contests for side in contest.sides
    }
    before = setting.measured.get(line.work)
    if before is not None and set(sides) <= {*before.rounds, *before.notes}:
        return before
    found = Measured()
    for side in list(sides):
        if note := setting.lacking(side):
            found.notes[side] = note
            del sides[side]
    if any(not side.startswith("ours") for side in sides):
        _check(setting, line, list(sides), found)
    if any(contest.measure == "rate" for contest in line.contests):
        found.matrix_rate = _do(setting, "multiply", "bare", line.work)["flops"]
    for side in sides:
        found.rounds[side], found.warm[side] = [], []
    _whole_runs(setting, line, sides, found)
    if setting.device == "cpu":  # a GPU's step is captured anew by each run
        _do(setting, "fill", line.ours, line.work)
    _turns(setting, line, sides, found)
    _compare_curves(line, found)
    setting.measured[line.work] = found
    return found


def _whole_runs(setting: Setting, line: Line, sides: dict[str, int], found: Measured) -> None:
    """A run of each side with empty caches; on a GPU one more with what they hold then, since the
    processes that take turns there stay, and do not begin anew each time."""
    if not line.whole and setting.device == "cuda":
        return
    for side, part in sides.items():
        if setting.device == "cpu" or side in WHOLE:
            found.cold[side] = whole_seconds(_do(setting, "time", side, line.work, part))
    if setting.device == "cuda":
        for side in WHOLE & set(sides):
            run = _do(setting, "time", side, line.work, sides[side])
            found.warm[side].append(whole_seconds(run))


def _turns(setting: Setting, line: Line, sides: dict[str, int], found: Measured) -> None:
    """The rounds that count; a process that stays has to warm up first."""
    live = setting.device == "cuda"
    for pair in range(setting.pairs + live):
        for side, part in sides.items():
            run = _do(setting, "time", side, line.work, part, live=live)
            if live and pair == 0:
                continue
            found.rounds[side].append(run)
            if not live:
                found.warm[side].append(whole_seconds(run))
        print(f"  {line.key}: round {pair + 1}", file=sys.stderr)


def _compare_curves(line: Line, found: Measured) -> None:
    """The losses of the timed runs themselves, whose samples come in other orders, have to come near.

    Raises:
        BenchError: they do not.
    """
    for side, runs in found.rounds.items():
        if side == line.ours or not runs:
            continue
        ours, theirs = found.rounds[line.ours][-1]["curve"], runs[-1]["curve"]
        at = min(len(ours), len(theirs)) - 1
        said = f"mean loss before mark {at + 1} {ours[at]:.4g} of ours and {theirs[at]:.4g} of theirs"
        found.checked[side] = "; ".join([*filter(None, [found.checked.get(side)]), said])
        if not abs(ours[at] - theirs[at]) <= NEAR * ours[at]:
            raise BenchError(f"{side} does other work than ours: {said}")


def whole_seconds(run: Run) -> float:
    """From the start of the process to the end of the whole run; steps that were left out are added at
    the rate of those that were done."""
    left = run["whole"] - run["steps"]
    return float(run["total"]) + (left * per_step(run) if left else 0.0)


def per_step(run: Run) -> float:
    """Seconds a step, between a run's first mark and its last."""
    return float(run["steady_seconds"]) / int(run["steady_steps"])


def _check(setting: Setting, line: Line, sides: list[str], found: Measured) -> None:
    """Has every side do the first steps from the same weights on the same batches.

    Raises:
        BenchError: the losses differ.
    """
    work = WORKS[line.work](setting.device, setting.tiny, setting.folder)
    ours = _do(setting, "prepare", line.ours, line.work, live=setting.device == "cuda")
    found.parameters[line.ours] = ours["parameters"]
    for kind in dict.fromkeys(side.split("-")[0] for side in sides):
        if kind == "ours":
            continue
        # Compiling, or having workers, changes nothing in the network: their timed runs are compared.
        theirs = _do(setting, "check", kind, line.work, live=setting.device == "cuda")
        apart = [abs(a - b) / abs(a) for a, b in zip(ours["losses"], theirs["losses"], strict=False)]
        bound = max(work.tolerance, TOLERANCES.get(kind, 0.0))
        said = f"the first {len(apart)} losses differ by at most {max(apart):.1e}, relatively"
        if not max(apart) <= bound:
            raise BenchError(
                f"{kind} does other work than ours: {said}; {bound:.0e} is allowed.\n"
                f"ours:   {ours['losses'][:5]}\ntheirs: {theirs['losses'][:5]}"
            )
        for side in sides:
            if side.split("-")[0] == kind:
                found.checked[side] = said
        if "parameters" in theirs:
            found.parameters[kind] = theirs["parameters"]


def _do(setting: Setting, mode: Any, side: str, work: str, part: int = 1, *, live: bool = False) -> Run:
    """One order, in a new process or in the one that stays for this kind of side."""
    order = Order(mode, side, work, setting.device, str(setting.folder), setting.tiny, part)
    kind = side.split("-")[0]
    # What is compiled for `prepare` must not be found by the first timed run; that of one side may be
    # by another of its kind, as ours with and without reports.
    caches = setting.folder / "caches" / (f"{work}-{kind}" if mode in {"time", "fill"} else mode)
    if live:
        if kind not in setting.hosts:
            setting.hosts[kind] = Host(setting, side, setting.folder / "caches" / f"live-{kind}")
        return setting.hosts[kind].ask(order)
    host = Host(setting, side, caches)
    try:
        return host.ask(order)
    finally:
        host.close()
