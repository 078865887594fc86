"""A model's summary: its layers, the output shape of each for one sample, and their parameters."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from bigmodel.models.base import eval_mode


@dataclass(frozen=True)
class Layer:
    """One row of a model's summary: dotted name, class, output shape for one sample, parameters, and how
    many of these are frozen."""

    name: str
    kind: str
    shape: str
    parameters: int
    frozen: int = 0


def summarize(model: nn.Module, inputs: Tensor) -> list[Layer]:
    """The layers of `model` in the order of definition: modules without parts, or with own parameters.

    Runs the model once on the first sample, without gradients and in evaluation mode, and leaves it as
    it was. A parameter that two layers share counts for the first, so that the counts add up to the
    model's.

    Args:
        inputs: (batch, *input shape), on the model's device; only the first sample is used.
    """
    chosen = {
        name: module
        for name, module in model.named_modules()
        if not isinstance(module, nn.ModuleList | nn.ModuleDict)
        and (
            next(module.children(), None) is None
            or next(module.parameters(recurse=False), None) is not None
        )
    }
    shapes: dict[str, str] = {}
    hooks = [module.register_forward_hook(_shape_hook(shapes, name)) for name, module in chosen.items()]
    try:
        with torch.no_grad(), eval_mode(model):
            model(inputs[:1])
    finally:
        for hook in hooks:
            hook.remove()
    counted: set[Tensor] = set()
    rows = []
    for name, module in chosen.items():
        own = set(module.parameters(recurse=False)) - counted
        counted |= own
        size = sum(parameter.numel() for parameter in own)
        frozen = sum(parameter.numel() for parameter in own if not parameter.requires_grad)
        kind, shape = type(module).__name__, shapes.get(name, "–")
        rows.append(Layer(name or "(model)", kind, shape, size, frozen))
    return rows


def _shape_hook(shapes: dict[str, str], name: str) -> Callable[[nn.Module, Any, Any], None]:
    """A forward hook that records the shape of the first output, without the batch."""

    def hook(_module: nn.Module, _inputs: Any, outputs: Any) -> None:
        first = outputs[0] if isinstance(outputs, tuple | list) else outputs
        shapes.setdefault(name, "×".join(str(size) for size in first.shape[1:]) or "1")

    return hook
