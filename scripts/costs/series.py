"""What grows: in each series one size, of a run that is started as users start it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from costs import files

VOCABULARY = len(files.LETTERS)
STATE = 28
"""Bytes of a parameter: fp32, its gradient and Adam's two moments; and, while a checkpoint is written,
all but the gradient once more."""

KEPT = 4 * 20
"""Bytes of activations that each layer of a transformer keeps, for each token and each of its width."""


@dataclass(frozen=True)
class Series:
    """Runs that differ in one size.

    Attributes:
        key, title: what grows, in one word and in the table.
        sizes: from the least to the largest.
        words: the settings of a size, given a folder for its data.
        work: what a size asks for: operations of a step, or what a whole run reads or does.
        memory: bytes that it asks for, beside those of a program that has only started.
        batch: samples of a step; None: the whole run is timed.
        tiny: two sizes that show whether it works at all.
    """

    key: str
    title: str
    sizes: Sequence[int]
    words: Callable[[int, Path], list[str]]
    work: Callable[[int], float]
    memory: Callable[[int], float]
    batch: Callable[[int], int] | None = None
    tiny: Sequence[int] = field(default=(), kw_only=True)


@dataclass(frozen=True)
class Transformer:
    """A character model and its batches."""

    dim: int = 128
    depth: int = 4
    context: int = 64
    batch: int = 12

    def words(self, folder: Path) -> list[str]:
        return [
            *("data=text", f"data.path={files.text(folder, 10**6)}", f"data.context={self.context}"),
            *("model=transformer", f"model.dim={self.dim}", f"model.depth={self.depth}"),
            *(f"model.num_heads={max(1, self.dim // 32)}", "model.dropout=0"),
            f"data.batch_size={self.batch}",
        ]

    @property
    def parameters(self) -> int:
        return 12 * self.depth * self.dim**2 + 2 * VOCABULARY * self.dim

    @property
    def flops(self) -> float:
        """6 N + 12 L d T for each token, N without the embedding."""
        each = 6 * (self.parameters - VOCABULARY * self.dim) + 12 * self.depth * self.dim * self.context
        return float(each * self.batch * self.context)

    @property
    def memory(self) -> float:
        tokens = self.batch * self.context
        kept = tokens * (KEPT * self.depth * self.dim + 3 * 4 * VOCABULARY)
        return float(STATE * self.parameters + kept)


def of_transformer(
    key: str, title: str, sizes: Sequence[int], tiny: Sequence[int], make: Callable[[int], Transformer]
) -> Series:
    """A series of transformers, timed step by step."""
    return Series(
        key,
        title,
        sizes,
        lambda size, folder: make(size).words(folder),
        lambda size: make(size).flops,
        lambda size: make(size).memory,
        lambda size: make(size).batch,
        tiny=tiny,
    )


FEATURES, FNN_BATCH = 64, 32


def fnn_of(parameters: int) -> int:
    """The width of two hidden layers with about so many parameters."""
    return max(1, round(math.sqrt(parameters + (FEATURES / 2 + 1) ** 2) - FEATURES / 2 - 1))


def fnn_words(parameters: int, folder: Path) -> list[str]:  # noqa: ARG001
    width = fnn_of(parameters)
    return [
        *("data=synthetic", f"data.shape=[{FEATURES}]", "data.samples=4096"),
        *("model=fnn", f"model.hidden_sizes=[{width},{width}]", f"data.batch_size={FNN_BATCH}"),
    ]


def table_words(rows: int, folder: Path) -> list[str]:
    path = files.table(folder, rows)
    return ["data=table", f"data.path={path}", "data.target=y", "model=fnn", "trainer.epochs=1"]


def text_words(characters: int, folder: Path) -> list[str]:
    return [
        *("data=text", f"data.path={files.text(folder, characters)}", "trainer.max_steps=20"),
        *("model=transformer", "model.dim=16", "model.depth=1", "model.num_heads=1"),
        "trainer.limit.val=1",
    ]


SMALLEST = (
    *("data=synthetic", "data.shape=[4]", "data.samples=64"),
    *("model=fnn", "model.hidden_sizes=[4]", "trainer.epochs=1"),
)
"""A run that hardly does more than start and end."""


def sweep_words(jobs: int, folder: Path) -> list[str]:  # noqa: ARG001
    return ["-m", f"seed=range({jobs})", "sweep.jobs=1", *SMALLEST]


SERIES = (
    of_transformer(
        "width", "width of a transformer of 2 layers", (64, 128, 256, 512, 1024), (32, 64),
        lambda size: Transformer(dim=size, depth=2),
    ),
    of_transformer(
        "depth", "depth of a transformer 128 wide", (1, 2, 4, 8, 16), (1, 2),
        lambda size: Transformer(depth=size),
    ),
    of_transformer(
        "batch", "batch of a transformer 2 × 64, 32 tokens", (8, 32, 128, 512, 2048), (4, 8),
        lambda size: Transformer(64, 2, 32, size),
    ),
    of_transformer(
        "sequence", "sequence of a transformer 2 × 64, batches of 4", (64, 128, 256, 512, 1024, 2048),
        (16, 32), lambda size: Transformer(64, 2, size, 4),
    ),
    Series(
        "parameters", "parameters of an FNN, batches of 32", tuple(10**n for n in range(3, 9)),
        fnn_words,
        lambda size: 6.0 * FNN_BATCH * size, lambda size: float(STATE * size), lambda _: FNN_BATCH,
        tiny=(10**3, 10**4),
    ),
    Series(
        "rows", "rows of a CSV table of 20 columns, one epoch of the default FNN",
        tuple(10**n for n in range(4, 8)), table_words, float, lambda size: 4.0 * 21 * size,
        tiny=(300, 600),
    ),
    Series(
        "characters", "characters of a text, 20 steps", tuple(10**n for n in range(6, 10)), text_words,
        float, float, tiny=(5_000, 10_000),
    ),
    Series(
        "jobs", "jobs of a sweep, one after another", (1, 10, 100, 1000), sweep_words, float,
        lambda size: 20_000.0 * size, tiny=(1, 2),
    ),
)  # fmt: skip
