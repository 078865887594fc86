"""A model that gives NaN or infinity: it has no figures, says nothing, and is not exported."""

import csv
import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bigmodel.checkpointing import checkpoint
from bigmodel.spec import TokenPair
from tests.cli.commands.cli import Bigmodel
from tests.cli.commands.conftest import SETTINGS, Run
from tests.cli.commands.test_loaded_run import loaded

Broken = Callable[..., Path]
FILES = {
    "photos": "photos",
    "sounds": "sounds",
    "raw_sounds": "sounds",
    "table": "t.csv",
    "taken": "taken.csv",
    "reviews": "reviews.csv",
    "pairs": "de.txt",
    "images": "images.npz",
}
TEXTS = ("text", "documents", "chat", "pieces", "pairs")


@pytest.fixture
def broken(made: Run, tmp_path: Path) -> Broken:
    """A copy of a run whose weights are finite, but so large that outputs are not; or `factor` times as
    large."""

    def make(name: str, factor: float | None = None) -> Path:
        run = Path(shutil.copytree(made(name), tmp_path / "run"))
        for place in ("best", "last"):
            folder = run / "checkpoints" / place
            groups, facts = checkpoint.load(folder)
            for group in ("model", "averaged"):
                for weight in groups.get(group, {}).values():
                    if weight.is_floating_point() and weight.dim() > 1:
                        weight.mul_(factor or 1e38 / weight.abs().max()).clamp_(-3e38, 3e38)
                        assert bool(weight.isfinite().all())
            checkpoint.save(folder, groups, facts)
        return run

    return make


def new_samples(name: str, made: Run, folder: Path) -> Path:
    if name in FILES:
        return made(name).parent / FILES[name]
    if name in TEXTS:
        path = folder / "prompts.txt"
        path.write_text("ROMEO: Good\nSweet\n")
        return path
    draw = np.random.default_rng(0)
    shape = {"sequences": (6, 6, 2), "tokens": (6, 7)}.get(name, (6, 5))
    inputs = draw.integers(0, 9, shape) if name == "tokens" else draw.normal(size=shape)
    np.savez(folder / "new.npz", inputs=inputs)
    return folder / "new.npz"


@pytest.mark.parametrize("name", SETTINGS)
def test_it_has_no_figures(broken: Broken, bigmodel: Bigmodel, name: str) -> None:
    run = broken(name)
    for options in ([], ["--json"], ["--weights", "last"]):
        said = bigmodel("eval", run, "--device", "cpu", *options)
        assert (said.status, said.out) == (1, "")
        assert "gives NaN or infinity for samples of the " in said.err
        assert "nothing can be measured" in said.err
        assert "Traceback" not in said.err


@pytest.mark.parametrize("name", SETTINGS)
def test_it_is_not_exported(broken: Broken, bigmodel: Bigmodel, name: str) -> None:
    run = broken(name)
    said = bigmodel("export", run)
    assert said.status == 1
    assert "The model gives NaN or infinity for made-up samples: it is not exported." in said.err
    assert not (run / "model.onnx").exists()


@pytest.mark.parametrize("name", SETTINGS)
def test_it_says_nothing_of_any_row(
    made: Run, broken: Broken, bigmodel: Bigmodel, tmp_path: Path, name: str
) -> None:
    path = new_samples(name, made, tmp_path)
    options = ["--tokens", 5] if name in TEXTS else ["--probabilities"]
    tables, said = [], []
    for run in (made(name), broken(name)):
        output = tmp_path / f"{len(said)}.csv"
        args = ("predict", run, "--input", path, "--output", output, "--device", "cpu", *options)
        said.append(bigmodel(*args))
        tables.append(list(csv.DictReader(io.StringIO(output.read_text(encoding="utf-8")))))
    sound, rows = tables
    assert len(rows) == len(sound) > 0
    of_the_model = [
        key for key in sound[0] if any(s[key] != r[key] for s, r in zip(sound, rows, strict=True))
    ]
    assert of_the_model, "the other columns are the samples' own"
    assert {row[key] for row in rows for key in of_the_model} == {""}
    what = "texts" if name in TEXTS else "rows"
    assert f"{len(rows):,} of {len(rows):,} {what} are left empty" in said[1].err
    assert (said[0].status, said[1].status) == (0, 1)


