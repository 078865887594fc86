import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from bigmodel.cli.launch.sweep import collect

FINISHED = {
    "status": "finished",
    "best": {"epoch": 2, "val/accuracy": 0.9},
    "monitor": "val/accuracy",
    "mode": "max",
    "seconds": 1.5,
    "error": None,
}


def job(sweep: Path, number: int | str, overrides: list[str], summary: Any = FINISHED) -> Path:
    """Lays out a job's folder; a summary of None is one that was never written."""
    folder = sweep / str(number)
    (folder / ".hydra").mkdir(parents=True)
    (folder / ".hydra" / "overrides.yaml").write_text(yaml.safe_dump(overrides))
    if summary is not None:
        text = summary if isinstance(summary, str) else json.dumps(summary)
        (folder / "summary.json").write_text(text)
    return folder


def test_jobs_come_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    for number in (10, 2, 0, 1, 11):
        job(tmp_path, number, [f"seed={number}"])
    (tmp_path / "multirun.yaml").touch()
    (tmp_path / "notes").mkdir()
    rows, _, _ = collect(tmp_path)
    assert [row.job for row in rows] == ["0", "1", "2", "10", "11"]
    assert [row.changed for row in rows] == [{"seed": row.job} for row in rows]
    assert [row.folder for row in rows] == [str(tmp_path / row.job) for row in rows]


def test_figures_come_from_the_summaries(tmp_path: Path) -> None:
    job(tmp_path, 0, ["seed=0"])
    job(tmp_path, 1, ["seed=1"], FINISHED | {"best": {"val/accuracy": 0.5}, "seconds": 3})
    rows, metric, mode = collect(tmp_path)
    assert (metric, mode) == ("val/accuracy", "max")
    assert [(row.metric, row.seconds, row.status, row.error) for row in rows] == [
        (0.9, 1.5, "finished", None),
        (0.5, 3.0, "finished", None),
    ]


def test_only_keys_that_differ_are_named(tmp_path: Path) -> None:
    common = ["trainer.epochs=2", "+new.key=1"]
    job(tmp_path, 0, ["model=fnn", "model.hidden_sizes=[8,8]", *common])
    job(tmp_path, 1, ["model=rnn", *common])
    rows, _, _ = collect(tmp_path)
    assert [row.changed for row in rows] == [
        {"model": "fnn", "model.hidden_sizes": "[8,8]"},
        {"model": "rnn"},
    ]


def test_a_value_may_hold_an_equals_sign_and_a_key_a_plus(tmp_path: Path) -> None:
    job(tmp_path, 0, ["data.root='a=b'", "+trainer.x=1"])
    job(tmp_path, 1, ["data.root=c", "++trainer.x=2"])
    rows, _, _ = collect(tmp_path)
    assert [row.changed for row in rows] == [
        {"data.root": "'a=b'", "trainer.x": "1"},
        {"data.root": "c", "trainer.x": "2"},
    ]


def test_the_only_job_names_all_its_keys(tmp_path: Path) -> None:
    job(tmp_path, 0, ["model=fnn", "seed=1"])
    assert collect(tmp_path)[0][0].changed == {"model": "fnn", "seed": "1"}


@pytest.mark.parametrize("summary", [None, "", '{"status": "fini', "[]", "\x00"])
def test_a_job_that_was_ended_from_outside(tmp_path: Path, summary: str | None) -> None:
    job(tmp_path, 0, ["seed=0"], summary)
    job(tmp_path, 1, ["seed=1"])
    rows, metric, mode = collect(tmp_path)
    assert (metric, mode) == ("val/accuracy", "max")  # from the one that says so
    assert (rows[0].status, rows[0].metric, rows[0].seconds) == ("failed", None, 0.0)
    assert rows[0].error is not None
    assert "left no summary" in rows[0].error
    assert rows[0].changed == {"seed": "0"}


def test_a_job_that_never_evaluated(tmp_path: Path) -> None:
    failed = {"status": "failed", "best": {}, "monitor": "val/rmse", "mode": "min", "error": "no data"}
    job(tmp_path, 0, ["seed=0"], failed)
    (row,), metric, mode = collect(tmp_path)
    assert (row.status, row.metric, row.error) == ("failed", None, "no data")
    assert (metric, mode) == ("val/rmse", "min")


def test_a_figure_that_is_no_number(tmp_path: Path) -> None:
    job(tmp_path, 0, ["seed=0"], FINISHED | {"best": {"val/accuracy": None}})
    assert collect(tmp_path)[0][0].metric is None


@pytest.mark.parametrize(
    ("rmse", "why"), [(2.0, "the validation set leaves it undefined"), (None, "the model gave NaN")]
)
def test_why_a_figure_was_never_a_number_is_told(tmp_path: Path, rmse: float | None, why: str) -> None:
    final = {"val/r2": None, "val/rmse": rmse, "train/loss": 0.5}
    job(tmp_path, 0, ["seed=0"], FINISHED | {"monitor": "val/r2", "best": {}, "final": final})
    error = collect(tmp_path)[0][0].error
    assert error is not None
    assert error.startswith(f"val/r2 was never a number: {why}")


@pytest.mark.parametrize("content", [None, "", "- seed=0\n- 'da", "\x00"])
def test_overrides_that_cannot_be_read_do_not_hide_the_job(tmp_path: Path, content: str | None) -> None:
    path = job(tmp_path, 0, []) / ".hydra" / "overrides.yaml"
    path.unlink() if content is None else path.write_text(content)
    job(tmp_path, 1, ["seed=1"])
    rows = collect(tmp_path)[0]
    assert [(row.changed, row.metric) for row in rows] == [({}, 0.9), ({"seed": "1"}, 0.9)]


def test_a_sweep_without_jobs(tmp_path: Path) -> None:
    assert collect(tmp_path) == ([], "metric", "max")
