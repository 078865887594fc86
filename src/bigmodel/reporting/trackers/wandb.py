"""Weights & Biases: its service, a server of one's own, or files to be sent later."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bigmodel.errors import shell_quoted
from bigmodel.reporting.trackers.base import Tracker
from bigmodel.reporting.trackers.described import Description, Progress
from bigmodel.reporting.trackers.records import Figures


class Wandb(Tracker):
    """A run of the project `bigmodel` unless `WANDB_PROJECT` names another.

    The library keeps everything in a file of its own before it sends it. So what it was given is safe,
    and the folders of files that it has not sent are remembered until `wandb sync` has sent them.
    """

    names = ("WANDB_PROJECT", "WANDB_ENTITY")
    places = ("WANDB_BASE_URL",)

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        for name, value in {"WANDB_SILENT": "true", "WANDB_ERROR_REPORTING": "false"}.items():
            os.environ.setdefault(name, value)
        self._run: Any = None
        self._progress = Progress()

    def new_id(self, run: Description) -> str:  # noqa: ARG002
        return uuid.uuid4().hex[:12]

    def open(self, run: Description, progress: Progress) -> str:
        import wandb

        self._progress = progress
        offline = os.environ.get("WANDB_MODE") in ("offline", "dryrun")
        if not offline:
            self._send_files()
        self._tidy()
        try:
            self._run = wandb.init(
                project=os.environ.get("WANDB_PROJECT") or "bigmodel",
                id=progress.id,
                resume="allow",
                dir=str(self.folder),
                name=run.name,
                tags=run.tags,
                notes=run.notes or None,
                group=run.group or None,
                job_type="train",
                config={**run.config, "folder": run.folder},
                settings=wandb.Settings(
                    console="off", init_timeout=15, x_stats_pid=os.getppid(), program="bigmodel-train"
                ),
            )
        except BaseException:
            self._tidy()
            raise
        # Steps of our own: W&B drops those that are not larger than the last, as after a resume.
        self._run.define_metric("step", hidden=True)
        self._run.define_metric("*", step_metric="step")
        self._files = Path(self._run.dir).parent.name
        progress.unsent = [*progress.unsent, self._files]
        return f"offline, in {self._path(self._files)}" if offline else str(self._run.url)

    def _tidy(self) -> None:
        """Removes the library's files of what was sent, and those of runs that it could not begin."""
        for path in self.folder.glob("wandb/*run-*-*"):
            if not path.is_symlink() and path.name not in self._progress.unsent:
                shutil.rmtree(path, ignore_errors=True)

    def _path(self, name: str) -> str:
        path, here = self.folder / "wandb" / Path(name).name, Path.cwd()
        return str(path.relative_to(here) if path.is_relative_to(here) else path)

    def _send_files(self) -> None:
        """Sends the files that are left of earlier processes."""
        folders = [self._path(name) for name in self._progress.unsent]
        for folder in [each for each in folders if Path(each).is_dir()]:
            command = [sys.executable, "-P", "-m", "wandb", "sync", folder]
            sent = subprocess.run(
                command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
            )
            if sent.returncode:
                said = (sent.stderr or sent.stdout).strip().splitlines() or ["no reason is given"]
                raise RuntimeError(f"wandb sync {folder} failed: {said[-1]}")
        self._progress.unsent = []

    def log(self, records: Sequence[Figures]) -> None:
        for record in records:
            self._run.log(record)

    def finish(self, status: str, results: Figures, facts: Mapping[str, Any]) -> str:
        self._run.summary.update({**results, **facts, "status": status})
        offline = bool(self._run.offline)
        self._run.finish(exit_code=0 if status in ("finished", "stopped", "pruned") else 1)
        if offline:
            folders = [shell_quoted(self._path(name)) for name in self._progress.unsent]
            return f"wandb sync {' '.join(folders)}"
        self._progress.unsent.remove(self._files)
        return ""
