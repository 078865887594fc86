import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.text import Text

from bigmodel.errors import CheckpointError
from bigmodel.reporting.leaderboard import print_leaderboard
from bigmodel.reporting.leaderboard_csv import write_csv
from bigmodel.reporting.leaderboard_words import verdict
from bigmodel.sweeps.groups import group
from bigmodel.sweeps.leaderboard import JobResult, rank

ERROR = "The loss became nan at step 12, at learning rate 0.1. A smaller optimizer.lr usually helps."


SWEEP = "outputs/multirun/2026-11-23/10-20-00"


def row(job: int, metric: float | None, status: str = "finished", **changes: str) -> JobResult:
    return JobResult(
        str(job),
        {"model": "cnn", "optimizer.lr": f"0.{job}"} | changes,
        status,
        ERROR if status == "failed" else None,
        f"{SWEEP}/{job}",
        f"{SWEEP}/{job}/checkpoints/best",
        monitor="val/accuracy",
        mode="max",
        best={"val/accuracy": metric},
        final={"val/accuracy": metric},
        epochs=5.0,
        seconds=3.25 * job,
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


def printed(
    rows: Sequence[JobResult], *, terminal: bool, width: int = 80, top: int = 30, by: Sequence[str] = ()
) -> list[str]:
    stream = io.StringIO()
    path = Path(SWEEP, "leaderboard.csv")
    print_leaderboard(
        rank(rows), top=top, by=by, path=path, stream=stream, terminal=terminal, width=width
    )
    if not terminal:
        assert "\x1b" not in stream.getvalue()
    return [line.plain.rstrip() for line in Text.from_ansi(stream.getvalue()).split()]


def read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_csv(tmp_path: Path) -> None:
    rows = [row(1, 1 / 3), row(2, 0.9, **{"data.path": 'a,"b"'}), row(3, None, "failed")]
    write_csv(rank(rows), tmp_path / "leaderboard.csv")
    found = read(tmp_path / "leaderboard.csv")
    assert ",".join(found[0]) == (
        "rank,job,model,optimizer.lr,data.path,val/accuracy,seconds,status,folder,error,"
        "final,epochs,checkpoint"
    )
    assert [each["job"] for each in found] == ["2", "1", "3"]
    assert [each["rank"] for each in found] == ["1", "2", ""]
    assert found[0]["data.path"] == 'a,"b"'
    assert float(found[1]["val/accuracy"]) == float(found[1]["final"]) == 1 / 3
    assert found[2]["val/accuracy"] == ""
    assert found[2]["error"] == ERROR
    assert found[1]["folder"].endswith("10-20-00/1")
    assert found[1]["checkpoint"].endswith("10-20-00/1/checkpoints/best")
    assert found[1]["epochs"] == "5"


def test_csv_of_seeds_has_their_mean(tmp_path: Path) -> None:
    write_csv(rank(seeds({"fnn": (0.5, 0.7), "cnn": (0.9,), "rnn": ()})), tmp_path / "leaderboard.csv")
    means = {
        each["model"]: (each["mean"], each["interval_low"] != "", each["n"])
        for each in read(tmp_path / "leaderboard.csv")
    }
    assert means == {"fnn": ("0.6", True, "2"), "cnn": ("0.9", False, "1"), "rnn": ("", False, "0")}


def test_csv_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"nowhere: is gone: it was moved or deleted"):
        write_csv(rank(ROWS), tmp_path / "nowhere" / "leaderboard.csv")


