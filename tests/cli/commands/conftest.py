"""Runs to ask, each made once: small, on one thread, in milliseconds."""

import json
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from PIL import Image

from bigmodel.training.loop import fit
from tests.cli.commands.cli import Bigmodel, caller
from tests.small_runs import built

Run = Callable[[str], Path]

VERSES = "ROMEO: Good night, good night!\nJULIET: Sweet, so would I. Ä ☃\n" * 30
TEXT_MODEL = {"name": "transformer", "dim": 16, "depth": 1, "num_heads": 2}


@pytest.fixture
def bigmodel(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Bigmodel:
    return caller(monkeypatch, capsys)


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The folder of a run by its name in `SETTINGS`; its data lies beside it."""

    @cache
    def make(name: str) -> Path:
        folder = tmp_path_factory.mktemp(name)
        write_data(folder)
        settings = {key: _at(value, folder) for key, value in SETTINGS[name].items()}
        run, _ = built(folder / "run", settings)
        (folder / "run").mkdir()
        fit(run)
        return folder / "run"

    return make


@pytest.fixture(scope="session")
def family_run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The folder of a run of a family's preset, by its name in `family_runs`."""
    from tests.cli.commands import family_runs  # which needs this module

    return cache(lambda name: family_runs.make(name, tmp_path_factory.mktemp(name)))


@pytest.fixture(scope="module")
def torchlib_is_read_once() -> Iterator[None]:
    """Every export reads onnxscript's 500 functions again, which takes longer than the rest of it."""
    from torch.onnx._internal.exporter._registration import ONNXRegistry

    with pytest.MonkeyPatch.context() as patch:
        read = cache(ONNXRegistry.from_torchlib.__func__)  # type: ignore[attr-defined]
        patch.setattr(ONNXRegistry, "from_torchlib", classmethod(read))
        yield


def _at(value: Any, folder: Path) -> Any:
    """Settings with the place of the data."""
    if isinstance(value, dict):
        return {key: _at(inner, folder) for key, inner in value.items()}
    return value.replace("HERE", str(folder)) if isinstance(value, str) else value


SETTINGS: dict[str, dict[str, Any]] = {
    "classes": {},
    "values": {"data.target": "values", "data.outputs": 1},
    "flags": {"data.target": "flags", "data.outputs": 2},
    "images": {"model": "cnn", "data": {"name": "arrays", "path": "HERE/images.npz"}},
    "sequences": {"model": "rnn", "data.input": "sequence", "data.shape": [6, 2]},
    "tokens": {"model": "attention", "data.input": "tokens", "data.shape": [7], "data.vocab_size": 9},
    "ema": {"trainer.ema": 0.9},
    "photos": {
        "model": "cnn",
        "data": {"name": "images", "path": "HERE/photos", "size": 8, "cache": None},
    },
    "sounds": {
        "model": "cnn",
        "data": {"name": "audio", "path": "HERE/sounds", "rate": 8000, "n_mels": 8, "cache": None},
    },
    "raw_sounds": {
        "model": "rnn",
        "data": {
            "name": "audio",
            "path": "HERE/sounds",
            "rate": 8000,
            "form": "raw",
            "fold": 250,
            "cache": None,
        },
    },
    "table": {"data": {"name": "table", "path": "HERE/t.csv", "target": "price", "test_fraction": 0.2}},
    "taken": {"data": {"name": "table", "path": "HERE/taken.csv", "target": "y"}},
    "text": {
        "model": TEXT_MODEL,
        "data": {"name": "text", "path": "HERE/verses.txt", "context": 16},
    },
    "pieces": {
        "model": TEXT_MODEL,
        "data": {
            "name": "text",
            "path": "HERE/verses.txt",
            "context": 16,
            "unit": "bpe",
            "vocab_size": 270,
        },
    },
    "documents": {
        "model": TEXT_MODEL,
        "data": {
            "name": "text",
            "path": "HERE/verses.txt",
            "context": 64,
            "packing": "documents",
            "document": "line",
            "batch_size": 4,
        },
    },
    "chat": {
        "model": TEXT_MODEL | {"dim": 32, "dropout": 0.0},
        "data": {
            "name": "chat",
            "path": "HERE/chats.jsonl",
            "context": 96,
            "unit": "byte",
            "batch_size": 8,
        },
        "optimizer": {"name": "adamw", "lr": 0.01},
        "trainer.epochs": 40,
    },
    "reviews": {
        "data": {"name": "text_labels", "path": "HERE/reviews.csv", "vocab_size": 270, "length": 12},
    },
    "pairs": {
        "model": TEXT_MODEL,
        "data": {
            "name": "pairs",
            "source": "HERE/de.txt",
            "target": "HERE/en.txt",
            "vocab_size": 270,
            "length": 24,
            "bleu_pairs": 4,
            "test_fraction": 0.2,
        },
    },
}


def _messages(words: Sequence[str]) -> list[dict[str, str]]:
    """A conversation in which each word is answered in capitals."""
    said = [pair for word in words for pair in (("user", word), ("assistant", word.upper()))]
    return [{"role": role, "content": text} for role, text in said]


def write_data(folder: Path) -> None:
    """What the runs learn from."""
    draw = np.random.default_rng(0)
    images, labels = draw.integers(0, 256, (60, 1, 8, 8)).astype(np.uint8), np.arange(60) % 3
    np.savez(folder / "images.npz", inputs=images, targets=labels)
    for label, hertz in (("high", 2000), ("low", 200)):
        for kind in ("photos", "sounds"):
            (folder / kind / label).mkdir(parents=True)
        for n in range(8):
            pixels = draw.integers(hertz // 20, 200, (11, 9, 3)).astype(np.uint8)
            Image.fromarray(pixels).save(folder / "photos" / label / f"{n}.png")
            wave = 0.5 * np.sin(np.arange(1000 + 40 * n) * 2 * np.pi * hertz / 8000 + n)
            soundfile.write(folder / "sounds" / label / f"{n}.wav", wave, 8000)
    cities = ("Rome", "Paris", "New York", "Oslo")
    rows = [
        f"{cities[i % 4] if i % 9 else ''},{i % 13 / 3 if i % 7 else ''},"
        f"2024-0{1 + i % 9}-11,{20.5 + i % 13}"
        for i in range(120)
    ]
    (folder / "t.csv").write_text("\n".join(["city,area,built,price", *rows, ""]))
    rows = [f"{i % 7},{i % 5},{'ab'[i % 2]},{'xyz'[i % 3]},{i % 2}" for i in range(60)]
    (folder / "taken.csv").write_text("\n".join(["index,add,label,probabilities,y", *rows, ""]))
    (folder / "verses.txt").write_text(VERSES)
    with (folder / "chats.jsonl").open("w") as chats:
        for n in range(60):
            json.dump({"messages": _messages(("a", "bb", "é")[n % 3 :])}, chats)
            chats.write("\n")
    words = {"pos": ("good", "nice", "fine"), "neg": ("bad", "awful", "poor")}
    reviews = [
        f'"{words[label][i % 3]}, {words[label][i % 2]}",{label}' for i in range(30) for label in words
    ]
    (folder / "reviews.csv").write_text("\n".join(["text,label", *reviews, ""]))
    german, english = ("ein", "zwei", "Hund", "Katze"), ("one", "two", "dog", "cat")
    chosen = [[(i * 7 + j * j) % 4 for j in range(1 + i % 5)] for i in range(80)]
    for path, side in (("de.txt", german), ("en.txt", english)):
        text = "\n".join(
            " ".join(side[word] for word in line) + f" {n}" for n, line in enumerate(chosen)
        )
        (folder / path).write_text(text + "\n")
