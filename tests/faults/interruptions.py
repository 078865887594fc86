"""Signals at a chosen moment of a run; shared by the tests and `scripts/prove_reliability.py`."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

from tests.faults import trials

PHASES = ("start", "training", "evaluation", "saving")
STATUS = {signal.SIGTERM: 143, signal.SIGINT: 130}
if hasattr(signal, "SIGHUP"):
    STATUS[signal.SIGHUP] = 129


def interrupt(
    cwd: Path, expected: str, number: signal.Signals, phase: str, wait: float = 0.0
) -> list[str]:
    """Sends a signal in a phase of a run, has the run go on where it stopped, and compares.

    Args:
        expected: the digest of the uninterrupted run.
        wait: seconds from the start to the signal, in the phase `start`.

    Returns:
        What went wrong, in words.
    """
    cwd.mkdir(parents=True)
    if phase == "start":
        return _interrupt_start(cwd, number, wait)
    hold = "step 3" if phase == "training" else phase
    attempt = trials.launch(cwd, *trials.RECIPE, hold=hold)
    attempt.wait_until_held()
    attempt.send(number)
    attempt.wait_until((cwd / trials.NOTED).exists)
    attempt.release()
    status = attempt.wait()
    if number == signal.SIGUSR1:
        faults = [] if status == 0 else [f"exit status {status} after SIGUSR1:\n{attempt.log}"]
        if "as a signal requested" not in attempt.log:
            faults.append(f"did not save on SIGUSR1:\n{attempt.log}")
        return faults + trials.differences(cwd, expected)
    faults = _stopped(cwd, status, number, attempt.log)
    folder = trials.run_folder(cwd)
    again = trials.launch(cwd, f"resume={folder}")
    if again.wait() != 0:
        faults.append(f"did not go on:\n{again.log}")
    return faults + trials.differences(cwd, expected)


def leave_at_once(cwd: Path, number: signal.Signals) -> list[str]:
    """Sends a signal twice: the process is gone, wherever it is, and the checkpoint before loads."""
    cwd.mkdir(parents=True)
    attempt = trials.launch(cwd, *trials.RECIPE, hold="step 5")
    attempt.wait_until_held()
    saved = "outputs/*/*/checkpoints/last/manifest.json"  # not loaded: the next one may take its place
    attempt.wait_until(lambda: any(cwd.glob(saved)))
    attempt.send(number)
    attempt.wait_until((cwd / trials.NOTED).exists)
    attempt.send(number)  # and nobody lets it go
    status = attempt.wait()
    faults = [] if status == STATUS[number] else [f"exit status {status}"]
    if trials.last_saved_step(cwd) == 0:
        faults.append("no checkpoint is left")
    return faults


def hang_up(cwd: Path, expected: str, *, ignored: bool) -> list[str]:
    """Closes the terminal that a run was started in, has it go on, and compares.

    Args:
        expected: the digest of the uninterrupted run.
        ignored: start it as `nohup` does: then the terminal's end means nothing to it.
    """
    cwd.mkdir(parents=True)
    ours, its = os.openpty()
    ignore = "trap '' HUP; " if ignored else ""
    program = [sys.executable, "-c", _HELD_AT_STEP_3, *trials.RECIPE]
    process = subprocess.Popen(
        ["sh", "-c", f'{ignore}exec "$@"', "sh", sys.executable, "-c", _IN_A_TERMINAL, *program],
        cwd=cwd, stdin=its, stdout=its, stderr=its, env=os.environ | {"PYTHONPATH": _PATH},
        start_new_session=True,
    )  # fmt: skip
    os.close(its)
    reader = threading.Thread(target=_read_all, args=(ours, held := cwd / trials.HELD))
    reader.start()
    reader.join(trials.TIMEOUT)
    os.close(ours)  # the kernel sends SIGHUP, and whoever writes is told EIO
    if not ignored:
        while not (cwd / trials.NOTED).exists() and process.poll() is None:
            time.sleep(0.002)
    (cwd / trials.RELEASED).touch()
    status = process.wait(trials.TIMEOUT)
    assert held.exists()
    if ignored:
        faults = [] if status == 0 else [f"exit status {status} though SIGHUP is ignored"]
        return faults + trials.differences(cwd, expected)
    faults = _stopped(cwd, status, signal.SIGHUP, "")
    again = trials.launch(cwd, f"resume={trials.run_folder(cwd)}")
    if again.wait() != 0:
        faults.append(f"did not go on:\n{again.log}")
    return faults + trials.differences(cwd, expected)


def _read_all(terminal: int, held: Path) -> None:
    """Reads what is shown until the run is held, so that it is never kept from writing."""
    while not held.exists():
        if select.select([terminal], [], [], 0.01)[0]:
            try:
                os.read(terminal, 1 << 16)
            except OSError:  # the process has ended
                return


_PATH = os.pathsep.join(map(str, (*map(Path, sys.path), Path(__file__).parents[2])))
_IN_A_TERMINAL = """
import fcntl, os, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)  # as a terminal's shell has it
os.execv(sys.argv[1], sys.argv[1:])
"""
_HELD_AT_STEP_3 = """
from tests.faults import trials
trials._hold_at("step", "3")
from bigmodel.cli.entry import bigmodel_train
bigmodel_train()
"""


def _interrupt_start(cwd: Path, number: signal.Signals, wait: float) -> list[str]:
    """A fresh interpreter, since what is to be interrupted is the loading of torch."""
    longer = [] if number == signal.SIGUSR1 else ["trainer.epochs=500"]  # not over before it is asked
    process = subprocess.Popen(
        [sys.executable, "-m", "bigmodel.cli.train", *trials.RECIPE, *longer], cwd=cwd,
        env=os.environ | {"NO_COLOR": "1"}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    time.sleep(wait)
    process.send_signal(number)
    try:
        printed, _ = process.communicate(timeout=trials.TIMEOUT)
    except subprocess.TimeoutExpired:
        process.kill()
        return ["did not leave at the start"]
    if number == signal.SIGUSR1:
        saved = process.returncode == 0 and "as a signal requested" in printed
        return [] if saved else [f"status {process.returncode} after SIGUSR1 at the start:\n{printed}"]
    faults = []
    folder = trials.run_folder(cwd)
    if folder is not None:  # training had begun
        return _stopped(cwd, process.returncode, number, printed)
    if process.returncode not in {STATUS[number], -number}:  # the latter before our first line
        faults.append(f"exit status {process.returncode} at the start:\n{printed}")
    if len(printed.splitlines()) > 1:
        faults.append(f"more than a line at the start:\n{printed}")
    if left := [str(path) for path in cwd.rglob("*")]:
        faults.append(f"left behind at the start: {left}")
    return faults


def _stopped(cwd: Path, status: int, number: signal.Signals, log: str) -> list[str]:
    faults = []
    if status != STATUS[number]:
        faults.append(f"exit status {status}:\n{log}")
    folder = trials.run_folder(cwd)
    summary = json.loads((folder / "summary.json").read_text()) if folder else {}
    if summary.get("status") != "stopped":
        faults.append(f"summary.json says {summary.get('status')}:\n{log}")
    if "Traceback" in log:
        faults.append(log)
    return faults
