"""Measures what a picture, a text and a number are worth alone and together, on adverts for clothes.

    python scripts/modalities.py data/fashion_mnist                    # a table of R² and mean errors
    python scripts/modalities.py data/fashion_mnist --rows 2000 --seeds 1

The folder holds the four IDX files of Fashion-MNIST. Each of its pictures becomes an advert with a
description and an age. The price follows from what the picture shows, from the condition, which only the
description tells, and from the age, with noise; one picture and one description of ten are missing.
Every run is `model=fusion` with its defaults; its test adverts have pictures that Fashion-MNIST keeps
for testing.
"""

from __future__ import annotations

import argparse
import csv
import json
import statistics
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

import bigmodel
from bigmodel.registry import data

BASE = (10, 30, 35, 50, 80, 25, 20, 55, 70, 90)
"""The price of a new piece of each class, in Fashion-MNIST's order."""

CONDITIONS = (
    (1.0, ("never worn, still has its tag", "brand new, was a present", "unused, in the original box")),
    (0.7, ("worn only twice", "as good as new", "well looked after, no marks")),
    (0.4, ("some signs of use", "a little faded from washing", "worn, though still nice")),
    (0.2, ("has a hole and a stain", "torn at the seam, needs mending", "for tinkerers, zip is broken")),
)
"""Conditions: the share of the price of a new piece, and words for it."""

OPENINGS = ("selling this because it no longer fits", "clearing out the wardrobe", "moving house", "")
ENDINGS = ("smoke-free home", "collect in person or by post", "no returns", "cash please", "")
USED = (
    ("age",),
    ("text",),
    ("photo",),
    ("text", "age"),
    ("photo", "age"),
    ("photo", "text"),
    ("photo", "text", "age"),
)
"""The columns of each line of the table; the last are all."""

KINDS = {"photo": "image", "text": "text", "age": "number"}
HEAD = ("photo", "text", "age", "price", "split")
DROPOUTS = (0.0, 0.1)
MISSING = 0.1
NOISE = 0.1  # deviation of the logarithm of a price


def write_adverts(source: Path, folder: Path, rows: int) -> Path:
    """The table, and its pictures beside it: `rows` adverts to learn from, and half as many to test."""
    draw, lines = np.random.default_rng(0), []
    clothes = data.build(data.parse({"name": "fashion_mnist", "root": str(source)}))
    (folder / "photos").mkdir(parents=True)
    for part, name, count in ((clothes.train, "train", rows), (clothes.test, "test", rows // 2)):
        pixels, labels = part.take(slice(0, count))
        for number, label in enumerate(labels.tolist()):
            photo = f"photos/{name}-{number}.png"
            Image.fromarray(pixels[number, 0].numpy()).save(folder / photo)
            share, words = CONDITIONS[draw.integers(len(CONDITIONS))]
            sentences = (draw.choice(OPENINGS), draw.choice(words), draw.choice(ENDINGS))
            age = int(draw.integers(0, 11))
            price = BASE[label] * share * (1 - 0.05 * age) * np.exp(NOISE * draw.normal())
            text = "" if draw.random() < MISSING else ". ".join(filter(None, sentences))
            lines.append(["" if draw.random() < MISSING else photo, text, age, f"{price:.2f}", name])
    write_table(folder / "adverts.csv", lines)
    for missing, column in enumerate(HEAD[:2]):
        rest = [[*line[:missing], "", *line[missing + 1 :]] for line in lines if line[-1] == "test"]
        write_table(folder / f"without-{column}.csv", rest)
    return folder / "adverts.csv"


def write_table(path: Path, lines: Sequence[Sequence[Any]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([HEAD, *lines])


def trained(table: Path, columns: Sequence[str], seed: int, more: Sequence[str]) -> bigmodel.TrainedRun:
    """A run on some of the columns."""
    kinds = {name: kind if name in columns else "ignore" for name, kind in KINDS.items()}
    folder = Path(tempfile.mkdtemp(dir=table.parent)) / "run"
    return bigmodel.train(
        *("data=table", f"data.path={table}", "data.target=price", "data.split=split", "model=fusion"),
        *(f"data.columns.{name}={kind}" for name, kind in kinds.items()),
        *(f"seed={seed}", f"data.split_seed={seed}", f"hydra.run.dir={folder}", *more),
        progress=False,
    )


def figures(run: bigmodel.TrainedRun) -> dict[str, float]:
    """Those of the test set, which the run reports."""
    path = Path(run.folder) / "summary.json"
    return plain(json.loads(path.read_text(encoding="utf-8"))["test"])


def plain(figures: Mapping[str, float]) -> dict[str, float]:
    """Figures without the name of their set."""
    return {name.rpartition("/")[2]: value for name, value in figures.items()}


def row(name: str, found: Sequence[Mapping[str, float]]) -> str:
    """A line of the table: mean and deviation over seeds."""
    cells = [name]
    for key, digits in (("r2", 3), ("mae", 2)):
        values = [figures[key] for figures in found]
        spread = f" ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else ""
        cells.append(f"{statistics.mean(values):.{digits}f}{spread}")
    return f"| {' | '.join(cells)} |"


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("source", type=Path, help="folder of the four files of Fashion-MNIST")
    parser.add_argument("--rows", type=int, default=2000, help="adverts to learn from")
    parser.add_argument("--seeds", type=int, default=3, help="runs of each line")
    parser.add_argument("--epochs", type=int, default=10, help="of each run")
    return parser


def main(arguments: Sequence[str] | None = None) -> None:
    given = parser().parse_args(arguments)
    epochs, seeds = f"trainer.epochs={given.epochs}", range(given.seeds)
    with tempfile.TemporaryDirectory() as folder:
        table = write_adverts(given.source, Path(folder), given.rows)
        print("| columns | R² | mean error |\n|---|---|---|")
        for columns in USED:
            found = [figures(trained(table, columns, seed, [epochs])) for seed in seeds]
            print(row(", ".join(columns), found), flush=True)
        for dropout in DROPOUTS:
            more = [epochs, f"model.modality_dropout={dropout}"]
            runs = [trained(table, USED[-1], seed, more) for seed in seeds]
            for column in HEAD[:2]:
                new = str(table.with_name(f"without-{column}.csv"))
                found = [plain(run.evaluate(new)) for run in runs]
                name = f"all, no {column} in the test, `model.modality_dropout={dropout}`"
                print(row(name, found), flush=True)


if __name__ == "__main__":
    main()
