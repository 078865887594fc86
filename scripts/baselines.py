"""Compares our models with scikit-learn's on small tables; prints the Markdown table of docs/results.md.

    python scripts/baselines.py                                       # all: some minutes
    python scripts/baselines.py --only wine --models fnn --seeds 1    # a quick look
    python scripts/baselines.py --folder runs                         # keep the runs

All models are trained on the same rows and evaluated on the same other rows. Each seed draws a split,
weights and an order of samples. All settings are defaults. Ours are evaluated at the end of training,
not at their best epoch; of the validation rows they have at most when early stopping ended it. The table
has the mean and the standard deviation over the seeds. With so few rows, a single correct answer makes a
visible difference.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from sklearn.ensemble import (
    GradientBoostingClassifier,
    GradientBoostingRegressor,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
)
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.metrics import accuracy_score, r2_score, root_mean_squared_error

from bigmodel.data.base import Dataset
from bigmodel.data.checks import check
from bigmodel.registry import data
from bigmodel.spec import Values

DATA = ("breast_cancer", "wine", "diabetes")
MODELS = ("fnn", "attention", "transformer")
PROGRAM = Path(sys.executable).with_name("bigmodel-train")
Scores = dict[str, float]


def main() -> None:
    options = parser().parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        columns: dict[str, dict[str, str]] = {}
        for name in options.only:
            columns |= compared(folder, name, options.models, range(options.seeds))
    names = list(dict.fromkeys(row for column in columns.values() for row in column))
    print(f"| | {' | '.join(columns)} |")
    print("|---" * (len(columns) + 1) + "|")
    for name in names:
        cells = [column.get(name, "–") for column in columns.values()]
        print(f"| {name} | {' | '.join(cells)} |")
    print(f"\nMean ± deviation over seeds 0 to {options.seeds - 1}, of split, weights and order.")


def compared(
    folder: Path, name: str, models: Iterable[str], seeds: Iterable[int]
) -> dict[str, dict[str, str]]:
    """For each metric of a data set, the result of each model."""
    found: dict[str, list[Scores]] = {}
    for seed in seeds:
        for model in models:
            scores = ours(folder / f"{name}-{model}-{seed}", name, model, seed)
            found.setdefault(f"`model={model}`", []).append(scores)
        dataset = data.build(data.parse({"name": name, "split_seed": seed}))
        check(dataset)
        for model, scores in theirs(dataset, seed).items():
            found.setdefault(model, []).append(scores)
    heads = {"accuracy": f"{name}, accuracy", "rmse": f"{name}, RMSE", "r2": f"{name}, R²"}
    return {
        head: {
            model: _mean_and_deviation([scores[metric] for scores in runs])
            for model, runs in found.items()
        }
        for metric, head in heads.items()
        if metric in next(iter(found.values()))[0]
    }


def ours(folder: Path, name: str, model: str, seed: int) -> Scores:
    """The metrics of our command on the validation set at the end of training."""
    words = [f"data={name}", f"model={model}", f"seed={seed}", f"data.split_seed={seed}", "device=cpu"]
    if not (folder / "summary.json").exists():
        print(f"… {' '.join(words)}", file=sys.stderr, flush=True)
        command = [str(PROGRAM), *words, "trainer.tensorboard=false", f"hydra.run.dir={folder}"]
        subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
    summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    if summary["status"] != "finished":
        sys.exit(f"{folder}: the run did not finish.")
    final = summary["final"]
    return {key: final[f"val/{key}"] for key in ("accuracy", "rmse", "r2") if f"val/{key}" in final}


def theirs(dataset: Dataset, seed: int) -> dict[str, Scores]:
    """The metrics of scikit-learn's models on the validation set, after training on the same rows."""
    train, val = (part.take(slice(0, len(part))) for part in (dataset.train, dataset.val))
    target = dataset.spec.target
    boosting: dict[str, tuple[Any, Any]] = {
        "gradient boosting (GradientBoosting)": (GradientBoostingClassifier, GradientBoostingRegressor),
        "gradient boosting (HistGradientBoosting)": (
            HistGradientBoostingClassifier,
            HistGradientBoostingRegressor,
        ),
    }
    valued = isinstance(target, Values)
    models: dict[str, Any] = {
        "logistic or linear regression": LinearRegression()
        if valued
        else LogisticRegression(max_iter=1000)  # the default of 100 may stop before it has converged
    }
    models |= {name: kinds[valued](random_state=seed) for name, kinds in boosting.items()}
    found: dict[str, Scores] = {}
    for name, model in models.items():
        model.fit(train[0].numpy(), train[1].numpy().ravel())
        predicted, truth = model.predict(val[0].numpy()), val[1].numpy().ravel()
        if isinstance(target, Values):
            rmse = root_mean_squared_error(truth, predicted) * target.std[0]  # in the data's own unit
            found[name] = {"rmse": float(rmse), "r2": float(r2_score(truth, predicted))}
        else:
            found[name] = {"accuracy": float(accuracy_score(truth, predicted))}
    return found


def _mean_and_deviation(values: list[float]) -> str:
    digits = 1 if max(values) > 2 else 3
    spread = f" ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.{digits}f}{spread}"


def parser() -> argparse.ArgumentParser:
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--only", nargs="+", choices=DATA, default=DATA, help="data sets")
    options.add_argument("--models", nargs="+", default=MODELS, help="of ours")
    options.add_argument("--seeds", type=int, default=5, help="how many, from 0 on")
    options.add_argument("--folder", type=Path, help="where the runs are kept; none: nowhere")
    return options


if __name__ == "__main__":
    main()
