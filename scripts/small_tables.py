"""Compares the default network with linear models on six small tables, for docs/results.md.

    python scripts/small_tables.py                              # all: a few minutes
    python scripts/small_tables.py --only wine --seeds 1        # a quick look
    python scripts/small_tables.py trainer.epochs=100           # other settings than the defaults
    python scripts/small_tables.py --folder runs                # keep the runs

The tables are real and come with scikit-learn: four that it offers, and two of its tests, which have
categories and missing values. Each seed draws a split, weights and an order of samples. A fifth of the
rows is the test set, and a fifth of the others the validation set, by which the network chooses its
weights. The linear models have nothing to choose: they learn from both, and once more from the training
set alone. Test rows are looked at once, at the end.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import json
import statistics
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import sklearn
from sklearn import datasets
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.metrics import accuracy_score, root_mean_squared_error
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

import bigmodel

OF_SCIKIT_LEARN = ("diabetes", "breast_cancer", "wine", "iris")
OF_ITS_TESTS = {
    # OpenML's number, the target, and what is left out: names, and what is known only afterwards
    "titanic": (40945, "survived", ("name", "ticket", "cabin", "boat", "body", "home.dest")),
    "penguins": (42585, "species", ()),
}
TABLES = (*OF_SCIKIT_LEARN, *OF_ITS_TESTS)
MISSING = "?"


@dataclass(frozen=True)
class Table:
    """Columns of one length, and the target.

    Attributes:
        numbers: by name, float64 with NaN where a value is missing.
        words: by name, text, empty where it is missing.
        values: whether the target is real values, not classes.
    """

    numbers: dict[str, np.ndarray[Any, Any]]
    words: dict[str, np.ndarray[Any, Any]]
    target: np.ndarray[Any, Any]
    values: bool


def main() -> None:
    options, words = parser().parse_known_args()
    if wrong := [word for word in words if "=" not in word]:
        parser().error(f"unrecognized arguments: {' '.join(wrong)}")
    print(
        "| | rows | metric | `model=fnn` | linear, of the same rows | linear, of validation rows too |"
    )
    print("|---" * 6 + "|")
    with tempfile.TemporaryDirectory() as temporary:
        for name in options.only:
            table = read(name)
            scores = [
                compared(table, seed, (options.folder or Path(temporary)) / f"{name}-{seed}", words)
                for seed in range(options.seeds)
            ]
            metric = "RMSE" if table.values else "accuracy"
            cells = [_mean(column, table.values) for column in zip(*scores, strict=True)]
            print(f"| {name} | {len(table.target):,} | {metric} | {' | '.join(cells)} |", flush=True)


def read(name: str) -> Table:
    """A table that the installed scikit-learn has."""
    if name in OF_SCIKIT_LEARN:
        bunch = getattr(datasets, f"load_{name}")(**({"scaled": False} if name == "diabetes" else {}))
        numbers = dict(zip(map(str, bunch.feature_names), bunch.data.T, strict=True))
        values = name == "diabetes"
        target = bunch.target if values else np.array(bunch.target_names)[bunch.target]
        return Table(numbers, {}, target, values)
    number, target_name, left_out = OF_ITS_TESTS[name]
    folder = Path(sklearn.__file__).parent / "datasets" / "tests" / "data" / "openml" / f"id_{number}"
    columns = _arff(next(folder.glob("data-*.arff.gz")))
    target = columns.pop(target_name)
    kept = {key: column for key, column in columns.items() if key not in left_out}
    numeric = {key: column for key, column in kept.items() if _numeric(column)}
    return Table(
        {key: np.where(column == "", "nan", column).astype(float) for key, column in numeric.items()},
        {key: column for key, column in kept.items() if key not in numeric},
        target,
        values=False,
    )


def _arff(path: Path) -> dict[str, np.ndarray[Any, Any]]:
    """The columns of an ARFF file as text, empty where a value is missing."""
    lines = [line.strip() for line in gzip.decompress(path.read_bytes()).decode().splitlines()]
    lines = [line for line in lines if line and not line.startswith("%")]
    start = next(place for place, line in enumerate(lines) if line.lower() == "@data")
    names = [line.split()[1].strip("'\"") for line in lines[:start] if line.lower().startswith("@attr")]
    rows = list(csv.reader(lines[start + 1 :], escapechar="\\"))
    columns = np.array(rows).T
    return dict(zip(names, np.where(columns == MISSING, "", columns), strict=True))


def _numeric(column: np.ndarray[Any, Any]) -> bool:
    try:
        column[column != ""].astype(float)
    except ValueError:
        return False
    return True


def compared(table: Table, seed: int, folder: Path, words: list[str]) -> tuple[float, float, float]:
    """The score on the test set of the network, and of the linear models."""
    rows = np.arange(len(table.target))

    def cut(of: np.ndarray[Any, Any]) -> Any:
        classes = None if table.values else table.target[of]
        return train_test_split(of, test_size=0.2, random_state=seed, stratify=classes)

    others, test = cut(rows)
    train, val = cut(others)
    return (
        network(table, (train, val, test), seed, folder, words),
        linear(table, train, test),
        linear(table, others, test),
    )


def network(
    table: Table, parts: tuple[Any, Any, Any], seed: int, folder: Path, words: list[str]
) -> float:
    """What a run with the default settings reaches."""
    part_names = np.empty(len(table.target), object)
    for rows, part in zip(parts, ("train", "val", "test"), strict=True):
        part_names[rows] = part
    numbers = {
        name: [None if np.isnan(value) else value for value in column.tolist()]
        for name, column in table.numbers.items()
    }
    texts = {name: [word or None for word in column] for name, column in table.words.items()}
    frame = {**numbers, **texts, "target": table.target.tolist(), "part": part_names.tolist()}
    settings = [
        "data.target=target",
        "data.split=part",
        f"data.task={'values' if table.values else 'classes'}",
    ]
    print(f"… {folder.name} {' '.join(words)}", file=sys.stderr, flush=True)
    run = bigmodel.train(
        *settings, f"seed={seed}", "device=cpu", f"hydra.run.dir={folder}", *words,
        frame=frame, progress=False,
    )  # fmt: skip
    summary = json.loads((run.folder / "summary.json").read_text(encoding="utf-8"))
    return float(summary["test"]["test/rmse" if table.values else "test/accuracy"])


def linear(table: Table, rows: Any, test: Any) -> float:
    """Linear or logistic regression on standardised numbers and one-hot categories."""
    prepared_rows, prepared_test = [], []
    for columns, steps in (
        (table.numbers, (SimpleImputer(strategy="median", add_indicator=True), StandardScaler())),
        (table.words, (OneHotEncoder(handle_unknown="ignore", sparse_output=False),)),
    ):
        if columns:
            matrix = np.stack(list(columns.values()), axis=1)
            preparing = make_pipeline(*steps)
            prepared_rows.append(preparing.fit_transform(matrix[rows]))
            prepared_test.append(preparing.transform(matrix[test]))
    model = LinearRegression() if table.values else LogisticRegression(max_iter=1000)
    model.fit(np.hstack(prepared_rows), table.target[rows])
    predicted, truth = model.predict(np.hstack(prepared_test)), table.target[test]
    return float((root_mean_squared_error if table.values else accuracy_score)(truth, predicted))


def _mean(scores: tuple[float, ...], values: bool) -> str:
    digits = 2 if values else 4
    error = statistics.stdev(scores) / len(scores) ** 0.5 if len(scores) > 1 else 0.0
    return f"{statistics.mean(scores):.{digits}f} ± {error:.{digits}f}"


def parser() -> argparse.ArgumentParser:
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--only", nargs="+", choices=TABLES, default=TABLES, help="tables")
    options.add_argument("--seeds", type=int, default=5, help="how many, from 0 on")
    options.add_argument("--folder", type=Path, help="where the runs are kept; none: nowhere")
    return options


if __name__ == "__main__":
    main()
