"""Predictions beside new samples."""

import csv
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bigmodel.spec import Classes
from bigmodel.training.loop import fit
from tests.cli.commands.cli import Bigmodel
from tests.cli.commands.conftest import Run
from tests.cli.commands.test_loaded_run import loaded
from tests.small_runs import built, model_inputs


def rows_of(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def test_the_terminal_gets_csv(made: Run, bigmodel: Bigmodel, tmp_path: Path) -> None:
    inputs = np.random.default_rng(0).normal(size=(7, 5))
    np.savez(tmp_path / "new.npz", inputs=inputs)
    result = bigmodel("predict", made("classes"), "--input", tmp_path / "new.npz", "--device", "cpu")
    assert result.status == 0, result.err
    rows = rows_of(result.out)
    assert list(rows[0]) == ["row", "prediction", "probability"]
    run = loaded(made("classes"))
    reader = run.preprocessing.reader
    assert reader is not None
    stored = reader.read(tmp_path / "new.npz", with_targets=False).part.take(slice(0, 7))[0]
    expected = run.model(model_inputs(run.preprocessing, stored)).argmax(1).tolist()
    target = run.preprocessing.spec.target
    assert isinstance(target, Classes)
    assert [row["prediction"] for row in rows] == [target.names[index] for index in expected]


@pytest.mark.parametrize("name", ["images", "sequences", "tokens", "flags", "values"])
def test_arrays_of_every_kind(made: Run, bigmodel: Bigmodel, tmp_path: Path, name: str) -> None:
    draw = np.random.default_rng(0)
    inputs: Any = {
        "images": draw.integers(0, 256, (5, 1, 8, 8)).astype(np.uint8),
        "sequences": draw.normal(size=(5, 6, 2)),
        "tokens": draw.integers(0, 9, (5, 7)),
    }.get(name, draw.normal(size=(5, 5)))
    np.savez(tmp_path / "new.npz", inputs=inputs)
    result = bigmodel(
        *("predict", made(name), "--input", tmp_path / "new.npz", "--device", "cpu"),
        *("--output", tmp_path / "o.csv"),
    )
    assert result.status == 0, result.err
    assert len(rows_of((tmp_path / "o.csv").read_text())) == 5
    assert "5 rows in" in result.err
    assert str(tmp_path / "o.csv") in result.err


def test_a_table_keeps_its_own_columns(made: Run, bigmodel: Bigmodel, tmp_path: Path) -> None:
    new = tmp_path / "new.csv"
    new.write_text('city,area,built,note\n"Oslo",3.5,2024-03-11,"a, b"\nAtlantis,,2024-03-12,\n')
    result = bigmodel("predict", made("table"), "--input", new, "--device", "cpu")
    assert result.status == 0, result.err
    rows = rows_of(result.out)
    assert list(rows[0]) == ["city", "area", "built", "note", "prediction"]
    assert rows[0]["note"] == "a, b"
    assert all(0 < float(row["prediction"]) < 60 for row in rows)


def test_texts_of_different_lengths_keep_their_order(
    made: Run, bigmodel: Bigmodel, tmp_path: Path
) -> None:
    new = tmp_path / "new.csv"
    new.write_text("text\ngood\nawful poor bad awful poor\nnice fine\n")
    args = ("predict", made("reviews"), "--input", new, "--device", "cpu")
    together, apart = bigmodel(*args), bigmodel(*args, "--batch-size", 1)
    assert [row["text"] for row in rows_of(together.out)] == [
        "good",
        "awful poor bad awful poor",
        "nice fine",
    ]
    first, second = (
        [float(r["probability"]) for r in rows_of(result.out)] for result in (together, apart)
    )
    assert first == pytest.approx(second, abs=1e-5)


def test_a_run_that_was_moved_and_lost_its_data(made: Run, bigmodel: Bigmodel, tmp_path: Path) -> None:
    import shutil

    run = shutil.copytree(made("table"), tmp_path / "elsewhere")
    new = tmp_path / "new.csv"
    new.write_text("city,area,built\nOslo,3.5,2024-03-11\n")
    here = bigmodel("predict", made("table"), "--input", new, "--device", "cpu")
    there = bigmodel("predict", run, "--input", new, "--device", "cpu")
    assert there.status == 0
    assert there.out == here.out


def test_an_output_is_replaced_only_by_force(made: Run, bigmodel: Bigmodel, tmp_path: Path) -> None:
    np.savez(tmp_path / "new.npz", inputs=np.zeros((2, 5)))
    output = tmp_path / "o.csv"
    args = ("predict", made("classes"), "--input", tmp_path / "new.npz", "--output", output)
    assert bigmodel(*args).status == 0
    output.write_text("mine")
    output.chmod(0o640)
    assert bigmodel(*args).status == 1
    assert output.read_text() == "mine"
    assert bigmodel(*args, "--force").status == 0
    assert output.read_text().startswith("row,prediction")
    assert output.stat().st_mode & 0o7777 == 0o640, "whoever might read it before may still"


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--prompt", "hello"], "--prompt: fnn on synthetic gives 3 classes and writes no text."),
        (["--input", "new.npz", "--top-p", "0.9"], "--top-p: fnn on synthetic writes no text."),
        (
            ["--input", "new.npz", "--output", "o.txt"],
            "--output o.txt: '.txt' is not a supported type of file",
        ),
        (
            ["--input", "new.npz", "--output", "o.xls"],
            "--output o.xls: '.xls' is not a supported type of file",
        ),
        (["--input", "none.npz"], "--input none.npz"),
    ],
)
def test_wrong_uses_are_told(
    made: Run,
    bigmodel: Bigmodel,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    words: list[str],
    told: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    np.savez(tmp_path / "new.npz", inputs=np.zeros((2, 5)))
    result = bigmodel("predict", made("classes"), *words, "--device", "cpu")
    assert result.status == 1
    assert result.err.startswith(f"bigmodel: {told}")


def test_a_file_may_be_in_another_encoding_than_that_of_training(
    table_run: Path, bigmodel: Bigmodel, tmp_path: Path
) -> None:
    text = "größe,wer,y\n0.5,Zoë,1\n"
    for encoding in ("utf-8", "utf-16", "cp1252", "utf-16-le"):
        (tmp_path / f"{encoding}.csv").write_bytes(text.encode(encoding))
    for name in ("utf-8", "utf-16"):
        result = bigmodel("predict", table_run, "--input", tmp_path / f"{name}.csv", "--device", "cpu")
        assert result.status == 0, result.err
        assert rows_of(result.out)[0]["wer"] == "Zoë"
    for name in ("cp1252", "utf-16-le"):
        encoded = ["predict", table_run, "--input", tmp_path / f"{name}.csv", "--device", "cpu"]
        result = bigmodel(*encoded)
        assert result.status == 1
        assert result.err.strip().endswith(f"set --encoding {name}")
        for option in (["--encoding", name], [f"data.encoding={name}"]):
            result = bigmodel(*encoded, *option)
            assert result.status == 0, result.err
            assert rows_of(result.out)[0]["wer"] == "Zoë"
        judged = bigmodel(
            "eval", table_run, "--data", encoded[3], "--device", "cpu", f"data.encoding={name}"
        )
        assert judged.status == 0, judged.err


def test_an_encoding_where_nothing_is_text(made: Run, bigmodel: Bigmodel, tmp_path: Path) -> None:
    np.savez(tmp_path / "new.npz", inputs=np.zeros((2, 5)))
    encoded = [
        "predict",
        made("classes"),
        "--input",
        tmp_path / "new.npz",
        "--device",
        "cpu",
        "--encoding",
    ]
    result = bigmodel(*encoded, "cp1252")
    assert (result.status, "was not trained on text files" in result.err) == (1, True)
    result = bigmodel(*encoded, "utf9")
    assert (result.status, "'utf9': there is no such text encoding" in result.err) == (1, True)


@pytest.fixture
def table_run(tmp_path: Path) -> Path:
    rows = "".join(f"{n / 7:.2f},{'Zoë' if n % 3 else 'Jo'},{n % 2}\n" for n in range(40))
    (tmp_path / "a.csv").write_text("größe,wer,y\n" + rows, encoding="utf-8")
    settings = {"data": {"name": "table", "path": str(tmp_path / "a.csv"), "target": "y"}}
    run, _ = built(tmp_path / "run", settings)
    (tmp_path / "run").mkdir()
    fit(run)
    return tmp_path / "run"
