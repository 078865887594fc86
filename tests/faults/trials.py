"""Runs that are ended by force and gone on with, as real processes; what the tests and
`scripts/prove_reliability.py` share.

Processes are forked from a server that has torch loaded already, so that a trial takes a second.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

from bigmodel.checkpointing import checkpoint, manifest
from bigmodel.reporting.formatting import SPEEDS
from bigmodel.reporting.summary import read_summary

RECIPE = (
    "device=cpu",
    "device.threads=1",
    "trainer.epochs=2",
    "trainer.record_every_steps=1",
    "trainer.checkpoint.every_steps=1",
    "trainer.accumulate=2",
    "trainer.ema=0.9",
    "model.hidden_sizes=[64]",
    "model.dropout=0.3",
    "data.augment.shift=1",
)
"""A run with everything in it that a resume could get wrong: 24 steps on digits."""

BY_THE_CLOCK = (
    *(word for word in RECIPE if "every_steps=1" not in word or "record" in word),
    "trainer.checkpoint.every_minutes=0.002",
    "trainer.epochs=60",
)
"""One that is saved by the clock, eight times a second, between the steps and at the end of an epoch."""

HELD, NOTED, GO = "held", "noted", "go"
"""Files in the current folder of a run: it is where it is to be held; it has noted a signal there; it
may go on."""

HANGS = 600.0
"""Seconds after which what does not end is said to hang; no run takes them, however busy the machine."""

_server = multiprocessing.get_context("forkserver")
_server.set_forkserver_preload(
    ["bigmodel.build.new_run", "bigmodel.training.loop", "bigmodel.reporting.events"]
)


@dataclass
class Attempt:
    """One process of `bigmodel-train`, and where it works.

    Attributes:
        cwd: its current folder.
        log: what it has printed so far.
    """

    process: ForkServerProcess
    cwd: Path

    @property
    def log(self) -> str:
        path = self.cwd / f"printed.{self.process.name}"
        return path.read_text() if path.exists() else ""

    @property
    def pid(self) -> int:
        assert self.process.pid is not None
        return self.process.pid

    def wait(self) -> int:
        """The exit status, as a shell would have it.

        Raises:
            TimeoutError: it hangs; it is killed.
        """
        self.process.join(HANGS)
        if self.process.exitcode is None:
            self.process.kill()
            self.process.join()
            raise TimeoutError(f"still running after {HANGS} s:\n{self.log}")
        return self.process.exitcode if self.process.exitcode >= 0 else 128 - self.process.exitcode

    def until(self, reached: Callable[[], object]) -> None:
        """Waits for a state while the process is there."""
        deadline = time.monotonic() + HANGS
        while not reached():
            assert self.process.is_alive(), self.log
            assert time.monotonic() < deadline, self.log
            time.sleep(0.002)

    def until_held(self) -> None:
        """Waits until it is where it is to be held."""
        self.until((self.cwd / HELD).exists)

    def let_go(self) -> None:
        """Has it go on from where it is held."""
        (self.cwd / GO).touch()

    def send(self, number: int) -> None:
        os.kill(self.pid, number)


def launch(
    cwd: Path,
    *argv: str,
    hold: str | None = None,
    killed_at: str | None = None,
    environment: dict[str, str] | None = None,
) -> Attempt:
    """Starts `bigmodel-train` in a process of its own.

    Args:
        cwd: its current folder.
        argv: its arguments.
        hold: where it waits until it is let go: in `evaluation`, `saving` or `compiling`, at the record
            of a step (`step 5`), at a file's way to the disk (`sync 12`), in a thread that gathers its
            second block (`gathering 2`); several, after commas; or nowhere.
        killed_at: a moment of `MOMENTS`, at which the process ends as by kill -9.
        environment: more variables.
    """
    for name in (HELD, NOTED, GO):
        (cwd / name).unlink(missing_ok=True)
    process = _server.Process(target=_train, args=(str(cwd), argv, hold, killed_at, environment or {}))
    process.start()
    return Attempt(process, cwd)


def _train(
    cwd: str,
    argv: Sequence[str],
    hold: str | None,
    killed_at: str | None,
    environment: dict[str, str],
) -> None:
    os.environ |= environment | {"NO_COLOR": "1"}
    os.chdir(cwd)
    out = os.open(f"printed.{multiprocessing.current_process().name}", os.O_CREAT | os.O_WRONLY)
    os.dup2(out, 1)
    os.dup2(out, 2)
    sys.stdout, sys.stderr = (os.fdopen(number, "w", buffering=1) for number in (1, 2))
    sys.argv = ["bigmodel-train", *argv]
    if hasattr(signal, "SIGHUP"):  # whoever runs the tests may ignore them, in the background say
        for number in (signal.SIGHUP, signal.SIGTERM):
            signal.signal(number, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if hold is not None:
        for place in hold.split(", "):
            _hold_at(*place.split())
    if killed_at is not None:
        _kill_at(killed_at)
    from bigmodel.cli.entry import bigmodel_train

    bigmodel_train()


def _hold_at(where: str, number: str = "1") -> None:
    """Has what is done there wait, from that time on, until it is let go."""
    from bigmodel.checkpointing import checkpoint
    from bigmodel.data.batching import prefetch
    from bigmodel.engine import compiler
    from bigmodel.training import records, validation

    owner, name = {
        "evaluation": (validation, "evaluate"),
        "saving": (checkpoint, "save"),
        "compiling": (compiler, "_compile"),
        "step": (records, "make_record"),
        "sync": (os, "fsync"),
        "gathering": (prefetch, "_run"),
    }[where]
    act, calls = getattr(owner, name), itertools.count(1)

    def held(*args: Any, **more: Any) -> Any:
        if next(calls) < int(number):
            return act(*args, **more)
        if "between" in more:  # an evaluation may be left between two of its batches
            look = more["between"]
            more["between"] = lambda: (_wait(where), look())
        else:
            _wait(where)
        return act(*args, **more)

    setattr(owner, name, held)


def _wait(where: str) -> None:
    """Says that it is there, and waits to be let go; says whether a signal has come meanwhile."""
    from bigmodel.cli import session

    Path(HELD).write_text(where)
    parent = os.getppid()
    while not Path(GO).exists():
        if os.getppid() != parent:  # nobody is there any more to let it go
            os._exit(1)
        if session.current.signals.pending:
            Path(NOTED).touch()
        time.sleep(0.002)


MOMENTS = ("record", "recorded", "started", "records", "saved", "finished")
"""Within the writing of the record, and after it; when all is ready for the first step; when figures
were recorded and nothing saved; when two steps were saved; when `summary.json` says that all is done."""


def _kill_at(moment: str) -> None:
    from bigmodel.checkpointing import checkpoint
    from bigmodel.runtime import disk
    from bigmodel.training import lifecycle, loop

    saves = 0

    def kill(*_: Any) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def put(path: Path, content: bytes) -> None:
        if path.name == "hydra.yaml":
            kill()
        real_put(path, content)

    def save(*args: Any, **more: Any) -> None:
        nonlocal saves
        saves += 1
        if saves == (1 if moment == "records" else 3):
            kill()
        real_save(*args, **more)

    def write_summary(summary: Any, folder: Path) -> None:
        if moment == "started":
            kill()
        real_summary(summary, folder)
        if summary.status == "finished":
            kill()

    real_put, real_save, real_summary = disk.write_bytes, checkpoint.save, lifecycle.write_summary
    if moment == "record":
        disk.write_bytes = put
    elif moment == "recorded":
        loop.fit = kill
    elif moment in {"records", "saved"}:
        checkpoint.save = save
    else:
        lifecycle.write_summary = write_summary


def launch_at_once(cwd: Path, count: int, *argv: str) -> list[str]:
    """Starts runs that have nothing but the folder in common, all in the same moment.

    Returns:
        What went wrong, in words.
    """
    attempts = [launch(cwd, *argv) for _ in range(count)]
    statuses = [attempt.wait() for attempt in attempts]
    folders = {path.parent for path in cwd.glob("outputs/*/*/summary.json")}
    finished = [json.loads((f / "summary.json").read_text())["status"] == "finished" for f in folders]
    if statuses == [0] * count and len(folders) == count and all(finished):
        return []
    return [
        f"{count} launches ended with {statuses} in {len(folders)} folders",
        *(a.log for a in attempts),
    ]


def run_folder(cwd: Path) -> Path | None:
    """The newest run below a folder."""
    found = sorted(cwd.glob("outputs/*/*/.hydra"), key=lambda path: path.stat().st_mtime)
    return found[-1].parent if found else None


def whole(cwd: Path, *argv: str) -> str:
    """The digest of a run that nobody disturbs."""
    cwd.mkdir(parents=True, exist_ok=True)
    attempt = launch(cwd, *argv)
    assert attempt.wait() == 0, attempt.log
    folder = run_folder(cwd)
    assert folder is not None
    return digest(folder)


def digest(folder: Path) -> str:
    """One sum over all that has to be identical: each step's figures in `metrics.jsonl` and event files,
    once each, and the final weights, averages, optimizer, scheduler, metrics and random states."""
    groups, facts = checkpoint.load(folder / "checkpoints" / "last")
    sums = hashlib.sha256()
    for group in sorted(groups):
        for name, tensor in sorted(groups[group].items()):
            sums.update(f"{group} {name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            sums.update(tensor.numpy().tobytes())
    facts["progress"].pop("seconds")
    for name in ("best", "final"):
        for speed in SPEEDS:
            facts["progress"][name].pop(speed, None)
    sums.update(repr(facts).encode())
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    for record in records:
        for speed in SPEEDS:
            record.pop(speed, None)
    assert [record["step"] for record in records] == list(range(1, len(records) + 1)), "each step once"
    sums.update(json.dumps(records).encode())
    losses = event_scalars(folder, "train/loss")
    assert [step for step, _ in losses] == [record["step"] for record in records], "each step once"
    sums.update(repr(losses).encode())
    return sums.hexdigest()


def event_scalars(folder: Path, tag: str) -> list[tuple[int, float]]:
    """Every (step, value) of a curve, as TensorBoard reads the run's event files."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    if not (folder / "tensorboard").exists():  # it was killed before there was one
        return []
    events = EventAccumulator(str(folder / "tensorboard"), size_guidance={"scalars": 0}).Reload()
    if tag not in events.Tags()["scalars"]:
        return []
    return [(event.step, event.value) for event in events.Scalars(tag)]


