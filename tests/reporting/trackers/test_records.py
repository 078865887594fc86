import json
from pathlib import Path

import pytest

from bigmodel.reporting.trackers.records import Records


def written(path: Path, *steps: int, cut: str = "") -> Path:
    lines = [json.dumps({"epoch": step, "step": step, "val/loss": step / 2}) + "\n" for step in steps]
    path.write_text("".join(lines) + cut)
    return path


def steps(records: Records) -> list[int]:
    """Those of the next records, which are taken."""
    new, records.position = records.read()
    return [int(record["step"]) for record in new]


def test_what_is_new_is_read_as_the_file_grows(tmp_path: Path) -> None:
    records = Records(tmp_path / "metrics.jsonl")
    assert steps(records) == []
    path = written(tmp_path / "metrics.jsonl", 1, 2, cut='{"epoch": 3, "st')
    assert records.read()[0][1] == {"epoch": 2, "step": 2, "val/loss": 1.0}
    assert records.left() == 3
    assert steps(records) == [1, 2]
    assert steps(records) == []
    written(path, 1, 2, 3, 4)
    assert steps(records) == [3, 4]
    assert records.left() == 0


def test_undefined_figures_and_damaged_lines_are_left_out(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1, "val/auc": null, "lr": 0.1}\n\x00\x00nonsense\n[1]\n{"step": 2}\n')
    assert Records(path).read()[0] == [{"step": 1, "lr": 0.1}, {"step": 2}]


@pytest.mark.parametrize(
    ("had", "after", "new"),
    [
        (4, 2, [3, 4, 5]),
        (4, 4, [5]),
        (2, 4, [3, 4, 5]),
        (4, 0, [1, 2, 3, 4, 5]),
        (0, 3, [1, 2, 3, 4, 5]),
    ],
)
def test_a_run_that_goes_back_is_read_again_from_there(
    tmp_path: Path, had: int, after: int, new: list[int]
) -> None:
    """What was never sent stays to be sent."""
    path = written(tmp_path / "metrics.jsonl", *range(1, had + 1))
    position = path.stat().st_size
    written(path, *range(1, 6))
    records = Records(path, position)
    records.rewind(after)
    assert steps(records) == new


def test_a_file_that_became_shorter_has_nothing_new(tmp_path: Path) -> None:
    path = written(tmp_path / "metrics.jsonl", 1, 2, 3)
    records = Records(path, path.stat().st_size)
    written(path, 1)
    assert steps(records) == []
    records.rewind(1)
    written(path, 1, 2)
    assert steps(records) == [2]
