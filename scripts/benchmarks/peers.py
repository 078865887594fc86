"""The peers' packages: Lightning, Transformers, JAX and what they need, in a folder of their own.

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
PEERS = ("lightning", "transformers", "accelerate", "jax", "optax", "keras")


def missing(names: tuple[str, ...], *folders: Path) -> list[str]:
    """Which of the packages can be imported neither as things are nor from `folders`."""
    path = [*sys.path, *map(str, folders)]
    return [name for name in names if importlib.machinery.PathFinder.find_spec(name, path) is None]


def folder() -> tuple[Path | None, str]:
    """Where the peers are, installed there if need be, and what to say where some could not be."""
    if not missing(PEERS):
        return None, ""
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    stamp, key = FOLDER / "ready", f"{version} {zlib.crc32(PINS.read_bytes())}"
    if stamp.is_file() and stamp.read_text() == key:
        return FOLDER, ""
    print(f"Installing Lightning, Transformers and JAX into {FOLDER.name} (once)…", file=sys.stderr)
    shutil.rmtree(FOLDER, ignore_errors=True)
    trouble = _install("--requirement", str(PINS))
    if trouble:  # one that is not to be had here must not take the others along
        pins = [line for line in PINS.read_text().splitlines() if line and not line.startswith("#")]
        for pin in pins:
            _install("--retries", "0", pin)
        return (FOLDER if FOLDER.is_dir() else None), trouble
    stamp.write_text(key)
    return FOLDER, ""


def _install(*what: str) -> str:
    """Puts packages into the folder; returns pip's last words where it fails."""
    command = [
        *(sys.executable, "-P", "-m", "pip", "install", "--quiet", "--disable-pip-version-check"),
        *("--no-input", "--no-deps", "--target", str(FOLDER), *what),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return (done.stderr.strip().splitlines() or ["pip failed"])[-1] if done.returncode else ""
