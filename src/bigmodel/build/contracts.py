"""What parts of the user's own promise, tried on a few samples before the first step.

A mistake in them would end in a traceback, or train something else in silence. Our own parts are not
tried: tests have done that.
"""

from __future__ import annotations

import copy
import gc
import inspect
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from math import isclose, isfinite
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from bigmodel.data.base import Batch, Dataset
from bigmodel.errors import BigModelError, SpecError, is_too_large
from bigmodel.losses import Loss
from bigmodel.models.base import eval_mode
from bigmodel.optim.schedulers import Schedule
from bigmodel.registry import EntryConfig, is_ours
from bigmodel.runtime.device import random_facts, random_tensors, restore_random
from bigmodel.spec import Classes, DataSpec, NextTokens

PartT = TypeVar("PartT", bound=nn.Module)

_SAMPLES, _TEXTS = 64, 4
"""Most samples that parts are tried on; of texts, which have outputs for each token, fewer."""


def try_parts(
    config: tuple[EntryConfig, EntryConfig], model: nn.Module, loss: Loss, batch: Batch, spec: DataSpec
) -> list[str]:
    """Tries a model and a loss of the user's own on the first samples of a batch.

    Args:
        config: of the model and of the loss.

    Returns:
        What trains, but maybe not as was meant: warnings.

    Raises:
        SpecError: one of them breaks what it promises.
    """
    of_model, of_loss = config
    own_model, own_loss = (not is_ours(c, kind) for c, kind in ((of_model, "model"), (of_loss, "loss")))
    if not (own_model or own_loss):
        return []
    most = _TEXTS if isinstance(spec.target, NextTokens) else _SAMPLES
    inputs, targets = (tensor[:most] for tensor in batch)
    with _drawing_apart():
        outputs, told = _try_model(model, of_model.name, inputs, spec)
        if own_loss:
            told += _try_loss(loss, outputs, targets)
        told += _of_another_form(of_model.name, loss, own_loss, outputs, spec)
    return told


@contextmanager
def _drawing_apart() -> Iterator[None]:
    """What is drawn at random inside leaves every generator as it was."""
    tensors, facts = random_tensors(), random_facts()
    try:
        yield
    finally:
        restore_random(tensors, facts)


@contextmanager
def _spared(part: PartT) -> Iterator[PartT]:
    """A part to try, in evaluation mode, of which no trace stays: a copy, or where it cannot be copied
    itself, its attributes and buffers put back."""
    try:
        tried = copy.deepcopy(part)
    except Exception:  # such as a lock or an open file
        kept = [(module, _shallow(vars(module))) for module in part.modules()]
        before = {name: value.clone() for name, value in part.state_dict(keep_vars=True).items()}
        try:
            with eval_mode(part):
                yield part
        finally:
            for module, attributes in kept:
                vars(module).clear()
                vars(module).update(attributes)
            with torch.no_grad():
                for name, value in part.state_dict(keep_vars=True).items():
                    value.copy_(before[name])
        return
    with eval_mode(tried):
        yield tried


def _shallow(attributes: dict[str, Any]) -> dict[str, Any]:
    plain = (dict, list, set)
    return {name: copy.copy(v) if isinstance(v, plain) else v for name, v in attributes.items()}


def check_model(model: Any, config: EntryConfig) -> None:
    """Raises SpecError where what a user has registered gives no model."""
    if not isinstance(model, nn.Module):
        raise SpecError(
            f"model={config.name}: what is registered gives a {type(model).__name__}, called with its"
            " config and the spec. It has to give a bigmodel.models.base.Model."
        )


