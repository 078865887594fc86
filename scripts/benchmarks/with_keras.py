"""The CNN by Keras 3 on JAX: `fit` over a `PyDataset` that shifts and mirrors whole batches.

Torch is not imported here: what all begin from is read as NumPy arrays.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np

from benchmarks.works import Work, checked

SHIFT = 2
"""Largest shift, in pixels."""


class Pictures(keras.utils.PyDataset):
    """Batches of (batch, height, width, 1), standardised, each picture shifted and mirrored at random.

    Args:
        images: (samples, 1, height, width) uint8.
        scaling: factor and summand that standardise them.
    """

    def __init__(
        self, images: np.ndarray, labels: np.ndarray, scaling: tuple[float, float], batch_size: int
    ) -> None:
        super().__init__()
        border = ((0, 0), (SHIFT, SHIFT), (SHIFT, SHIFT))
        self.images, self.labels = np.pad(images[:, 0], border), labels
        self.scale, self.offset = scaling
        self.batch_size, self.draw = batch_size, np.random.default_rng(0)
        self.order = self.draw.permutation(len(labels))

    def __len__(self) -> int:
        return math.ceil(len(self.labels) / self.batch_size)

    def __getitem__(self, batch: int) -> tuple[np.ndarray, np.ndarray]:
        index = self.order[batch * self.batch_size : (batch + 1) * self.batch_size]
        height, width = (size - 2 * SHIFT for size in self.images.shape[1:])
        top, left = self.draw.integers(2 * SHIFT + 1, size=(2, len(index), 1))
        columns = left + np.arange(width)
        mirrored = self.draw.random(len(index)) < 0.5
        columns[mirrored] = columns[mirrored, ::-1]
        rows = (top + np.arange(height))[:, :, None]
        pictures = self.images[index[:, None, None], rows, columns[:, None, :]]
        return self.standardised(pictures)[..., None], self.labels[index]

    def standardised(self, pictures: np.ndarray) -> np.ndarray:
        """As the network reads them."""
        return pictures.astype(np.float32) * self.scale + self.offset

    def on_epoch_end(self) -> None:
        self.order = self.draw.permutation(len(self.labels))


class Marks(keras.callbacks.Callback):
    """Reads the clock where ours does, and keeps the mean loss of each stretch."""

    def __init__(self, work: Work) -> None:
        super().__init__()
        self.work = work
        self.marks: list[tuple[int, float]] = []
        self.sums = [0.0]

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        if (batch + 1) % self.work.mark_every == 0 and batch + 1 < self.work.steps:
            self._mark(batch + 1, logs)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        del epoch
        self._mark(self.work.steps, logs)

    def _mark(self, step: int, logs: Any) -> None:
        self.sums.append(step * float(logs["loss"]))  # Keras tells the mean of all steps so far
        self.marks.append((step, time.perf_counter()))

    def curve(self) -> list[float]:
        """The mean losses."""
        return (np.diff(self.sums) / self.work.mark_every).tolist()


def network(channels: tuple[int, ...] = (32, 64, 64, 80)) -> keras.Model:
    """Convolutions with batch norm, halved before each wider one, in the same order as ours."""
    layers: list[Any] = [keras.Input((28, 28, 1))]
    for width, after in zip(channels, [*channels[1:], 0], strict=True):
        layers.append(keras.layers.Conv2D(width, 3, padding="same", use_bias=False))
        if after > width:
            layers.append(keras.layers.MaxPooling2D(2, padding="same"))
        layers += [keras.layers.BatchNormalization(momentum=0.9, epsilon=1e-5), keras.layers.ReLU()]
    return keras.Sequential([*layers, keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(10)])


def take_over(model: keras.Model, weights: dict[str, np.ndarray]) -> None:
    """Copies the weights that ours began with, in their order; Keras has channels last."""
    given = [value for name, value in weights.items() if not name.endswith("num_batches_tracked")]
    model.set_weights(
        [value.transpose(*range(2, value.ndim), 1, 0) if value.ndim > 1 else value for value in given]
    )


def run(
    work: Work,
    folder: Path,
    *,
    check: bool = False,
    on_end: Callable[[], None] = lambda: None,
) -> dict[str, Any]:
    """One whole run, or the first steps on the batches that ours began with."""
    work = checked(work) if check else work
    with np.load(folder / "start.npz") as file:
        start = {name: file[name] for name in file.files}
    model = network()
    take_over(
        model, {n.removeprefix("weights/"): v for n, v in start.items() if n.startswith("weights/")}
    )
    model.compile(
        keras.optimizers.Adam(work.lr, epsilon=1e-8),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    parameters = sum(int(np.prod(v.shape)) for v in model.trainable_variables)
    if check:
        losses = []
        for inputs, targets in zip(start["batches_x"], start["batches_y"], strict=True):
            model.reset_metrics()
            losses.append(float(model.train_on_batch(inputs.transpose(0, 2, 3, 1), targets)))
        return {"losses": losses, "marks": [], "parameters": parameters}
    scaling = float(start["scale"].squeeze()), float(start["shift"].squeeze())
    pictures = Pictures(start["train_x"], start["train_y"], scaling, work.batch_size)
    val = pictures.standardised(start["val_x"][:, 0])[..., None], start["val_y"]
    marks = Marks(work)
    model.fit(
        pictures,
        steps_per_epoch=work.steps,
        validation_data=val,
        validation_batch_size=work.batch_size,
        callbacks=[marks],
        verbose=0,
    )
    on_end()
    return {"losses": [], "curve": marks.curve(), "marks": marks.marks, "parameters": parameters}
