"""From a whole step to machine code: traced once, compiled ahead of time, kept between runs.

The code is loaded as a library, by a few lines of torch's in C++. Neither torch's compiler nor its
tracer is needed for that, so that a step which was compiled before starts within milliseconds.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule

from bigmodel.engine import cache
from bigmodel.engine.base import Interruptible
from bigmodel.engine.compiled import Code
from bigmodel.engine.functional_step import Given, UntraceableError, Whole

aten = torch.ops.aten

_OPTIONS = {
    "fallback_random": True,  # the random numbers that torch draws otherwise, in the same order
    "aot_inductor.precompile_headers": False,  # takes longer than it saves where little is compiled
    "cpp_cache_precompile_headers": False,
    "aot_inductor.allow_stack_allocation": True,  # for what is small; asking for memory takes longest
    "aot_inductor.embed_kernel_binary": True,  # else a GPU's kernels stay where they were compiled
    "cpp.vec_isa_ok": True,  # what the processor says of itself is enough; a trial takes seconds
}

_SMALL = 1 << 14
"""Multiplications up to which a product of matrices is written out and fused with what is around it;
calling a library for it takes longer than the product itself."""


def compile_whole(
    whole: Whole, given: Given, path: Path, interruptible: Interruptible = nullcontext
) -> None:
    """Compiles a step into a library at `path`; takes seconds to minutes.

    Args:
        whole: the step.
        given: a batch like all those that will come, and its rates.
        interruptible: entered for what may be left at any moment: not for tracing, in which model and
            optimizer work on other tensors than their own.

    Raises:
        UntraceableError: it cannot be written as a function of tensors.
        Exception: whatever a compiler may find.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch's own doings
        _compile(whole, given, path, interruptible)


def _compile(whole: Whole, given: Given, path: Path, interruptible: Interruptible) -> None:
    graph = traced(whole, given)
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".compiling-") as folder:
        with interruptible():
            made = _compiled(graph, _arguments(whole, given), Path(folder) / "step.so")
        shutil.move(made, path)


def lacking() -> str | None:
    """What to say where no C++ compiler is there, which torch's code for a CPU needs; None: one is."""
    usual = {"darwin": "clang++", "win32": "cl"}.get(sys.platform, "g++")
    name = os.environ.get("CXX") or usual
    try:
        subprocess.run([name, "--version"], capture_output=True, check=sys.platform != "win32")
    except (OSError, subprocess.SubprocessError):
        return (
            f"compiling needs a C++ compiler, and {name} is none that can be started. Install {usual},"
            " or name another by CXX in the environment"
        )
    return None


def load(path: Path, device: torch.device) -> Code:
    """The code of a library.

    Raises:
        RuntimeError: it is none that torch can load.
    """
    from torch._C import _aoti

    if device.type == "cuda":
        code: Code = _aoti.AOTIModelContainerRunnerCuda(str(path), 1, str(device)).run
    else:
        code = _aoti.AOTIModelContainerRunnerCpu(str(path), 1).run
    return code


def traced(whole: Whole, given: Given) -> GraphModule:
    """The step as a graph of torch's operations.

    Raises:
        UntraceableError: it looks at values, or keeps a tensor that is no weight or buffer.
    """
    from torch.fx.experimental.proxy_tensor import make_fx

    changed, read = len(whole.changed), len(whole.read)

    def flat(*tensors: Tensor) -> tuple[Tensor]:
        ours, others = list(tensors[:changed]), list(tensors[changed : changed + read])
        return (whole(ours, others, Given(*tensors[changed + read :])),)

    try:
        small: dict[Any, Callable[..., Any]] = {aten.mm.default: _mm, aten.addmm.default: _addmm}
        graph = make_fx(flat, small, tracing_mode="fake")(*_arguments(whole, given))
    except Exception as error:
        if "to FakeTensors" in str(error):
            raise UntraceableError("it keeps a tensor that is no weight or buffer") from error
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise UntraceableError(f"it cannot be traced ({lines[0]})") from error
    for node in graph.graph.nodes:
        made_within = all("lift_fresh" in str(user.target) for user in node.users)
        if node.op == "get_attr" and not made_within:
            raise UntraceableError(f"it keeps a tensor that is no weight or buffer ({node.target})")
    return graph


def _mm(left: Tensor, right: Tensor) -> Any:
    """(rows, inner), (inner, columns) → (rows, columns), written out where that is quick."""
    if left.shape[0] * left.shape[1] * right.shape[1] > _SMALL:
        return NotImplemented
    return (left.unsqueeze(2) * right.unsqueeze(0)).sum(1)


def _addmm(added: Tensor, left: Tensor, right: Tensor, *, beta: float = 1, alpha: float = 1) -> Any:
    """beta added + alpha left @ right, likewise."""
    product = _mm(left, right)
    return product if product is NotImplemented else beta * added + alpha * product


def _arguments(whole: Whole, given: Given) -> tuple[Tensor, ...]:
    return (*whole.changed, *whole.read, *given)


def _compiled(graph: GraphModule, arguments: tuple[Tensor, ...], path: Path) -> str:
    cache.keep_private()
    from torch import _inductor
    from torch._inductor import config

    with config.patch(_OPTIONS), _onednn_as_it_is():
        options: dict[str, Any] = {"aot_inductor.output_path": str(path)}
        made = _inductor.aot_compile(graph, arguments, options=options)
    return str(made)


@contextmanager
def _onednn_as_it_is() -> Iterator[None]:
    """Within it the compiler calls oneDNN's product of matrices (`fast_linear`) where we do.

    By itself it knows it only with weights that never change.
    """
    from torch._inductor import ir, lowering, mkldnn_ir
    from torch._inductor.fx_passes import mkldnn_fusion

    if not torch._C._has_mkldnn or not hasattr(torch.ops.mkldnn, "_linear_pointwise"):
        yield
        return

    def made_by(node: Any) -> Callable[..., Any]:
        return lambda *arguments, **_: ir.TensorBox.create(node.create(*arguments))

    mkldnn_fusion._mkldnn_fusion_init()
    operators = torch.ops.mkldnn._linear_pointwise
    ours: dict[Any, Callable[..., Any]] = {
        operators.default: made_by(mkldnn_ir.LinearUnary),
        operators.binary: made_by(mkldnn_ir.LinearBinary),  # with a sum that follows it
    }
    before = {operator: lowering.lowerings[operator] for operator in ours}
    lowering.lowerings.update(ours)
    try:
        yield
    finally:
        lowering.lowerings.update(before)
