"""What runs on CUDA, on a device that is only pretended, in processes of their own: torch has to find it
when it is imported."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

HERE = Path(__file__).parent
ROOT = HERE.parent.parent

pytestmark = [
    pytest.mark.timeout(900),
    pytest.mark.skipif(shutil.which("g++") is None, reason="pretending a device needs g++"),
    pytest.mark.skipif(torch.version.cuda is not None, reason="this torch finds real devices only"),
]


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`device.cpp`, compiled once for all processes of a session of tests."""
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent  # of all workers
    made, torchs = folder / "pretended_cuda.so", Path(torch.__file__).parent
    part = made.with_suffix(".part")
    command = ["g++", "-std=c++20", "-fPIC", "-shared", f"-I{torchs / 'include'}", HERE / "device.cpp"]
    command += ["-o", part, f"-L{torchs / 'lib'}", "-lc10", "-ltorch_cpu"]
    with made.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not made.exists():
            subprocess.run(command, check=True, timeout=200)
            part.replace(made)
    return made


@pytest.fixture
def on_device(library: Path, tmp_path: Path) -> Callable[..., None]:
    """Runs pytest in a process that has the device."""

    def call(*arguments: object) -> None:
        settled = ("-q", "-p", "no:xdist", "-p", "no:cacheprovider", "--basetemp", tmp_path / "inner")
        command = [sys.executable, "-m", "tests.pretended_cuda", library, *settled, *arguments]
        # Named, since Python may have been told to take nothing from the current folder.
        path = {"PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])}
        done = subprocess.run(
            [str(part) for part in command],
            cwd=ROOT,
            env=os.environ | path,
            text=True,
            capture_output=True,
            timeout=880,
        )
        assert done.returncode == 0, done.stdout + done.stderr

    return call


def test_every_model_trains(on_device: Callable[..., None]) -> None:
    on_device(HERE / "training.py")


def test_all_else(on_device: Callable[..., None]) -> None:
    on_device(HERE / "itself.py", HERE / "graphs.py", HERE / "running.py", HERE / "commands.py")


@pytest.mark.slow
def test_tests_for_gpus_can_be_called(on_device: Callable[..., None]) -> None:
    on_device("-p", "tests.pretended_cuda.without_values", "-m", "gpu", ROOT / "tests" / "gpu")
