"""Compiled steps that are kept between runs, in the user's cache folder.

A step is known by everything that its code follows from: configuration and data's shape, our sources,
torch, processor. So nothing has to be traced to find it again.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import platform
import shutil
import time
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch

import bigmodel
from bigmodel.engine.fixed_shape import form
from bigmodel.engine.functional_step import Given, Whole
from bigmodel.engine.step import Step
from bigmodel.runtime import caches

MOST = 64
"""Libraries that are kept, a megabyte or two each; of more, those go that were used longest ago."""

AGE = 30 * 24 * 3600.0
"""Seconds after which a note that a step is better not compiled no longer counts."""


@dataclass(frozen=True)
class Place:
    """Where a compiled step lies, or would.

    Attributes:
        code: a library; beside it `.sha256`, without which it does not count, and `.slow`, where the
            code was found to be no gain.
    """

    code: Path

    @property
    def found(self) -> bool:
        """Whether it is there, whole."""
        try:
            return self._stamp.read_text() == _digest([self.code])
        except OSError:
            return False

    def seal(self) -> None:
        """Notes that the library is whole, and tidies up: what was used longest ago goes, old notes, and
        what a process left that was killed while it compiled."""
        self._stamp.write_text(_digest([self.code]))
        with contextlib.suppress(FileNotFoundError):  # another process does the same
            kept = sorted(self.code.parent.glob("*.so"), key=lambda path: path.stat().st_mtime)
            for old in kept[:-MOST]:
                Place(old).remove()
            for path in (*self.code.parent.glob(".compiling-*"), *self.code.parent.glob("*.slow")):
                if time.time() - path.stat().st_mtime > AGE:
                    shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)

    def touch(self) -> None:
        """Notes that it is of use, where the folder can be written."""
        with contextlib.suppress(OSError):
            self.code.touch()

    @property
    def slow(self) -> str | None:
        """What was noted of a step that is better not compiled; None: nothing."""
        try:
            return self._mark.read_text()
        except OSError:
            return None

    def note_slow(self, why: str) -> None:
        """Notes that this step is better not compiled, for the runs to come."""
        self._mark.write_text(why)
        self.remove()

    def remove(self) -> None:
        """Forgets the library."""
        for path in (self.code, self._stamp):
            path.unlink(missing_ok=True)

    @property
    def _stamp(self) -> Path:
        return self.code.with_suffix(".sha256")

    @property
    def _mark(self) -> Path:
        return self.code.with_suffix(".slow")


def folder() -> Path:
    """The folder for compiled steps, a private one."""
    return caches.code_folder("steps")


def keep_private() -> None:
    """Loads torch's compiler so that all it keeps lies in private folders."""
    caches.use_private_folders()
    from torch._inductor import codecache
    from torch._inductor.runtime import cache_dir_utils, runtime_utils

    # Precompiled headers stay under a name in the temporary folder that anybody may have taken before,
    # whatever the environment says.
    kept = os.environ["TORCHINDUCTOR_CACHE_DIR"]
    for module in (cache_dir_utils, runtime_utils, codecache):
        module.default_cache_dir = lambda: kept  # type: ignore[attr-defined]
    codecache._HEADER_DIR = str(Path(kept) / "precompiled_headers")
    codecache._HEADER_LOCK_DIR = str(Path(kept) / "precompiled_headers" / "locks")


def place_of(step: Step, whole: Whole, given: Given, facts: dict[str, Any] | None) -> Place | None:
    """Where this step's code lies; None where it cannot be known again: parts of it are a user's own,
    whose sources are not ours to follow.

    Args:
        step, whole, given: the step.
        facts: of its configuration and data: all that its code follows from, in plain values; None
            where plugins are there, which may change anything.
    """
    if facts is None or not is_ours(step):
        return None
    known = {
        **facts,
        "step": [step.clip_norm, step.ema is not None, step.runtime.precision],
        "device": [str(given.inputs.device), _gpu(given.inputs.device)],
        "parts": [f"{type(part).__module__}.{type(part).__qualname__}" for part in _parts(step)],
        "tensors": [form(tensor) for tensor in (*whole.changed, *whole.read, *given)],
        "options": [_plain(group) for group in step.optimizer.param_groups],
        "frozen": [p.requires_grad for p in step.model.parameters()],
        "machine": _machine(),
        "threads": torch.get_num_threads(),
        "sources": _sources(),
    }
    text = json.dumps(known, sort_keys=True, default=repr)
    return Place(folder() / f"{hashlib.sha256(text.encode()).hexdigest()[:32]}.so")


def is_ours(step: Step) -> bool:
    """Whether all parts of a step are ours or torch's, so that none is a user's own."""
    return all(type(part).__module__.startswith(("bigmodel.", "torch.")) for part in _parts(step))


def _parts(step: Step) -> list[Any]:
    return [step.loss, step.optimizer, step.metrics, *step.model.modules()]


def _plain(group: dict[str, Any]) -> dict[str, Any]:
    """A parameter group's options without the rates, which a step is given."""
    kept = {key: value for key, value in group.items() if key not in {"params", "lr", "initial_lr"}}
    return kept | {"count": len(group["params"])}


@cache
def _machine() -> list[str]:
    described = Path("/proc/cpuinfo")
    kinds = {"model name", "flags", "CPU part", "Features"}  # the last two of ARM's
    lines = described.read_text(errors="replace").splitlines() if described.is_file() else []
    processor = sorted({line for line in lines if line.split("\t")[0] in kinds})
    # The compiler writes for these instructions, which $ATEN_CPU_CAPABILITY may have bounded.
    used = [torch.backends.cpu.get_cpu_capability(), os.environ.get("ATEN_CPU_CAPABILITY", "")]
    return [platform.platform(), torch.__version__, str(torch.version.cuda), *used, *processor]


def _gpu(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else ""


@cache
def _sources() -> str:
    return _digest(sorted(Path(str(bigmodel.__file__)).parent.rglob("*.py")))


def _digest(paths: Iterable[Path]) -> str:
    digest = hashlib.sha256()
    for path in paths:
        digest.update(path.read_bytes())
    return digest.hexdigest()
