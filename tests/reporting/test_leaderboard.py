import csv
import io
import math
from dataclasses import replace
from pathlib import Path

import pytest
from rich.text import Text

from bigmodel.errors import CheckpointError
from bigmodel.reporting.leaderboard import Row, print_leaderboard, rank, write_csv

ERROR = "The loss became nan at step 12, at learning rate 0.1. A smaller optimizer.lr usually helps."


SWEEP = "outputs/multirun/2026-11-23/10-20-00"


def row(job: int, metric: float | None, status: str = "finished", **changes: str) -> Row:
    changed = {"model": "cnn", "optimizer.lr": f"0.{job}"} | changes
    folder = f"{SWEEP}/{job}"
    return Row(
        str(job), changed, metric, 3.25 * job, status, folder, ERROR if status == "failed" else None
    )


ROWS = [
    row(1, 0.5, "failed"),
    row(2, 0.9),
    row(3, None, "running"),
    row(4, 0.95),
    row(5, 0.99, "stopped"),
    row(6, math.nan),
    row(7, 0.91),
]


def printed(rows: list[Row], *, terminal: bool, width: int = 80) -> list[str]:
    stream = io.StringIO()
    print_leaderboard(rows, "val/accuracy", "max", stream=stream, terminal=terminal, width=width)
    if not terminal:
        assert "\x1b" not in stream.getvalue()
    return [line.plain.rstrip() for line in Text.from_ansi(stream.getvalue()).split()]


@pytest.mark.parametrize(("mode", "order"), [("max", "4725361"), ("min", "2745361")])
def test_best_first_then_the_unfinished_then_the_failed(mode: str, order: str) -> None:
    assert "".join(each.job for each in rank(ROWS, mode)) == order


def test_equal_jobs_stay_in_order() -> None:
    assert [each.job for each in rank([row(2, 0.9), row(1, 0.9)], "max")] == ["2", "1"]


def test_equal_jobs_are_ranked_by_their_validation_loss_where_it_is_the_same_loss() -> None:
    jobs = [replace(row(job, 0.9), val_loss=loss, loss="mse") for job, loss in ((1, 0.5), (2, 0.1))]
    jobs += [row(3, 0.9), row(4, 0.8)]
    assert [each.job for each in rank(jobs, "max")] == ["2", "1", "3", "4"]
    jobs[0] = replace(jobs[0], loss="l1")
    assert [each.job for each in rank(jobs, "max")] == ["1", "2", "3", "4"]


def test_csv(tmp_path: Path) -> None:
    rows = [row(1, 1 / 3), row(2, 0.9, **{"data.path": 'a,"b"'}), row(3, None, "failed")]
    write_csv(rows, tmp_path / "leaderboard.csv", "val/accuracy", "max")
    with (tmp_path / "leaderboard.csv").open(newline="") as file:
        found = list(csv.DictReader(file))
    assert ",".join(found[0]) == (
        "rank,job,model,optimizer.lr,data.path,val/accuracy,seconds,status,folder,error"
    )
    assert [each["job"] for each in found] == ["2", "1", "3"]
    assert [each["rank"] for each in found] == ["1", "2", ""]
    assert found[0]["data.path"] == 'a,"b"'
    assert float(found[1]["val/accuracy"]) == 1 / 3
    assert found[2]["val/accuracy"] == ""
    assert found[2]["error"] == ERROR
    assert found[1]["folder"].endswith("10-20-00/1")


def test_csv_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"nowhere: is gone: it was moved or deleted"):
        write_csv(ROWS, tmp_path / "nowhere" / "leaderboard.csv", "val/accuracy", "max")


def test_plain_text_is_aligned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(f"{__name__}.SWEEP", "outputs/sweep")
    assert printed([row(1, 0.5), row(2, None, "failed", model="rnn")], terminal=False, width=10) == [
        "#  job  model  optimizer.lr  val/accuracy  time   status    folder",
        "1  1    cnn    0.1           0.5000        3.2 s  finished  outputs/sweep/1",
        "–  2    rnn    0.2           –             6.5 s  failed    outputs/sweep/2",
        f"Job 2 (model=rnn optimizer.lr=0.2) failed: {ERROR}",
    ]


@pytest.mark.parametrize("width", [80, 200])
def test_the_table_fits_and_tells_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, width: int
) -> None:
    monkeypatch.chdir(tmp_path)
    shown = printed(ROWS, terminal=True, width=width)
    assert max(map(len, shown)) <= width
    text = "\n".join(shown)
    assert "… " not in text
    if width == 80:
        assert "Folders: outputs/multirun/2026-11-23/10-20-00/<job>" in shown
    else:
        assert "│ outputs/multirun/2026-11-23/10-20-00/4 │" in text
    assert "Job 1 (model=cnn optimizer.lr=0.1) failed: The loss became nan at step 12" in text


def test_many_changes_share_a_column_at_80(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    more = {"trainer.clip_norm": "1.0", "model.hidden_sizes": "[128,64,32]", "data.batch_size": "256"}
    shown = printed([row(1, 0.5, **more), row(2, 0.6, **more)], terminal=True)
    assert max(map(len, shown)) <= 80
    assert "changes" in shown[1]
    assert any("0.6000" in line and "finished" in line for line in shown)
    assert "model.hidden_sizes=[128,64,32]" in "\n".join(shown)


def test_the_winner_is_green_and_a_failure_red() -> None:
    stream = io.StringIO()
    print_leaderboard(ROWS, "val/accuracy", "max", stream=stream, terminal=True, width=120)
    lines = stream.getvalue().splitlines()
    assert sum("\x1b[32m" in line for line in lines) == 1
    assert "0.9500" in next(line for line in lines if "\x1b[32m" in line)
    assert all("\x1b[1;31m" in line for line in lines if "failed" in line)


def test_no_jobs() -> None:
    assert printed([], terminal=False) == ["#  job  val/accuracy  time  status  folder"]
    assert printed([], terminal=True)


def of_losses(*losses: str) -> list[Row]:
    return [
        Row(str(n), {"seed": str(n)}, 0.5 + n, 1.0, "finished", f"{SWEEP}/{n}", None, loss)
        for n, loss in enumerate(losses)
    ]


@pytest.mark.parametrize(
    ("losses", "metric", "column", "warned"),
    [
        (("mse", "mse"), "val/loss", False, False),
        (("mse", "l1"), "val/loss", True, True),
        (("mse", "l1"), "val/mae", False, False),
        (("cross_entropy (class_weights=balanced)",) * 2, "val/loss", True, False),
        (("cross_entropy", "cross_entropy (label_smoothing=0.1)"), "train/loss", True, True),
        (("", ""), "val/loss", False, False),
    ],
)
def test_losses_that_cannot_be_compared_are_marked(
    tmp_path: Path, losses: tuple[str, ...], metric: str, column: bool, warned: bool
) -> None:
    rows, stream = of_losses(*losses), io.StringIO()
    write_csv(rows, tmp_path / "leaderboard.csv", metric, "min")
    with (tmp_path / "leaderboard.csv").open(newline="") as file:
        found = list(csv.DictReader(file))
    assert [each.get("loss used") for each in found] == (list(losses) if column else [None, None])
    for terminal in (False, True):
        print_leaderboard(rows, metric, "min", stream=stream, terminal=terminal, width=200)
        assert (f"Warning: {metric} comes from different losses" in stream.getvalue()) is warned
    shown = Text.from_ansi(stream.getvalue()).plain
    assert (losses[0] in shown) is (column or losses[0] == "")
