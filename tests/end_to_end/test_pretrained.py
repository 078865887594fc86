"""A model that starts from given weights, as a user trains it, goes on with it, and uses it."""

import csv
import io
import json
import shutil
from pathlib import Path

import pytest

from bigmodel.checkpointing import checkpoint
from tests.cli.commands.cli import Bigmodel, caller
from tests.end_to_end.conftest import Command, Result
from tests.hugging_face import LENGTH, TEXTS, transformers, write_folder, write_table

QUICK = ("device=cpu", "trainer.tensorboard=false", "trainer.epochs=2", "trainer.checkpoint.interval=0")


@pytest.fixture
def bigmodel(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Bigmodel:
    return caller(monkeypatch, capsys)


@pytest.fixture
def words(tmp_path: Path) -> list[str]:
    """The settings of a run on labelled texts that starts from a folder."""
    write_folder(tmp_path / "folder", "bert")
    table = write_table(
        tmp_path / "mails.csv", TEXTS * 4, ["even" if len(t) % 2 else "odd" for t in TEXTS * 4]
    )
    return ["data=text_labels", f"data.path={table}", f"data.length={LENGTH}", "model=bert", *QUICK]


def folder_of(result: Result) -> Path:
    assert result.status == 0, result.err
    assert result.folder is not None
    return result.folder


def test_a_run_needs_what_it_started_from_no_more(
    command: Command, bigmodel: Bigmodel, words: list[str], tmp_path: Path
) -> None:
    words.append("model.pretrained=folder")
    whole = folder_of(command(*words))
    half = folder_of(command(*words, "trainer.epochs=1", "scheduler=constant"))
    shutil.rmtree(tmp_path / "folder")
    resumed = command(f"resume={half}", "trainer.epochs=2")
    assert resumed.status == 0, resumed.err
    assert resumed.summary()["steps"] == json.loads((whole / "summary.json").read_text())["steps"]
    said = bigmodel("predict", whole, "--input", tmp_path / "mails.csv", "--device", "cpu")
    assert len(list(csv.DictReader(io.StringIO(said.out)))) == 4 * len(TEXTS)
    figures = json.loads(bigmodel("eval", whole, "--json", "--device", "cpu").out)["figures"]
    best = json.loads((whole / "summary.json").read_text())["best"]
    assert figures == {key: pytest.approx(best[key]) for key in figures}
    missing = command(*words)
    assert missing.status == 1
    assert missing.err == "bigmodel-train: model.pretrained=folder: there is no such file or folder.\n"


def test_a_resumed_run_is_the_run_that_was_never_stopped(command: Command, words: list[str]) -> None:
    words += ["model.pretrained=folder", "scheduler=constant"]
    whole = command(*words)
    half = folder_of(command(*words, "trainer.epochs=1"))
    resumed = command(f"resume={half}", "trainer.epochs=2")
    told = ("train/loss", "val/loss", "val/accuracy")
    last, other = (result.records()[-1] for result in (whole, resumed))
    assert {key: last[key] for key in told} == {key: other[key] for key in told}


def test_a_run_is_what_another_starts_from(command: Command, words: list[str]) -> None:
    first = folder_of(command(*words, "model.pretrained=folder"))
    second = command(*words, f"model.pretrained={first}", "trainer.epochs=1", "optimizer.lr=1e-9")
    assert "of a run on text_labels" in second.out
    assert "new:" not in second.out
    best = json.loads((first / "summary.json").read_text())["best"]
    assert second.summary()["best"]["val/loss"] == pytest.approx(best["val/loss"], rel=1e-4)


def test_a_mistake_is_told_in_one_line(command: Command, words: list[str]) -> None:
    where = "model.pretrained=folder"
    for word, message in {
        "model.dim=96": f"the weights of {where} have model.dim=48. Leave it out.",
        "model=gpt2": f"{where} holds weights of another model, bert. Use model=bert",
    }.items():
        said = command(*words, where, word)
        assert (said.status, said.err) == (1, f"bigmodel-train: {word}: {message}\n")


TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}{{ '? ' ~ m.content }}"
    "{% else %}{% generation %}{{ ' ' ~ m.content ~ eos_token }}{% endgeneration %}{% endif %}"
    "{% endfor %}"
)


def test_conversations_come_by_the_models_own_template(
    command: Command, bigmodel: Bigmodel, tmp_path: Path
) -> None:
    model = write_folder(tmp_path / "folder", "llama")
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "folder")
    (tmp_path / "folder" / "chat_template.jinja").write_text(TEMPLATE)
    said = [{"role": role, "content": "the cat sat"} for role in ("user", "assistant")]
    record = json.dumps({"messages": said}) + "\n"
    for name in ("chats", "val"):
        (tmp_path / f"{name}.jsonl").write_text(record * 6)
    words = ["data=chat", "data.path=chats.jsonl", "data.val_path=val.jsonl", "model=llama"]
    words += [f"data.context={LENGTH}", "model.pretrained=folder", "optimizer.lr=1e-12", *QUICK]
    run = folder_of(command(*words))
    whole = tokenizer.apply_chat_template(
        said,
        chat_template=TEMPLATE,
        return_dict=True,
        return_assistant_tokens_mask=True,
        return_tensors="pt",
    )
    learnt = whole["assistant_masks"].bool()
    labels = whole["input_ids"].masked_fill(~learnt, -100)
    loss = model(whole["input_ids"], labels=labels).loss.item()
    assert json.loads((run / "summary.json").read_text())["final"]["val/loss"] == pytest.approx(
        loss, 1e-4
    )
    said_by = bigmodel("predict", run, "--prompt", "the cat", "--temperature", 0, "--device", "cpu")
    assert said_by.status == 0, said_by.err


def test_a_run_with_updates_goes_on_from_a_base_that_has_moved(command: Command, tmp_path: Path) -> None:
    """The checkpoints that it saves then name the new place."""
    argv = ["model=transformer", "model.dim=16", "model.depth=2", "model.num_heads=2", *QUICK]
    argv += ["data=synthetic", "data.input=sequence", "data.shape=[6,4]", "data.samples=80"]
    start = command(*argv, "device.engine=eager").folder
    assert start is not None
    tuned = [f"model.pretrained={start}", "model.lora.rank=2", "device.engine=eager"]
    run, moved = command(*argv, *tuned, "output_dir=tuned").folder, tmp_path / "moved"
    start.rename(moved)
    failed = command(f"resume={run}", "trainer.epochs=3")
    assert failed.status == 1
    assert "If they have moved, name their place: model.pretrained=PATH" in failed.err
    result = command(f"resume={run}", "trainer.epochs=3", f"model.pretrained={moved}")
    assert result.status == 0, result.err
    assert run is not None
    assert checkpoint.load(run / "checkpoints" / "last")[1]["base"]["path"] == str(moved)
    assert command(f"resume={run}", "trainer.epochs=4").status == 0
