"""From a step to a library, within a second or two."""

from __future__ import annotations

import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import torch
from torch import Tensor

from bigmodel.data.base import Batch
from bigmodel.engine.base import Interruptible
from bigmodel.engine.compiled import UnknownOperationError
from bigmodel.engine.compiler import cpp_compiler
from bigmodel.engine.functional_step import FunctionalStep, StepInputs
from bigmodel.engine.native import source
from bigmodel.engine.native.building import in_memory, layout_of, whole
from bigmodel.engine.native.engine import NativeEngine
from bigmodel.engine.native.memory import Memory
from bigmodel.engine.native.recording import Recording
from bigmodel.engine.native.schedule import schedule
from bigmodel.engine.native.values import Input, Pointwise, Unwritten, Value
from bigmodel.engine.step import Step
from bigmodel.runtime import rng, torch_internals

_FLAGS = (
    *("-x", "c++", "-std=gnu++14", "-O3", "-march=native", "-fopenmp-simd", "-fno-math-errno"),
    *("-fno-trapping-math", "-fno-exceptions", "-ffp-contract=fast", "-w", "-shared", "-fPIC"),
)

_LARGE = 1 << 22
"""Elements of a tensor up to which a step is recorded, which keeps all that it computes in memory."""

_CACHE = 1 << 18
"""Bytes of weights that stay near the core, on most processors; products of larger ones are as fast
elsewhere."""

_VECTOR_MATH = (2, 35)
"""The first version of glibc with all functions of `kernels.cpp` for several numbers at a time."""


NAME = "native"


def compile_step(
    function: FunctionalStep,
    inputs: StepInputs,
    path: Path,
    begin: Callable[[], None] = lambda: None,
    interruptible: Interruptible = nullcontext,
) -> None:
    """See `Compiler.compile_step`."""
    text = write_step(function, inputs)
    begin()
    with interruptible():
        build(text, path)


def estimate(function: FunctionalStep) -> float:
    """See `Compiler.estimate`: as measured with networks of 4 to 60 weights."""
    return 1.0 + 0.1 * len(function.tensors.weights)


def share_saved(function: FunctionalStep) -> float:
    """See `Compiler.share_saved`: half, as measured, where all weights fit the core's own cache."""
    return 0.5 if sum(weight.nbytes for weight in function.tensors.weights.values()) <= _CACHE else 0.0


def accepts(function: FunctionalStep, inputs: StepInputs) -> bool:
    """See `Compiler.accepts`: steps on one thread of a CPU, where g++ or clang++ can be, with tensors of
    up to `_LARGE` elements, where torch's operations can be recorded."""
    if inputs.inputs.device.type != "cpu" or torch.get_num_threads() > 1 or sys.platform == "win32":
        return False
    largest = max(tensor.numel() for tensor in (*function.tensors.flatten(), *inputs))
    return torch_internals.OperationMode is not None and largest <= _LARGE


def load(path: Path, step: Step, example: Batch) -> NativeEngine:
    """See `Compiler.load`."""
    return NativeEngine(step, path, example)


def write_step(function: FunctionalStep, inputs: StepInputs) -> str:
    """A step as C++.

    Args:
        inputs: a batch like all those to come, and its rates.

    Raises:
        UnknownOperationError: it does something that this compiler does not know.
        UntraceableError: it cannot be written as a function of tensors.
    """
    originals, random = [*function.tensors.flatten(), *inputs], rng.torch_states()
    given = [_copied(tensor) for tensor in originals]
    tensors, batch = given[: -len(inputs)], StepInputs(*given[-len(inputs) :])
    recording = Recording(given)
    try:
        with recording:
            result = function(function.tensors.unflatten(tensors), batch)
    finally:
        rng.restore_torch(random)
    metrics = recording.operand(result).value
    written = {given: _contents(value) for given, value in recording.written().items()}
    ordered = schedule([metrics, *written.values()])
    if any(isinstance(value, Unwritten) for value in ordered.place):
        raise UnknownOperationError("something other than torch writes to a tensor")
    memory = Memory(ordered, written)
    return source.write(ordered, memory, metrics, len(tensors), len(inputs.rates), recording.draws)


def _copied(tensor: Tensor) -> Tensor:
    """A copy with the same strides, gaps between its rows included."""
    if tensor.numel() > Value(**layout_of(tensor)).size:
        raise UnknownOperationError("a tensor whose elements share memory")
    copy = torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype)
    return copy.copy_(tensor)


def _contents(value: Value) -> Value:
    """What is written into a tensor: what another one held is read before that changes."""
    if not isinstance(value, Input):
        return in_memory(whole(value)).value
    return Pointwise(
        shape=value.shape,
        strides=value.strides,
        dtype=value.dtype,
        expression=lambda text: text,
        compute=None,
        operands=(whole(value),),
    )


def build(text: str, path: Path) -> None:
    """Has a compiler translate C++ into a library at `path`.

    Raises:
        RuntimeError: it cannot.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".compiling-") as folder:
        library = Path(folder) / "step.so"
        command = [cpp_compiler(), *_FLAGS, "-", "-o", str(library), *_vector_math(), "-lm"]
        done = subprocess.run(command, input=text.encode(), capture_output=True, check=False)
        if done.returncode:
            reason = done.stderr.decode(errors="replace").strip()[-300:]
            raise RuntimeError(f"{cpp_compiler()} failed: {reason}")
        shutil.move(library, path)


def _vector_math() -> list[str]:
    """Flags for mathematics on several numbers at once, where glibc has all that `kernels.cpp` uses."""
    family, version = platform.libc_ver()
    known = tuple(int(part) for part in version.split(".")[:2] if part.isdigit())
    has_it = family == "glibc" and known >= _VECTOR_MATH and platform.machine() in ("x86_64", "AMD64")
    return ["-DVECTOR_MATH", "-lmvec"] if has_it else []
