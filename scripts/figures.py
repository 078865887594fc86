"""Measures the accuracies in docs/results.md: runs the command and prints Markdown tables.

    python scripts/figures.py                                        # everything: an hour or more
    python scripts/figures.py --only digits                          # five models, three seeds each
    python scripts/figures.py --only fashion_mnist --models fnn,cnn  # with the presets; needs the files
    python scripts/figures.py --folder runs                          # keep the runs, and continue later

Other arguments go to every run, as in `device=cuda` or `data.root=~/fashion-mnist`. Accuracies are those
at the end of training. Fashion-MNIST is evaluated on the official test set: with the last weights, which
this script evaluates itself, and with those that validation chose, which the run reports.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

MODELS = ("fnn", "cnn", "rnn", "attention", "transformer")
SEEDS = (0, 1, 2)
PROGRAM = Path(sys.executable).with_name("bigmodel-train")


@dataclass(frozen=True)
class Finished:
    """A finished run: its folder and its summary."""

    folder: Path
    summary: dict[str, Any]

    @property
    def minutes(self) -> float:
        return float(self.summary["seconds"]) / 60


def train(folder: Path, words: list[str]) -> Finished:
    """Runs the command, unless the folder holds a finished run of the same words.

    An interrupted run there is resumed.
    """
    if finished := done(folder, words):
        return finished
    resumable = same_words(folder, words) and (folder / "checkpoints" / "last").is_dir()
    where = f"resume={folder}" if resumable else f"hydra.run.dir={folder}"
    print(f"… {' '.join(words)}", file=sys.stderr, flush=True)
    command = [PROGRAM, where] if resumable else [PROGRAM, *words, where]
    subprocess.run(command, stdout=sys.stderr, check=True)
    finished = done(folder, words)
    if finished is None:
        sys.exit(f"{folder}: the run did not finish.")
    return finished


def done(folder: Path, words: list[str]) -> Finished | None:
    """The finished run of these words that a folder holds, if any."""
    path = folder / "summary.json"
    if not path.is_file():
        return None
    if not same_words(folder, words):
        sys.exit(f"{folder}: holds a run of other settings. Name another --folder.")
    summary = json.loads(path.read_text())
    return Finished(folder, summary) if summary["status"] == "finished" else None


def same_words(folder: Path, words: list[str]) -> bool:
    """Whether the run in a folder was started with these words."""
    path = folder / ".hydra" / "overrides.yaml"
    return path.is_file() and sorted(yaml.safe_load(path.read_text())) == sorted(words)


def accuracy_of_last(folder: Path) -> float:
    """The accuracy on the official test set with a run's last weights, which the run never evaluated."""
    from omegaconf import OmegaConf

    from bigmodel.build.new_run import build_run
    from bigmodel.checkpointing import checkpoint
    from bigmodel.config import parse, to_plain
    from bigmodel.training.evaluation import evaluate

    run = build_run(parse(to_plain(OmegaConf.load(folder / ".hydra" / "config.yaml"))), folder)
    groups, _ = checkpoint.load(folder / "checkpoints" / "last")
    run.state.load_model(groups.get("averaged", groups["model"]))
    assert run.test is not None
    result = evaluate(run.state.model, run.test, run.loss, run.val_metrics, run.runtime, run.dataset)
    return result.metrics["accuracy"]


def digits(folder: Path, models: list[str], extra: list[str]) -> None:
    """Prints the median over the seeds of the last validation accuracy, with the shipped defaults."""
    runs = {
        model: [
            train(folder / f"digits-{model}-{seed}", [f"model={model}", f"seed={seed}", *extra])
            for seed in SEEDS
        ]
        for model in models
    }
    accuracies = [[float(run.summary["final"]["val/accuracy"]) for run in runs[m]] for m in models]
    seconds = [[60 * run.minutes for run in runs[m]] for m in models]
    table(
        f"digits, validation set, {len(SEEDS)} seeds",
        models,
        {
            "accuracy, median": [f"{statistics.median(some):.4f}" for some in accuracies],
            "accuracy, range": [f"{min(some):.4f} to {max(some):.4f}" for some in accuracies],
            "parameters": [f"{runs[m][0].summary['parameters']:,}" for m in models],
            "seconds, median": [f"{statistics.median(some):.1f}" for some in seconds],
        },
        runs[models[0]][0],
    )


def fashion_mnist(folder: Path, models: list[str], extra: list[str]) -> None:
    """Prints the official test accuracy of the presets, with one seed."""
    runs = [
        train(folder / f"fashion_mnist-{model}", [f"experiment=fashion_mnist_{model}", "seed=0", *extra])
        for model in models
    ]
    table(
        "Fashion-MNIST, test set, seed 0",
        models,
        {
            "accuracy, last weights": [f"{accuracy_of_last(run.folder):.4f}" for run in runs],
            "accuracy, weights that validation chose": [
                f"{float(run.summary['test']['test/accuracy']):.4f}" for run in runs
            ],
            "parameters": [f"{run.summary['parameters']:,}" for run in runs],
            "minutes": [f"{run.minutes:.1f}" for run in runs],
        },
        runs[0],
    )


def table(title: str, columns: list[str], rows: dict[str, list[str]], run: Finished) -> None:
    """Prints a Markdown table, and the machine that it was measured on."""
    print(f"\n| {title} | {' | '.join(columns)} |")
    print("|---" * (len(columns) + 1) + "|")
    for name, cells in rows.items():
        print(f"| {name} | {' | '.join(cells)} |")
    facts = run.summary["environment"]
    print(
        f"\nMeasured with torch {facts['torch']} on {facts['device']} ({facts['platform']}).", flush=True
    )


PARTS = {"digits": digits, "fashion_mnist": fashion_mnist}


def chosen_models(text: str) -> list[str]:
    models = text.split(",")
    if unknown := sorted(set(models) - set(MODELS)):
        raise argparse.ArgumentTypeError(f"{', '.join(unknown)}: known are {', '.join(MODELS)}")
    return models


def parser() -> argparse.ArgumentParser:
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--only", choices=PARTS, help="one part instead of both")
    options.add_argument(
        "--models", type=chosen_models, default=list(MODELS), help="some of them, such as fnn,cnn"
    )
    options.add_argument("--folder", type=Path, help="where runs are kept; a temporary one otherwise")
    return options


def parse_arguments(words: list[str] | None = None) -> tuple[argparse.Namespace, list[str]]:
    """The options, and the settings that runs get.

    Args:
        words: the command line; None: that of this process.
    """
    arguments, extra = parser().parse_known_intermixed_args(words)
    if wrong := [word for word in extra if word.startswith("-") or "=" not in word]:
        parser().error(f"{' '.join(wrong)}: neither an option nor a setting such as device=cuda")
    return arguments, extra


def main() -> None:
    arguments, extra = parse_arguments()
    with tempfile.TemporaryDirectory() as temporary:
        folder = (arguments.folder or Path(temporary)).resolve()
        for name in [arguments.only] if arguments.only else PARTS:
            PARTS[name](folder, arguments.models, extra)


if __name__ == "__main__":
    main()
