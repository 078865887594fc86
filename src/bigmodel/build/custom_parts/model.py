"""Checks a user's own model."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from bigmodel.build.custom_parts.isolation import isolated, reported_as, warn_of_leak
from bigmodel.errors import SpecError
from bigmodel.metrics import defined
from bigmodel.models.base import eval_mode
from bigmodel.registry import EntryConfig
from bigmodel.spec import DataSpec, NextTokens


def check_model(model: Any, config: EntryConfig) -> None:
    """Raises SpecError if it is no nn.Module."""
    if not isinstance(model, nn.Module):
        raise SpecError(
            f"model={config.name}: it returned a {type(model).__name__} when called with its config and"
            " the spec. It must return a bigmodel.models.base.Model."
        )


def try_model(model: nn.Module, name: str, inputs: Tensor, spec: DataSpec) -> tuple[Tensor, list[str]]:
    """The model's outputs, and warnings.

    Raises:
        SpecError: training cannot use it."""
    label = f"model={name}"
    passed = inputs.clone()
    with reported_as(label, f"inputs of shape {tuple(inputs.shape)}"):
        if any(map(is_lazy, (*model.parameters(), *model.buffers()))):  # copying needs its sizes
            with eval_mode(model), torch.no_grad():
                model(inputs.clone())
        with isolated(model) as tried:
            outputs = tried(passed)
        _check_outputs(outputs, label, inputs, spec, model)
        if inputs.isfinite().all() and not defined(outputs, spec.target).all():
            count = int((~outputs.isfinite()).sum())
            raise SpecError(
                f"{label}: {count:,} of its {outputs.numel():,} outputs are NaN or infinite before any"
                " training, for inputs that are finite. Does it divide by 0, or take the root or the"
                " logarithm of negative numbers?"
            )
        if not torch.equal(passed, inputs):
            raise SpecError(
                f"{label}: it changes its inputs in place, which others read too. Change a copy."
            )
        with isolated(model) as tried:
            alone = tried(inputs[:1].clone())
        _check_outputs(alone, label, inputs[:1], spec, model)
        with isolated(model) as tried:
            warnings = warn_of_leak(label, lambda: tried(inputs.clone()))
    if len(inputs) > 1:  # one sample has no batch statistics
        mode = f"{label}, in training mode"
        with reported_as(mode, f"inputs of shape {tuple(inputs.shape)}"), isolated(model) as tried:
            training = tried.train()(inputs.clone())
            _check_outputs(training, mode, inputs, spec, model)
            _check_registered(tried, label, training)
    if outputs.isfinite().all() and not torch.allclose(outputs[:1], alone, 1e-2, 1e-3):
        warnings.append(
            f"{label} gives a sample different outputs in a batch than alone, in evaluation too: it "
            "mixes the samples of a batch (dimension 0), or draws random numbers."
        )
    return outputs.detach(), warnings


def try_sharded(model: nn.Module, name: str, inputs: Tensor) -> None:
    """Tries a model whose weights lie on several ranks; all of them have to do so.

    Raises:
        SpecError: it uses weights of a block that are not gathered.
    """
    try:
        with eval_mode(model), torch.no_grad():
            model(inputs)
    except (RuntimeError, NotImplementedError) as error:
        if "DTensor" not in str(error):
            raise
        raise SpecError(
            f"model={name}: with device.parallel.shard or .tensor, the weights of a module in an"
            " nn.ModuleList are there only while its `forward` runs, and the model uses some at another"
            " time. Call the module, or leave these settings out."
        ) from error


def _check_outputs(outputs: Any, label: str, inputs: Tensor, spec: DataSpec, model: nn.Module) -> None:
    """Raises SpecError unless a model's outputs are a tensor of the expected shape, with a gradient."""
    if not isinstance(outputs, Tensor):
        raise SpecError(
            f"{label}: it returned a {type(outputs).__name__}. A model returns a tensor: raw outputs."
        )
    inside = (inputs.shape[-1],) if isinstance(spec.target, NextTokens) else ()
    expected = (len(inputs), *inside, spec.target.output_size)
    if tuple(outputs.shape) != expected:
        raise SpecError(
            f"{label}: its outputs have shape {tuple(outputs.shape)} for inputs of shape"
            f" {tuple(inputs.shape)}. Expected {expected}: {spec.target} take"
            f" {spec.target.output_size:,} numbers each (spec.target.output_size)."
        )
    if (
        not any(parameter.requires_grad for parameter in model.parameters())
        and not outputs.requires_grad
    ):
        has = "all of its parameters are frozen" if [*model.parameters()] else "it has no parameters"
        raise SpecError(
            f"{label}: {has}, so there is nothing to train. Layers are attributes that __init__ sets."
        )
    if not outputs.is_floating_point() or not outputs.requires_grad:
        raise SpecError(
            f"{label}: its outputs ({outputs.dtype}) have no gradient, so the model would not learn."
            " Is there a detach(), a no_grad(), an argmax or NumPy on the way?"
        )


def _unregistered(model: nn.Module) -> Iterator[tuple[str, str, list[nn.Parameter]]]:
    """Trainable parameters in plain lists and dicts, where training does not find them: path, class,
    parameters."""
    known = {id(part) for part in (*model.modules(), *model.parameters(), *model.buffers())}
    for path, module in model.named_modules():
        for name, value in vars(module).items():
            if name.startswith("_") or not isinstance(value, list | tuple | dict):
                continue
            held = value.values() if isinstance(value, dict) else value
            parameters = [p for part in held if id(part) not in known for p in _trainable(part)]
            if parameters:
                yield ".".join([path, name]).strip("."), type(value).__name__, parameters


def _check_registered(model: nn.Module, label: str, outputs: Tensor) -> None:
    """Raises SpecError if outputs depend on parameters that training does not find, unless they need no
    gradient, such as a teacher's."""
    for path, kind, parameters in _unregistered(model):
        gradients = torch.autograd.grad(outputs.sum(), parameters, retain_graph=True, allow_unused=True)
        if any(gradient is not None for gradient in gradients):
            raise SpecError(
                f"{label}: {path} holds layers or parameters in a plain {kind}, where training does not "
                "find them. Use nn.ModuleList, nn.ModuleDict or nn.ParameterList; for what should not "
                "be trained, call .requires_grad_(False)."
            )


def _trainable(part: Any) -> list[nn.Parameter]:
    parameters = list(part.parameters()) if isinstance(part, nn.Module) else [part]
    return [p for p in parameters if isinstance(p, nn.Parameter) and p.requires_grad]
