"""The same work by JAX and Optax: a jitted `lax.scan` over the steps between two marks.

The data is on the device. Torch is not imported here: what all begin from is read as NumPy arrays. The
order of samples is drawn by NumPy, as `jax.random.permutation` alone would take three times as long as
the steps of line 1.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array

from benchmarks.works import Work, checked

Parameters = dict[str, Array]
Batches = tuple[Array, ...]
"""What a stretch of steps reads, each with a first axis of steps."""

EMBEDDINGS = ("embedding.weight", "positions.weight")


def parameters_of(weights: dict[str, np.ndarray]) -> Parameters:
    """By the names of ours; the matrices of layers as (inputs, outputs), as is usual here."""
    return {
        name: jnp.asarray(value.T.copy() if _is_matrix(name, value) else value)
        for name, value in weights.items()
    }


def _is_matrix(name: str, value: Any) -> bool:
    return value.ndim == 2 and name not in EMBEDDINGS


def dense(p: Parameters, name: str, x: Array) -> Array:
    """A linear layer."""
    return x @ p[f"{name}.weight"] + p[f"{name}.bias"]


def norm(p: Parameters, name: str, x: Array) -> Array:
    """Layer normalisation."""
    x = jax.nn.standardize(x, axis=-1, epsilon=1e-5)
    return x * p[f"{name}.weight"] + p[f"{name}.bias"]


def fnn(work: Work, p: Parameters, x: Array) -> Array:
    """(batch, inputs) → (batch, 1)."""
    del work
    return dense(p, "head", jax.nn.relu(dense(p, "layers.0", x)))


def gru(work: Work, p: Parameters, x: Array) -> Array:
    """(batch, steps, inputs) → (batch, classes).

    The inputs of all steps are multiplied at once, and the loop over steps is unrolled: it is a fifth
    faster so.
    """
    hidden = work.sizes["hidden"]
    inputs = x.swapaxes(0, 1) @ p["recurrent.weight_ih_l0"] + p["recurrent.bias_ih_l0"]

    def cell(state: Array, given: Array) -> tuple[Array, None]:
        own = state @ p["recurrent.weight_hh_l0"] + p["recurrent.bias_hh_l0"]
        reset, update = jnp.split(
            jax.nn.sigmoid(given[:, : 2 * hidden] + own[:, : 2 * hidden]), 2, axis=1
        )
        new = jnp.tanh(given[:, 2 * hidden :] + reset * own[:, 2 * hidden :])
        return new + update * (state - new), None

    state, _ = jax.lax.scan(cell, jnp.zeros((len(x), hidden)), inputs, unroll=True)
    return dense(p, "head", state)


def attention(q: Array, k: Array, v: Array) -> Array:
    """Causal, of (batch, length, heads, size) each; `jax.nn.dot_product_attention` is no faster."""
    scores = jnp.einsum("bthd,bshd->bhts", q, k) / math.sqrt(q.shape[-1])
    seen = jnp.tril(jnp.ones(scores.shape[-2:], bool))
    return jnp.einsum("bhts,bshd->bthd", jax.nn.softmax(jnp.where(seen, scores, -jnp.inf)), v)


def transformer(work: Work, p: Parameters, tokens: Array) -> Array:
    """(batch, length) → (batch, length, vocab)."""
    sizes = work.sizes
    shape = (*tokens.shape, sizes["heads"], sizes["dim"] // sizes["heads"])
    x = p["embedding.weight"][tokens] + p["positions.weight"][: tokens.shape[1]]
    for layer in range(sizes["depth"]):
        block = f"blocks.{layer}"
        mixed = dense(p, f"{block}.attention.qkv", norm(p, f"{block}.attention_norm", x))
        q, k, v = (part.reshape(shape) for part in jnp.split(mixed, 3, axis=-1))
        x = x + dense(p, f"{block}.attention.output", attention(q, k, v).reshape(x.shape))
        wide = dense(p, f"{block}.feed_forward.expand", norm(p, f"{block}.feed_forward_norm", x))
        wide = jax.nn.gelu(wide, approximate=False)
        x = x + dense(p, f"{block}.feed_forward.contract", wide)
    return dense(p, "head", norm(p, "final_norm", x))


NETWORKS = {"fnn": fnn, "rnn": gru, "text": transformer}


def loss_of(work: Work, p: Parameters, inputs: Array, targets: Array) -> Array:
    """The mean loss."""
    outputs = NETWORKS[work.kind](work, p, inputs)
    if work.kind == "fnn":
        return jnp.mean((outputs - targets) ** 2)
    return optax.softmax_cross_entropy_with_integer_labels(outputs, targets).mean()


def optimizer_of(work: Work, p: Parameters) -> optax.GradientTransformation:
    """Adam, or AdamW with decay on the matrices of layers alone."""
    rate = optax.linear_schedule(work.lr, 0.0, work.steps) if work.linear else work.lr
    if work.weight_decay is None:
        return optax.adam(rate)
    decayed = {name: _is_matrix(name, value) for name, value in p.items()}
    return optax.adamw(rate, weight_decay=work.weight_decay, mask=decayed)


class Data:
    """The training set on the device, and what each stretch of steps reads of it."""

    def __init__(self, work: Work, start: Any) -> None:
        self.work, self.draw = work, np.random.default_rng(0)
        names = ("stream",) if "stream" in start else ("train_x", "train_y")
        self.arrays = tuple(jnp.asarray(start[name]) for name in names)

    def stretches(self) -> Iterator[Array]:
        """(steps, batch): for each step the samples, or where the windows of a text begin."""
        shape = (self.work.mark_every, self.work.batch_size)
        count = len(self.arrays[0])
        while True:
            if len(self.arrays) == 1:
                yield self.draw.integers(count - self.work.sizes["context"], size=shape)
            else:  # an epoch
                order = self.draw.permutation(count)[: shape[0] * shape[1]]
                yield order.astype(np.int32).reshape(shape)

    def batch(self, arrays: Batches, index: Array) -> Batches:
        """Inputs and targets of a step."""
        if len(arrays) == 2:
            return arrays[0][index], arrays[1][index]
        windows = arrays[0][index[:, None] + jnp.arange(self.work.sizes["context"] + 1)]
        return windows[:, :-1], windows[:, 1:]


def run(
    work: Work,
    folder: Path,
    *,
    check: bool = False,
    unroll: int = 1,
    on_end: Callable[[], None] = lambda: None,
) -> dict[str, Any]:
    """One whole run, or the first steps on the batches that ours began with.

    Args:
        unroll: steps in each turn of the compiled loop.
    """
    work = checked(work) if check else work
    with np.load(folder / "start.npz") as file:
        start = {name: file[name] for name in file.files}
    weights = {n.removeprefix("weights/"): v for n, v in start.items() if n.startswith("weights/")}
    p = parameters_of(weights)
    optimizer = optimizer_of(work, p)
    mean_loss = partial(loss_of, work)

    def step(state: Any, inputs: Array, targets: Array) -> tuple[Any, Array]:
        p, moments = state
        loss, gradients = jax.value_and_grad(mean_loss)(p, inputs, targets)
        updates, moments = optimizer.update(gradients, moments, p)
        return (optax.apply_updates(p, updates), moments), loss

    state = (p, optimizer.init(p))
    if check:
        given = (jnp.asarray(start["batches_x"]), jnp.asarray(start["batches_y"]))
        _, losses = jax.lax.scan(lambda state, batch: step(state, *batch), state, given)
        return {"losses": losses.tolist(), "marks": [], "parameters": sum(v.size for v in p.values())}

    data, validate = Data(work, start), jax.jit(mean_loss)

    @partial(jax.jit, donate_argnums=0)
    def stretch(state: Any, arrays: Batches, index: Array) -> tuple[Any, Array]:
        def indexed(state: Any, index: Array) -> tuple[Any, Array]:
            return step(state, *data.batch(arrays, index))

        return jax.lax.scan(indexed, state, index, unroll=unroll)

    val = jnp.asarray(start["val_x"]), jnp.asarray(start["val_y"])
    losses, marks = list[float](), list[tuple[int, float]]()
    ends = range(work.mark_every, work.steps + 1, work.mark_every)
    for done, index in zip(ends, data.stretches(), strict=False):
        state, of_steps = stretch(state, data.arrays, index)
        if done % work.validate_every == 0 or done == work.steps:
            float(validate(state[0], *val))
        losses += of_steps.tolist()
        marks.append((done, time.perf_counter()))
    on_end()
    return {"losses": losses, "marks": marks}
