"""Tries a user's own part without side effects, and reports any failure in one message."""

from __future__ import annotations

import copy
import gc
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from bigmodel.errors import BigModelError, SpecError, first_line, is_too_large, line_of
from bigmodel.models.base import eval_mode
from bigmodel.runtime import rng

PartT = TypeVar("PartT", bound=nn.Module)


@contextmanager
def isolated_randomness() -> Iterator[None]:
    """Restores all random number generators."""
    tensors, facts = rng.torch_states(), rng.python_states()
    try:
        yield
    finally:
        rng.restore(tensors, facts)


@contextmanager
def isolated(part: PartT) -> Iterator[PartT]:
    """A part to try, in evaluation mode, without side effects: a copy, or, if it cannot be copied, the
    part itself, with attributes and buffers restored afterwards."""
    try:
        tried = copy.deepcopy(part)
    except Exception:  # such as a lock or an open file
        kept = [(module, _shallow_copy(vars(module))) for module in part.modules()]
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


def _shallow_copy(attributes: dict[str, Any]) -> dict[str, Any]:
    plain = (dict, list, set)
    return {name: copy.copy(v) if isinstance(v, plain) else v for name, v in attributes.items()}


@contextmanager
def reported_as(label: str, inputs: str) -> Iterator[None]:
    """Reports any error within in one message.

    Raises:
        SpecError: there was one.
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
        what = f"{type(error).__name__}: {first_line(error)}".removesuffix(": ")
        raise SpecError(f"{label}: it fails on {inputs}: {what}{line_of(error)}") from error


def warn_of_leak(label: str, call: Callable[[], object]) -> list[str]:
    """A warning if each call leaves more tensors with a gradient behind."""
    counts = []
    for _ in range(3):
        call()
        tensors = (value for value in gc.get_objects() if type(value) is Tensor)
        counts.append(sum(tensor.grad_fn is not None for tensor in tensors))
    if not counts[0] < counts[1] < counts[2]:
        return []
    return [
        f"{label} stores every result, for example by appending to a list, so memory grows with each "
        "step. Store only the latest one, or plain numbers: value.item()."
    ]
