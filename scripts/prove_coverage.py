"""Measures how often intervals and sets hold the truth, on rows that a run has never seen.

    python scripts/prove_coverage.py                                         # digits: a minute
    python scripts/prove_coverage.py --diamonds diamonds.csv --fashion idx   # all: ten minutes
    python scripts/prove_coverage.py --splits 2                              # a quick look
    python scripts/prove_coverage.py --keep                                  # keep the results
    python scripts/prove_coverage.py --docs                                  # put them into the page

For each split, a run is trained on some rows, and chooses its best weights on its validation part. The
same part says how sure it is. What `TrainedRun.predict` then gives for the rows held out, 1,000 or more,
is compared with the truth. Since the validation part has chosen the weights, its scores may be too good:
the coverage with scores of as many other rows is measured beside it. diamonds.csv is the table that R's
ggplot2 and Python's plotnine ship, and idx a folder with the files of Fashion-MNIST.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
import torch
from benchmarks.figures import machine
from marks import replace_between

import bigmodel
from bigmodel.api.new_data import GivenData
from bigmodel.data.sources.idx import read_idx
from bigmodel.metrics import choose_metrics, parse_metrics
from bigmodel.metrics.calibration import Calibration
from bigmodel.metrics.conformal import bound, class_sets, intervals
from bigmodel.metrics.temperature import scale
from bigmodel.spec import Values
from bigmodel.training.calibration import read_calibration
from bigmodel.training.outputs import model_outputs

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "scripts" / "results" / "coverage.json"
PAGE = ROOT / "docs" / "understand.md"
LEVELS = (0.9, 0.95, 0.99)


@dataclass(frozen=True)
class Rows:
    """Data to split: inputs and targets by row.

    Attributes:
        table: a table with the target's column; or arrays, `inputs` and `targets`.
        target: the name of that column.
        learn: how many rows a run is given, for training and validation.
        held: how many are held out.
        words: settings of the run.
    """

    table: pa.Table | dict[str, Any]
    target: str
    learn: int
    held: int
    words: tuple[str, ...]

    def take(self, rows: Any) -> Any:
        if isinstance(self.table, pa.Table):
            return self.table.take(pa.array(rows))
        return {name: values[rows] for name, values in self.table.items()}

    @property
    def size(self) -> int:
        return len(self.table if isinstance(self.table, pa.Table) else self.table["targets"])


def digits(_: argparse.Namespace) -> Rows:
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    arrays = {"inputs": images.astype(np.float32), "targets": labels}
    return Rows(arrays, "targets", 797, 1000, ("trainer.epochs=20", "data.val_fraction=0.3"))


def fashion(options: argparse.Namespace) -> Rows:
    images, labels = (
        torch.cat([read_idx(options.fashion / f"{part}-{kind}-ubyte.gz", kind[:6]) for part in parts])
        for kind, parts in (("images-idx3", ("train", "t10k")), ("labels-idx1", ("train", "t10k")))
    )
    arrays = {"inputs": images[:, None].numpy(), "targets": labels.long().numpy()}
    return Rows(arrays, "targets", 5000, 10_000, ("trainer.epochs=8",))


def _diamonds(options: argparse.Namespace, target: str) -> Rows:
    return Rows(pa_csv.read_csv(options.diamonds), target, 5000, 10_000, ("trainer.epochs=20",))


DATA: dict[str, Callable[[argparse.Namespace], Rows]] = {
    "digits": digits,
    "Fashion-MNIST": fashion,
    "diamonds, cut": lambda options: _diamonds(options, "cut"),
    "diamonds, price": lambda options: _diamonds(options, "price"),
}


def measure(name: str, data: Rows, seed: int, folder: Path) -> dict[str, Any]:
    """Trains on one split and measures on the rest of it."""
    order = np.random.default_rng(seed).permutation(data.size)
    learn, held, more = np.split(order, [data.learn, data.learn + data.held])
    run = trained(data, data.take(learn), seed, folder)
    rows, loaded = data.take(held), run._loaded
    target = loaded.preprocessing.spec.target
    calibration = read_calibration(run.folder, run.step, target)
    assert calibration is not None
    own = calibration.samples
    other = fresh(run, data.take(more[:own])) if len(more) >= own else None
    result: dict[str, Any] = {"data": name, "seed": seed, "validation": own, "held": len(held)}
    if not isinstance(target, Values):
        result |= probabilities(run, rows, calibration)
    outputs, true = outputs_of(run, rows)
    for level in LEVELS:
        found = shipped(run, rows, data, level)
        if other is not None:
            found["fresh"] = coverage(outputs, true, target, other, level)
        if isinstance(target, Values):
            found["one_width"] = one_width(outputs, true, calibration, level)
        result[f"{level:g}"] = found
    return result


def trained(data: Rows, learn: Any, seed: int, folder: Path) -> bigmodel.TrainedRun:
    words = [*data.words, "model=fnn", "device=cpu", f"seed={seed}", f"data.split_seed={seed}"]
    words += ["trainer.tensorboard=false", f"hydra.run.dir={folder}"]
    if isinstance(learn, pa.Table):
        return bigmodel.train(*words, f"data.target={data.target}", frame=learn, progress=False)
    np.savez(folder.with_suffix(".npz"), **learn)
    words += ["data=arrays", f"data.path={folder.with_suffix('.npz')}", "data.task=classes"]
    return bigmodel.train(*words, progress=False)


def inputs_of(rows: Any, data: Rows) -> Any:
    return rows.drop_columns([data.target]) if isinstance(rows, pa.Table) else rows["inputs"]


def truth(rows: Any, data: Rows) -> Any:
    return np.array(rows[data.target].to_pylist() if isinstance(rows, pa.Table) else rows["targets"])


def shipped(run: bigmodel.TrainedRun, rows: Any, data: Rows, level: float) -> dict[str, float]:
    """What a user gets: how often it holds the truth, and how large it is."""
    given, true = GivenData.of(inputs_of(rows, data)), truth(rows, data)
    option = "prediction_set" if run.classes else "interval"
    found = run.predict(given.data, **{option: level})
    if run.classes:
        sets = found["set"].to_pylist() if isinstance(found, pa.Table) else found[:, 1]
        held = [str(one) in names for one, names in zip(true, sets, strict=True)]
        return {"coverage": float(np.mean(held)), "size": float(np.mean([len(s) for s in sets]))}
    lower, upper = (found[name].to_numpy() for name in ("lower", "upper"))
    held = (lower <= true) & (true <= upper)
    least = least_of_fifths(found["prediction"].to_numpy(), held)
    return {"coverage": float(held.mean()), "size": float((upper - lower).mean()), "least": least}


def one_width(
    outputs: torch.Tensor, true: torch.Tensor, own: Calibration, level: float
) -> dict[str, float]:
    """What intervals would be if all were of one width."""
    half = bound(own.scores[:, 0], level)
    held = ((outputs - true).abs() <= half)[:, 0].numpy()
    return {"coverage": float(held.mean()), "least": least_of_fifths(outputs[:, 0].numpy(), held)}


def least_of_fifths(predicted: Any, held: Any) -> float:
    """The coverage of the fifth of the rows, by the size of the prediction, that has the least."""
    fifths = np.array_split(np.argsort(predicted, kind="stable"), 5)
    return min(float(held[part].mean()) for part in fifths)


def outputs_of(run: bigmodel.TrainedRun, rows: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """Raw outputs, and targets as the model has them."""
    loaded = run._loaded
    if isinstance(rows, pa.Table):
        part = GivenData.of(rows).samples(loaded, with_targets=True).part
    else:
        part = GivenData.of(rows["inputs"]).samples(loaded, rows["targets"], with_targets=True).part
    outputs = model_outputs(loaded.model, part, loaded.preprocessing, loaded.runtime)
    return outputs, part.take(slice(0, len(part)))[1]


def fresh(run: bigmodel.TrainedRun, rows: Any) -> Calibration:
    """The calibration with rows that have not chosen the weights."""
    return Calibration.of(*outputs_of(run, rows), run._loaded.preprocessing.spec.target)


def coverage(
    outputs: torch.Tensor, true: torch.Tensor, target: Any, other: Calibration, level: float
) -> float:
    if isinstance(target, Values):
        lower, upper = intervals(outputs, other.predicted, other.scores, level)
        return float(((lower <= true) & (true <= upper)).double().mean())
    sets = class_sets(outputs, outputs.argmax(1), other.scores, level)
    return float(sets.gather(1, true[:, None]).double().mean())


def probabilities(run: bigmodel.TrainedRun, rows: Any, calibration: Calibration) -> dict[str, Any]:
    """Accuracy, log loss and expected calibration error, before and after."""
    outputs, true = outputs_of(run, rows)
    target = run._loaded.preprocessing.spec.target
    metrics = choose_metrics(parse_metrics(["log_loss", "ece"]), target)
    found: dict[str, Any] = {"accuracy": float((outputs.argmax(1) == true).double().mean())}
    found["temperature"] = calibration.temperatures
    for name, given in (("raw", outputs), ("calibrated", scale(outputs, calibration.temperatures))):
        metrics.reset()
        metrics.update(given, true)
        found[name] = metrics.compute([metrics.gathered()]).values
    return found


def measurements(options: argparse.Namespace) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    for name in chosen(options):
        data = DATA[name](options)
        with tempfile.TemporaryDirectory() as folder:
            yield name, [measure(name, data, s, Path(folder) / str(s)) for s in range(options.splits)]


def chosen(options: argparse.Namespace) -> list[str]:
    have = {"digits": True, "Fashion-MNIST": options.fashion, "diamonds": options.diamonds}
    return [name for name in DATA if have[name.partition(",")[0]]]


HEAD = "| data | asked | held the truth | least, most | by other rows | mean size |\n" + "|---" * 6 + "|"
BELOW = "| data | accuracy | temperature | log loss | calibration error |\n" + "|---" * 5 + "|"


def markdown(results: dict[str, Any]) -> str:
    """The tables: coverage, then probabilities, then how it was measured."""
    lines, below = [HEAD], ["", BELOW]
    for name, splits in results["data"].items():
        lines += [coverage_row(name, splits, f"{level:g}") for level in LEVELS]
        if "accuracy" in splits[0]:
            below.append(probability_row(name, splits))
    sizes = ", ".join(f"{name} {s[0]['validation']:,}" for name, s in results["data"].items())
    count = len(next(iter(results["data"].values())))
    foot = f"Means over {count} splits. Validation samples: {sizes}. {results['how']}."
    return "\n".join([*lines, *below, "", foot])


def coverage_row(name: str, splits: list[dict[str, Any]], level: str) -> str:
    each = [split[level] for split in splits]
    shares = [one["coverage"] for one in each]
    other = f"{mean(each, 'fresh'):.3f}" if "fresh" in each[0] else "–"
    cells = [name, level, f"{statistics.mean(shares):.3f}", f"{min(shares):.3f}, {max(shares):.3f}"]
    cells += [other, f"{mean(each, 'size'):,.4g}"]
    return f"| {' | '.join(cells)} |"


def probability_row(name: str, splits: list[dict[str, Any]]) -> str:
    heat = statistics.mean(split["temperature"][0] for split in splits)
    cells = [name, f"{mean(splits, 'accuracy'):.3f}", f"{heat:.2f}"]
    for key in ("log_loss", "ece"):
        before, after = (mean([s[kind] for s in splits], key) for kind in ("raw", "calibrated"))
        cells.append(f"{before:.4f} → {after:.4f}")
    return f"| {' | '.join(cells)} |"


def mean(each: list[dict[str, Any]], key: str) -> float:
    return statistics.mean(one[key] for one in each)


def parser() -> argparse.ArgumentParser:
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--splits", type=int, default=20, help="how many (default: 20)")
    options.add_argument("--diamonds", type=Path, metavar="FILE", help="diamonds.csv")
    options.add_argument("--fashion", type=Path, metavar="FOLDER", help="the files of Fashion-MNIST")
    options.add_argument("--keep", action="store_true", help="keep the results in scripts/results")
    options.add_argument(
        "--docs", action="store_true", help="put the kept results into docs/understand.md"
    )
    return options


def main() -> None:
    options = parser().parse_args()
    if options.docs:
        replace_between(PAGE, "coverage", markdown(json.loads(RESULTS.read_text(encoding="utf-8"))))
        return
    found = machine("cpu")
    how = f"{found['cpu']}, {found['cores']} cores; torch {torch.__version__}"
    results: dict[str, Any] = {"how": how, "data": {}}
    for name, splits in measurements(options):
        results["data"][name] = splits
        print(markdown(results | {"data": {name: splits}}), flush=True)
        if options.keep:  # after each: what was measured is not lost
            RESULTS.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
