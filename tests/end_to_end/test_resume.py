"""A run that was stopped and resumed equals one that never stopped."""

import shlex
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

from bigmodel.checkpointing import checkpoint
from bigmodel.runtime.signals import Stopped
from bigmodel.training import loop, validation
from bigmodel.training.run import Run
from tests.end_to_end.conftest import Command, Result

STEPS = 18  # two epochs, the last batch of each smaller


class StoppedError(Exception):
    """Stands for whatever may end a process."""


def volatile(record: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in record.items() if key != "samples_per_second"}


def final_state(result: Result) -> tuple[dict[str, Any], dict[str, Any]]:
    assert result.folder is not None
    groups, facts = checkpoint.load(result.folder / "checkpoints" / "last")
    facts["progress"].pop("seconds")
    for name in ("best", "final"):
        facts["progress"][name] = volatile(facts["progress"][name])
    return groups, facts


def stop_after(
    monkeypatch: pytest.MonkeyPatch, step: int, error: BaseException | type[BaseException] = StoppedError
) -> None:
    original = loop.save

    def save(run: Run, **more: Any) -> None:
        original(run, **more)
        if run.state.progress.step == step:
            raise error

    monkeypatch.setattr(loop, "save", save)


@pytest.mark.parametrize(
    "options",
    [
        ("model.dropout=0.3", "data.augment.shift=1"),
        ("trainer.ema=0.99", "trainer.accumulate=1", "scheduler=plateau", "scheduler.interval=epoch"),
        ("optimizer=schedule_free_adamw", "scheduler=constant"),
        ("optimizer=muon", "scheduler=cosine", "trainer.early_stopping.patience=5"),
    ],
    ids=["dropout and augmentation", "ema and plateau", "schedule-free", "muon"],
)
def test_resumed_equals_uninterrupted(command: Command, options: tuple[str, ...]) -> None:
    common = (
        *options,
        "data.batch_size=160",
        "trainer.epochs=2",
        "trainer.record_every_steps=1",
        "trainer.checkpoint.every_steps=1",
        "trainer.tensorboard=false",
        "device=cpu",
    )
    whole = command(*common)
    assert whole.status == 0, whole.err
    expected, expected_facts = final_state(whole)
    for step in (1, 5, 9, 10, 17):
        with pytest.MonkeyPatch.context() as patch:
            stop_after(patch, step)
            with pytest.raises(StoppedError):
                pytest.fail(f"It was not stopped: {command(*common)}")
        runs = sorted(Path("outputs").rglob("summary.json"), key=lambda path: path.stat().st_mtime)
        resumed = command(f"resume={runs[-1].parent}")
        assert resumed.status == 0, resumed.err
        assert resumed.folder == runs[-1].parent.resolve()

        assert [volatile(r) for r in resumed.records()] == [volatile(r) for r in whole.records()], step
        assert [record["step"] for record in resumed.records()] == list(range(1, STEPS + 1))
        groups, facts = final_state(resumed)
        assert facts == expected_facts, step
        for name, tensors in expected.items():
            assert groups[name].keys() == tensors.keys()
            assert all(torch.equal(groups[name][key], value) for key, value in tensors.items()), (
                step,
                name,
            )


def test_goes_on_longer_in_the_same_folder(command: Command) -> None:
    first = command("model=rnn", "trainer.epochs=1", "device=cpu")
    more = command(f"resume={first.folder}", "trainer.epochs=3")
    assert more.status == 0, more.err
    assert more.folder == first.folder
    assert [record["epoch"] for record in more.records()] == [1, 2, 3]
    assert "rnn" in more.out
    again = command(f"resume={first.folder}")
    assert "finished" in again.out
    assert again.status == 0


def test_a_longer_run_tells_its_rates_and_a_shorter_one_how_far_it_is(command: Command) -> None:
    first = command("trainer.epochs=2", "device=cpu")
    config = first.folder / ".hydra" / "config.yaml"  # type: ignore[operator]
    lines = config.read_text().splitlines()
    config.write_text("\n".join(line for line in lines if "extend:" not in line))  # an earlier version's
    for extend in ("again", "stretch"):
        epochs = {"again": 3, "stretch": 4}[extend]
        more = command(
            f"resume={first.folder}", f"trainer.epochs={epochs}", f"scheduler.extend={extend}"
        )
        assert more.status == 0, more.err
        told = f"Schedule: {23 * epochs} steps instead of {23 * epochs - 23}: at step {23 * epochs - 23}"
        assert told in more.out
        assert f" by scheduler.extend={extend} " in more.out
    records = (first.folder / "metrics.jsonl").read_text()  # type: ignore[operator]
    fewer = command(f"resume={first.folder}", "trainer.epochs=2")
    assert fewer.status == 1
    assert "trainer.epochs=2: the run is already past 2 epochs: it has done 4." in fewer.err
    assert (first.folder / "metrics.jsonl").read_text() == records  # type: ignore[operator]
    assert command(f"resume={first.folder}").status == 0, "nothing has changed for it"


