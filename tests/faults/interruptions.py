"""Signals at a chosen moment of a run; what the tests and `scripts/prove_reliability.py` share."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from . import trials

PHASES = ("start", "training", "evaluation", "saving")
STATUS = {signal.SIGTERM: 143, signal.SIGINT: 130}
GRACE = 10.0
"""Seconds in which a run that was asked to stop has to be gone."""


def interrupt(
    cwd: Path, expected: str, number: signal.Signals, phase: str, wait: float = 0.0
) -> list[str]:
    """Sends a signal in a phase of a run, has the run go on where it stopped, and compares.

    Args:
        expected: the digest of the run that nobody disturbs.
        wait: seconds from the beginning of the phase to the signal.

    Returns:
        What went wrong, in words.
    """
    cwd.mkdir(parents=True)
    if phase == "start":
        return _interrupt_start(cwd, number, wait)
    slow = phase if phase in {"evaluation", "saving"} else None
    attempt = trials.launch(cwd, *trials.RECIPE, slow=slow)
    _until(attempt, (lambda: (cwd / "slow").exists()) if slow else (lambda: _records(cwd) > 2))
    time.sleep(wait)
    attempt.send(number)
    asked = time.monotonic()
    if number == signal.SIGUSR1:
        status = attempt.wait()
        faults = [] if status == 0 else [f"exit status {status} after SIGUSR1:\n{attempt.log}"]
        if "as a signal asked for" not in attempt.log:
            faults.append(f"did not save on SIGUSR1:\n{attempt.log}")
        return faults + trials.compared(cwd, expected)
    status = attempt.wait(GRACE)
    faults = _stopped(cwd, status, number, time.monotonic() - asked, attempt.log)
    folder = trials.run_folder(cwd)
    again = trials.launch(cwd, f"resume={folder}")
    if again.wait() != 0:
        faults.append(f"did not go on:\n{again.log}")
    return faults + trials.compared(cwd, expected)


def leave_at_once(cwd: Path, number: signal.Signals) -> list[str]:
    """Sends a signal twice: the process is gone at once, and the checkpoint before still loads."""
    cwd.mkdir(parents=True)
    attempt = trials.launch(cwd, *trials.RECIPE)
    _until(attempt, lambda: _records(cwd) > 4)
    attempt.send(number)
    time.sleep(0.001)
    attempt.send(number)
    asked = time.monotonic()
    status, seconds = attempt.wait(GRACE), time.monotonic() - asked
    faults = [] if status == STATUS[number] else [f"exit status {status}"]
    if seconds > 2:
        faults.append(f"took {seconds:.1f} s to leave at once")
    if trials.acknowledged(cwd) == 0:
        faults.append("no checkpoint is left")
    return faults


def _interrupt_start(cwd: Path, number: signal.Signals, wait: float) -> list[str]:
    """A fresh interpreter, since what is to be interrupted is the loading of torch."""
    program = Path(sys.executable).with_name("bigmodel-train")
    longer = [] if number == signal.SIGUSR1 else ["trainer.epochs=500"]  # not over before it is asked
    process = subprocess.Popen(
        [program, *trials.RECIPE, *longer], cwd=cwd, env=os.environ | {"NO_COLOR": "1"},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    time.sleep(wait)
    process.send_signal(number)
    asked = time.monotonic()
    if number == signal.SIGUSR1:
        printed, _ = process.communicate(timeout=120)
        saved = process.returncode == 0 and "as a signal asked for" in printed
        return [] if saved else [f"status {process.returncode} after SIGUSR1 at the start:\n{printed}"]
    try:
        printed, _ = process.communicate(timeout=GRACE)
    except subprocess.TimeoutExpired:
        process.kill()
        return [f"did not leave within {GRACE:g} s at the start"]
    faults = []
    folder = trials.run_folder(cwd)
    if folder is not None:  # training had begun
        return _stopped(cwd, process.returncode, number, time.monotonic() - asked, printed)
    if process.returncode != STATUS[number]:
        faults.append(f"exit status {process.returncode} at the start:\n{printed}")
    if "Traceback" in printed or "Exception ignored" in printed:
        faults.append(f"a traceback at the start:\n{printed}")
    if left := [str(path) for path in cwd.rglob("*")]:
        faults.append(f"left behind at the start: {left}")
    return faults


def _stopped(cwd: Path, status: int, number: signal.Signals, seconds: float, log: str) -> list[str]:
    faults = []
    if status != STATUS[number] or seconds > GRACE:
        faults.append(f"exit status {status} after {seconds:.1f} s:\n{log}")
    folder = trials.run_folder(cwd)
    summary = json.loads((folder / "summary.json").read_text()) if folder else {}
    if summary.get("status") != "stopped":
        faults.append(f"summary.json says {summary.get('status')}:\n{log}")
    if "Traceback" in log:
        faults.append(log)
    return faults


def _records(cwd: Path) -> int:
    folder = trials.run_folder(cwd)
    path = folder / "metrics.jsonl" if folder else None
    return len(path.read_text().splitlines()) if path and path.exists() else 0


def _until(attempt: trials.Attempt, condition: object) -> None:
    assert callable(condition)
    deadline = time.monotonic() + 60
    while not condition():
        assert attempt.process.is_alive(), attempt.log
        assert time.monotonic() < deadline, attempt.log
        time.sleep(0.002)
