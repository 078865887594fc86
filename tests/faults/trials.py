"""Runs that are ended by force and resumed, as real processes; shared by the tests and
`scripts/prove_reliability.py`.

The processes are forked from a server that has already loaded torch, so that a trial takes a second.
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

SAVED_BY_TIME = (
    *(word for word in RECIPE if "every_steps=1" not in word or "record" in word),
    "trainer.checkpoint.every_minutes=0.002",
    "trainer.epochs=60",
)
"""One that is saved every 0.12 seconds, between steps, and at the end of each epoch."""

HELD, NOTED, RELEASED = "held", "noted", "released"
"""Files in a run's current folder: the run waits where `hold` says; it has received a signal there; it
may go on."""

TEST = "TEST_PROCESS"
"""The variable with the number of a process that is there as long as the test is."""

TIMEOUT = 600.0
"""Seconds after which a process counts as hung; no run takes that long, however busy the machine."""

_server = multiprocessing.get_context("forkserver")
_server.set_forkserver_preload(
    [
        *("bigmodel.build.new_run", "bigmodel.training.loop", "bigmodel.reporting.tensorboard_events"),
        *("bigmodel.cli.train", "bigmodel.cli.job", "hydra.main", "hydra._internal.hydra"),
    ]
)


@dataclass
class Attempt:
    """A process of `bigmodel-train`.

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
        """Waits for the end; returns the exit status as a shell gives it.

        Raises:
            TimeoutError: it hung, and was killed.
        """
        self.process.join(TIMEOUT)
        if self.process.exitcode is None:
            self.process.kill()
            self.process.join()
            raise TimeoutError(f"still running after {TIMEOUT} s:\n{self.log}")
        return self.process.exitcode if self.process.exitcode >= 0 else 128 - self.process.exitcode

    def wait_until(self, condition: Callable[[], object]) -> None:
        """Waits for a condition; fails if the process ends first."""
        deadline = time.monotonic() + TIMEOUT
        while not condition():
            assert self.process.is_alive(), self.log
            assert time.monotonic() < deadline, self.log
            time.sleep(0.002)

    def wait_until_held(self) -> None:
        """Waits until it stops where `hold` says."""
        self.wait_until((self.cwd / HELD).exists)

    def release(self) -> None:
        """Lets it go on from where it is held."""
        (self.cwd / RELEASED).touch()

    def send(self, number: int) -> None:
        os.kill(self.pid, number)

    @property
    def children(self) -> list[int]:
        """The processes that it has started, in their order."""
        return [
            int(pid) for pid in Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()
        ]


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
        hold: where it waits until it is released: in `evaluation`, `saving` or `compiling`, at the
            record of a step (`step 5`), at the n-th fsync (`sync 12`), in a thread that gathers its
            second block (`gathering 2`); several separated by commas; or nowhere.
        killed_at: one of `MOMENTS`, at which the process ends as by kill -9.
        environment: additional variables.
    """
    for name in (HELD, NOTED, RELEASED):
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
    os.environ |= environment | {"NO_COLOR": "1", TEST: str(os.getppid())}
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
    """Makes the n-th call there, and all later ones, wait until the run is released."""
    from bigmodel.checkpointing import checkpoint
    from bigmodel.data.batching import prefetch
    from bigmodel.engine.native import compiler
    from bigmodel.training import records, validation

    owner, name = {
        "evaluation": (validation, "evaluate"),
        "saving": (checkpoint, "save"),
        "compiling": (compiler, "build"),
        "step": (records, "make_record"),
        "sync": (os, "fsync"),
        "gathering": (prefetch, "_run"),
    }[where]
    act, calls = getattr(owner, name), itertools.count(1)

    def held(*args: Any, **more: Any) -> Any:
        if next(calls) < int(number):
            return act(*args, **more)
        if "between" in more:  # an evaluation can be interrupted between batches
            look = more["between"]
            more["between"] = lambda: (_wait(where), look())
        else:
            _wait(where)
        return act(*args, **more)

    setattr(owner, name, held)


def _wait(where: str) -> None:
    """Writes HELD, NOTED if a signal arrives, and waits for RELEASED."""
    from bigmodel.cli import invocation

    Path(HELD).write_text(where)
    watched = int(os.environ.get(TEST) or os.getppid())
    while not Path(RELEASED).exists():
        try:
            os.kill(watched, 0)
        except ProcessLookupError:  # the test is gone
            os._exit(1)
        if invocation.current.signals.pending or invocation.current.signals.received:
            Path(NOTED).touch()
        time.sleep(0.002)


MOMENTS = ("record", "recorded", "started", "records", "saved", "finished")
"""While `.hydra` is written, and after that; just before the first step; with metrics recorded but
nothing saved; after two saved steps; when `summary.json` says that the run has finished."""


def _kill_at(moment: str) -> None:
    from bigmodel.build import new_run
    from bigmodel.checkpointing import checkpoint
    from bigmodel.runtime import disk
    from bigmodel.training import loop

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

    real_put, real_save, real_summary = disk.write_bytes, checkpoint.save, new_run.write_summary
    if moment == "record":
        disk.write_bytes = put
    elif moment == "recorded":
        loop.fit = kill
    elif moment in {"records", "saved"}:
        checkpoint.save = save
    else:
        new_run.write_summary = write_summary


def launch_at_once(cwd: Path, count: int, *argv: str) -> list[str]:
    """Starts independent runs in the same folder at the same moment.

    Returns:
        What went wrong.
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