@pytest.mark.parametrize("name", ["text", "pairs"])
@pytest.mark.parametrize(
    "choice", [["--temperature", 0], ["--temperature", 1, "--top-p", 0.9], ["--beams", 3]], ids=str
)
def test_it_writes_nothing(broken: Broken, bigmodel: Bigmodel, name: str, choice: list[object]) -> None:
    prompt = {"text": "ROMEO:", "pairs": "ein Hund"}[name]
    said = bigmodel("predict", broken(name), "--prompt", prompt, "--device", "cpu", *choice)
    assert said.status == 1
    assert said.out.strip() == ("ROMEO:" if name == "text" else "")
    assert "1 of 1 text has no next token: the model gives NaN or infinity." in said.err


@pytest.mark.parametrize("name", ["text", "pairs"])
@pytest.mark.parametrize("beams", [1, 2])
def test_rows_of_which_it_says_something_are_there(
    made: Run,
    bigmodel: Bigmodel,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    beams: int,
) -> None:
    """The second line, the longest, leads to NaN, wherever it stands in the batch."""
    lines = {"text": ["ROMEO:", "Sweet, so", "Good"], "pairs": ["ein", "zwei Hund Katze", "Hund 7"]}[
        name
    ]
    path, run = tmp_path / "lines.txt", made(name)
    path.write_text("\n".join(lines) + "\n")
    choice = ("--beams", 2) if beams == 2 else ("--temperature", 0)
    args = ("predict", run, "--input", path, "--output", "-", "--device", "cpu", "--tokens", 4, *choice)
    whole = bigmodel(*args).out.split("\n")
    model, kind = type(loaded(run).model), loaded(run).preprocessing.spec.input
    real = model.prefill

    def prefill(self: Any, inputs: torch.Tensor, lengths: list[int], max_length: int) -> Any:
        logits, cache = real(self, inputs, lengths, max_length)
        sizes = torch.tensor(lengths)
        if isinstance(kind, TokenPair):
            sizes = (inputs[:, 0] != kind.pad).sum(1)
        logits[sizes == sizes.max()] = torch.nan
        return logits, cache

    monkeypatch.setattr(model, "prefill", prefill)
    said = bigmodel(*args)
    assert said.status == 1
    assert "1 of 3 texts are left empty" in said.err
    assert said.out.split("\n") == [whole[0], "", *whole[2:]]


@pytest.mark.parametrize("name", ["classes", "values", "flags"])
def test_a_single_row_that_overflows_is_left_empty(
    broken: Broken, bigmodel: Bigmodel, tmp_path: Path, name: str
) -> None:
    run = broken(name, 1e3)
    inputs = np.random.default_rng(0).normal(size=(5, 5)).astype(np.float32)
    tables = []
    for value in (None, 1e37):
        if value is not None:
            inputs[3] = value
        np.savez(tmp_path / "new.npz", inputs=inputs)
        said = bigmodel("predict", run, "--input", tmp_path / "new.npz", "--device", "cpu")
        assert said.status == (value is not None), said.err
        tables.append(list(csv.reader(io.StringIO(said.out))))
    assert "1 of 5 rows are left empty" in said.err
    sound, rows = tables
    assert [row for n, row in enumerate(rows) if n != 4] == [
        row for n, row in enumerate(sound) if n != 4
    ]
    assert [cell for cell, before in zip(rows[4], sound[4], strict=True) if cell != before] == [
        "" for head in rows[0] if head != "row"
    ]
    targets = {"classes": np.arange(5) % 3, "values": np.ones((5, 1)), "flags": np.eye(5)[:, :2]}[name]
    np.savez(tmp_path / "new.npz", inputs=inputs, targets=targets)
    judged = bigmodel("eval", run, "--data", tmp_path / "new.npz", "--device", "cpu")
    assert judged.status == 1
    assert "nothing can be measured" in judged.err


@pytest.mark.parametrize(
    ("name", "option", "added"),
    [("classes", "--set", {"set"}), ("values", "--interval", {"lower", "upper"})],
)
def test_what_is_unknown_has_neither_interval_nor_set(
    broken: Broken, bigmodel: Bigmodel, tmp_path: Path, name: str, option: str, added: set[str]
) -> None:
    inputs = np.concatenate([np.zeros((1, 5)), np.full((2, 5), 1e3)]).astype(np.float32)
    np.savez(tmp_path / "new.npz", inputs=inputs)
    output = tmp_path / "out.jsonl"
    words = ("--input", tmp_path / "new.npz", "--output", output, "--device", "cpu")
    assert bigmodel("predict", broken(name), *words, option, 0.5).status == 1
    rows = [json.loads(line) for line in output.read_text().splitlines()]
    unknown = [row for row in rows if row["prediction"] is None]
    assert unknown
    assert added < set(rows[0])
    assert all(row[column] is None for row in unknown for column in added)