def _try_model(model: nn.Module, name: str, inputs: Tensor, spec: DataSpec) -> tuple[Tensor, list[str]]:
    """What the model gives, and warnings."""
    said = f"model={name}"
    given = inputs.clone()
    with _told(said, f"inputs of shape {tuple(inputs.shape)}"):
        if any(map(is_lazy, (*model.parameters(), *model.buffers()))):  # to be copied it needs its sizes
            with eval_mode(model), torch.no_grad():
                model(inputs.clone())
        with _spared(model) as tried:
            outputs = tried(given)
        _check_outputs(outputs, said, inputs, spec)
        if not torch.equal(given, inputs):
            raise SpecError(
                f"{said}: it changes its inputs in place, which others read too. Change a copy."
            )
        with _spared(model) as tried:
            alone = tried(inputs[:1].clone())
        _check_outputs(alone, said, inputs[:1], spec)
        with _spared(model) as tried:
            told = [_KEEPS.format(said)] if _grows(lambda: tried(inputs.clone())) else []
    if len(inputs) > 1:  # one sample has no batch statistics
        mode = f"{said}, in training mode"
        with _told(mode, f"inputs of shape {tuple(inputs.shape)}"), _spared(model) as tried:
            training = tried.train()(inputs.clone())
            _check_outputs(training, mode, inputs, spec)
            _check_registered(tried, said, training)
    if outputs.isfinite().all() and not torch.allclose(outputs[:1], alone, 1e-2, 1e-3):
        told.append(
            f"{said} gives a sample other outputs beside others than alone, in evaluation too: it mixes"
            " the samples of a batch (dimension 0), or draws at random."
        )
    return outputs.detach(), told


def _check_outputs(outputs: Any, said: str, inputs: Tensor, spec: DataSpec) -> None:
    """Raises SpecError where a model's outputs are not one tensor of the shape asked for, with a
    gradient."""
    if not isinstance(outputs, Tensor):
        raise SpecError(
            f"{said}: it gives a {type(outputs).__name__}. A model gives one tensor: its raw outputs."
        )
    inside = (inputs.shape[-1],) if isinstance(spec.target, NextTokens) else ()
    expected = (len(inputs), *inside, spec.target.output_size)
    if tuple(outputs.shape) != expected:
        raise SpecError(
            f"{said}: its outputs have shape {tuple(outputs.shape)} for inputs of shape"
            f" {tuple(inputs.shape)}. Expected {expected}: {spec.target} take"
            f" {spec.target.output_size:,} numbers each (spec.target.output_size)."
        )
    if not outputs.is_floating_point() or not outputs.requires_grad:
        raise SpecError(
            f"{said}: its outputs ({outputs.dtype}) have no gradient, so that nothing would be learnt."
            " Is there a detach(), a no_grad(), an argmax or NumPy on the way, or no parameter?"
        )


_KEEPS = (
    "{} keeps all that it has computed, such as by appending to a list, so that memory grows with each"
    " step. Keep the newest alone, or numbers: value.item()."
)


def _grows(call: Callable[[], object]) -> bool:
    """Whether each call leaves more tensors with a gradient behind."""
    left = []
    for _ in range(3):
        call()
        there = (one for one in gc.get_objects() if type(one) is Tensor)
        left.append(sum(one.grad_fn is not None for one in there))
    return left[0] < left[1] < left[2]


def _unregistered(model: nn.Module) -> Iterator[tuple[str, str, list[nn.Parameter]]]:
    """What plain lists and dicts hold that could be trained: path, class, parameters. Training does not
    find it."""
    known = {id(part) for part in (*model.modules(), *model.parameters(), *model.buffers())}
    for path, module in model.named_modules():
        for name, value in vars(module).items():
            if name.startswith("_") or not isinstance(value, list | tuple | dict):
                continue
            held = value.values() if isinstance(value, dict) else value
            found = [p for part in held if id(part) not in known for p in _trainable(part)]
            if found:
                yield ".".join([path, name]).strip("."), type(value).__name__, found


def _check_registered(model: nn.Module, said: str, outputs: Tensor) -> None:
    """Raises SpecError where outputs depend on what training does not find, unless no gradient is asked
    for, such as of a teacher."""
    for path, kind, parameters in _unregistered(model):
        gradients = torch.autograd.grad(outputs.sum(), parameters, retain_graph=True, allow_unused=True)
        if any(gradient is not None for gradient in gradients):
            raise SpecError(
                f"{said}: {path} holds layers or parameters in a plain {kind}, where training does not"
                " find them. Use nn.ModuleList, nn.ModuleDict or nn.ParameterList; for what is not to be"
                " trained, call .requires_grad_(False)."
            )


