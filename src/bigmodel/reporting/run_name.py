"""What a run is called where several are listed: by its user, or by its model, its data and what was
changed."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from bigmodel.reporting.base import RunInfo

_NOT_TOLD = (
    *("model", "data", "data.path"),  # the beginning of a name tells them
    *("device", "logger", "find", "data.workers", "data.timeout", "data.on_device", "data.cache"),
)
_REPORTS = ("trainer.log_", "trainer.record_", "trainer.tensorboard", "trainer.histograms")
"""Beginnings of settings that tell nothing of what is learnt; nor do those of `_NOT_TOLD`."""

_MOST_BYTES = 120  # of a name that is a folder's; file systems allow 255
_MOST_LETTERS = 32  # of a value


def run_name(info: RunInfo) -> str:
    """Such as `cnn-digits,lr=0.1,seed=3`; or `run.name`, of a sweep's jobs with what is their own."""
    if info.labels.name is not None:
        return ",".join([info.labels.name, *(_changes(info.changed) if info.in_sweep else ())])
    return described(info.config, info.changed)


def described(config: Mapping[str, Any], changed: Mapping[str, str]) -> str:
    """Model, data and what was changed.

    Args:
        config: the whole configuration.
        changed: settings by key, as typed.
    """
    return ",".join([f"{_name(config, 'model')}-{_data(config)}", *_changes(changed)])


def _changes(changed: Mapping[str, str]) -> Iterator[str]:
    told = {k: v for k, v in changed.items() if k not in _NOT_TOLD and not k.startswith(_REPORTS)}
    short = Counter(key.rpartition(".")[2] for key in told)
    for key, value in told.items():
        last = key.rpartition(".")[2]
        yield f"{last if short[last] == 1 else key}={_plain(value)[:_MOST_LETTERS]}"


def folder_name(name: str) -> str:
    """A name as that of a folder: letters, digits and `.=,+-_` alone, not hidden, and short enough."""
    safe = re.sub(r"[^\w.=,+-]+", "_", name.encode(errors="replace").decode()).strip("._ ,")
    parts, dropped = safe.split(","), 0
    while len(parts) > 1 and len(",".join(parts).encode()) > _MOST_BYTES:
        parts.pop()
        dropped += 1
    kept = ",".join(parts).encode()[:_MOST_BYTES].decode(errors="ignore")
    return (f"{kept},and_{dropped}_more" if dropped else kept) or "run"


def _data(config: Mapping[str, Any]) -> str:
    """The name of the file or folder that data comes from, if it is the user's own."""
    path, kind = config.get("data", {}).get("path"), _name(config, "data")
    stem = _plain(Path(path).stem) if isinstance(path, str) else ""
    return stem[:_MOST_LETTERS] if stem and stem != "frame" else kind


def _name(config: Mapping[str, Any], group: str) -> str:
    return _plain(str(config.get(group, {}).get("name") or group))


def _plain(value: str) -> str:
    return re.sub(r"[^\w.+-]+", "_", value).strip("_")
