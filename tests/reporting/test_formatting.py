import math
from dataclasses import replace
from pathlib import Path

import pytest

from bigmodel.reporting import formatting
from bigmodel.reporting.base import Labels, ProgressReport
from bigmodel.reporting.formatting import logdir_of, progress_line, tensorboard_command
from tests.reporting import facts


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.12341, "0.1234"),
        (0.0, "0.0000"),
        (1e-4, "0.0001"),
        (0.0000512345, "5.12e-05"),
        (-0.00001, "-1e-05"),
        (123456.789, "123,456.7890"),
        (12345678.9, "1.235e+07"),
        (math.nan, "nan"),
        (-math.inf, "-inf"),
        (1234, "1,234"),
    ],
)
def test_figures_never_round_to_nothing(value: float, text: str) -> None:
    assert formatting.figure(value) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.04, "0.0 s"), (3.21, "3.2 s"), (59.97, "1 min 00 s"), (125, "2 min 05 s"), (3720, "1 h 02 min")],
)
def test_durations_in_words(seconds: float, text: str) -> None:
    assert formatting.duration(seconds) == text


@pytest.mark.parametrize(("seconds", "text"), [(-1, "0:00"), (12.4, "0:12"), (3725, "1:02:05")])
def test_durations_as_a_clock(seconds: float, text: str) -> None:
    assert formatting.clock(seconds) == text


def test_log_line_is_the_article_s_with_validation_behind() -> None:
    line = "Epoch 10, Loss: 0.1234, val/loss: 0.0987, val/accuracy: 0.9722"
    assert formatting.log_line(facts.record(10), 23) == line


def test_log_line_without_evaluation() -> None:
    assert formatting.log_line({"epoch": 3, "step": 69, "train/loss": 3e-5, "lr": 0.1}, 23) == (
        "Epoch 3, Loss: 3e-05"
    )


def test_log_line_in_the_middle_of_an_epoch_tells_the_step() -> None:
    record = {"epoch": 3, "step": 50, "train/loss": 0.5}
    assert formatting.log_line(record, 23) == "Epoch 3, Loss: 0.5000, step: 50"


def test_a_wide_line_breaks_after_a_comma_only() -> None:
    line = formatting.log_line(facts.record(10), 23)
    assert formatting.wrapped(line, 80) == line
    assert formatting.wrapped(line, 40).split("\n") == [
        "Epoch 10, Loss: 0.1234,",
        "    val/loss: 0.0987,",
        "    val/accuracy: 0.9722",
    ]


def test_sign_of_life(tmp_path: Path) -> None:
    progress = ProgressReport(epoch=3, step=60, loss=0.5, metric=0.9, samples_per_second=12345.6)
    assert progress_line(progress, facts.info(tmp_path)) == (
        "Epoch 3, Loss: 0.5000, val/accuracy: 0.9000, step: 60 of 690, 12,346 samples/s"
    )
    quick = replace(progress, tokens_per_second=98765.4, mfu=0.0412, memory_gib=1.25)
    assert progress_line(quick, facts.info(tmp_path)).endswith(
        " step: 60 of 690, 98,765 tokens/s, MFU 4.1 %, 1.2 GiB"
    )
    nothing = ProgressReport(epoch=1, step=1, loss=None, metric=None, samples_per_second=10)
    assert progress_line(nothing, facts.info(tmp_path)) == "Epoch 1, step: 1 of 690, 10 samples/s"


def test_results() -> None:
    assert formatting.result_lines(facts.summary()) == [
        "Best: epoch 18, train/loss 0.1234, val/loss 0.0987, val/accuracy 0.9833",
        "Final: epoch 30, train/loss 0.1234, val/loss 0.0987, val/accuracy 0.9722",
        "Test: test/loss 0.2000, test/accuracy 0.9611",
    ]
    assert formatting.result_lines(facts.summary(best={}, final={}, test={})) == []


@pytest.mark.parametrize(
    ("status", "error", "text"),
    [
        ("finished", None, "Finished: 30 epochs, 690 steps, 3.2 s"),
        ("stopped", "interrupted", "Stopped after 30 epochs, 690 steps, 3.2 s: interrupted"),
        (
            "failed",
            "The loss became nan.",
            "Failed after 30 epochs, 690 steps, 3.2 s: The loss became nan.",
        ),
    ],
)
def test_outcome(status: str, error: str | None, text: str) -> None:
    assert formatting.outcome(facts.summary(status, error=error)) == text


def test_tensorboard_is_pointed_at_all_runs_where_this_one_is_among_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    inside, elsewhere = tmp_path / "outputs/2026-11-23/10-15-02", tmp_path / "my runs"
    root = Path("outputs")
    assert tensorboard_command(logdir_of(inside, root)) == "tensorboard --logdir outputs"
    assert tensorboard_command(logdir_of(elsewhere, root)) == "tensorboard --logdir 'my runs'"
    assert tensorboard_command(logdir_of(inside, None)) == (
        "tensorboard --logdir outputs/2026-11-23/10-15-02"
    )
    monkeypatch.chdir(tmp_path.parent)
    assert formatting.shown_path(tmp_path / "a") == f"{tmp_path.name}/a"
    monkeypatch.chdir("/")
    assert formatting.shown_path(Path("/")) == "."


def test_pointers_name_only_what_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "run"
    assert formatting.next_steps(facts.summary("failed"), folder, folder) == []
    for name in ("checkpoints/best", "checkpoints/last", "tensorboard"):
        (folder / name).mkdir(parents=True)
    assert formatting.next_steps(facts.summary("stopped"), folder, folder) == [
        ("Checkpoints", "run/checkpoints (best, last)"),
        ("Resume with", "bigmodel-train resume=run"),
        ("TensorBoard", "tensorboard --logdir run"),
    ]
    assert "Resume with" not in dict(formatting.next_steps(facts.summary(), folder, folder))
    improving = facts.summary(longer="trainer.epochs=60")
    assert dict(formatting.next_steps(improving, folder, folder))["More"] == (
        "val/accuracy was still improving at the end. To train longer:"
        " bigmodel-train resume=run trainer.epochs=60"
    )
    assert "More" not in dict(formatting.next_steps(facts.summary(), folder, folder))
    words = "-m sweep.resume=mine 'plugins=[mine]'"
    of_a_sweep = dict(formatting.next_steps(facts.summary("stopped"), folder, folder, words))
    assert of_a_sweep["Resume with"] == f"bigmodel-train {words}"


def test_long_runs_have_thousands(tmp_path: Path) -> None:
    progress = ProgressReport(epoch=1200, step=60_000, loss=54321.5, metric=None, samples_per_second=10)
    told = progress_line(progress, facts.info(tmp_path, total_steps=1_200_000))
    assert told == "Epoch 1200, Loss: 54,321.5000, step: 60,000 of 1,200,000, 10 samples/s"
    record = {"epoch": 3, "step": 5000, "train/loss": 0.5}
    assert formatting.log_line(record, 2300).endswith(", step: 5,000")


def test_cells_are_aligned_without_blanks_at_the_end() -> None:
    assert formatting.aligned([("job", "changes"), ("12", ""), ("3", "a=1")]) == [
        "job  changes",
        "12",
        "3    a=1",
    ]


def test_what_a_user_calls_a_run_is_told_line_by_line() -> None:
    labels = Labels(name="a/b", tags=["x", "y z"], notes="first\n\nsecond").model_dump()
    told = [("Name", "a/b"), ("Tags", "x, y z"), ("Notes", "first second")]
    assert formatting.label_rows(labels) == told
    assert formatting.label_rows(Labels().model_dump()) == formatting.label_rows({}) == []
