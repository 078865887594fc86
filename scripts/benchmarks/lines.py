"""What is measured against what, and what is aimed at."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal

Measure = Literal[
    *("steady", "slowed", "fit", "added", "memory", "rate", "help", "first_step", "total"),
    *("cold", "compile", "val_loss"),
]
"""What is compared, of each pair of runs:

- steady: theirs / ours, in seconds a step between the first mark of a run and its last;
- slowed: ours / theirs, in the same seconds;
- fit: ours / theirs, in seconds of the whole of `fit`;
- added: ours - theirs, in microseconds a step;
- memory: ours / theirs, in bytes at the most;
- rate: ours alone, as a share of the rate at which the GPU multiplies large bf16 matrices, or one core
  fp32 matrices of 1,024 rows and columns;
- help, first_step, total: theirs / ours, in seconds from the start of the process;
- cold: the same, with an empty compile cache in each round;
- compile: ours alone, in seconds from the line that says it compiles to its first compiled step;
- val_loss: how far ours and theirs lie apart after as many steps, in percent of theirs.
"""

AT_LEAST: frozenset[Measure] = frozenset({"steady", "rate", "help", "first_step", "total", "cold"})


@dataclass(frozen=True)
class Contest:
    """Ours against one alternative.

    Attributes:
        sides: what it consists of; of several, the best of each round.
        goals: by device, what is aimed at: at least, or at most.
        parts: by device, do only this part of the steps: 1 / part. What is compared is taken a step.
        more: by device, further sides of which it consists there.
        devices: where it takes place; empty: wherever its line does.
    """

    against: str
    sides: tuple[str, ...]
    measure: Measure
    goals: dict[str, float]
    parts: dict[str, int] = field(default_factory=dict)
    more: dict[str, tuple[str, ...]] = field(default_factory=dict)
    devices: tuple[str, ...] = ()

    def reached(self, device: str, value: float) -> bool | None:
        """Whether the goal is; None where there is none."""
        if (goal := self.goals.get(device)) is None:
            return None
        return value >= goal if self.measure in AT_LEAST else value <= goal


@dataclass(frozen=True)
class Line:
    """One line of the table.

    Attributes:
        work: of `works.WORKS`; empty: whole programs, see `commands`.
        whole: compare the whole run's seconds too, with an empty and a filled compile cache.
        fresh: each round starts from an empty compile cache.
        needs_bf16: only for processors with instructions that multiply bf16 matrices.
    """

    key: str
    title: str
    work: str
    contests: tuple[Contest, ...]
    whole: bool = True
    devices: tuple[str, ...] = ("cpu", "cuda")
    ours: str = "ours"
    fresh: bool = False
    needs_bf16: bool = False


LIGHTNING = "Lightning, bare of logger and bar"
JAX = "JAX: jitted `lax.scan` over steps"

LINES = [
    Line(
        "1",
        "FNN 10-32-1, batch 32, Adam, 50,000 steps, shuffled, all that is on by default",
        "fnn",
        (
            Contest("bare eager loop", ("bare",), "steady", {"cpu": 8, "cuda": 20}, {"cuda": 5}),
            Contest("the same with `Adam(fused=True)`", ("bare-fused",), "steady", {}, {"cuda": 5}),
            Contest(
                LIGHTNING, ("lightning",), "steady", {"cpu": 30, "cuda": 60}, {"cpu": 10, "cuda": 20}
            ),
            Contest(
                JAX,
                ("jax", "jax-unrolled"),
                "steady",
                {"cpu": 1},
                devices=("cpu",),
            ),
        ),
    ),
    Line(
        "1-cold",
        "the same, whole process, empty compile cache",
        "fnn",
        (Contest(JAX, ("jax", "jax-unrolled"), "cold", {"cpu": 1}),),
        whole=False,
        devices=("cpu",),
        fresh=True,
    ),
    Line(
        "2",
        "RNN (GRU 64, 28 steps), batch 64, Adam",
        "rnn",
        (
            Contest("bare eager loop", ("bare",), "steady", {"cpu": 1.5, "cuda": 10}),
            Contest(
                "compiled bare loop (on a GPU the best of compiled GRU, cuDNN's, and CUDA graphs)",
                ("bare-compiled",),
                "steady",
                {"cpu": 1, "cuda": 2},
                more={"cuda": ("bare-compiled-cudnn", "bare-compiled-graphs")},
            ),
            Contest(JAX, ("jax",), "steady", {"cpu": 1.5}, devices=("cpu",)),
        ),
    ),
    Line(
        "3",
        "CNN (100k parameters) on Fashion-MNIST, one epoch with augmentation",
        "cnn",
        (
            Contest(
                "bare loop over `DataLoader` (best of 0 and 2 workers)",
                ("bare", "bare-workers"),
                "steady",
                {"cpu": 1.5, "cuda": 30},
            ),
            Contest(
                "Lightning (best of 0 and 2 workers)",
                ("lightning", "lightning-workers"),
                "steady",
                {"cpu": 1.5, "cuda": 40},
            ),
            Contest("Keras 3 on JAX", ("keras",), "steady", {"cpu": 2}, {"cpu": 2}, devices=("cpu",)),
        ),
    ),
    Line(
        "4",
        "transformer (4 layers, 128 wide) character model",
        "text",
        (
            Contest("bare loop with torch's modules", ("bare",), "steady", {"cpu": 1.5, "cuda": 2}),
            Contest(
                "Trainer of Transformers, GPT-2 of the same size",
                ("transformers",),
                "steady",
                {"cpu": 2, "cuda": 4},
            ),
            Contest(JAX, ("jax",), "steady", {"cpu": 3}, devices=("cpu",)),
        ),
    ),
    Line(
        "4b",
        "the same 512 wide",
        "text512",
        (
            Contest("bare loop with torch's modules", ("bare",), "steady", {"cpu": 1.3}),
            Contest("this core's fp32 rate, 1,024² matrices", (), "rate", {"cpu": 0.75}),
        ),
        whole=False,
        devices=("cpu",),
    ),
    *(
        Line(
            f"4c-{width}",
            f"bf16, {width} wide",
            work,
            (
                Contest("ours in fp32", ("ours",), "steady", {"cpu": goal}),
                Contest("its validation loss after 500 steps", ("ours",), "val_loss", {"cpu": 0.5}),
            ),
            whole=False,
            devices=("cpu",),
            ours="ours-bf16",
            needs_bf16=True,
        )
        for width, work, goal in ((128, "text", 1.3), (512, "text512", 2))
    ),
    Line(
        "5",
        "GPT-2 124M, 1,024 tokens, AdamW, bf16, random tokens",
        "gpt2",
        (
            Contest(
                "compiled bare loop with torch's modules (the better of with and without CUDA graphs)",
                ("bare-compiled",),
                "steady",
                {"cuda": 1.2},
                more={"cuda": ("bare-compiled-graphs",)},
            ),
            Contest(
                "Trainer of Transformers: bf16, SDPA, `torch_compile`",
                ("transformers-compiled",),
                "steady",
                {"cuda": 2},
            ),
            Contest("the measured bf16 matrix rate", (), "rate", {"cuda": 0.55}),
        ),
        devices=("cuda",),
    ),
    Line(
        "6-text",
        "the whole loop with its default reports, at the size of 4",
        "text",
        (Contest("itself, all off", ("ours-quiet",), "slowed", {"cpu": 1.02, "cuda": 1.01}),),
        whole=False,
    ),
    Line(
        "6-fnn",
        "the same at the size of 1, µs a step more",
        "fnn",
        (Contest("itself, all off", ("ours-quiet",), "added", {"cpu": 5}),),
        whole=False,
    ),
    Line(
        "7-help",
        "`--help`",
        "",
        (Contest("a Hydra + Lightning script", ("script",), "help", {"cpu": 10}),),
        devices=("cpu",),
    ),
    Line(
        "7-run",
        "the default run: time to its first step; the whole of it",
        "",
        (
            Contest(
                "a Hydra + Lightning script, to the first step", ("script",), "first_step", {"cpu": 2.5}
            ),
            Contest("the same, the whole run", ("script",), "total", {"cpu": 3.5}),
        ),
        devices=("cpu",),
    ),
    Line(
        "8",
        "peak memory of 5 at batch 32",
        "gpt2",
        (Contest("compiled bare loop", ("bare-compiled",), "memory", {"cuda": 0.7}),),
        whole=False,
        devices=("cuda",),
    ),
    Line(
        "9",
        "CSV file of 1,000,000 × 20, an epoch of the FNN, whole process",
        "",
        (
            Contest(
                "`MLPRegressor` of the same sizes",
                ("sklearn-regressor",),
                "total",
                {"cpu": 3},
            ),
            Contest(
                "`HistGradientBoostingRegressor`",
                ("sklearn-boosting",),
                "total",
                {"cpu": 1},
            ),
        ),
        devices=("cpu",),
    ),
    Line(
        "10",
        "digits, FNN, 30 epochs, whole process",
        "",
        (Contest("`MLPClassifier` of the same sizes", ("sklearn-classifier",), "total", {"cpu": 0.7}),),
        devices=("cpu",),
    ),
    *(
        Line(
            f"compile-{number}",
            f"line {number}, empty cache: from saying that it compiles to the first compiled step",
            work,
            (Contest("–", (), "compile", {"cpu": goal}),),
            whole=False,
            devices=("cpu",),
            fresh=True,
        )
        for number, work, goal in ((1, "fnn", 3), (4, "text", 15))
    ),
    Line(
        "saves",
        "a save each epoch, 250 steps of 9.8M parameters",
        "wide",
        (Contest("no save at all", ("ours-unsaved",), "fit", {}),),
        whole=False,
        devices=("cpu",),
    ),
]


def lines_of(device: str, only: list[str], tiny: bool = False) -> list[Line]:
    """The lines asked for: by key, or by what stands before its dash; all those of the device.

    A tiny trial takes the lines of a GPU on the CPU too.
    """
    wanted = [_on(device, line) for line in LINES if tiny or device in line.devices]
    return [line for line in wanted if not only or {line.key, line.key.split("-")[0]} & set(only)]


def _on(device: str, line: Line) -> Line:
    """A line with the sides that it has on a device."""
    contests = (
        replace(contest, sides=(*contest.sides, *contest.more.get(device, ())))
        for contest in line.contests
        if device in (contest.devices or (device,))
    )
    return replace(line, contests=tuple(contests))
