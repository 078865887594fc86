"""The commands for a user's own data, each on small real files made on the spot."""

import csv
import gzip
import json
import re
import shlex
import wave
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.end_to_end.conftest import Command

SHORT = ("trainer.epochs=2", "device=cpu", "trainer.log_every=1", "trainer.tensorboard=false")
DRAW = np.random.default_rng(0)
WORDS = {"good": "a fine and lovely film", "bad": "a dull and dreadful film"}


def houses(folder: Path) -> str:
    with (folder / "houses.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["area", "city", "built", "price"])
        for number in range(60):
            area = 50 + 3 * number
            built = f"19{number + 30}-05-17"
            rows.writerow([area, "Ulm" if number % 3 else "Bonn", built, 1000.5 * area])
    return "houses.csv"


def photos(folder: Path) -> str:
    for label, colour in (("blue", (20, 30, 200)), ("red", (220, 20, 30))):
        (folder / "photos" / label).mkdir(parents=True)
        for number in range(12):
            noise = DRAW.integers(0, 20, (30 + number, 40, 3)) + np.array(colour)
            picture = Image.fromarray(noise.clip(0, 255).astype(np.uint8))
            picture.save(folder / "photos" / label / f"{number}.{'jpg' if number % 2 else 'png'}")
    return "photos/"


def chats(folder: Path) -> str:
    said = [{"role": role, "content": f"{role} speaks"} for role in ("user", "assistant")]
    (folder / "chats.jsonl").write_text(f"{json.dumps({'messages': said})}\n" * 40)
    return "chats.jsonl"


def shakespeare(folder: Path) -> str:
    (folder / "shakespeare.txt").write_text("To be, or not to be: that is the question.\n" * 60)
    return "shakespeare.txt"


def reviews(folder: Path) -> str:
    with (folder / "reviews.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["review", "stars"])
        for number in range(40):
            word = ("good", "bad")[number % 2]
            rows.writerow([f"{WORDS[word]}, number {number}", {"good": 5, "bad": 1}[word]])
    return "reviews.csv"


def sentences(folder: Path) -> tuple[str, str]:
    for name, words in (("train.de", "Haus Hund Baum Katze"), ("train.en", "house dog tree cat")):
        lines = [" ".join((words.split() * 3)[n % 4 : n % 4 + 1 + n % 5]) for n in range(60)]
        (folder / name).write_text("\n".join(lines) + "\n")
    return "train.de", "train.en"


def recordings(folder: Path) -> str:
    for label, pitch in (("high", 2000), ("low", 300)):
        (folder / "recordings" / label).mkdir(parents=True)
        for number in range(10):
            time = np.arange(2000 + 50 * number) / 8000
            tone = np.sin(2 * np.pi * pitch * time) + DRAW.normal(0, 0.1, len(time))
            with wave.open(str(folder / "recordings" / label / f"{number}.wav"), "wb") as file:
                file.setparams((1, 2, 8000, 0, "NONE", ""))
                file.writeframes((tone * 9000).astype("<i2").tobytes())
    return "recordings/"


def header(out: str, label: str) -> str:
    return next(line for line in out.splitlines() if line.strip().startswith(label))


def test_a_table(command: Command, tmp_path):
    path = houses(tmp_path)
    result = command("data=table", f"data.path={path}", "data.target=price", "loss=mse", *SHORT)
    assert result.status == 0, result.err
    assert "city" in result.out
    assert "1 real value" in header(result.out, "Data")
    assert result.summary()["best"]["val/rmse"] > 1000  # in the price's own unit


@pytest.mark.parametrize(
    "columns",
    ["data.columns.built=ignore", "data.columns={built: ignore}", "+data.columns.built=ignore"],
)
def test_what_a_column_is_can_be_said(command: Command, tmp_path, columns):
    houses(tmp_path)
    result = command("data=table", "data.path=houses.csv", "data.target=price", columns, *SHORT)
    assert result.status == 0, result.err
    assert "built" in next(line for line in result.out.splitlines() if "ignored" in line)


@pytest.mark.parametrize(
    "typed",
    [
        ["data.columns={my num: category}", "data.columns.größe=category", "data.columns.zip=category"],
        [
            "data.columns.my num=category",
            'data.columns="{größe: category}"',
            "data.columns.zip=category",
        ],
        ['data.columns="{größe: category, my num: category}"', "data.columns={zip: category}"],
    ],
)
def test_columns_have_any_name(command: Command, tmp_path, typed):
    lines = [f"{n % 7},{n % 5},{n % 3},{n}.5" for n in range(60)]
    (tmp_path / "t.csv").write_text("\n".join(["my num,größe,zip,y", *lines]))
    result = command("data=table", "data.path=t.csv", "data.target=y", *typed, *SHORT)
    assert result.status == 0, result.err
    assert "3 categories (my num 7, größe 5, zip 3)" in " ".join(result.out.split())
    assert result.folder is not None
    gone_on = command(f"resume={result.folder}", "trainer.epochs=3")
    assert gone_on.status == 0, gone_on.err


def test_what_the_header_says_of_dates_works_word_for_word(command: Command, tmp_path):
    lines = [
        f"{1 + n % 9:02}/{1 + n % 12:02}/2020,{1 + n % 8:02}/{1 + n % 11:02}/2020,{n}.5"
        for n in range(60)
    ]
    (tmp_path / "t.csv").write_text("\n".join(["when,bis größte,y", *lines]))
    told = command("data=table", "data.path=t.csv", "data.target=y", *SHORT)
    said = re.findall(r"then set ('.*?'|\S+) \(cur", " ".join(told.out.split()))
    assert len(said) == 2
    typed = [word for one in said for word in shlex.split(one)]
    result = command("data=table", "data.path=t.csv", "data.target=y", *typed, *SHORT)
    assert result.status == 0, result.err
    assert "when (%d/%m/%Y), bis größte (%d/%m/%Y)" in " ".join(result.out.split())
    assert "Warning" not in result.out
    assert result.folder is not None
    gone_on = command(f"resume={result.folder}", "trainer.epochs=3")
    assert gone_on.status == 0, gone_on.err
    assert "when (%d/%m/%Y)" in gone_on.out


def test_the_advice_on_a_column_works_word_for_word(command: Command, tmp_path):
    lines = [f"{1 + n % 5}.{100 + n};{'no' if n == 3 else n % 7};{n}.5" for n in range(60)]
    (tmp_path / "t.csv").write_text("\n".join(["fläche (m²);größe;y", *lines]))
    train = ("data=table", "data.path=t.csv", "data.target=y", *SHORT)
    out = command(*train).out
    two_ways, odd = (line for line in out.splitlines() if line.startswith("Warning: "))
    other, _, this = two_ways.split("then set ")[1].removesuffix(")").partition(" (currently: ")
    words = odd.split("If they are words: ")[1]
    for advice, said in ((other, "thousands set apart"), (this, "2 numbers"), (words, "1 category")):
        result = command(*train, *shlex.split(advice))
        assert result.status == 0, result.err
        assert said in result.out
        assert result.out.count("Warning: ") == 1


def test_columns_that_say_no_kind(command: Command, tmp_path):
    houses(tmp_path)
    result = command(
        "data=table", "data.path=houses.csv", "data.target=price", "data.columns='{area}'", *SHORT
    )
    assert result.status == 1
    assert "is not a name with its kind, such as {my column: category}" in result.err


@pytest.mark.parametrize("model", ["fnn", "attention", "transformer"])
def test_a_table_is_read_by(command: Command, tmp_path, model):
    houses(tmp_path)
    result = command("data=table", "data.path=houses.csv", "data.target=city", f"model={model}", *SHORT)
    assert result.status == 0, result.err
    assert "2 classes" in header(result.out, "Data")


@pytest.mark.parametrize("model", ["cnn", "rnn", "fnn", "attention", "transformer"])
def test_pictures(command: Command, tmp_path, model):
    path = photos(tmp_path)
    result = command(
        "data=images", f"data.path={path}", "data.size=16", "data.cache=null", f"model={model}", *SHORT
    )
    assert result.status == 0, result.err
    assert "3×16×16" in header(result.out, "Data")


@pytest.mark.parametrize("model", ["transformer", "rnn"])
def test_a_text(command: Command, tmp_path, model):
    path = shakespeare(tmp_path)
    result = command("data=text", f"data.path={path}", f"model={model}", "data.context=16", *SHORT)
    assert result.status == 0, result.err
    figures = result.summary()["best"]
    assert figures["val/bits_per_character"] == pytest.approx(np.log2(figures["val/perplexity"]))


@pytest.mark.parametrize("model", ["fnn", "cnn", "attention"])
def test_what_cannot_write_says_what_can(command: Command, tmp_path, model):
    path = shakespeare(tmp_path)
    result = command("data=text", f"data.path={path}", f"model={model}", *SHORT)
    assert result.status == 1
    assert "transformer" in result.err
    assert len(result.err.strip().splitlines()) == 1


@pytest.mark.parametrize("model", ["rnn", "fnn", "cnn", "attention", "transformer"])
def test_texts_with_labels(command: Command, tmp_path, model):
    path = reviews(tmp_path)
    result = command(
        "data=text_labels", f"data.path={path}", "data.text=review", "data.target=stars",
        f"model={model}", *SHORT,
    )  # fmt: skip
    assert result.status == 0, result.err
    assert "2 classes" in header(result.out, "Data")


def test_pairs(command: Command, tmp_path):
    source, target = sentences(tmp_path)
    result = command(
        "data=pairs", f"data.source={source}", f"data.target={target}", "model=transformer",
        "data.vocab_size=300", "data.test_fraction=0.1", *SHORT,
    )  # fmt: skip
    assert result.status == 0, result.err
    assert 0 <= result.summary()["final"]["val/bleu"] <= 100
    assert "test/bleu" in result.summary()["test"]


@pytest.mark.parametrize(
    "options",
    [("model=cnn",), ("model=cnn", "data.layout=sequence"), ("model=rnn",), ("model=transformer",),
     ("model=cnn", "data.form=raw")],
    ids=" ".join,
)  # fmt: skip
def test_recordings(command: Command, tmp_path, options):
    path = recordings(tmp_path)
    result = command("data=audio", f"data.path={path}", *options, *SHORT)
    assert result.status == 0, result.err
    assert "2 classes" in header(result.out, "Data")


def test_arrays(command: Command, tmp_path):
    inputs = DRAW.normal(size=(50, 6)).astype(np.float32)
    np.savez(tmp_path / "mine.npz", inputs=inputs, targets=(inputs[:, 0] > 0).astype(np.int64))
    result = command("data=arrays", "data.path=mine.npz", *SHORT)
    assert result.status == 0, result.err
    assert "6 features" in header(result.out, "Data")


def test_gzip_and_json_lines(command: Command, tmp_path):
    rows = [{"x": n / 7, "y": "even" if n % 2 == 0 else "odd"} for n in range(40)]
    lines = "\n".join(json.dumps(row) for row in rows)
    (tmp_path / "rows.jsonl.gz").write_bytes(gzip.compress(lines.encode()))
    result = command("data=table", "data.path=rows.jsonl.gz", "data.target=y", *SHORT)
    assert result.status == 0, result.err


def test_what_is_left_out_is_counted(command: Command, tmp_path):
    path = photos(tmp_path)
    (tmp_path / "photos" / "red" / "broken.png").write_bytes(b"no picture")
    refused = command("data=images", f"data.path={path}", "data.cache=null", *SHORT)
    assert refused.status == 1
    assert "broken.png" in refused.err
    assert "data.max_bad" in refused.err
    result = command(
        "data=images", f"data.path={path}", "data.size=16", "data.cache=null", "data.max_bad=1", *SHORT
    )
    assert result.status == 0, result.err
    assert "1" in header(result.out, "Left out")
    assert sum(result.summary()["left_out"].values()) == 1
    assert (tmp_path / "photos" / "red" / "broken.png").read_bytes() == b"no picture"


@pytest.mark.parametrize(
    "source", ["table", "images", "text", "text_labels", "pairs", "audio", "arrays"]
)
def test_data_has_to_be_named(command: Command, source):
    result = command(f"data={source}", "model=transformer", *SHORT)
    assert result.status == 1
    assert "data." in result.err
    assert len(result.err.strip().splitlines()) == 1


def test_a_run_on_texts_goes_on_as_if_it_had_never_stopped(command: Command, tmp_path):
    source, target = sentences(tmp_path)
    options = (
        "data=pairs", f"data.source={source}", f"data.target={target}", "model=transformer",
        "data.vocab_size=300", "data.batch_tokens=64", "trainer.checkpoint.interval=0",
        "device=cpu", "trainer.tensorboard=false", "scheduler=constant",
    )  # fmt: skip
    whole = command(*options, "trainer.epochs=4")
    begun = command(*options, "trainer.epochs=4", "trainer.max_steps=7")
    assert begun.folder is not None
    gone_on = command(f"resume={begun.folder}", "trainer.max_steps=null", "resume_changed=true")
    assert gone_on.status == 0, gone_on.err
    ours, theirs = whole.summary(), gone_on.summary()
    assert ours["final"]["train/loss"] == pytest.approx(theirs["final"]["train/loss"], rel=1e-6)


def every_kind(folder: Path) -> dict[str, tuple[list[str], dict[str, str], int]]:
    """By kind of data: its settings, the paths of its validation set, and how many samples it has."""
    source, target = sentences(folder)
    inputs = DRAW.normal(size=(50, 6)).astype(np.float32)
    np.savez(folder / "mine.npz", inputs=inputs, targets=(inputs[:, 0] > 0).astype(np.int64))
    of_texts = ["data.text=review", "data.target=stars", "data.unit=character"]
    return {
        "table": (["data.target=price"], {"path": houses(folder)}, 60),
        "images": (["data.size=8"], {"path": photos(folder)}, 24),
        "audio": (["data.rate=2000", "data.n_mels=8"], {"path": recordings(folder)}, 20),
        "text": (["data.context=16", "model=rnn"], {"path": shakespeare(folder)}, 161),
        "text_labels": (of_texts, {"path": reviews(folder)}, 40),
        "pairs": (
            ["model=transformer", "data.vocab_size=300"],
            {"source": source, "target": target},
            60,
        ),
        "chat": (
            ["model=transformer", "data.unit=byte", "data.packing=padded"],
            {"path": chats(folder)},
            40,
        ),
        "arrays": ([], {"path": "mine.npz"}, 50),
    }


KINDS = ("table", "images", "audio", "text", "text_labels", "pairs", "chat", "arrays")


@pytest.mark.parametrize("kind", KINDS)
def test_without_a_validation_set_its_samples_are_trained_on(command: Command, tmp_path, kind):
    settings, paths, samples = every_kind(tmp_path)[kind]
    words = [f"data={kind}", *(f"data.{key}={path}" for key, path in paths.items()), *settings]
    result = command(
        *words, "data.validation=false", "data.test_fraction=0.25", "trainer.max_steps=2", *SHORT
    )
    assert result.status == 0, result.err
    sizes = re.search(r"\(([\d,]+) train, ([\d,]+) test\)", header(result.out, "Data"))
    assert sizes, header(result.out, "Data")
    assert abs(sum(map(int, sizes.groups())) - samples) <= (kind == "text")  # where the text is cut
    assert "Validation: none, so that the last weights count" in result.out
    summary = result.summary()
    assert (summary["best"], summary["monitor"], summary["final"]["step"]) == ({}, "", 2)
    assert summary["test"]
    assert "val/" not in str(result.records())
    assert not (result.folder / "checkpoints" / "best").exists()


@pytest.mark.parametrize("kind", KINDS)
def test_a_validation_set_of_its_own_can_be_trained_on_too(command: Command, tmp_path, kind):
    settings, paths, samples = every_kind(tmp_path)[kind]
    (tmp_path / "more").mkdir()
    every_kind(tmp_path / "more")
    words = [f"data={kind}", *(f"data.{key}={path}" for key, path in paths.items()), *settings]
    words += [f"data.val_{key}=more/{path}" for key, path in paths.items()]
    result = command(*words, "data.validation=false", "trainer.max_steps=2", *SHORT)
    assert result.status == 0, result.err
    assert f"({2 * samples} train)" in header(result.out, "Data")
    assert result.summary()["test"] == {}
