"""Files of a user's where a run writes: refused, or left alone; shared by the tests and
`scripts/prove_reliability.py`."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

from tests.faults import damage, trials

QUICK = ("debug=fast", "device=cpu", "device.threads=1", "trainer.tensorboard=false")

FILES = {
    "checkpoints/best/model.pt": "weights",
    "checkpoints/best-2/notes.txt": "mine",
    "metrics.jsonl": '{"step": 1}\n',
    "train.log": "a line\n",
    "tensorboard/events": "a curve",
    "profile/trace.json.gz": "a trace",
    "summary.json": "{}",
    ".hydra/config.yaml": "seed: 1\n",
    ".lock": "a note",
}
"""Where a run would write."""

COPIES = ("best-20261128", "best-2", "best-2.bak", "best.old", "last.old", "last.damaged", "previous-1")
"""Names for copies of checkpoints, beside them."""


def content(folder: Path) -> dict[str, bytes]:
    """All files below a folder."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def lay_out(folder: Path, files: Mapping[str, str]) -> dict[str, bytes]:
    """Writes files; returns all that are there."""
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return content(folder)


def refused(cwd: Path, name: str, kind: str) -> list[str]:
    """Starts a run, or a sweep, in a folder with one file of a user's.

    Returns:
        What went wrong, in words.
    """
    inner = cwd / "mine" / ("" if kind == "run" else "0")
    before = lay_out(inner, {name: FILES[name], "notes.txt": "mine"})
    sweep = ("-m", "hydra.sweep.dir=mine", "seed=1,2")
    attempt = trials.launch(cwd, *(("hydra.run.dir=mine",) if kind == "run" else sweep), *QUICK)
    status, faults = attempt.wait(), []
    if status != 1 or "Traceback" in attempt.log or "mine" not in attempt.log:
        faults.append(f"{name} in a {kind}: exit status {status}:\n{attempt.log}")
    if content(inner) != before:
        faults.append(f"{name} in a {kind}: files have changed")
    return faults


def left_alone(cwd: Path, name: str, expected: str, kind: str) -> list[str]:
    """Copies a checkpoint of a stopped run beside it, goes on, and compares.

    Args:
        name: the copy's.
        expected: the digest of the uninterrupted run.
        kind: the checkpoint that is copied, `best` or `last`.

    Returns:
        What went wrong, in words.
    """
    folder = damage.stopped_run(cwd, after=14)
    copy = folder / "checkpoints" / name
    shutil.copytree(folder / "checkpoints" / kind, copy)
    before = content(copy)
    attempt = trials.launch(cwd, f"resume={folder}")
    faults = [] if attempt.wait() == 0 else [f"{name}: did not go on:\n{attempt.log}"]
    if content(copy) != before:
        faults.append(f"{name}: the copy has changed")
    return faults + trials.differences(cwd, expected)
