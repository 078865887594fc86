"""What the folder of a run tells without its model: settings, figures over time, how it ended."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]

from bigmodel.errors import shell_quoted
from bigmodel.reporting.base import Record, Summary
from bigmodel.reporting.jsonl import read_records
from bigmodel.reporting.summary import read_summary
from bigmodel.runtime.disk import check_regular


@dataclass(frozen=True)
class RunFiles:
    """What the folder of a run tells without its model.

    Attributes:
        folder: of the run.
        summary: how it ended; None if it has not said so.
        records: its figures over time.
        config: its settings as YAML, as they were saved.
        overrides: what was typed, word by word.
        hydra: what Hydra noted of the call.
        resumed: where the run was resumed, each time, as its log says: `after step 4 of 8`.
    """

    folder: Path
    summary: Summary | None
    records: Sequence[Record]
    config: str
    overrides: Sequence[str]
    hydra: Mapping[str, Any]
    resumed: Sequence[str] = ()

    @classmethod
    def read(cls, folder: Path) -> RunFiles:
        """Reads what is there.

        Raises:
            CheckpointError: the summary cannot be read.
        """
        hydra = folder / ".hydra"
        overrides, noted = _yaml(_text(hydra / "overrides.yaml")), _yaml(_text(hydra / "hydra.yaml"))
        return cls(
            folder,
            read_summary(folder),
            read_records(folder),
            _text(hydra / "config.yaml"),
            [word for word in overrides if isinstance(word, str)] if isinstance(overrides, list) else [],
            noted.get("hydra", {}) if isinstance(noted, dict) else {},
            re.findall(
                r"^Resuming: (after step [\d,]+ of [\d,]*\d)", _text(folder / "train.log"), re.MULTILINE
            ),
        )

    @property
    def command(self) -> str:
        """What to type to run it again, from the same folder."""
        folders = self._setting("runtime.config_sources")
        own = [
            ["--config-dir", str(source["path"])]
            for source in (folders if isinstance(folders, list) else ())
            if isinstance(source, dict) and source.get("provider") == "command-line"
        ]
        words = ["bigmodel-train", *(word for pair in own for word in pair), *self.overrides]
        return " ".join(map(shell_quoted, words))

    @property
    def started_in(self) -> str:
        """The folder in which the command was typed; empty if it is not known."""
        return str(self._setting("runtime.cwd") or "")

    @property
    def settings(self) -> dict[str, str]:
        """The settings by dotted key, as text."""
        return _flat(_yaml(self.config), "")

    def epochs_of(self, record: Record) -> float:
        """When a record was made, in epochs, fractions included."""
        summary = self.summary
        if summary is not None and summary.steps and summary.epochs:
            return record["step"] * summary.epochs / summary.steps
        return float(record["epoch"])

    def curve(self, name: str) -> list[tuple[float, float]]:
        """A figure over epochs, where it is defined."""
        points = ((self.epochs_of(record), record.get(name, math.nan)) for record in self.records)
        return [(x, float(y)) for x, y in points if math.isfinite(y)]

    def _setting(self, path: str) -> Any:
        value: Any = self.hydra
        for key in path.split("."):
            value = value.get(key) if isinstance(value, Mapping) else None
        return value


def _text(path: Path) -> str:
    """A file's text; empty if there is none, or it cannot be read."""
    try:
        check_regular(path)
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _yaml(text: str) -> Any:
    try:
        return yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError):
        return None


def _flat(value: Any, key: str) -> dict[str, str]:
    if not isinstance(value, Mapping):
        return {key: "null" if value is None else str(value)} if key else {}
    flat: dict[str, str] = {}
    for name, inner in value.items():
        flat |= _flat(inner, f"{key}.{name}" if key else str(name))
    return flat
