"""What a user of scikit-learn would write: a whole program that reads, splits, fits and scores.

    python with_sklearn.py regressor table.csv       MLPRegressor, one epoch
    python with_sklearn.py boosting table.csv        HistGradientBoostingRegressor with its defaults
    python with_sklearn.py classifier                MLPClassifier on the digits, 30 epochs

The sizes, batches and shares held out are those of ours. The networks compute in float32, as ours does;
what they hold out is scored once. Score and optimizer steps go to the file that BENCH_NOTES names.
"""

from __future__ import annotations

import json
import math
import os
import sys
import warnings
from pathlib import Path
from typing import Any

from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import StandardScaler

SIZES = (256, 128)


def regressor(path: str) -> tuple[float, int]:
    """One epoch of a table of figures whose last column is the target."""
    from sklearn.neural_network import MLPRegressor

    x, x_val, y, y_val = table(path)
    inputs, target = StandardScaler().fit(x), StandardScaler().fit(y[:, None])
    model = MLPRegressor(hidden_layer_sizes=SIZES, batch_size=256, max_iter=1, random_state=0)
    model.fit(inputs.transform(x), target.transform(y[:, None]).ravel())
    score = model.score(inputs.transform(x_val), target.transform(y_val[:, None]).ravel())
    return score, model.n_iter_ * math.ceil(len(x) / 256)


def boosting(path: str) -> tuple[float, int]:
    """The same table by boosted trees."""
    from sklearn.ensemble import HistGradientBoostingRegressor

    x, x_val, y, y_val = table(path)
    return HistGradientBoostingRegressor(random_state=0).fit(x, y).score(x_val, y_val), 0


def classifier() -> tuple[float, int]:
    """Thirty epochs of the digits."""
    from sklearn.datasets import load_digits
    from sklearn.neural_network import MLPClassifier

    x, y = load_digits(return_X_y=True)
    x, x_val, y, y_val = train_test_split(
        x.astype("float32"), y, test_size=0.2, stratify=y, random_state=0
    )
    mean, deviation = x.mean(), x.std()
    model = MLPClassifier(
        hidden_layer_sizes=SIZES, batch_size=64, max_iter=30, n_iter_no_change=31, random_state=0
    )
    model.fit((x - mean) / deviation, y)
    return model.score((x_val - mean) / deviation, y_val), model.n_iter_ * math.ceil(len(x) / 64)


def table(path: str) -> Any:
    """Inputs and targets in float32, to train on and to score."""
    import pandas as pd

    values = pd.read_csv(path, dtype="float32").to_numpy()
    return train_test_split(values[:, :-1], values[:, -1], test_size=0.2, random_state=0)


def main() -> None:
    warnings.simplefilter("ignore", ConvergenceWarning)  # one epoch is what was asked for
    name, *arguments = sys.argv[1:]
    programs: dict[str, Any] = {f.__name__: f for f in (regressor, boosting, classifier)}
    score, steps = programs[name](*arguments)
    print(f"{name}: {score:.4f}")
    if notes := os.environ.get("BENCH_NOTES"):
        Path(notes).write_text(json.dumps({"score": score, "steps": steps}))


if __name__ == "__main__":
    main()
