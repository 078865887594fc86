"""Torch's optimizers without loading its compiler, which takes a second and 70 MB.

Torch marks `add_param_group`, `zero_grad`, `state_dict`, `load_state_dict` and `step` for torch.compile
with wrappers that import its tracer, and with it sympy and much more, when they are first called.
If nothing has loaded the compiler, nothing is being compiled, and the marks are not needed.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from typing import Any, TypeVar

import torch

from bigmodel.runtime import torch_internals

OptimizerT = TypeVar("OptimizerT", bound=torch.optim.Optimizer)

_KIND = "_light_kind"


def light(kind: type[OptimizerT]) -> type[OptimizerT]:
    """The same optimizer, which skips torch's wrappers until the compiler is loaded.

    Once it is loaded, by torch.compile or otherwise, the wrappers are called as usual. A wrapper that
    does not look as expected, as in another version of torch, is always called: that is only slower.

    Args:
        kind: the class of an optimizer.

    Returns:
        A class derived from it, of the same name; `kind` itself if there is nothing to skip.
    """
    methods: dict[str, Any] = {}
    for name in ("add_param_group", "zero_grad", "state_dict", "load_state_dict"):
        if bare := _wrapped(getattr(kind, name)):
            methods[name] = _either(getattr(kind, name), bare)
    step = kind.step
    if getattr(step, "hooked", False):  # by an earlier instance; torch hooks the new class as well
        step = getattr(step, "__wrapped__", step)
    if bare := _wrapped(step):
        methods["step"] = _either(step, _by_default_without_gradients(bare))
    return named_as(kind, kind, methods) if methods else kind


def named_as(
    kind: type[OptimizerT], base: type[OptimizerT], methods: dict[str, Any]
) -> type[OptimizerT]:
    """A class derived from `base` with the name of `kind`, in checkpoints too: see `kind_of`."""
    own = {_KIND: kind, "__module__": kind.__module__, "__doc__": kind.__doc__}
    return type(kind.__name__, (base,), methods | own)


def kind_of(optimizer: torch.optim.Optimizer) -> type[torch.optim.Optimizer]:
    """The class that `light` was called with for an optimizer; else the optimizer's own class."""
    kind: type[torch.optim.Optimizer] = vars(type(optimizer)).get(_KIND, type(optimizer))
    return kind


def _wrapped(method: Callable[..., Any]) -> Callable[..., Any] | None:
    """The method inside a wrapper that imports the compiler; None if `method` is no such wrapper."""
    code = getattr(method, "__code__", None)
    if code is None or torch_internals.TRACER not in code.co_names:
        return None
    return getattr(method, "__wrapped__", None)


def _either(method: Callable[..., Any], bare: Callable[..., Any]) -> Callable[..., Any]:
    def call(*args: Any, **kwargs: Any) -> Any:
        return (method if torch_internals.TRACER in sys.modules else bare)(*args, **kwargs)

    return functools.wraps(bare)(call)


def _by_default_without_gradients(step: Callable[..., Any]) -> Callable[..., Any]:
    """What torch's wrapper of `step` does besides marking it for the compiler."""

    def call(self: torch.optim.Optimizer, *args: Any, **kwargs: Any) -> Any:
        with torch.set_grad_enabled(self.defaults["differentiable"]):
            return step(self, *args, **kwargs)

    return call
