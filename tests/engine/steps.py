"""Steps over small models, as `build` makes them, and batches for them."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from bigmodel import registry
from bigmodel.data.base import Batch
from bigmodel.engine.ema import EMA
from bigmodel.engine.fixed_shape import step_inputs
from bigmodel.engine.functional_step import FunctionalStep, StepInputs, StepTensors
from bigmodel.engine.step import Step
from bigmodel.metrics import metrics_for
from bigmodel.runtime.device import Precision, Runtime
from bigmodel.spec import IGNORED, Classes, DataSpec, Flags, NextTokens
from tests.models.cases import build, samples, spec

needs_compiler = pytest.mark.skipif(
    shutil.which("c++") is None and shutil.which("g++") is None,
    reason="no C++ compiler is there to compile a step with",
)


def make_step(
    model: nn.Module,
    of: DataSpec,
    optimizer: Mapping[str, Any] | None = None,
    loss: Mapping[str, Any] | None = None,
    precision: Precision = "fp32",
    ema: float | None = None,
    **more: Any,
) -> Step:
    """A step over a model, with whatever of losses and optimizers the registry builds."""
    runtime = Runtime(torch.device("cpu"), precision)
    options = {"name": "adamw", "lr": 1e-2, **(optimizer or {})}
    return Step(
        model.train(),
        registry.losses.build(registry.losses.parse({"name": "auto", **(loss or {})}), of),
        registry.optimizers.build(registry.optimizers.parse(options), model),
        metrics_for(of.target, runtime.device, light=True),
        runtime,
        ema=None if ema is None else EMA(model, ema),
        **{"micro_batch": 100, **more},
    )


def small_step(kind: str = "features", target: str = "classes", **more: Any) -> Step:
    """A step of a small feed-forward network."""
    of = spec(kind, target)
    return make_step(build("fnn", of, hidden_sizes=[6]), of, **more)


def make_batch(of: DataSpec, count: int = 6) -> Batch:
    """Samples and targets of them."""
    inputs = samples(of.input, count)
    match of.target:
        case Classes(names=names):
            targets = torch.randint(len(names), (count,))
        case Flags(names=names):
            targets = torch.randint(2, (count, len(names))).float()
        case NextTokens(vocab_size=size):
            targets = torch.randint(size, (count, inputs.shape[-1]))
            targets[torch.rand(targets.shape) < 0.3] = IGNORED
        case _:
            targets = torch.randn(count, of.target.output_size)
    return Batch(inputs, targets)


def begun(step: Step, of: DataSpec, batches: int = 2) -> Step:
    """The same step after some updates, so that the optimizer has its state."""
    for _ in range(batches):
        step(make_batch(of))
    step.drain()
    return step


def copies_of(tensors: StepTensors) -> StepTensors:
    """Copies of all tensors that a step works on."""
    return tensors.unflatten(tensor.clone() for tensor in tensors.flatten())


def tensors_of(model: nn.Module) -> list[int]:
    """The identities of all tensors that a model holds, at every place."""
    named = [
        *model.named_parameters(remove_duplicate=False),
        *model.named_buffers(remove_duplicate=False),
    ]
    listed = [w for part in model.modules() if isinstance(part, nn.RNNBase) for w in part._flat_weights]
    return [*(id(value) for _, value in named), *map(id, listed)]


def example_of(step: Step, batch: Batch) -> StepInputs:
    """What the next step is given, as engines count it."""
    example = step_inputs(batch, step)
    if step.ema is not None:
        example.rates[-1] = step.ema.next_share()
        step.ema.updates -= 1
    return example


def both_ways(step: Step, batch: Batch) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """What one more step leaves: by `FunctionalStep` on copies, and by `Step` on the tensors themselves.

    Both begin at the same state of the random numbers. `metrics` stands beside what is changed.
    """
    function = FunctionalStep(step)
    example, start = example_of(step, batch), torch.get_rng_state()
    own = tensors_of(step.model)
    copies = copies_of(function.tensors)
    metrics = function(copies, example)
    assert tensors_of(step.model) == own, "the model has its own back"
    ended = torch.get_rng_state()
    torch.set_rng_state(start)
    theirs = step.full_batch_step(batch)
    assert torch.equal(ended, torch.get_rng_state()), "as many random numbers were drawn"
    return {"metrics": metrics, **copies.changed}, {"metrics": theirs, **function.tensors.changed}
