"""Compiled steps, kept between runs in the user's cache folder.

The key of a step is everything that its code depends on: configuration, shapes of the data, the
package's sources, torch, processor. So a step is found again without tracing it.
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
from bigmodel.engine.fixed_shape import layout
from bigmodel.engine.functional_step import FunctionalStep, StepInputs
from bigmodel.engine.step import Step
from bigmodel.runtime import caches, torch_internals

MAX_LIBRARIES = 64
"""Libraries that are kept, of one or two megabytes each; the least recently used are deleted."""

MAX_AGE = 30 * 24 * 3600.0
"""Seconds after which a note that a step is better not compiled no longer counts."""


@dataclass(frozen=True)
class CacheEntry:
    """A compiled step in the cache, or the place for one.

    Attributes:
        library: its code. Beside it lie `.sha256`, without which the library does not count, and
            `.slow`, if the code was not faster.
    """

    library: Path

    @property
    def is_complete(self) -> bool:
        """Whether the library is there and undamaged."""
        try:
            return self._checksum.read_text() == _digest([self.library])
        except OSError:
            return False

    def seal(self) -> None:
        """Marks the library as complete, and deletes the least recently used libraries, old notes, and
        what processes that were killed while compiling left behind."""
        self._checksum.write_text(_digest([self.library]))
        with contextlib.suppress(FileNotFoundError):  # another process cleans up at the same time
            libraries = sorted(self.library.parent.glob("*.so"), key=lambda path: path.stat().st_mtime)
            for old in libraries[:-MAX_LIBRARIES]:
                CacheEntry(old).remove()
            for path in (*self.library.parent.glob(".compiling-*"), *self.library.parent.glob("*.slow")):
                if time.time() - path.stat().st_mtime > MAX_AGE:
                    shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)

    def touch(self) -> None:
        """Marks the library as used now, if the folder can be written."""
        with contextlib.suppress(OSError):
            self.library.touch()

    @property
    def slow(self) -> str | None:
        """Why this step should not be compiled; None if nothing was noted."""
        try:
            return self._note.read_text()
        except OSError:
            return None

    def note_slow(self, reason: str) -> None:
        """Notes for later runs that this step should not be compiled."""
        self._note.write_text(reason)
        self.remove()

    def remove(self) -> None:
        """Deletes the library."""
        for path in (self.library, self._checksum):
            path.unlink(missing_ok=True)

    @property
    def _checksum(self) -> Path:
        return self.library.with_suffix(".sha256")

    @property
    def _note(self) -> Path:
        return self.library.with_suffix(".slow")


def folder() -> Path:
    """The folder of compiled steps, private to the user."""
    return caches.code_folder("steps")


def use_private_folders() -> None:
    """Loads torch's compiler, and has it keep all its files in private folders."""
    caches.use_private_folders()
    torch_internals.keep_compiled_in(os.environ["TORCHINDUCTOR_CACHE_DIR"])


def find_entry(
    step: Step, function: FunctionalStep, inputs: StepInputs, facts: dict[str, Any] | None, compiler: str
) -> CacheEntry | None:
    """The cache entry of a step; None if it has custom parts, whose sources are unknown.

    Args:
        facts: plain values of configuration and data that the code depends on; None if there are
            plugins, which may change anything.
        compiler: its name.
    """
    if facts is None or not is_builtin(step):
        return None
    key = {
        **facts,
        "compiler": compiler,
        "step": [step.clip_norm, step.ema is not None, step.runtime.precision],
        "device": [str(inputs.inputs.device), _gpu(inputs.inputs.device)],
        "parts": [f"{type(part).__module__}.{type(part).__qualname__}" for part in _parts(step)],
        "tensors": [layout(tensor) for tensor in (*function.tensors.flatten(), *inputs)],
        "options": [_options(step, group) for group in step.optimizer.param_groups],
        "frozen": [p.requires_grad for p in step.model.parameters()],
        "machine": _machine(),
        "threads": torch.get_num_threads(),
        "sources": _sources(),
    }
    text = json.dumps(key, sort_keys=True, default=repr)
    return CacheEntry(folder() / f"{hashlib.sha256(text.encode()).hexdigest()[:32]}.so")


def is_builtin(step: Step) -> bool:
    """Whether every part of a step is this package's or torch's, and none is a custom one."""
    return all(type(part).__module__.startswith(("bigmodel.", "torch.")) for part in _parts(step))


def _parts(step: Step) -> list[Any]:
    return [step.loss, step.optimizer, step.metrics, *step.model.modules()]


def _options(step: Step, group: dict[str, Any]) -> dict[str, Any]:
    """A parameter group's options without its rate, which is an input of a step."""
    options = {key: value for key, value in group.items() if key not in {"params", "lr", "initial_lr"}}
    numbers = {parameter: number for number, parameter in enumerate(step.model.parameters())}
    return options | {"params": [numbers[parameter] for parameter in group["params"]]}


@cache
def _machine() -> list[str]:
    cpuinfo = Path("/proc/cpuinfo")
    fields = {"model name", "flags", "CPU part", "Features"}  # the last two on ARM
    lines = cpuinfo.read_text(errors="replace").splitlines() if cpuinfo.is_file() else []
    processor = sorted({line for line in lines if line.split("\t")[0] in fields})
    # The compiler writes code for these instructions, which $ATEN_CPU_CAPABILITY may have limited.
    used = [torch.backends.cpu.get_cpu_capability(), os.environ.get("ATEN_CPU_CAPABILITY", "")]
    return [platform.platform(), torch.__version__, str(torch.version.cuda), *used, *processor]


def _gpu(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else ""


@cache
def _sources() -> str:
    files = Path(str(bigmodel.__file__)).parent.rglob("*.*p*")
    return _digest(sorted(path for path in files if path.suffix in {".py", ".cpp"}))


def _digest(paths: Iterable[Path]) -> str:
    digest = hashlib.sha256()
    for path in paths:
        digest.update(path.read_bytes())
    return digest.hexdigest()