def test_what_a_run_says_that_was_still_improving_can_be_typed(command: Command) -> None:
    first = command("trainer.epochs=3", "optimizer.lr=0.0002", "hydra.run.dir=my run")
    line = next(line for line in first.out.splitlines() if line.startswith("More: "))
    assert line.startswith("More: val/accuracy was still improving at the end. To train longer: ")
    words = shlex.split(line.partition("bigmodel-train ")[2])
    assert words == ["resume=my run", "trainer.epochs=6"]
    before = first.summary()
    longer = command(*words)
    assert longer.status == 0, longer.err
    assert (before["longer"], longer.summary()["epochs"]) == (words[1], 6)
    assert longer.summary()["best"]["val/accuracy"] > before["best"]["val/accuracy"]


def test_what_may_not_change_is_refused(command: Command) -> None:
    first = command("debug=fast", "device=cpu")
    for override in ("optimizer.lr=0.5", "seed=3", "data.batch_size=32", "trainer.accumulate=2"):
        result = command(f"resume={first.folder}", "trainer.epochs=2", override)
        assert result.status == 1
        assert override.split("=")[0] in result.err
        assert "was" in result.err


def test_the_run_s_own_choices_may_be_repeated_but_not_changed(command: Command) -> None:
    first = command("debug=fast", "device=cpu")
    repeated = command(f"resume={first.folder}", "model=fnn", "data=digits", "trainer.epochs=2")
    assert repeated.status == 0, repeated.err
    other = command(f"resume={first.folder}", "model=cnn", "trainer.epochs=3")
    assert (other.status, "has model=fnn" in other.err) == (1, True)
    preset = command(f"resume={first.folder}", "debug=overfit")
    assert (preset.status, "single keys" in preset.err) == (1, True)


def test_another_metric_to_monitor_would_make_the_best_so_far_meaningless(command: Command) -> None:
    first = command("debug=fast", "device=cpu")
    result = command(f"resume={first.folder}", "trainer.checkpoint.monitor=val/loss")
    assert result.status == 1
    assert "trainer.checkpoint.monitor: was 'auto', now 'val/loss'" in result.err


@pytest.mark.parametrize("error", [KeyboardInterrupt(), Stopped(signal.SIGTERM)])
def test_a_stop_keeps_what_was_held_back_and_the_run_goes_on(
    command: Command, error: BaseException
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        stop_after(patch, 46, error)
        stopped = command("trainer.epochs=4", "device=cpu")
    assert stopped.status == (143 if isinstance(error, Stopped) else 130)
    assert stopped.summary()["status"] == "stopped"
    assert stopped.folder is not None
    assert (stopped.folder / "checkpoints" / "best").is_dir()
    resumed = command(f"resume={stopped.folder}")
    assert resumed.status == 0, resumed.err
    assert [record["epoch"] for record in resumed.records()] == [1, 2, 3, 4]


def test_a_run_that_died_after_its_last_step_is_concluded(command: Command) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(validation, "test", lambda _: (_ for _ in ()).throw(StoppedError))
        with pytest.raises(StoppedError):
            command("debug=fast", "device=cpu")
    resumed = command("resume=auto", "debug=fast", "device=cpu")
    assert resumed.status == 0, resumed.err
    assert resumed.summary()["status"] == "finished"
    assert resumed.summary()["final"]["epoch"] == 1


def test_an_early_stopped_run_goes_on_with_more_patience(command: Command) -> None:
    options = (
        "trainer.early_stopping.patience=1",
        "optimizer.lr=0.01",
        "trainer.epochs=40",
        "device=cpu",
    )
    first = command(*options)
    epochs = first.summary()["epochs"]
    assert epochs < 40
    assert "raise trainer.early_stopping.patience (now 1)" in command(f"resume={first.folder}").out
    more = command(f"resume={first.folder}", "trainer.early_stopping.patience=3")
    assert more.summary()["epochs"] > epochs


def test_auto_takes_the_unfinished_run_of_the_same_config(command: Command) -> None:
    fresh = command("resume=auto", "trainer.epochs=2", "device=cpu")
    assert fresh.status == 0, fresh.err
    assert "a new one starts" in fresh.out
    with pytest.MonkeyPatch.context() as patch:
        stop_after(patch, 23)
        with pytest.raises(StoppedError):
            command("trainer.epochs=2", "device=cpu", "seed=5", "trainer.checkpoint.interval=0")
    resumed = command(
        "resume=auto", "trainer.epochs=2", "device=cpu", "seed=5", "trainer.checkpoint.interval=0"
    )
    assert "resuming" in resumed.out
    assert [record["epoch"] for record in resumed.records()] == [1, 2]
    assert resumed.summary()["status"] == "finished"


def test_a_folder_that_is_no_run(command: Command, tmp_path: Path) -> None:
    assert "no such folder" in command("resume=nowhere").err
    (tmp_path / "empty").mkdir()
    assert "not a run's folder" in command("resume=empty").err
    assert "not with a sweep" in command("-m", "resume=empty", "seed=1,2").err