def test_plain_text_is_aligned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(f"{__name__}.SWEEP", "outputs/sweep")
    assert printed([row(1, 0.5), row(2, None, "failed", model="rnn")], terminal=False, width=10) == [
        "#  job  model  optimizer.lr  val/accuracy  final   epochs  time   status    folder",
        "1  1    cnn    0.1           0.5000        0.5000  5       3.2 s  finished  outputs/sweep/1",
        "–  2    rnn    0.2           –             –       5       6.5 s  failed    outputs/sweep/2",
        "2 jobs: 1 finished, 1 failed.",
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
    print_leaderboard(rank(ROWS), stream=stream, terminal=True, width=120)
    lines = stream.getvalue().splitlines()
    assert sum("\x1b[32m" in line for line in lines) == 1
    assert "0.9500" in next(line for line in lines if "\x1b[32m" in line)
    failed = [line for line in lines if "failed" in line and not line.startswith("7 jobs")]
    assert len(failed) == 2
    assert all("\x1b[1;31m" in line for line in failed)


def test_no_jobs() -> None:
    assert printed([], terminal=False) == [
        "#  job  metric  final  epochs  time  status  folder",
    ]
    assert printed([], terminal=True)


@pytest.mark.parametrize("terminal", [True, False])
def test_a_thousand_jobs_stay_readable(terminal: bool) -> None:
    jobs = [row(n, n / 1000, **{"optimizer.lr": f"0.{n:04}"}) for n in range(600)]
    jobs += [row(600 + n, None, "failed") for n in range(300)]
    jobs += [JobResult(str(900 + n), {"optimizer.lr": "1"}, "waiting") for n in range(100)]
    shown = printed(jobs, terminal=terminal, width=100)
    assert len(shown) < 50
    assert "0.5990" in "\n".join(shown[:4])
    text = " ".join(shown)
    assert "1,000 jobs: 600 finished, 300 failed, 100 waiting. 970 are not shown; all are in" in text
    assert "Jobs 600, 601, 602, 603, 604, … (300 in all) failed: The loss became nan" in text


def test_different_reasons_are_listed_up_to_a_number() -> None:
    failed = [
        JobResult(str(n), {"seed": str(n)}, "failed", f"reason {n}", monitor="val/loss", mode="min")
        for n in range(20)
    ]
    shown = printed(failed, terminal=False)
    assert [line for line in shown if "failed: reason" in line][-1].startswith("Job 7 ")
    assert shown[-1] == "12 more reasons are in the file, column `error`."


def of_losses(*losses: str) -> list[JobResult]:
    return [
        JobResult(
            str(n),
            {"seed": str(n)},
            "finished",
            folder=f"{SWEEP}/{n}",
            loss=loss,
            **MONITORED,
            best={"val/loss": 0.5 + n, "val/mae": 0.5 + n, "train/loss": 0.5 + n},
        )
        for n, loss in enumerate(losses)
    ]


MONITORED = {"monitor": "val/loss", "mode": "min"}


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
    boards, stream = rank(of_losses(*losses), metric), io.StringIO()
    assert len(boards) == (2 if warned else 1)
    write_csv(boards, tmp_path / "leaderboard.csv")
    found = read(tmp_path / "leaderboard.csv")
    assert [each.get("loss used") for each in found] == (list(losses) if column else [None, None])
    for terminal in (False, True):
        print_leaderboard(boards, stream=stream, terminal=terminal, width=200)
        assert (f"Warning: {metric} comes from different losses" in stream.getvalue()) is warned
    shown = Text.from_ansi(stream.getvalue()).plain
    assert (losses[0] in shown) is (column or losses[0] == "")


def test_jobs_that_monitor_different_metrics_are_ranked_apart(tmp_path: Path) -> None:
    other = JobResult(
        "9", {"model": "rnn"}, "finished", monitor="val/rmse", mode="min", best={"val/rmse": 0.5}
    )
    jobs = [row(1, 0.5), row(2, 0.6), other]
    shown = printed(jobs, terminal=False)
    assert shown[0].split()[4:6] == ["val/accuracy", "val/rmse"]
    assert [line.split()[:2] for line in shown[1:4]] == [["1", "2"], ["2", "1"], ["1", "9"]]
    assert "Jobs that monitor different metrics (val/accuracy, val/rmse) are ranked apart." in shown[4]
    write_csv(rank(jobs), tmp_path / "leaderboard.csv")
    found = read(tmp_path / "leaderboard.csv")
    assert [each["rank"] for each in found] == ["1", "2", "1"]
    assert (found[2]["val/accuracy"], found[2]["val/rmse"]) == ("", "0.5")
    assert printed(jobs, terminal=True, width=100)


@pytest.mark.parametrize("key", ["data", "data.split_seed"])
def test_jobs_that_were_evaluated_on_different_samples_are_marked(key: str) -> None:
    shown = printed([row(1, 0.5, **{key: "1"}), row(2, 0.6, **{key: "2"})], terminal=False)
    assert shown[-1].startswith(f"Warning: jobs differ in {key}, and so in the samples")
    failed = row(3, None, "failed", **{key: "2"})
    assert "Warning" not in "".join(printed([row(1, 0.5, **{key: "1"}), failed], terminal=False))


def seeds(values: Mapping[str, Sequence[float]]) -> list[JobResult]:
    """Jobs of models, one a seed; a model without figures has one job that failed."""
    jobs = [
        row(seed, value, "finished" if figures else "failed", model=model, seed=str(seed))
        for model, figures in values.items()
        for seed, value in enumerate(figures or (None,), start=1)
    ]
    return [replace(job, changed=dict(job.changed) | {"optimizer.lr": "0.1"}) for job in jobs]


def told(
    values: Mapping[str, Sequence[float]],
    key: str = "seed",
    mode: str = "max",
    swept: str = "model",
    by: Sequence[str] = (),
) -> str:
    jobs = [
        JobResult(
            f"{model}{n}",
            {swept: model, key: str(n)},
            "finished",
            monitor="m",
            mode=mode,
            best={"m": value},
        )
        for model, figures in values.items()
        for n, value in enumerate(figures)
    ]
    (board,) = rank(jobs)
    grouping = group(board, by)
    assert grouping is not None
    return verdict(grouping, board)


def test_whether_the_best_two_differ_is_told_in_words() -> None:
    said = told({"cnn": (0.91, 0.92, 0.93), "fnn": (0.81, 0.825, 0.83)})
    assert said.startswith(
        "model=cnn is better than model=fnn: by 0.0983 on average over the same 3 seeds,"
    )
    assert "hardly luck (95 % interval 0.0912 to 0.1055, paired t-test, p < 0.001)" in said
    said = told({"cnn": (0.91, 0.92, 0.93), "fnn": (0.80, 0.95, 0.98)})
    assert said.startswith(
        "model=cnn leads model=fnn by 0.0100 on average over the same 3 seeds, which may"
    )
    assert said.endswith("More seeds would tell.")
    said = told({"cnn": (0.91, 0.92, 0.93, 0.94), "fnn": (0.81, 0.82, 0.83)})
    assert "over their seeds, which is hardly luck" in said
    assert "Welch's t-test" in said


def test_nothing_is_said_to_be_better_on_other_samples() -> None:
    figures = {"0": (0.91, 0.92, 0.93), "1": (0.81, 0.825, 0.83)}
    assert told(figures, swept="data") == ""
    assert told(figures, swept="data.val_fold", by=["data.val_fold"]) == ""


def test_a_lower_figure_is_better_where_it_is() -> None:
    said = told({"cnn": (0.91, 0.92, 0.93), "fnn": (0.81, 0.825, 0.83)}, mode="min")
    assert said.startswith("model=fnn is better than model=cnn: by 0.0983")
    assert "95 % interval 0.0912 to 0.1055" in said


def test_what_a_test_cannot_tell_is_told() -> None:
    assert told({"cnn": (0.9, 0.8), "fnn": (0.5,)}).endswith(
        "a single job: run each with sweep.seeds=5."
    )
    assert told({"cnn": (0.9, 0.9), "fnn": (0.9, 0.9)}) == (
        "model=cnn and model=fnn are equally good over the same 2 seeds."
    )
    assert "without any spread" in told({"cnn": (0.9, 0.9), "fnn": (0.8, 0.8)})
    folds = told({"cnn": (0.91, 0.92, 0.93), "fnn": (0.81, 0.825, 0.83)}, "data.val_fold")
    assert "the same 3 folds" in folds
    assert "Folds share training data, so that the interval is a little too narrow." in folds
    assert folds.endswith("It is the best of 2 in every fold: having been picked does not flatter it.")
    folds = told({"cnn": (0.9, 0.8, 0.7), "fnn": (0.8, 0.9, 0.64)}, "data.val_fold")
    assert "which may well be luck" in folds
    assert "More data would tell." in folds
    assert folds.endswith(
        "As the best of 2 on these folds it is flattered by about 0.0333: on new data, expect m of"
        " 0.7667 rather than 0.8000."
    )
    three = {"cnn": (0.91, 0.92, 0.93), "fnn": (0.81, 0.825, 0.83), "rnn": (0.1, 0.2, 0.3)}
    assert told(three).endswith("The best of 3 is also a lucky one: confirm it with new seeds.")


@pytest.mark.parametrize("terminal", [True, False])
def test_means_stand_below_the_jobs(terminal: bool) -> None:
    jobs = seeds({"cnn": (0.9, 0.92), "fnn": (0.8, 0.81), "rnn": ()})
    shown = "\n".join(printed(jobs, terminal=terminal, width=100))
    assert "Means over seed" in shown
    assert "0.9100" in shown
    assert "0.7829 to 1.0000" in shown
    assert "0 of 1" in shown
    assert "model=cnn" in shown


def test_means_by_a_key_fit_80_columns() -> None:
    long = {"model.hidden_sizes": "[128,64,32]", "data.batch_size": "256", "trainer.clip_norm": "1.0"}
    jobs = [row(n, 0.5 + n / 100, **long, seed=str(n % 2)) for n in range(6)]
    shown = printed(jobs, terminal=True, by=["model.hidden_sizes", "data.batch_size", "optimizer.lr"])
    assert max(map(len, shown)) <= 80


def test_no_setting_and_no_mean_is_cut_at_50() -> None:
    changed = {"optimizer.lr": "0.1", "optimizer.weight_decay": "0.0001"}
    rows = [row(n, 0.9, seed=str(n), **changed | {"model": m}) for n in (1, 2) for m in ("cnn", "fnn")]
    text = " ".join(" ".join(printed(rows, terminal=True, width=50)).split())
    job, mean, *_ = text.split("# 1")[1:]
    assert "model=cnn optimizer.lr=0.1 seed=1 optimizer.weight_decay=0.0001 val/accuracy 0.9000" in job
    assert "mean val/accuracy 0.9000 95 % interval 0.9000 to 0.9000 n 2" in mean


def named(*names: str, **more: Any) -> list[JobResult]:
    return [replace(row(job, 0.1 * job), name=name, **more) for job, name in enumerate(names)]


def test_the_names_of_jobs_are_in_the_tables(tmp_path: Path) -> None:
    jobs = named("plain", "a\x1b/b", "n" * 99, notes="first\nsecond")
    write_csv(rank(jobs), tmp_path / "leaderboard.csv")
    found = read(tmp_path / "leaderboard.csv")
    assert list(found[0])[:5] == ["rank", "job", "name", "notes", "model"]
    assert {each["notes"] for each in found} == {"first\nsecond"}
    assert [each["name"] for each in found] == ["n" * 99, "a\x1b/b", "plain"]
    heads, *lines = printed(jobs, terminal=False)
    assert heads.split()[:3] == ["#", "job", "name"]
    assert [line.split()[2] for line in lines[:3]] == ["n" * 39 + "…", r"a\x1b/b", "plain"]


@pytest.mark.parametrize("width", [60, 80, 200])
def test_names_fit_or_are_left_out_of_the_table(width: int) -> None:
    jobs = named(*(f"a rather long name {job}" for job in range(3)), tags=["x"])
    lines = printed(jobs, terminal=True, width=width)
    assert max(map(len, lines)) <= width
    assert any("a rather long name 2" in line for line in lines) == (width > 80)
    assert any("0.2" in line for line in lines)


def test_a_name_that_all_jobs_share_tells_them_apart_in_no_table() -> None:
    assert "name" not in printed(named("same", "same"), terminal=False)[0].split()
    assert "name" in printed(named("only"), terminal=False)[0].split()
