"""Processes whose standard streams are closed, full or not read by anyone; shared by the tests and
`scripts/prove_reliability.py`."""

from __future__ import annotations

import atexit
import contextlib
import importlib
import io
import json
import os
import subprocess
import sys
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from bigmodel.checkpointing import checkpoint
from tests.faults import trials

TRAIN = ("-m", "bigmodel.cli.train")
USE = ("-m", "bigmodel.cli.commands.main")
QUICK = ("debug=fast", "device=cpu", "device.threads=1")
REDIRECTIONS = (
    *(">&-", "2>&-", "<&-", "<&- >&- 2>&-"),
    *("| true", "2>&1 | true", ">/dev/full", "2>/dev/full", ">/dev/full 2>/dev/full"),
)
"""In shell syntax."""


@dataclass
class Outcome:
    """How a process ended: its status as a shell gives it, and the output that arrived."""

    status: int
    out: str
    err: str


def call(cwd: Path, start: tuple[str, ...], *argv: str, redirected: str = "") -> Outcome:
    """Calls a program with its streams redirected.

    Args:
        cwd: its current folder.
        start: what follows `python`.
        argv: the program's arguments.
        redirected: in shell syntax.
    """
    cwd.mkdir(parents=True, exist_ok=True)
    first, pipe, reader = redirected.partition("|")
    out, status = subprocess.PIPE, cwd / "status"
    if reader.strip() == "true":  # gone for certain before anything is written
        read, out = os.pipe()
        os.close(read)
        pipe = reader = ""
    command = f'{{ "$@" {first}; echo $? >&9; }} {pipe} {reader}'
    done = subprocess.run(
        ["sh", "-c", f"exec 9>{status.name}; {command}", "sh", sys.executable, *start, *argv],
        cwd=cwd, env=os.environ | {"NO_COLOR": "1", "PYTHONPATH": os.pathsep.join(sys.path)},
        stdout=out, stderr=subprocess.PIPE, text=True, timeout=trials.TIMEOUT, check=False,
    )  # fmt: skip
    if out != subprocess.PIPE:
        os.close(out)
    code = int(status.read_text())
    status.unlink()
    return Outcome(code, done.stdout or "", done.stderr)


@dataclass
class Call:
    """A call of `bigmodel-train` or `bigmodel` in a folder, with its streams redirected."""

    cwd: str
    program: str
    argv: Sequence[str]
    redirected: str


def call_in_forks(calls: Sequence[Call]) -> list[Outcome]:
    """Makes each call in a fork of one process that has already loaded torch; what the interpreter
    does with redirected streams when it starts and ends is done by hand. Returns what `call` would."""
    code = "import sys; from tests.faults import streams; streams._call_in_forks(sys.stdin.read())"
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", code], input=json.dumps([asdict(call) for call in calls]),
        env=os.environ | {"NO_COLOR": "1", "PYTHONPATH": os.pathsep.join([str(root), *sys.path])},
        capture_output=True, text=True, timeout=trials.TIMEOUT, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = []
    for call, status in zip(calls, json.loads(done.stdout), strict=True):
        printed = (Path(call.cwd, name) for name in ("printed.out", "printed.err"))
        found.append(Outcome(status, *(path.read_text() for path in printed)))
    return found


def _call_in_forks(calls: str) -> None:
    """Imports what the calls have in common, then forks for each of them."""
    for module in (
        *("torch.export", "torch.onnx._internal.exporter._core", "onnxscript", "onnxruntime"),
        *("hydra.main", "bigmodel.cli.train", "bigmodel.build.new_run", "bigmodel.training.loop"),
        *("bigmodel.cli.commands.main", "bigmodel.cli.commands.export"),
    ):
        importlib.import_module(module)
    _export_once()

    statuses = []
    for call in json.loads(calls):
        child = os.fork()
        if child == 0:
            os._exit(_call_here(Call(**call)))
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        statuses.append(status if status >= 0 else 128 - status)
    sys.stdout.write(json.dumps(statuses))


def _export_once() -> None:
    """Has torch build the tables that every export needs, which takes seconds."""
    import torch

    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings(action="ignore"):
        torch.onnx.export(torch.nn.Linear(1, 1), (torch.ones(1, 1),), dynamo=True)


def _call_here(call: Call) -> int:
    from bigmodel.cli import entry

    os.chdir(call.cwd)
    _redirect(call.redirected)
    sys.argv, status = [call.program, *call.argv], 0
    try:
        entry.bigmodel_train() if call.program == "bigmodel-train" else entry.bigmodel()
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            return 120
    return status


def _redirect(redirected: str) -> None:
    """Redirects as a shell does, and sets up `sys.stdin` and the like as Python does when it starts."""
    for number, name in ((1, "printed.out"), (2, "printed.err")):
        _put(os.open(name, os.O_CREAT | os.O_WRONLY | os.O_APPEND), number)
    words, _, reader = redirected.partition("|")
    if reader:  # gone before anything is written
        read, write = os.pipe()
        os.close(read)
        _put(write, 1)
    for word in words.split():
        number = {"<": 0, ">": 1}.get(word[0], 2)
        what = word.lstrip("2<>")
        if what == "&-":
            os.close(number)
        elif what == "&1":
            os.dup2(1, number)
        else:
            _put(os.open(what, os.O_WRONLY), number)
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        stream: io.TextIOWrapper | None = None
        try:
            os.fstat(number)
        except OSError:
            pass
        else:
            mode, buffered_by_line = ("r", -1) if number == 0 else ("w", 1 if number == 2 else -1)
            stream = open(number, mode, buffered_by_line, closefd=False)  # noqa: SIM115
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)


def _put(file: int, number: int) -> None:
    os.dup2(file, number)
    os.close(file)


def train(cwd: Path, redirected: str) -> list[str]:
    """Trains with streams redirected.

    Returns:
        What went wrong.
    """
    return faults_of(cwd, call(cwd, TRAIN, *QUICK, redirected=redirected), redirected)


def faults_of(cwd: Path, ended: Outcome, redirected: str) -> list[str]:
    """What went wrong in a training run in `cwd` with streams redirected."""
    faults = [] if ended.status == 0 else [f"{redirected}: exit status {ended.status}"]
    if ended.err:
        faults.append(f"{redirected}: {ended.err}")
    folder = trials.run_folder(cwd)
    if folder is None:
        return [*faults, f"{redirected}: no run"]
    if json.loads((folder / "summary.json").read_text())["status"] != "finished":
        faults.append(f"{redirected}: it is not finished")
    if not checkpoint.load(folder / "checkpoints" / "last"):
        faults.append(f"{redirected}: no checkpoint")
    if "Finished" not in (folder / "train.log").read_text():
        faults.append(f"{redirected}: train.log is incomplete")
    return faults
