"""From a step to machine code: traced once, compiled ahead of time, cached between runs.

The code is loaded as a library by a small C++ runner of torch's. Loading needs neither torch's compiler
nor its tracer, so that a step that was compiled before starts within milliseconds.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule

from bigmodel.data.base import Batch
from bigmodel.engine import cache
from bigmodel.engine.base import Interruptible
from bigmodel.engine.compiled import CompiledEngine
from bigmodel.engine.functional_step import FunctionalStep, StepInputs, UntraceableError
from bigmodel.engine.step import Step
from bigmodel.errors import first_line
from bigmodel.runtime import torch_internals

aten = torch.ops.aten

NAME = "inductor"

_OPTIONS = {
    "fallback_random": True,  # the same random numbers in the same order as eager torch
    "aot_inductor.precompile_headers": False,  # takes longer than it saves where little is compiled
    "cpp_cache_precompile_headers": False,
    "aot_inductor.allow_stack_allocation": True,  # of small tensors, for which malloc takes longest
    "aot_inductor.embed_kernel_binary": True,  # else a GPU's kernels stay where they were compiled
    "cpp.vec_isa_ok": True,  # believes the processor's flags; a trial compilation takes seconds
}

_USUAL = {"darwin": "clang++", "win32": "cl"}.get(sys.platform, "g++")

_SMALL_PRODUCT = 1 << 14
"""Multiplications up to which a matrix product is written out and fused with its surroundings: calling a
library takes longer than the product itself."""


def compile_step(
    function: FunctionalStep,
    inputs: StepInputs,
    path: Path,
    begin: Callable[[], None] = lambda: None,
    interruptible: Interruptible = nullcontext,
) -> None:
    """See `Compiler.compile_step`; takes seconds to minutes."""
    begin()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns of what it does itself
        graph = trace(function, inputs)
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=".compiling-") as folder:
            with interruptible():
                library = _compile(graph, _arguments(function, inputs), Path(folder) / "step.so")
            shutil.move(library, path)


def cpp_compiler() -> str:
    """The C++ compiler to start: `CXX`, or the usual one of the system."""
    return os.environ.get("CXX") or _USUAL


def missing_compiler() -> str | None:
    """Why code for a CPU cannot be compiled, in words; None if there is a C++ compiler."""
    usual, name = _USUAL, cpp_compiler()
    try:
        subprocess.run([name, "--version"], capture_output=True, check=sys.platform != "win32")
    except (OSError, subprocess.SubprocessError):
        return (
            f"compiling needs a C++ compiler, and {name} cannot be started. Install {usual}, or set CXX"
        )
    return None


def estimate(function: FunctionalStep) -> float:
    """See `Compiler.estimate`: as measured with networks of 4 to 60 weights."""
    return 10.0 + 0.5 * len(function.tensors.weights)


def share_saved(function: FunctionalStep) -> float:  # noqa: ARG001
    """See `Compiler.share_saved`: it saves overhead alone."""
    return 0.0


def accepts(function: FunctionalStep, inputs: StepInputs) -> bool:  # noqa: ARG001
    """See `Compiler.accepts`: it takes all."""
    return True


def load(path: Path, step: Step, example: Batch) -> CompiledEngine:
    """See `Compiler.load`."""
    code = torch_internals.load_compiled(path, example.inputs.device)
    return CompiledEngine(step, code, example)


def trace(function: FunctionalStep, inputs: StepInputs) -> GraphModule:
    """The step as a graph of torch's operations.

    Raises:
        UntraceableError: it looks at values, or keeps a tensor that is no weight or buffer.
    """
    from torch.fx.experimental.proxy_tensor import make_fx

    names = function.tensors

    def flat(*tensors: Tensor) -> tuple[Tensor]:
        count = len(tensors) - len(inputs)
        return (function(names.unflatten(tensors[:count]), StepInputs(*tensors[count:])),)

    try:
        replaced: dict[Any, Callable[..., Any]] = {aten.mm.default: _mm, aten.addmm.default: _addmm}
        graph = make_fx(flat, replaced, tracing_mode="fake")(*_arguments(function, inputs))
    except Exception as error:
        if "to FakeTensors" in str(error):
            raise UntraceableError(
                "it stores a tensor that is neither a parameter nor a buffer"
            ) from error
        reason = first_line(error, type(error).__name__)
        raise UntraceableError(f"it cannot be traced ({reason})") from error
    for node in graph.graph.nodes:
        is_literal = all("lift_fresh" in str(user.target) for user in node.users)
        if node.op == "get_attr" and not is_literal:
            raise UntraceableError(
                f"it stores a tensor that is neither a parameter nor a buffer ({node.target})"
            )
    return graph


def _mm(left: Tensor, right: Tensor) -> Any:
    """(rows, inner), (inner, columns) → (rows, columns), written out where that is faster."""
    if left.shape[0] * left.shape[1] * right.shape[1] > _SMALL_PRODUCT:
        return NotImplemented
    return (left.unsqueeze(2) * right.unsqueeze(0)).sum(1)


def _addmm(added: Tensor, left: Tensor, right: Tensor, *, beta: float = 1, alpha: float = 1) -> Any:
    """beta added + alpha left @ right, likewise."""
    product = _mm(left, right)
    return product if product is NotImplemented else beta * added + alpha * product


def _arguments(function: FunctionalStep, inputs: StepInputs) -> tuple[Tensor, ...]:
    return (*function.tensors.flatten(), *inputs)


def _compile(graph: GraphModule, arguments: tuple[Tensor, ...], path: Path) -> str:
    cache.use_private_folders()
    return torch_internals.compile_ahead(graph, arguments, path, _OPTIONS)
