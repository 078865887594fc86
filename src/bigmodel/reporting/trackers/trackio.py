"""Trackio: a file of SQLite of the user's own, a server of one's own, or a Space of Hugging Face."""

from __future__ import annotations

import os
import time
import uuid
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bigmodel.reporting.trackers.base import Tracker
from bigmodel.reporting.trackers.described import Description, Progress
from bigmodel.reporting.trackers.records import Figures

_WRITTEN_WITHIN = 1.0
"""Seconds after which a thread of the library has written what it was given; it does so every half."""


class Trackio(Tracker):
    """A run of the project `bigmodel` unless `TRACKIO_PROJECT` names another.

    The library only warns of what it cannot write; here that is an error.
    """

    names = ("TRACKIO_PROJECT",)
    places = ("TRACKIO_DIR", "TRACKIO_SPACE_ID", "TRACKIO_SERVER_URL")

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        for name in ("GRADIO_ANALYTICS_ENABLED", "HF_HUB_DISABLE_TELEMETRY"):
            os.environ.setdefault(name, "0" if name.startswith("GRADIO") else "1")
        self._warnings: list[str] = []
        warnings.simplefilter("always")
        warnings.showwarning = self._note
        self._run: Any = None

    def new_id(self, run: Description) -> str:
        return f"{run.name}, {uuid.uuid4().hex[:6]}"  # a run is found again by its name alone

    def open(self, run: Description, progress: Progress) -> str:
        import trackio

        project = os.environ.get("TRACKIO_PROJECT") or "bigmodel"
        settings = {name: value for name, value in run.config.items() if not name.startswith("_")}
        more = {"title": run.title, "tags": run.tags, "notes": run.notes, "folder": run.folder}
        self._run = trackio.init(
            project,
            name=progress.id,
            group=run.group or None,
            config=settings | {name: value for name, value in more.items() if value},
            resume="allow",
            embed=False,
        )
        self._check()
        return f"run {progress.id}; trackio show --project {project} shows it"

    def log(self, records: Sequence[Figures]) -> None:
        for record in records:
            self._run.log({k: v for k, v in record.items() if k != "step"}, step=int(record["step"]))
        time.sleep(_WRITTEN_WITHIN)
        self._check()

    def finish(self, status: str, results: Figures, facts: Mapping[str, Any]) -> str:
        self._run.log({**results, **facts, "status": status}, step=int(facts.get("steps") or 0))
        self._run.finish()
        self._check()
        return ""

    def _note(self, message: Warning | str, category: type[Warning], *_: Any, **__: Any) -> None:
        if category is UserWarning:  # not, say, of an old name in its own code
            self._warnings.append(str(message))

    def _check(self) -> None:
        if self._warnings:
            raise RuntimeError(self._warnings[0])
