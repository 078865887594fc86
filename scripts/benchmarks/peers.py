"""The peers' packages: Lightning, Transformers and what they need, in a folder of their own.

They share Python, torch and all else with the project, so that both sides run on the same.
"""

from __future__ import annotations

import importlib.machinery
import shutil
import subprocess
import sys
import zlib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / ".bench-peers"
PINS = ROOT / "scripts" / "bench-constraints.txt"
PEERS = ("lightning", "transformers", "accelerate")


def missing(names: tuple[str, ...], *folders: Path) -> list[str]:
    """Which of the packages can be imported neither as things are nor from `folders`."""
    path = [*sys.path, *map(str, folders)]
    return [name for name in names if importlib.machinery.PathFinder.find_spec(name, path) is None]


def folder() -> tuple[Path | None, str]:
    """Where the peers are, installed there if need be, and what to say where that failed."""
    if not missing(PEERS):
        return None, ""
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    stamp, key = FOLDER / "ready", f"{version} {zlib.crc32(PINS.read_bytes())}"
    if stamp.is_file() and stamp.read_text() == key:
        return FOLDER, ""
    print(f"Installing Lightning and Transformers into {FOLDER.name} (once)…", file=sys.stderr)
    shutil.rmtree(FOLDER, ignore_errors=True)
    command = [
        *(sys.executable, "-P", "-m", "pip", "install", "--quiet", "--disable-pip-version-check"),
        *("--no-input", "--no-deps", "--target", str(FOLDER), "--requirement", str(PINS)),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        shutil.rmtree(FOLDER, ignore_errors=True)
        return None, (done.stderr.strip().splitlines() or ["pip failed"])[-1]
    stamp.write_text(key)
    return FOLDER, ""