def acknowledged(cwd: Path) -> int:
    """The newest step whose checkpoint is whole; 0 without any."""
    folder = run_folder(cwd)
    names = manifest.GENERATIONS
    if folder is None or not any((folder / "checkpoints" / name).exists() for name in names):
        return 0
    step: int = checkpoint.load_newest(folder / "checkpoints").facts["progress"]["step"]
    return step


def finished(cwd: Path) -> bool:
    """Whether the newest run has trained to its end, so that nothing is left to go on with."""
    folder = run_folder(cwd)
    summary = None if folder is None else read_summary(folder)
    return summary is not None and summary.status == "finished"


def compared(cwd: Path, expected: str, tidy: bool = True) -> list[str]:
    """In what a run's end differs from that of the run nobody disturbed, in words.

    Args:
        tidy: its last process has ended by itself, so that it has taken its lock away.
    """
    folder = run_folder(cwd)
    if folder is None:
        return [f"{cwd}: there is no run"]
    try:
        same = digest(folder) == expected
    except AssertionError as error:
        return [f"{folder}: not {error}"]
    if not same:
        return [f"{folder}: the end is another than that of the run nobody disturbed"]
    return [f"left behind: {left}" for left in leftovers(folder)] if tidy else []


def leftovers(folder: Path) -> list[str]:
    """Files that no run should leave behind."""
    return [
        str(path) for path in folder.rglob("*") if path.name.endswith(".tmp") or path.name == ".lock"
    ]