def _trainable(part: Any) -> list[nn.Parameter]:
    parameters = list(part.parameters()) if isinstance(part, nn.Module) else [part]
    return [p for p in parameters if isinstance(p, nn.Parameter) and p.requires_grad]


def _of_another_form(
    model: str, loss: Loss, own_loss: bool, outputs: Tensor, spec: DataSpec
) -> list[str]:
    """Warnings of a model whose outputs are not those that a loss of classes takes."""
    made = getattr(loss, "made", None)
    if not isinstance(spec.target, Classes | NextTokens):
        return []
    takes_raw = not own_loss or isinstance(made, nn.CrossEntropyLoss)
    if takes_raw and _are_probabilities(outputs):
        return [
            f"model={model} gives probabilities, and loss={loss.name} takes raw outputs (logits), of"
            " which it makes probabilities itself: leave the softmax at its end out."
        ]
    if isinstance(made, nn.NLLLoss) and not _are_probabilities(outputs.exp()):
        return [
            f"loss={loss.name} takes the logarithms of probabilities, and model={model} gives others, so"
            " that the loss falls without end: use loss=cross_entropy, or end the model with"
            " log_softmax(-1)."
        ]
    return []


def _are_probabilities(outputs: Tensor) -> bool:
    sums = outputs.sum(-1)
    return bool((outputs >= 0).all()) and torch.allclose(sums, torch.ones_like(sums), atol=1e-4)


def _try_loss(loss: Loss, outputs: Tensor, targets: Tensor) -> list[str]:
    """Whether a loss gives what it says: of a batch, and of its two parts."""
    said = f"loss={loss.name}"
    if any(parameter.requires_grad for parameter in loss.parameters()):
        raise SpecError(
            f"{said}: it has parameters of its own, which no optimizer trains. What is fixed belongs in"
            " buffers (register_buffer), or for a network in it call .requires_grad_(False); what is"
            " learnt belongs in the model."
        )
    if len(targets) < 3:
        outputs, targets = outputs.repeat(3, *[1] * (outputs.ndim - 1)), torch.cat([targets] * 3)
    outputs = _telling(loss, said, outputs, targets)
    live = outputs.clone().requires_grad_()
    with _spared(loss) as tried:
        keeps = [_KEEPS.format(said)] if _grows(lambda: tried(live, targets)) else []
    cut = len(targets) // 3
    parts = [(outputs, targets), (outputs[:cut], targets[:cut]), (outputs[cut:], targets[cut:])]
    (whole, weight), (first, its), (rest, others) = (_scored(loss, said, *part) for part in parts)
    if not all(map(isfinite, (whole, first, rest))):
        return keeps  # the first step tells
    if _adds_up(whole, first, rest):
        return keeps
    is_sum, is_mean = loss.reduction != "mean", _adds_up(whole * weight, first * its, rest * others)
    shapes = f"outputs {tuple(outputs.shape)}, targets {tuple(targets.shape)}"
    found = (
        f"{whole:.4g} of {len(targets)} samples, {first:.4g} of the first {cut}, {rest:.4g} of the rest"
    )
    if is_sum and is_mean:
        raise SpecError(
            f"{said}: it gives the mean of a batch ({found}), and a loss that does not say so is taken"
            ' to give the sum. Write `reduction = "mean"` in its class, or give the sum'
            ' (reduction="sum" of torch\'s functions).'
        )
    if is_sum:
        raise SpecError(
            f"{said}: it gives neither the sum nor the mean of the samples' losses ({found}). Are shapes"
            f" broadcast ({shapes})? A weighted mean needs `normaliser(targets)`, the sum of the"
            ' weights; a loss that compares the samples of a batch says `reduction = "mean"`.'
        )
    if _pairs_all(loss, said, outputs, targets, whole):
        raise SpecError(
            f"{said}: it gives the same whichever target stands beside which output: shapes are"
            f" broadcast ({shapes}), so that every output is compared with every target. Give both one"
            " shape, such as by leaving a squeeze() out."
        )
    means = [total / count for total, count in ((whole, weight), (first, its), (rest, others))]
    if _adds_up(*means):
        raise SpecError(
            f'{said}: it says reduction = "mean", but gives the sum of a batch. Say reduction = "sum".'
        )
    return [
        *keeps,
        f"{said} gives no mean over targets ({means[0]:.4g} of {len(targets)} samples, {means[1]:.4g} of"
        f" the first {cut}, {means[2]:.4g} of the rest): it depends on how batches are cut, and"
        " val/loss and accumulated gradients with it. A weighted mean needs `normaliser(targets)`, the"
        " sum of the weights.",
    ]


