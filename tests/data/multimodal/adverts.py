"""A table of adverts with pictures, texts and recordings, some of them missing."""

import csv
import wave
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from bigmodel.data.base import Dataset
from bigmodel.data.checks import check
from bigmodel.registry import data

WORDS = ("an old broken chair from the attic", "a lovely new table, hardly used")
COLUMNS = {"photo": "image", "text": "text"}


def adverts(folder: Path, count: int = 48, *, sounds: bool = False) -> Path:
    """Bright pictures and kind words are dear; each 6th row has no picture, each 5th no text."""
    draw = np.random.default_rng(0)
    (folder / "files").mkdir(parents=True)
    rows = []
    for row in range(count):
        bright, kind = row % 2, row // 2 % 2
        pixels = draw.integers(0, 60, (10, 8)) + 180 * bright
        Image.fromarray(pixels.astype(np.uint8)).save(folder / f"files/{row}.png")
        text = f"{WORDS[kind]} number {row}"
        price = 100 * bright + 50 * kind + row % 7
        cells = [
            "" if row % 6 == 5 else f"files/{row}.png",
            "" if row % 5 == 4 else text,
            row % 9,
            price,
        ]
        rows.append(cells + [sound(folder, row, bright)] * sounds)
    table = folder / "adverts.csv"
    write(table, ["photo", "text", "age", "price", *["sound"] * sounds], rows)
    return table


def sound(folder: Path, row: int, high: int) -> str:
    """A tenth of a second of a tone."""
    if row % 4 == 3:
        return ""
    tone = np.sin(np.arange(800) * (0.2 + 0.6 * high)) * 8000
    with wave.open(str(folder / f"files/{row}.wav"), "wb") as file:
        file.setparams((1, 2, 8000, 0, "NONE", ""))
        file.writeframes(tone.astype("<i2").tobytes())
    return f"files/{row}.wav"


def write(table: Path, head: list[str], rows: list[list[Any]]) -> None:
    with table.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([head, *rows])


def read_rows(table: Path) -> list[list[str]]:
    with table.open(newline="", encoding="utf-8") as file:
        return list(csv.reader(file))[1:]


def built(path: Path, columns: dict[str, str] | None = None, **values: Any) -> Dataset:
    """The data of a table, checked."""
    options = {"name": "table", "path": str(path), "target": "price", "cache": None}
    config = data.parse({**options, "columns": COLUMNS if columns is None else columns, **values})
    dataset: Dataset = data.build(config)
    check(dataset)
    return dataset
