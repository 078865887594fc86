"""Going on in changed circumstances: refused with the difference, or done because it is wanted."""

from pathlib import Path

import pytest
import torch

from bigmodel.checkpointing import checkpoint
from tests.end_to_end import conftest
from tests.end_to_end.conftest import Command

command = conftest.command
SHORT = ("trainer.limit.train=4", "trainer.limit.val=1", "device=cpu", "trainer.tensorboard=false")
SYNTHETIC = ("data=synthetic", "data.target=classes", "data.outputs=3", "device=cpu")


def state(folder: Path | None) -> tuple[dict[str, dict[str, torch.Tensor]], dict]:
    assert folder is not None
    return checkpoint.load(folder / "checkpoints" / "last")


@pytest.mark.parametrize(
    "word",
    [
        "optimizer.lr=0.5",
        "data.batch_size=32",
        "model.dropout=0.5",
        "seed=3",
        "optimizer=sgd",
        "trainer.ema=0.9",
    ],
)
def test_refused_and_then_wanted(command: Command, word: str) -> None:
    first = command(*SHORT, "trainer.epochs=1")
    before = state(first.folder)[1]["progress"]["step"]
    refused = command(f"resume={first.folder}", "trainer.epochs=2", word)
    assert refused.status == 1
    assert "resume_changed=true" in refused.err
    assert word.partition("=")[0] in refused.err
    wanted = command(f"resume={first.folder}", "trainer.epochs=3", word, "resume_changed=true")
    assert wanted.status == 0, wanted.err
    assert f"Changed: {word.partition('=')[0]}" in wanted.out
    assert f"after step {before} " in wanted.out
    again = command(f"resume={first.folder}", "trainer.epochs=4")  # now it is the run's own
    assert again.status == 0, again.err


def test_what_a_run_is_called_may_change_at_any_time(command: Command) -> None:
    first = command(*SHORT, "trainer.epochs=1", "run.name='a/b \x1b[31mü'", "run.tags=[x]")
    assert first.folder is not None
    assert first.summary()["run"] == {"name": "a/b \x1b[31mü", "tags": ["x"], "notes": None}
    assert r"Name: a/b \x1b[31mü" in first.out
    more = command(f"resume={first.folder}", "trainer.epochs=2", "run.name=c", "run.notes=better")
    assert more.status == 0, more.err
    assert "Changed:" not in more.out
    assert more.summary()["run"] == {"name": "c", "tags": ["x"], "notes": "better"}


def test_a_changed_option_takes_effect(command: Command) -> None:
    first = command(*SHORT, "trainer.epochs=1", "scheduler=constant", "optimizer=sgd")
    changed = ("optimizer.lr=0.25", "optimizer.momentum=0.5", "resume_changed=true")
    more = command(f"resume={first.folder}", "trainer.epochs=2", *changed)
    assert more.status == 0, more.err
    (group, *_) = state(more.folder)[1]["optimizer"]["param_groups"]
    assert (group["lr"], group["initial_lr"], group["momentum"]) == (0.25, 0.25, 0.5)
    assert more.records()[-1]["lr"] == 0.25


def test_another_optimizer_begins_anew_with_the_weights_as_they_are(command: Command) -> None:
    first = command(*SHORT, "trainer.epochs=1")
    weights = state(first.folder)[0]["model"]
    tiny = ("optimizer.lr=1e-12", "optimizer.weight_decay=0", "optimizer.momentum=0")
    changed = ("optimizer=sgd", *tiny, "scheduler=constant", "resume_changed=true")
    more = command(f"resume={first.folder}", "trainer.epochs=2", *changed)
    assert more.status == 0, more.err
    groups, facts = state(more.folder)
    assert facts["optimizer_class"] == "SGD"
    for name, value in weights.items():
        torch.testing.assert_close(groups["model"][name], value)


def test_another_size_of_model_cannot_be(command: Command) -> None:
    first = command(*SHORT, "trainer.epochs=1")
    word = "model.hidden_sizes=[9]"
    result = command(f"resume={first.folder}", word, "trainer.epochs=2", "resume_changed=true")
    assert result.status == 1
    assert "The checkpoint holds another model" in result.err
    assert "start a new run" in result.err
    assert len(result.err.splitlines()) == 1


