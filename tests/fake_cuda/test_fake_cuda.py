"""The CUDA code on a fake device, in a process of its own: torch looks for devices when imported."""

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
    pytest.mark.skipif(shutil.which("g++") is None, reason="the fake device needs g++"),
    pytest.mark.skipif(torch.version.cuda is not None, reason="this torch finds real devices only"),
]


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`device.cpp`, compiled once for all processes of a test session."""
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent  # of all workers
    library, torch_folder = folder / "fake_cuda.so", Path(torch.__file__).parent
    part = library.with_suffix(".part")
    command = [
        "g++",
        "-std=c++20",
        "-fPIC",
        "-shared",
        f"-I{torch_folder / 'include'}",
        HERE / "device.cpp",
    ]
    command += ["-o", part, f"-L{torch_folder / 'lib'}", "-lc10", "-ltorch_cpu"]
    with library.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not library.exists():
            subprocess.run(command, check=True, timeout=200)
            part.replace(library)
    return library


@pytest.fixture
def on_device(library: Path, tmp_path: Path) -> Callable[..., None]:
    """Runs pytest in a process that has the device."""

    def call(*arguments: object) -> None:
        options = ("-q", "-p", "no:xdist", "-p", "no:cacheprovider", "--basetemp", tmp_path / "inner")
        command = [sys.executable, "-m", "tests.fake_cuda", library, *options, *arguments]
        # Explicit, since Python may be set to import nothing from the current folder.
        path = {"PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])}
        result = subprocess.run(
            [str(part) for part in command],
            cwd=ROOT,
            env=os.environ | path,
            text=True,
            capture_output=True,
            timeout=880,
        )
        assert result.returncode == 0, result.stdout + result.stderr

    return call


def test_every_model_trains(on_device: Callable[..., None]) -> None:
    on_device(HERE / "training.py")


def test_everything_else(on_device: Callable[..., None]) -> None:
    on_device(
        HERE / "self_checks.py",
        HERE / "graphs.py",
        HERE / "running.py",
        HERE / "commands.py",
    )


def test_sweeps(on_device: Callable[..., None]) -> None:
    """In a process that has trained nothing: one cannot be forked after a backward pass on a device."""
    on_device(HERE / "sweeps.py")


@pytest.mark.slow
def test_tests_for_gpus_can_be_called(on_device: Callable[..., None]) -> None:
    on_device("-p", "tests.fake_cuda.without_values", "-m", "gpu", ROOT / "tests" / "gpu")