def _telling(loss: Loss, said: str, outputs: Tensor, targets: Tensor) -> Tensor:
    """The outputs; or, where all are alike or the loss is 0, others near them: there a sum, a mean and
    what broadcast shapes give would be the same."""
    total, _ = _scored(loss, said, outputs, targets)
    alike = torch.equal(outputs, outputs[:1].expand_as(outputs))
    if not isfinite(total) or not (alike or abs(total) < _NOTHING):
        return outputs
    for size in (1.0, 10.0, 100.0, 1000.0):
        others = outputs + size * torch.randn_like(outputs)
        try:
            total, _ = _scored(loss, said, others, targets)
        except SpecError:  # it takes none that this model does not give, such as no probabilities
            break
        if isfinite(total) and abs(total) > _NOTHING:
            return others
    return outputs


_NOTHING = 1e-6
"""Losses below this are rounding."""


def _pairs_all(loss: Loss, said: str, outputs: Tensor, targets: Tensor, whole: float) -> bool:
    """Whether a loss stays the same where targets change places and outputs do not."""
    moved = [targets.roll(by, 0) for by in (1, len(targets) // 3)]
    if any(torch.equal(other, targets) for other in moved):
        return False
    losses = [_scored(loss, said, outputs, other)[0] for other in moved]
    return all(isclose(other, whole, rel_tol=1e-5) for other in losses)


def _scored(loss: Loss, said: str, outputs: Tensor, targets: Tensor) -> tuple[float, float]:
    """A loss's total and what to divide it by; its gradient has to reach the outputs."""
    leaf = outputs.clone().requires_grad_()
    given, truths = leaf.clone(), targets.clone()  # what is changed in place may not be a leaf
    shapes = f"outputs of shape {tuple(outputs.shape)} and targets of shape {tuple(targets.shape)}"
    with _told(said, f"{shapes} ({targets.dtype})"), _spared(loss) as tried:
        total = tried(given, truths)
        if not (torch.equal(given, outputs) and torch.equal(truths, targets)):
            raise SpecError(
                f"{said}: it changes its outputs or targets in place, which metrics read too. Change a"
                " copy."
            )
        if not isinstance(total, Tensor) or total.shape != () or total.dtype != torch.float32:
            what = f"{total.dtype} of shape {tuple(total.shape)}" if isinstance(total, Tensor) else total
            raise SpecError(f"{said}: a loss gives a float32 tensor without dimensions, not {what}.")
        gradient = None
        if total.requires_grad:
            (gradient,) = torch.autograd.grad(total, leaf, allow_unused=True)
        if gradient is None:
            raise SpecError(
                f"{said}: it has no gradient, so that nothing would be learnt. Is there an item(), a"
                " detach(), an argmax or NumPy between its outputs and what it gives?"
            )
        return float(total.detach()), float(tried.normaliser(targets))


def _adds_up(whole: float, first: float, rest: float) -> bool:
    """Whether a whole is the sum of its parts, but for rounding."""
    return abs(whole - first - rest) <= 1e-3 * max(map(abs, (whole, first, rest)))


@contextmanager
def _told(said: str, given: str) -> Iterator[None]:
    """Whatever goes wrong inside, in one message.

    Raises:
        SpecError: something has.
    """
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("error", message="Using a (target|input) size")  # they are broadcast
            yield
    except BigModelError:
        raise
    except Exception as error:
        if is_too_large(error):
            raise
        first = next(iter(str(error).splitlines()), "")
        raise SpecError(f"{said}: it fails on {given}: {type(error).__name__}: {first}") from error


_OF_OPTIMIZERS = ("param_groups", "state", "step", "state_dict", "load_state_dict")
"""What training asks of an optimizer; one that wraps another need not be of torch's class."""


def check_optimizer(optimizer: Any, model: nn.Module, config: EntryConfig) -> list[str]:
    """Whether an optimizer of the user's own can train a model; gives warnings.

    Raises:
        SpecError: it is none, its `step` wants more than gradients, or it trains another's parameters.
    """
    said = f"optimizer={config.name}"
    if is_ours(config, "optimizer"):
        return []
    if lacking := [name for name in _OF_OPTIMIZERS if not hasattr(optimizer, name)]:
        raise SpecError(
            f"{said}: what is registered gives a {type(optimizer).__name__} without {lacking[0]}, called"
            " with its config and the model. It has to give a torch.optim.Optimizer over"
            f" model.parameters(), or what has the same {', '.join(_OF_OPTIMIZERS)}."
        )
    if isinstance(optimizer, torch.optim.LBFGS) or _wants_more(optimizer):
        raise SpecError(
            f"{said}: its step() wants a closure that computes the loss again; a step here has gradients"
            " alone."
        )
    theirs = {p for group in optimizer.param_groups for p in group["params"]}
    trainable = {p: name for name, p in model.named_parameters() if p.requires_grad}
    if theirs - set(model.parameters()):
        raise SpecError(
            f"{said}: it was given tensors that are not the model's parameters, such as copies, so that"
            " the model would not change. Give it model.parameters()."
        )
    left = [name for p, name in trainable.items() if p not in theirs]
    if len(left) == len(trainable):
        raise SpecError(f"{said}: it was given none of the model's trainable parameters.")
    if not left:
        return []
    listed = ", ".join(left[:3]) + (", …" if len(left) > 3 else "")
    return [f"{said} was not given {len(left):,} of {len(trainable):,} parameters ({listed})."]


def _wants_more(optimizer: torch.optim.Optimizer) -> bool:
    """Whether `step` cannot be called without an argument."""
    given = list(inspect.signature(optimizer.step).parameters.values())
    return any(p.default is p.empty and p.kind is p.POSITIONAL_OR_KEYWORD for p in given)


def try_schedule(schedule: Schedule, steps: int, config: EntryConfig) -> None:
    """Whether a schedule of the user's own gives multipliers of the learning rate.

    Args:
        steps: of the run.

    Raises:
        SpecError: it fails, or one is no finite number from 0 on.
    """
    if is_ours(config, "scheduler"):
        return
    said = f"scheduler={config.name}"
    for step in {0, min(1, steps - 1), steps // 2, steps - 1}:
        with _told(said, f"step {step:,} of {steps:,}"):
            factor: Any = schedule.factor(step)
        is_number = isinstance(factor, int | float) and not isinstance(factor, bool)
        if not is_number or not isfinite(factor) or factor < 0:
            raise SpecError(
                f"{said}: its multiplier of the learning rate at step {step:,} is {factor!r}"
                f" ({type(factor).__name__}). `shape(t, total)` gives a number from 0 on."
            )


def check_dataset(dataset: Any, config: EntryConfig) -> Dataset:
    """The data set, where it is one."""
    if isinstance(dataset, Dataset):
        return dataset
    raise SpecError(
        f"data={config.name}: what is registered gives a {type(dataset).__name__}. A data source gives a"
        " Dataset: end it with `return assemble(config, spec, Part(inputs, targets))`."
    )
