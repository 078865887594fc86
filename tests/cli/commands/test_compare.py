import csv
import json
import sys
from pathlib import Path

import pytest
import yaml

from tests.cli.commands.cli import Bigmodel


@pytest.fixture
def sweep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Jobs of two models with three seeds, as they lie on the disk."""
    monkeypatch.chdir(tmp_path)
    for number in range(6):
        folder = tmp_path / "sweep" / str(number)
        (folder / ".hydra").mkdir(parents=True)
        model, seed = ("cnn", "fnn")[number // 3], number % 3
        (folder / ".hydra" / "overrides.yaml").write_text(
            yaml.safe_dump([f"model={model}", f"seed={seed}"])
        )
        figures = {
            "val/accuracy": (0.9, 0.81, 0.72, 0.6, 0.51, 0.43)[number],
            "val/loss": 0.1 - number / 100,
        }
        summary = {"status": "finished", "monitor": "val/accuracy", "mode": "max", "best": figures}
        (folder / "summary.json").write_text(json.dumps(summary | {"epochs": 2.0, "steps": 4}))
        record = {"epoch": 1, "step": 2, "val/accuracy": 0.5, "train/loss": 0.5}
        (folder / "metrics.jsonl").write_text(json.dumps(record) + "\n")
    return Path("sweep")


def test_jobs_are_ranked_and_seeds_averaged(bigmodel: Bigmodel, sweep: Path) -> None:
    said = bigmodel("compare", sweep)
    assert (said.status, said.err) == (0, "")
    lines = said.out.splitlines()
    assert lines[0].split() == [
        *("#", "job", "model", "seed", "val/accuracy", "final", "epochs", "time", "status", "folder")
    ]
    assert lines[1].split()[:5] == ["1", "0", "cnn", "0", "0.9000"]
    assert "Means over seeds: val/accuracy, higher is better" in lines
    assert lines[-1].startswith(
        "model=cnn is better than model=fnn: by 0.2967 on average over the same 3 seeds"
    )


def test_by_another_key_and_metric(bigmodel: Bigmodel, sweep: Path) -> None:
    said = bigmodel("compare", sweep, "--by", "seed", "--metric", "val/loss", "--top", 2)
    lines = said.out.splitlines()
    assert lines[1].split()[:5] == ["1", "5", "fnn", "2", "0.0500"]
    assert "6 jobs: 6 finished. 4 are not shown." in lines
    assert "Means over combinations of model: val/loss, lower is better" in lines


def test_files_are_written(bigmodel: Bigmodel, sweep: Path, tmp_path: Path) -> None:
    said = bigmodel("compare", sweep, "--html", "page.html", "--csv", "table.csv")
    assert (said.status, said.err) == (0, "Wrote page.html\nWrote table.csv\n")
    with (tmp_path / "table.csv").open(newline="") as file:
        assert [row["job"] for row in csv.DictReader(file)] == ["0", "1", "2", "3", "4", "5"]
    page = (tmp_path / "page.html").read_text()
    assert "<title>sweep</title>" in page
    assert page.count("Plotly.newPlot(") == 3
    again = bigmodel("compare", sweep, "--csv", "table.csv")
    assert again.err == "bigmodel: --csv table.csv: already exists. Add --force to replace it.\n"
    assert bigmodel("compare", sweep, "--csv", "table.csv", "--force").status == 0


def test_several_folders(bigmodel: Bigmodel, sweep: Path) -> None:
    said = bigmodel("compare", sweep / "0", sweep / "4")
    assert [line.split()[:4] for line in said.out.splitlines()[:3]] == [
        ["#", "job", "model", "seed"],
        ["1", "0", "cnn", "0"],
        ["2", "4", "fnn", "1"],
    ]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["sweep", "--by", "modle"], "--by modle: the jobs do not differ in it. Did you mean 'model'?"),
        (
            ["sweep", "--by", "data"],
            "--by data: the jobs do not differ in it. They differ in model, seed.",
        ),
        (["sweep", "--metric", "val/acuracy"], "no job has it. Did you mean 'val/accuracy'? There are"),
        (["sweep", "--top", "0"], "--top: 0: must be a whole number, 1 or more"),
        (["nowhere"], "nowhere: there is no such folder. Name the folder of a sweep or a run."),
        (["empty"], "empty: holds no run. Name the folder of a sweep"),
        ([], "the following arguments are required: FOLDER"),
        (["sweep", "--html", "page.htm"], "--html page.htm: '.htm' is not a supported type of file."),
        (["sweep", "--csv", "no/t.csv"], "--csv no/t.csv: there is no folder"),
        (["sweep", "--csv", "table"], "--csv table: names no type of file."),
        (
            ["--csv", "sweep"],
            "--csv: sweep is a folder, but it takes a file to write, as in: sweep --csv",
        ),
        (["sweep", "--tpo", "3"], "bigmodel compare has no such option. Did you mean '--top'?"),
    ],
    ids=" ".join,
)
def test_wrong_input_is_one_message(
    bigmodel: Bigmodel, sweep: Path, words: list[str], told: str
) -> None:
    Path("empty").mkdir()
    said = bigmodel("compare", *words)
    assert (said.status, said.out) == (1, "")
    assert told in said.err
    assert said.err.count("\n") == 1
    assert sweep.is_dir()


def test_a_page_needs_plotly(bigmodel: Bigmodel, sweep: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "plotly", None)
    said = bigmodel("compare", sweep, "--html", "page.html")
    assert said.err == (
        "bigmodel: bigmodel compare --html needs plotly, which is not installed:"
        " pip install 'bigmodel-train[sweeps]'\n"
    )
