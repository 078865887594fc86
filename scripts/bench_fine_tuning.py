"""Steps a second of fine-tuning a BERT, against the Trainer of Transformers, for docs/performance.md.

    python scripts/bench_fine_tuning.py all-MiniLM-L6-v2                # a quarter of an hour
    python scripts/bench_fine_tuning.py all-MiniLM-L6-v2 --pairs 1      # a quick look
    python scripts/bench_fine_tuning.py all-MiniLM-L6-v2 --precision auto

    python scripts/bench_fine_tuning.py all-MiniLM-L6-v2 --batches own --steps 40

Both start from the weights in the folder and do the same steps on one CPU thread: the same batches, of
texts of like lengths, AdamW, dropout 0.1. With `--batches own` each makes its batches of the same texts
as it does by default: ours of texts of like lengths, the Trainer at random. The texts are made of 5 to
120 random words. The Trainer computes
in fp32, as it does by default; with `--precision auto` ours does as it does by default, and takes bf16
where the processor multiplies it faster. Ours runs without compiling; the Trainer without reports, bars
and saves. They take turns in one process. Seconds are the processor's, so that other work on the machine
weighs little; the first steps of each run, which warm up, are not counted. The Trainer needs the package
accelerate.
"""

from __future__ import annotations

import argparse
import csv
import random
import statistics
import tempfile
import time
from dataclasses import replace
from functools import partial
from operator import itemgetter
from pathlib import Path
from typing import Any

import torch
from benchmarks.ours import composed
from torch import Tensor
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    DataCollatorWithPadding,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)

from bigmodel.build.new_run import build_run
from bigmodel.config import parse
from bigmodel.reporting.base import Record, Sink
from bigmodel.training.loop import fit

BATCH, WARM_UP = 16, 3
LR = 1e-4


class Clock(Sink):
    """The processor's seconds at each record."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.losses: list[float] = []

    def record(self, record: Record, best: Record) -> None:  # noqa: ARG002
        self.seconds.append(time.process_time())
        self.losses.append(float(record["train/loss"]))


class Marks(TrainerCallback):
    """The processor's seconds after each step of the Trainer."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        del args, state, control
        self.seconds.append(time.process_time())


def main() -> None:
    options = parser().parse_args()
    torch.set_num_threads(1)
    ratios = []
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        batches = _batches(options.model, place, options.steps)
        sizes = [inputs.shape[1] for inputs, _ in batches]
        print(
            f"{options.steps} steps of {BATCH} texts, {min(sizes)} to {max(sizes)} tokens wide",
            flush=True,
        )
        for pair in range(options.pairs):
            sides = {
                "ours": partial(ours, precision=options.precision),
                "Trainer": partial(theirs, own=options.batches == "own"),
            }
            order = list(sides) if pair % 2 == 0 else list(sides)[::-1]
            taken = {name: sides[name](options.model, place, batches) for name in order}
            ratios.append(taken["Trainer"] / taken["ours"])
            told = ", ".join(f"{name} {taken[name]:.3f} s a step" for name in sides)
            print(f"{told}: {ratios[-1]:.2f} ×", flush=True)
    print(f"median {statistics.median(ratios):.2f} × ({min(ratios):.2f} to {max(ratios):.2f})")


def _settings(model: Path, place: Path, steps: int, precision: str) -> list[str]:
    """Ours: the first epoch is the whole run."""
    return [
        *("data=text_labels", f"data.path={place / 'texts.csv'}", f"data.batch_size={BATCH}"),
        *("data.split=part", "model=bert", f"model.pretrained={model}", f"optimizer.lr={LR}"),
        *("model.dropout=0.1", "device=cpu", "device.threads=1", f"device.precision={precision}"),
        *("device.engine=eager", "scheduler=constant", f"trainer.max_steps={steps}"),
        *("trainer.record_every_steps=1", f"trainer.eval_every_steps={2 * steps}"),
    ]


def _batches(model: Path, place: Path, steps: int) -> list[tuple[Tensor, Tensor]]:
    """Texts of 5 to 120 words, and the batches in which ours trains on them."""
    draw = random.Random(0)
    words = ["film", "good", "bad", "long", "short", "actor", "story", "never", "again", "music"]
    with (place / "texts.csv").open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["text", "label", "part"])
        for number in range(BATCH * (steps + 1)):
            text = " ".join(draw.choices(words, k=draw.randint(5, 120)))
            rows.writerow([text, "yn"[number % 2], "val" if number < BATCH else "train"])
    run = build_run(parse(composed(*_settings(model, place, steps, "fp32"))), place / "batches")
    return [(batch.inputs.long(), batch.targets) for batch in run.train.epoch(0)]


def ours(
    model: Path, place: Path, batches: list[tuple[Tensor, Tensor]], precision: str = "fp32"
) -> float:
    """Seconds a step."""
    clock, steps = Clock(), len(batches)
    with tempfile.TemporaryDirectory(dir=place) as folder:
        run = build_run(parse(composed(*_settings(model, place, steps, precision))), Path(folder))
        fit(replace(run, sinks=clock))
    return _a_step(clock.seconds[:steps])


def theirs(model: Path, place: Path, batches: list[tuple[Tensor, Tensor]], own: bool = False) -> float:
    """Seconds a step. Unless it makes its own batches, a sample of the Trainer's data is one of ours."""
    bert, marks = AutoModelForSequenceClassification.from_pretrained(model, num_labels=2), Marks()
    pad, samples = bert.config.pad_token_id, list[dict[str, Any]]()
    for tokens, targets in batches:
        mask = (tokens != pad).long()
        whole = {"input_ids": tokens, "attention_mask": mask, "labels": targets}
        rows = zip(tokens, mask.sum(1).tolist(), targets.tolist(), strict=True)
        samples += [{"input_ids": t[:n], "labels": y} for t, n, y in rows] if own else [whole]
    collate = DataCollatorWithPadding(AutoTokenizer.from_pretrained(model)) if own else itemgetter(0)
    arguments = TrainingArguments(
        output_dir=str(place / "trainer"), max_steps=len(batches), learning_rate=LR, weight_decay=0.01,
        lr_scheduler_type="constant", max_grad_norm=0.0, per_device_train_batch_size=BATCH if own else 1,
        save_strategy="no", logging_strategy="no", report_to=[], disable_tqdm=True, use_cpu=True,
        remove_unused_columns=False, train_sampling_strategy="random" if own else "sequential",
    )  # fmt: skip
    trainer = Trainer(bert, arguments, train_dataset=samples, callbacks=[marks], data_collator=collate)
    trainer.train()
    return _a_step(marks.seconds)


def _a_step(seconds: list[float]) -> float:
    """Without the last step, which ours evaluates before it records."""
    return (seconds[-2] - seconds[WARM_UP]) / (len(seconds) - 2 - WARM_UP)


def parser() -> argparse.ArgumentParser:
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("model", type=Path, help="Hugging Face folder of a BERT")
    options.add_argument("--pairs", type=int, default=5, help="how many runs of each")
    options.add_argument(
        "--batches", choices=["same", "own"], default="same", help="the Trainer's: ours, or its own"
    )
    options.add_argument("--precision", choices=["fp32", "auto"], default="fp32", help="of ours")
    options.add_argument("--steps", type=int, default=15, help="of each run")
    return options


if __name__ == "__main__":
    main()
