"""MLflow: a server, or a file of SQLite beside the outputs. `MLFLOW_TRACKING_URI` says which."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit, urlunsplit

from bigmodel.redaction import remember
from bigmodel.reporting.trackers.base import Tracker
from bigmodel.reporting.trackers.described import Description, Progress, flat_settings
from bigmodel.reporting.trackers.records import Figures

_DEFAULTS = {
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",  # seconds; a request is made again by the next worker
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ENABLE_ASYNC_LOGGING": "false",
}
_STATUS = {"finished": "FINISHED", "failed": "FAILED"}  # what ended otherwise was KILLED
_AT_ONCE = 1000
"""Figures in a request, as the server allows."""
_PARAMETERS_AT_ONCE = 100
_LONGEST = 500
"""Letters of a parameter's value that every version keeps."""


class MLflow(Tracker):
    """A run of an experiment, `bigmodel` unless `MLFLOW_EXPERIMENT_NAME` names another."""

    names = ("MLFLOW_EXPERIMENT_NAME",)
    places = ("MLFLOW_TRACKING_URI",)

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        for name, value in _DEFAULTS.items():
            os.environ.setdefault(name, value)
        take_out_user()
        from mlflow import MlflowClient

        self._client = MlflowClient()
        os.environ["MLFLOW_TRACKING_URI"] = (
            self._client.tracking_uri
        )  # by default, in the current folder
        self._id = ""
        self._step = 0

    def open(self, run: Description, progress: Progress) -> str:
        tags = {
            "mlflow.note.content": run.notes,
            "mlflow.source.name": "bigmodel-train",
            "mlflow.source.type": "LOCAL",
            "group": run.group,
            "tags": ", ".join(run.tags),
            "title": run.title,
            "folder": run.folder,
        }
        known = {}
        if progress.id:
            self._id = progress.id
            known = self._client.get_run(self._id).data.params
            self._client.update_run(self._id, status="RUNNING", name=run.name)
        else:
            experiment = self._experiment(os.environ.get("MLFLOW_EXPERIMENT_NAME") or "bigmodel")
            tags = {name: value for name, value in tags.items() if value}
            made = self._client.create_run(experiment, tags=tags, run_name=run.name)
            self._id = progress.id = made.info.run_id
        self._log_settings(flat_settings(run.config), known)
        return self._where()

    def _experiment(self, name: str) -> str:
        from mlflow.exceptions import MlflowException

        if (found := self._client.get_experiment_by_name(name)) is None:
            with suppress(MlflowException):  # another job of a sweep was quicker
                return str(self._client.create_experiment(name))
            found = self._client.get_experiment_by_name(name)
        if found is None:
            raise RuntimeError(f"There is no experiment '{name}', and it cannot be created.")
        return str(found.experiment_id)

    def _log_settings(self, settings: Mapping[str, Any], known: Mapping[str, str]) -> None:
        """Parameters cannot change: what a resumed run does otherwise becomes a tag."""
        from mlflow.entities import Param, RunTag

        texts = {_allowed(key): str(value)[:_LONGEST] for key, value in settings.items()}
        new = [Param(key, text) for key, text in texts.items() if key not in known]
        for part in _parts(new, _PARAMETERS_AT_ONCE):
            self._client.log_batch(self._id, params=part)
        changed = [
            RunTag(f"resumed.{key}", text)
            for key, text in texts.items()
            if key in known and known[key] != text
        ]
        if changed:
            self._client.log_batch(self._id, tags=changed)

    def _where(self) -> str:
        uri = str(self._client.tracking_uri)
        if uri.startswith("http"):
            experiment = self._client.get_run(self._id).info.experiment_id
            return f"{uri.rstrip('/')}/#/experiments/{experiment}/runs/{self._id}"
        return f"run {self._id} in {uri}; mlflow server --backend-store-uri {uri} shows it"

    def log(self, records: Sequence[Figures]) -> None:
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        figures = [
            Metric(_allowed(name), value, now, int(record["step"]))
            for record in records
            for name, value in record.items()
            if name != "step"
        ]
        for part in _parts(figures, _AT_ONCE):
            self._client.log_batch(self._id, metrics=part)
        self._step = int(records[-1]["step"])

    def finish(self, status: str, results: Figures, facts: Mapping[str, Any]) -> str:
        from mlflow.entities import Metric, RunTag

        now, step = int(time.time() * 1000), int(facts.get("steps") or self._step)
        figures = [Metric(_allowed(name), value, now, step) for name, value in results.items()]
        tags = [RunTag(name, str(value)[:_LONGEST]) for name, value in facts.items()]
        self._client.log_batch(self._id, metrics=figures, tags=[RunTag("status", status), *tags])
        self._client.set_terminated(self._id, _STATUS.get(status, "KILLED"))
        return ""


def take_out_user() -> None:
    """Passes name and password of a URL on in the variables for them: the library prints the URL, which
    is also told to the user and kept."""
    url = urlsplit(os.environ.get("MLFLOW_TRACKING_URI", ""))
    if url.scheme not in ("http", "https") or "@" not in url.netloc:
        return
    for name, value in (("USERNAME", url.username), ("PASSWORD", url.password)):
        os.environ.setdefault(f"MLFLOW_TRACKING_{name}", unquote(value or ""))
    remember(os.environ["MLFLOW_TRACKING_PASSWORD"])
    os.environ["MLFLOW_TRACKING_URI"] = urlunsplit(url._replace(netloc=url.netloc.rpartition("@")[2]))


def _allowed(name: str) -> str:
    """A name with the letters that MLflow takes."""
    return re.sub(r"[^\w./: -]", "_", name)[:250]


def _parts(items: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    return (items[start : start + size] for start in range(0, len(items), size))
