"""A run whose weights lay on several ranks is used like any other; wrong degrees are refused."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from bigmodel.checkpointing import checkpoint
from tests.cli.commands.cli import Bigmodel, caller

MODEL = ("model=transformer", "model.dim=16", "model.depth=1", "model.num_heads=2", "device=cpu")
TWO = (*MODEL, "data=digits", "trainer.tensorboard=false", "device.ranks=2")


def train(cwd: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "bigmodel", *words],
        cwd=cwd,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("how", ["tensor", "shard"])
def test_a_run_of_ranks_that_shared_the_weights_is_evaluated_used_and_exported(
    how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    bigmodel: Bigmodel = caller(monkeypatch, capsys)
    shared, whole = tmp_path / "shared", tmp_path / "whole"
    words = (f"device.parallel.{how}=2", "trainer.max_steps=12", f"hydra.run.dir={shared}")
    done = train(tmp_path, *TWO, *words)
    assert done.returncode == 0, done.stderr
    shutil.copytree(shared, whole)
    for place in (whole / "checkpoints" / "last", whole / "checkpoints" / "best"):
        groups, facts = checkpoint.load(place)
        held = {name: {key: group[key].clone() for key in group} for name, group in groups.items()}
        shutil.rmtree(place)
        checkpoint.save(place, held, facts)
    assert len(list((shared / "checkpoints" / "best").glob("model*.safetensors"))) == 2
    assert len(list((whole / "checkpoints" / "best").glob("model*.safetensors"))) == 1

    images = np.random.default_rng(0).random((20, 1, 8, 8), np.float32)
    np.savez(tmp_path / "new.npz", inputs=images)
    used = []
    for run in (shared, whole):
        told = bigmodel("eval", run, "--json", "--device", "cpu")
        said = bigmodel("predict", run, "--input", tmp_path / "new.npz", "--device", "cpu")
        exported = bigmodel("export", run)
        assert (told.status, said.status, exported.status) == (0, 0, 0), (
            told.err + said.err + exported.err
        )
        files = {p.name: p.read_bytes() for p in run.iterdir() if p.suffix in (".pt2", ".pt", ".onnx")}
        used.append((told.out.replace(str(run), ""), said.out, files.keys(), files))
    assert used[0][:3] == used[1][:3]
    assert used[0][2]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ("device.parallel.shard=3",),
            "device.parallel.shard=3: the product has to be the number of ranks, or to divide it, and"
            " there are 2 ranks. Start 3 (device.ranks=3, or as many with torchrun), or use other"
            " degrees.",
        ),
        (
            ("device.ranks=1", "device.parallel.tensor=2"),
            "device.parallel.tensor=2: the product has to be the number of ranks, or to divide it, and"
            " there is 1 rank. Start 2 (device.ranks=2, or as many with torchrun), or use other"
            " degrees.",
        ),
        (
            ("model.num_heads=1", "device.parallel.tensor=2"),
            "device.parallel.tensor=2: it does not divide model.num_heads=1.",
        ),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_degrees_that_do_not_fit_are_one_message(
    words: tuple[str, ...], message: str, tmp_path: Path
) -> None:
    done = train(tmp_path, *TWO, *words)
    assert done.returncode == 1
    assert "".join(done.stderr.split()).count("".join(message.split())) == 1, done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    assert not list(tmp_path.rglob("metrics.jsonl"))
    assert not list(tmp_path.rglob("checkpoints"))
