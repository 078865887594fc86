"""The presets for data of one's own, each for a few steps on small files made on the spot."""

import wave
from pathlib import Path

import numpy as np
import pytest

from tests.end_to_end.conftest import Command

QUICK = ("trainer.max_steps=2", "device=cpu", "trainer.tensorboard=false")


def lines(folder: Path) -> list[str]:
    options = []
    for part in ("", "val_", "test_"):
        for side, word in (("source", "Hund Katze Maus"), ("target", "dog cat mouse")):
            file = folder / f"{part}{side}.txt"
            file.write_text("".join(f"{word} {n % 7}\n" for n in range(40)))
            options.append(f"data.{part}{side}={file.name}")
    return options


def spoken(folder: Path) -> None:
    (folder / "recordings").mkdir()
    draw = np.random.default_rng(0)
    for digit in range(3):
        for index in range(12):
            sound = (draw.normal(0, 3000, 2400 + 80 * index)).astype("<i2")
            with wave.open(str(folder / "recordings" / f"{digit}_ann_{index}.wav"), "wb") as file:
                file.setparams((1, 2, 8000, 0, "NONE", ""))
                file.writeframes(sound.tobytes())


def test_shakespeare_char_cpu(command: Command, tmp_path):
    (tmp_path / "play.txt").write_text("ROMEO: But soft, what light.\n" * 60)
    result = command("experiment=shakespeare_char_cpu", "data.path=play.txt", *QUICK)
    assert result.status == 0, result.err
    assert "val/bits_per_character" in result.summary()["final"]


@pytest.mark.parametrize("name", ["multi30k", "multi30k_cpu"])
def test_multi30k(command: Command, tmp_path, name):
    smaller = ("data.vocab_size=300", "model.dim=48", *QUICK)
    result = command(f"experiment={name}", *lines(tmp_path), *smaller)
    assert result.status == 0, result.err
    assert "test/bleu" in result.summary()["test"]


def test_spoken_digits(command: Command, tmp_path):
    """The test set are the recordings 0 to 4 of each, as their makers have it."""
    spoken(tmp_path)
    result = command("experiment=spoken_digits", "data.path=recordings/", *QUICK)
    assert result.status == 0, result.err
    assert "15 test" in result.out


def test_gpt2_at_another_size(command: Command, tmp_path):
    (tmp_path / "play.txt").write_text("ROMEO: But soft, what light.\n" * 60)
    sizes = ("model.dim=24", "model.depth=1", "data.context=16", "data.unit=bpe", "data.vocab_size=300")
    result = command("model=gpt2", "data=text", "data.path=play.txt", *sizes, *QUICK)
    assert result.status == 0, result.err


@pytest.mark.parametrize("name", ["fnn", "cnn", "rnn", "attention", "transformer"])
def test_the_article_s_networks_print_ten_lines_as_its_listings_do(command: Command, name):
    result = command(
        f"experiment=seed_{name}", "data.samples=20", "device=cpu", "trainer.tensorboard=false"
    )
    assert result.status == 0, result.err
    told = [line for line in result.out.splitlines() if line.startswith("Epoch ")]
    assert [line.split(", ")[0] for line in told] == [f"Epoch {epoch}" for epoch in range(10, 101, 10)]
    assert all(", Loss: " in line for line in told)
