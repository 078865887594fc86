import json
import math
import os
from pathlib import Path

import pytest

from bigmodel.errors import CheckpointError
from bigmodel.reporting.base import Summary
from bigmodel.reporting.summary import read_summary, write_summary
from tests.reporting import facts


def test_comes_back_as_written(tmp_path: Path) -> None:
    labels = {"name": "\x1b/ü", "tags": ["a"], "notes": None}
    written = facts.summary(environment={"torch": "2.13", "device": "cpu"}, run=labels)
    write_summary(written, tmp_path)
    assert read_summary(tmp_path) == written
    assert [path.name for path in tmp_path.iterdir()] == ["summary.json"]


def test_holds_what_the_blueprint_names(tmp_path: Path) -> None:
    write_summary(facts.summary(), tmp_path)
    found = json.loads((tmp_path / "summary.json").read_text())
    names = ["status", "best", "final", "test", "epochs", "steps", "seconds", "parameters", "error"]
    assert {*names, "environment"} <= set(found)
    assert found["best"]["val/accuracy"] == 0.9833
    assert found["error"] is None


def test_what_is_not_finite_becomes_null_and_comes_back_as_nan(tmp_path: Path) -> None:
    write_summary(facts.summary("failed", final={"val/loss": math.inf}), tmp_path)
    assert '"val/loss": null' in (tmp_path / "summary.json").read_text()
    found = read_summary(tmp_path)
    assert found is not None
    assert math.isnan(found.final["val/loss"])


def test_none_where_there_is_none(tmp_path: Path) -> None:
    assert read_summary(tmp_path) is None


def test_reads_one_of_another_version(tmp_path: Path) -> None:
    (tmp_path / "summary.json").write_text('{"status": "running", "colour": "blue"}')
    assert read_summary(tmp_path) == Summary("running")


@pytest.mark.parametrize(
    "text", ['{"status": "fin', "[]", "{}", '{"status": 3}', '{"status": "x", "best": [1]}']
)
def test_says_clearly_what_is_no_summary(tmp_path: Path, text: str) -> None:
    (tmp_path / "summary.json").write_text(text)
    with pytest.raises(CheckpointError, match=r"summary\.json.*move the file away"):
        read_summary(tmp_path)


def test_a_crash_while_writing_leaves_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_summary(facts.summary("running"), tmp_path)

    def crash(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", crash)
    with pytest.raises(
        CheckpointError, match=r"summary\.json: cannot be written: No space left on device\."
    ):
        write_summary(facts.summary("finished"), tmp_path)
    found = read_summary(tmp_path)
    assert found is not None
    assert found.status == "running"
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize(
    ("key", "value"), [("best", {"val/loss": []}), ("seconds", {}), ("steps", "many"), ("left_out", [1])]
)
def test_values_of_the_wrong_type_are_named(tmp_path: Path, key: str, value: object) -> None:
    (tmp_path / "summary.json").write_text(json.dumps({"status": "finished", key: value}))
    with pytest.raises(CheckpointError, match=rf"summary\.json: `{key}.* move the file away"):
        read_summary(tmp_path)
