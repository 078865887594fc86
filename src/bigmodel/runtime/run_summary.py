"""`summary.json` in a run's folder: how the run ended, or that it is running. It is read here alone.

`bigmodel.reporting.summary` writes it, and checks what it reads. A sweep goes on whatever lies in the
folders of its jobs, and reads it leniently.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bigmodel.runtime import disk, nested_json

NAME = "summary.json"


def read(folder: Path) -> dict[str, Any]:
    """What the file says; its values are not checked.

    Raises:
        FileNotFoundError: there is none.
        OSError, ValueError: it cannot be read, or is no JSON object.
    """
    content = nested_json.loads(disk.read_text(folder / NAME))
    if not isinstance(content, dict):
        raise ValueError("it is not a JSON object")  # noqa: TRY004
    return content


def read_leniently(folder: Path) -> dict[str, Any] | None:
    """The same; None if there is none, or it cannot be read, as a killed process may leave it."""
    try:
        return read(folder)
    except (OSError, ValueError):
        return None


def status(folder: Path) -> str | None:
    """How a run ended, such as `finished`; None if its folder does not say so."""
    content = read_leniently(folder) or {}
    found = content.get("status")
    return found if isinstance(found, str) else None
