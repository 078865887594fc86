"""Sweeps on the fake device: what jobs see of it, and what a plan says of its memory."""

from __future__ import annotations

from pathlib import Path

import pytest

from bigmodel.sweeps.manifest import Manifest
from tests.end_to_end import conftest
from tests.end_to_end.conftest import Command
from tests.fake_cuda.device import device

command = conftest.command
SWEEP = ("-m", "hydra.sweep.dir=mine", "debug=fast", "device=cuda", "trainer.tensorboard=false")
PLUGIN = """
import os
from pathlib import Path

Path(os.environ["SEEN"], str(os.getpid())).write_text(os.environ["CUDA_VISIBLE_DEVICES"])
"""


def test_a_plan_tells_of_more_jobs_than_a_gpu_has_memory_for(command: Command, tmp_path: Path) -> None:
    words = (*SWEEP, "seed=range(80)", "sweep.plan=true")
    said = command(*words, "sweep.jobs_per_gpu=72")
    assert said.status == 0, said.err
    assert "Warning: 72 jobs on a GPU may need 72.0 GiB of memory, and there are 71.0 GiB." in said.out
    assert "Warning" not in command(*words, "sweep.jobs_per_gpu=71").out
    assert not (tmp_path / "mine").exists()


def test_each_job_sees_its_gpu_by_the_name_that_the_sweep_has(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "MIG-6f1b3c9e-92e0-5b0c-9f1c-0d0f3a1c7e55"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", f"{name},-1")
    monkeypatch.setenv("SEEN", str(tmp_path / "seen"))
    (tmp_path / "seen").mkdir()
    (tmp_path / "looks.py").write_text(PLUGIN)
    # Data that jobs share is mapped, which makes fake tensors of it: each reads its own.
    own = "data.batch_size=8,16,32"
    said = command(*SWEEP, own, "sweep.jobs_per_gpu=2", "plugins=[looks]")
    assert said.status == 0, said.out + said.err
    states = Manifest.read(tmp_path / "mine").states.values()
    assert [state.status for state in states] == ["finished"] * 3
    assert name in {path.read_text() for path in (tmp_path / "seen").iterdir()}
    assert not device.contexts, "the sweep itself must not start CUDA"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["sweep.gpus=[1]"], "sweep.gpus=[1]: there is no GPU 1. There are 1, numbered from 0."),
        (["device=cuda:0"], "device=cuda:0: the jobs of a sweep are given a GPU each."),
        (["device.name=cuda,cuda:0"], "Choose which by device=cuda sweep.gpus=[0]"),
    ],
)
def test_other_gpus_are_refused(
    command: Command, tmp_path: Path, words: list[str], message: str
) -> None:
    said = command(*SWEEP, "seed=1,2", *words)
    assert (said.status, said.err.count("bigmodel-train: ")) == (1, 1)
    assert message in said.err
    assert not (tmp_path / "mine").exists()
