"""The processes that sides run in: what they are started with, and what they answer."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks import peers
from benchmarks.worker import Order

NEEDS = {
    "lightning": ("lightning",),
    "transformers": ("transformers", "accelerate"),
    "jax": ("jax", "optax"),
    "keras": ("keras", "jax"),
    "script": ("lightning", "hydra"),
    "sklearn": ("sklearn", "pandas"),
}
"""Packages that a kind of side asks for."""

ONE_THREAD = {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1",
    "CUDA_VISIBLE_DEVICES": "",
}

Run = dict[str, Any]


class BenchError(Exception):
    """A side failed, or does other work than ours."""


class FailedError(BenchError):
    """The process of a side ended before it had answered.

    Attributes:
        reason: the last line of its output, shortened if it is long.
    """

    def __init__(self, what: str, output: str) -> None:
        super().__init__(f"{what}:\n{output}")
        self.reason = (output.strip().splitlines() or ["no output"])[-1][:120].replace("|", "/")


@dataclass
class Setting:
    """What holds for all lines.

    Attributes:
        folder: for whatever the sides leave; deleted at the end.
        pairs: rounds that count, after a first one with empty caches.
        peers: a folder to find the peers in, or None.
        trouble: what to say where they could not be installed.
    """

    device: str
    tiny: bool
    folder: Path
    pairs: int
    peers: Path | None = None
    trouble: str = ""
    hosts: dict[str, Host] = field(default_factory=dict)
    measured: dict[str, Any] = field(default_factory=dict)

    def environment(self, side: str, caches: Path) -> dict[str, str]:
        """What a side's process is started with: one thread on a CPU, and caches of its own."""
        kind = side.split("-")[0]
        path = [str(peers.ROOT / "scripts"), str(peers.ROOT / "src")]
        if kind in NEEDS and self.peers is not None:
            path.append(str(self.peers))
        if before := os.environ.get("PYTHONPATH"):
            path.append(before)
        variables = os.environ | {
            "PYTHONPATH": os.pathsep.join(path),
            "PYTHONSAFEPATH": "1",
            "XDG_CACHE_HOME": str(caches),
            "BIGMODEL_CACHE": str(caches / "bigmodel"),
            "TORCHINDUCTOR_CACHE_DIR": str(caches / "inductor"),
            "TRITON_CACHE_DIR": str(caches / "triton"),
            "HF_HUB_OFFLINE": "1",
            "TOKENIZERS_PARALLELISM": "false",
            "JAX_PLATFORMS": self.device,
            "KERAS_BACKEND": "jax",
            "KERAS_HOME": str(caches / "keras"),
        }
        variables.pop("PYTHONDONTWRITEBYTECODE", None)  # installed packages have theirs already
        if self.device == "cpu":
            variables |= ONE_THREAD
        return variables

    def lacking(self, side: str) -> str:
        """Why a side cannot be measured here, or nothing."""
        folders = [self.peers] if self.peers is not None else []
        if not (names := peers.missing(NEEDS.get(side.split("-")[0], ()), *folders)):
            return ""
        because = f" ({self.trouble})" if self.trouble else ""
        return f"not measured: {' and '.join(names)} is not installed{because}"


def on_one_core(device: str, side: str) -> Callable[[], None] | None:
    """What a process does before it starts to be held to one core; nothing on a GPU, and for those whose
    data comes by worker processes. XLA has several threads whatever its flags say."""
    if device != "cpu" or "workers" in side or not hasattr(os, "sched_setaffinity"):
        return None
    return partial(os.sched_setaffinity, 0, {max(os.sched_getaffinity(0))})


class Host:
    """A process that does one order after another."""

    def __init__(self, setting: Setting, side: str, caches: Path) -> None:
        self.log = setting.folder / f"{side}.log"
        self.began = time.perf_counter()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.worker", str(self.log)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=setting.folder,
            env=setting.environment(side, caches),
            preexec_fn=on_one_core(setting.device, side),
        )

    def ask(self, order: Order) -> Run:
        """Has an order done; `total` is the time since the process began.

        Raises:
            FailedError: it failed; with the end of its log.
        """
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        try:
            self.process.stdin.write(json.dumps(asdict(order)) + "\n")
            self.process.stdin.flush()
            answer = self.process.stdout.readline()
        except OSError:  # it had ended already
            answer = ""
        total = time.perf_counter() - self.began
        if not answer:
            output = self.log.read_text(errors="replace").strip()[-1500:] if self.log.is_file() else ""
            raise FailedError(f"{order.side} failed at {order.mode} of {order.work}", output)
        return json.loads(answer) | {"total": total}

    def close(self) -> None:
        """Lets the process end."""
        self.process.communicate()


@contextmanager
def setting(device: str, tiny: bool, pairs: int, data: Path | None) -> Iterator[Setting]:
    """A folder for everything, and the peers where they can be had."""
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        place = Path(folder)
        if data is not None:
            (place / "pictures").symlink_to(data.resolve(), target_is_directory=True)
        found, trouble = peers.folder()
        ready = Setting(device, tiny, place, pairs, found, trouble)
        try:
            yield ready
        finally:
            for host in ready.hosts.values():
                host.close()


def do(
    setting: Setting,
    mode: Any,
    side: str,
    work: str,
    part: int = 1,
    *,
    live: bool = False,
    fresh: bool = False,
) -> Run:
    """One order, in a new process or in the one that stays for this kind of side.

    Args:
        fresh: give a new process empty caches.

    Raises:
        FailedError: see `Host.ask`; a process that stayed is replaced at the next order.
    """
    order = Order(mode, side, work, setting.device, str(setting.folder), setting.tiny, part)
    kind = side.split("-")[0]
    # What is compiled for `prepare` must not be found by the first timed run; that of one side may be
    # by another of its kind, as ours with and without reports.
    shared = mode in {"time", "fill", "verify"}
    caches = setting.folder / "caches" / (f"{work}-{kind}" if shared else mode)
    if live:
        if kind not in setting.hosts:
            setting.hosts[kind] = Host(setting, side, setting.folder / "caches" / f"live-{kind}")
        try:
            return setting.hosts[kind].ask(order)
        except FailedError:
            setting.hosts.pop(kind).close()
            raise
    if fresh:
        caches = setting.folder / "caches" / "fresh"
        shutil.rmtree(caches, ignore_errors=True)
    host = Host(setting, side, caches)
    try:
        return host.ask(order)
    finally:
        host.close()
