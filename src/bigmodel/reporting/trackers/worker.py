"""The process of one tracker: reads a run's records from its folder, and hands them to a library.

It is started with the name of the tracker, the run's folder and the step after which the run goes on,
and obeys lines on its standard input: `rewind STEP`, and `finish`. What it has to say goes to standard
output, a JSON object a line: `where`, then `failed` or `done`. What the library prints goes to a log.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import re
import signal
import sys
import threading
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, NoReturn

from bigmodel.errors import BigModelError, CheckpointError, first_line
from bigmodel.redaction import looks_secret, masked, remember
from bigmodel.reporting.trackers import FOLDER, described
from bigmodel.reporting.trackers.base import Tracker
from bigmodel.reporting.trackers.described import Description, Progress
from bigmodel.reporting.trackers.records import Figures, Records
from bigmodel.runtime import run_summary
from bigmodel.runtime.file_lock import locked

_CLASSES = {"mlflow": "MLflow", "trackio": "Trackio", "wandb": "Wandb"}
_PERIOD = 1.0
"""Seconds between looks at the file of records."""

_ALONE = 30.0
"""Seconds for the rest once the process that trains is gone."""

_LONGEST = 300
"""Letters of a reason."""


def main() -> NoReturn:
    """The whole of the process: nothing of the library runs after it, however it has ended."""
    name, folder, after = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
    line = _Line(described.log_path(folder, name))
    try:
        _lower_priority()
        for variable, value in os.environ.items():
            if looks_secret(variable) and variable not in ("PWD", "OLDPWD"):  # which are folders
                remember(value)
        # The worker of a run that was killed may still be sending: it would end what this one begins.
        with locked(described.lock_path(folder, name)):
            needs = _work(name, folder, after, line)
        line.say(done=needs)
    except BaseException as error:  # a library may exit
        line.say(failed=reason(error))
        with contextlib.suppress(Exception):
            traceback.print_exc()  # to the log
    _end()


def _work(name: str, folder: Path, after: int, line: _Line) -> str:
    run = Description.read(described.description_path(folder))
    if run is None:
        raise CheckpointError(f"{described.description_path(folder)}: is missing.")
    kept = described.progress_path(folder, name)
    progress = Progress.read(kept) or Progress()
    records = Records(folder / run.records, progress.position)
    if after >= 0:
        records.rewind(after)
    progress.position, progress.ended = records.position, ""
    module = importlib.import_module(f"bigmodel.reporting.trackers.{name}")
    kind: type[Tracker] = getattr(module, _CLASSES[name])
    for variable in set(kind.names) & set(progress.place):
        os.environ.setdefault(variable, progress.place[variable])
    tracker = kind(folder / FOLDER)
    place = _place([*kind.names, *kind.places])
    progress.id = progress.id or tracker.new_id(run)
    for variable in kind.places:
        if (before := progress.place.get(variable)) not in (None, place.get(variable)):
            raise CheckpointError(
                f"the run is kept where {variable}={before}. Set that again, or move {kept} away to send"
                " the run as a new one."
            )
    progress.write(kept)  # first: a run that is begun has to be found again
    try:
        where = tracker.open(run, progress)
        progress.place = place
    finally:
        progress.write(kept)
    line.say(where=without_secrets(where))
    _send(tracker, records, progress, kept, line)
    summary = run_summary.read_leniently(folder) or {}
    status = str(summary.get("status") or "")
    status = "failed" if status in ("", "running") else status  # it was killed
    needs = tracker.finish(status, _results(summary), _facts(summary))
    progress.ended = status
    progress.write(kept)
    return needs


def _place(variables: Sequence[str]) -> dict[str, str]:
    """Where runs are kept now; what may hold a password or a key is not for a file."""
    found = {name: os.environ[name] for name in variables if name in os.environ}
    return {name: value for name, value in found.items() if not re.search("@|token", value)}


def _send(tracker: Tracker, records: Records, progress: Progress, kept: Path, line: _Line) -> None:
    """Hands over records until there will be no more."""
    over = False
    while True:
        while (step := line.rewound()) is not None:
            records.rewind(step)
        new, position = records.read()
        if new:
            tracker.log(new)
        if position != progress.position:
            records.position = progress.position = position
            progress.write(kept)
        elif over:
            return
        else:
            over = line.finishing.wait(_PERIOD)


class _Line:
    """The line to the process that trains; takes the place of the standard streams.

    Attributes:
        finishing: whether nothing more will be recorded.
    """

    def __init__(self, log: Path) -> None:
        self._answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
        requests = os.fdopen(os.dup(0), encoding="utf-8")
        nothing = os.open(os.devnull, os.O_RDONLY)
        try:
            printed = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
        except OSError:
            printed = os.open(os.devnull, os.O_WRONLY)
        for number, replaced in ((nothing, 0), (printed, 1), (printed, 2)):
            os.dup2(number, replaced)
        self.finishing = threading.Event()
        self._rewinds: SimpleQueue[int] = SimpleQueue()
        threading.Thread(target=self._listen, args=(requests,), daemon=True).start()

    def _listen(self, requests: Any) -> None:
        asked = False
        for request in requests:
            word, _, number = request.strip().partition(" ")
            if word == "rewind":
                self._rewinds.put(int(number))
            else:
                asked = True
                self.finishing.set()
        self.finishing.set()
        if not asked:  # the process that trains is gone
            threading.Timer(_ALONE, _end).start()

    def rewound(self) -> int | None:
        """The step after which the run goes on, if it went back since the last call."""
        try:
            return self._rewinds.get_nowait()
        except Empty:
            return None

    def say(self, **what: str) -> None:
        """Tells the process that trains."""
        with contextlib.suppress(OSError):  # it is gone
            self._answers.write(json.dumps(what) + "\n")
            self._answers.flush()


def reason(error: BaseException) -> str:
    """Why it has failed, on one line, without secrets."""
    if isinstance(error, SystemExit):
        text = f"the library has exited: {error}"
    elif isinstance(error, BigModelError):
        text = error.in_sweep
    else:
        text = f"{type(error).__name__}: {first_line(error)}".removesuffix(": ")
    text = re.sub(r"with exception .*\(Caused by (.*)\)$", r"failed: \1", text)  # as urllib3 nests them
    text = without_secrets(text)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"


def without_secrets(text: str) -> str:
    """A text without known secrets, and without names, passwords and tokens in URLs."""
    text = re.sub(r"//[^/@\s]+@", "//***@", masked(text))
    return re.sub(r"([?&]\w*token=)[^&\s'\"]+", r"\1***", text)


def _results(summary: Mapping[str, Any]) -> Figures:
    """Figures of the best record and of the test set."""
    best, test = summary.get("best") or {}, summary.get("test") or {}
    named = {f"best/{name}": value for name, value in best.items()} | dict(test)
    return {name: value for name, value in named.items() if isinstance(value, int | float)}


def _facts(summary: Mapping[str, Any]) -> dict[str, Any]:
    names = ("steps", "epochs", "seconds", "parameters", "monitor", "error")
    return {name: summary[name] for name in names if summary.get(name) not in (None, "")}


def _lower_priority() -> None:
    with contextlib.suppress(OSError, AttributeError):
        os.nice(5)  # training comes first


def _end() -> NoReturn:
    """Ends this process and those that it has started, without what the library does at exit."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    if hasattr(os, "killpg") and os.getpgid(0) == os.getpid():
        os.killpg(0, signal.SIGKILL)
    os._exit(0)


if __name__ == "__main__":
    main()
