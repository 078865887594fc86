"""`bigmodel` commands on the fake device, with runs trained there or on the CPU."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from bigmodel.training.loop import fit
from tests.cli.commands.cli import Bigmodel, caller
from tests.fake_cuda.device import device
from tests.fake_cuda.training import SMALL, settings_of
from tests.small_runs import built


@pytest.fixture
def bigmodel(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Bigmodel:
    return caller(monkeypatch, capsys)


def made(folder: Path, model: str, kind: str, on: str = "cuda") -> Path:
    (folder / "run").mkdir()
    settings = settings_of(folder, kind, "bf16", {"model": SMALL[model]})
    settings["device"] = {"name": on, "precision": "bf16" if on == "cuda" else "fp32"}
    fit(built(folder / "run", settings)[0])
    device.contexts.clear()
    return folder / "run"


@pytest.mark.parametrize("trained_on", ["cpu", "cuda"])
@pytest.mark.parametrize("asked_on", ["cpu", "cuda"])
@pytest.mark.parametrize(
    ("model", "kind"), [("fnn", "features"), ("cnn", "image"), ("transformer", "text")]
)
def test_eval(
    tmp_path: Path, bigmodel: Bigmodel, model: str, kind: str, trained_on: str, asked_on: str
) -> None:
    run = made(tmp_path, model, kind, trained_on)
    said = bigmodel("eval", run, "--json", "--device", asked_on)
    assert bool(device.contexts) == (asked_on == "cuda")
    assert said.status == 0, said.err
    assert json.loads(said.out)["samples"] > 0


def test_predictions_of_features(tmp_path: Path, bigmodel: Bigmodel) -> None:
    np.savez(tmp_path / "new.npz", inputs=np.zeros((30, 5), np.float32))
    run = made(tmp_path, "fnn", "features")
    said = bigmodel("predict", run, "--input", tmp_path / "new.npz", "--device", "cuda")
    assert said.status == 0, said.err
    assert len(said.out.splitlines()) == 1 + 30


def test_predictions_of_texts(tmp_path: Path, bigmodel: Bigmodel) -> None:
    run = made(tmp_path, "rnn", "texts")
    said = bigmodel("predict", run, "--input", tmp_path / "texts.csv", "--device", "cuda")
    assert said.status == 0, said.err
    assert len(list(csv.reader(said.out.splitlines()))) == 1 + 60


@pytest.mark.parametrize("model", ["rnn", "transformer"])
def test_a_text_is_written(tmp_path: Path, bigmodel: Bigmodel, model: str) -> None:
    run = made(tmp_path, model, "text")
    options = ("--prompt", "How now", "--tokens", 12, "--device", "cuda")
    said = bigmodel("predict", run, *options)
    assert said.status == 0, said.err
    assert len(said.out) == len("How now") + 12 + 1


def test_lines_are_translated(tmp_path: Path, bigmodel: Bigmodel) -> None:
    run = made(tmp_path, "transformer", "pairs")
    options = ("--beams", 2, "--tokens", 4, "--device", "cuda")
    (tmp_path / "lines").write_text("eins 1 eins 2\neins 3\n")
    said = bigmodel("predict", run, "--input", tmp_path / "lines", *options)
    assert said.status == 0, said.err
    assert len(said.out.splitlines()) == 2