def summary(cwd: Path) -> dict[str, Any]:
    """The `summary.json` of the newest run below a folder."""
    folder = run_folder(cwd)
    assert folder is not None
    content: dict[str, Any] = json.loads((folder / "summary.json").read_text())
    return content


def run_uninterrupted(cwd: Path, *argv: str) -> str:
    """Runs to the end without interruption; returns the digest."""
    cwd.mkdir(parents=True, exist_ok=True)
    attempt = launch(cwd, *argv)
    assert attempt.wait() == 0, attempt.log
    folder = run_folder(cwd)
    assert folder is not None
    return digest(folder)


def digest(folder: Path) -> str:
    """A hash of everything that must be identical: each step's metrics in `metrics.jsonl` and the event
    files, once each, and the final weights, EMA, optimizer, scheduler, metrics and random states."""
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

    files = list((folder / "tensorboard").glob("*/events.out.*"))
    if not files:  # it was killed before there was one
        return []
    events = EventAccumulator(str(files[0].parent), size_guidance={"scalars": 0}).Reload()
    if tag not in events.Tags()["scalars"]:
        return []
    return [(event.step, event.value) for event in events.Scalars(tag)]


def last_saved_step(cwd: Path) -> int:
    """The newest step with a complete checkpoint; 0 without any."""
    folder = run_folder(cwd)
    names = manifest.GENERATIONS
    if folder is None or not any((folder / "checkpoints" / name).exists() for name in names):
        return 0
    step: int = checkpoint.load_newest(folder / "checkpoints").facts["progress"]["step"]
    return step


def finished(cwd: Path) -> bool:
    """Whether the newest run has trained to its end."""
    folder = run_folder(cwd)
    summary = None if folder is None else read_summary(folder)
    return summary is not None and summary.status == "finished"


def differences(cwd: Path, expected: str, tidy: bool = True) -> list[str]:
    """How a run's end differs from that of the uninterrupted run.

    Args:
        tidy: its last process ended by itself, so it must have removed its lock.
    """
    folder = run_folder(cwd)
    if folder is None:
        return [f"{cwd}: there is no run"]
    try:
        same = digest(folder) == expected
    except AssertionError as error:
        return [f"{folder}: not {error}"]
    if not same:
        return [f"{folder}: the end differs from that of the uninterrupted run"]
    return [f"left behind: {left}" for left in leftovers(folder)] if tidy else []


def leftovers(folder: Path) -> list[str]:
    """Files that no run may leave behind."""
    return [
        str(path) for path in folder.rglob("*") if path.name.endswith(".tmp") or path.name == ".lock"
    ]