@pytest.mark.parametrize(
    ("word", "words"),
    [("data.samples=990", "samples instead of"), ("data.seed=5", "other content")],
    ids=["fewer rows", "other bytes"],
)
def test_other_data(command: Command, monkeypatch: pytest.MonkeyPatch, word: str, words: str) -> None:
    """The configuration is the same; it is what the source gives that has changed."""
    first = command(*SYNTHETIC, "trainer.epochs=1")
    best = state(first.folder)[1]["progress"]["best"]["step"]
    from bigmodel import registry
    from bigmodel.registry import Entry

    entry, (key, value) = registry.data.entry("synthetic"), word.removeprefix("data.").split("=")
    other = Entry(lambda c: entry.factory(c.model_copy(update={key: int(value)})), entry.config)
    monkeypatch.setitem(registry.data._entries, "synthetic", other)
    refused = command(f"resume={first.folder}", "trainer.epochs=2")
    assert refused.status == 1
    assert "the data differs from what this run was trained on" in refused.err
    assert words in refused.err
    wanted = command(f"resume={first.folder}", "trainer.epochs=2", "resume_changed=true")
    assert wanted.status == 0, wanted.err
    assert words in wanted.out
    assert state(wanted.folder)[1]["progress"]["best"]["step"] > best, "by other data: forgotten"


def test_what_may_differ_needs_no_word(command: Command) -> None:
    first = command(*SHORT, "trainer.epochs=1")
    free = (
        "device=cpu",
        "device.threads=1",
        "trainer.log_every=1",
        "trainer.on_oom=stop",
        "data.workers=1",
    )
    more = command(f"resume={first.folder}", "trainer.epochs=2", *free)
    assert more.status == 0, more.err


def test_neither_true_nor_false(command: Command) -> None:
    first = command(*SHORT, "trainer.epochs=1")
    assert "expected true or false" in command(f"resume={first.folder}", "resume_changed=maybe").err


@pytest.mark.parametrize(
    "words",
    [
        ("optimizer.momentum=0.9",),
        ("optimizer.weight_decay=0.1",),
        ("optimizer=muon", "optimizer.lr=0.01"),
        ("model.freeze=[layers.0]",),
        ("trainer.ema=0.9", "device.precision=fp16"),
        ("scheduler=plateau",),
        ("loss.label_smoothing=0.1", "trainer.checkpoint.monitor=val/loss"),
        ("data.batch_size=16", "trainer.accumulate=2"),
    ],
    ids=" ".join,
)
def test_whatever_is_wanted_goes_on_or_says_why_not(command: Command, words: tuple[str, ...]) -> None:
    base = ("optimizer=rmsprop", "optimizer.weight_decay=0", "scheduler=constant", "loss=cross_entropy")
    first = command(*SHORT, *base, "trainer.epochs=1")
    more = command(f"resume={first.folder}", "trainer.epochs=3", *words, "resume_changed=true")
    assert more.status == 0, more.err
    is_reset = any(
        word.startswith(("optimizer.m", "optimizer.w", "optimizer=", "model.")) for word in words
    )
    assert ("Reset" in more.out) == is_reset
    again = command(f"resume={first.folder}", "trainer.epochs=4")
    assert again.status == 0, again.err


def test_a_change_counts_from_the_first_save_with_it(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that ends before it is the run that it was, whatever its folder says."""
    from bigmodel.training import loop

    first = command(*SHORT, "trainer.epochs=1", "scheduler=constant")
    changed = ("trainer.epochs=2", "optimizer.lr=0.5", "resume_changed=true")
    with monkeypatch.context() as patch:
        patch.setattr(loop, "steps", lambda *_: (_ for _ in ()).throw(SystemExit(9)))
        command(f"resume={first.folder}", *changed)
    plain = command(f"resume={first.folder}", "trainer.epochs=2")
    assert plain.status == 1
    assert "optimizer.lr: was 0.002, now 0.5" in plain.err
    again = command(f"resume={first.folder}", *changed)
    assert again.status == 0, again.err
    assert again.records()[-1]["lr"] == 0.5


@pytest.mark.parametrize("change", ["a letter that is new", "another letter", "another file"])
def test_another_text(command: Command, tmp_path: Path, change: str) -> None:
    """The vocabulary comes from the checkpoint, which may not know what the text holds now."""
    texts = tmp_path / "texts"
    texts.mkdir()
    written = "so would I, good night. " * 40
    (texts / "a.txt").write_text(written)
    argv = ("data=text", "data.path=texts", "data.context=8", "model=rnn", "device=cpu")
    first = command(*argv, "trainer.max_steps=2", "trainer.tensorboard=false")
    assert first.status == 0, first.err
    if change == "another file":
        (texts / "b.txt").write_text(written)
    else:
        (texts / "a.txt").write_text(written.replace("I", "Ä" if change.endswith("new") else "w"))
    refused = command(f"resume={first.folder}", "trainer.max_steps=4")
    assert refused.status == 1
    assert "the data differs from what this run was trained on" in refused.err
    assert len(refused.err.splitlines()) == 1
