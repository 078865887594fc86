"""The machine that a run uses: its device, its precision, and how its libraries are set up."""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
import sys
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import torch
from pydantic import Field, field_validator
from torch import Tensor

from bigmodel.errors import DeviceError, counted
from bigmodel.registry import Config
from bigmodel.runtime import rng, torch_internals
from bigmodel.runtime.device_names import ALLOWED, is_device
from bigmodel.runtime.parallel_config import ParallelConfig

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # of malloc.h

Precision = Literal["fp32", "bf16", "fp16"]

_TORCHS_THREADS = torch.get_num_threads()
"""CPU threads of one operation by torch's default: as the machine has, or OMP_NUM_THREADS."""


class DeviceConfig(Config):
    """Where and how precisely to compute."""

    name: str = Field(
        "auto",
        description="which device, one of several as cuda:1; auto takes the fastest available",
    )
    precision: Literal["auto", "fp32", "bf16", "fp16"] = Field(
        "auto",
        description="format of matrix work; auto: bf16 (else fp16) on cuda, by trial on cpu, else fp32",
    )
    tf32: bool = Field(True, description="let CUDA round fp32 matrix products to 19 bits, for speed")
    compile: bool = Field(False, description="compile the model with torch.compile")
    engine: Literal["auto", "eager", "compiled", "graph"] = Field(
        "auto",
        description="how steps run: eager, compiled or (on cuda) as a graph; auto: the fastest",
    )
    threads: Annotated[int, Field(ge=1)] | Literal["auto"] | None = Field(
        "auto",
        description="CPU threads of one operation; auto: torch's number or 1, by trial; null: torch's",
    )
    ranks: int | None = Field(
        None, ge=1, description="processes that train together on this machine; null: one"
    )
    parallel: ParallelConfig = Field(ParallelConfig(), description="how these processes share the model")
    restarts: int = Field(
        0, ge=0, description="how often all processes start again after one of them was killed"
    )
    timeout: float = Field(
        600, gt=0, description="seconds that a process waits for another before all of them end"
    )
    deterministic: bool = Field(False, description="only operations that give the same bits each time")

    @field_validator("name")
    @classmethod
    def _is_a_device(cls, name: str) -> str:
        if not is_device(name):
            raise ValueError(f"no such device. Allowed: {ALLOWED}")
        return name


@dataclass
class Runtime:
    """A prepared device, and how to compute on it.

    Attributes:
        device: where tensors live.
        precision: the number format of matrix products; weights stay float32. On a CPU a trial at the
            start may change it.
        emulated: whether the device only emulates that format.
    """

    device: torch.device
    precision: Precision
    emulated: bool = False

    def autocast(self) -> contextlib.AbstractContextManager[Any]:
        """A context for forward and loss: mixed precision, or nothing in fp32."""
        if self.precision == "fp32":
            return contextlib.nullcontext()
        dtype = torch.bfloat16 if self.precision == "bf16" else torch.float16
        return torch.autocast(self.device.type, dtype=dtype)

    def scaler(self) -> torch.amp.GradScaler | None:
        """A gradient scaler, which only fp16 needs: its smallest numbers are too large."""
        return torch.amp.GradScaler(self.device.type) if self.precision == "fp16" else None

    def __str__(self) -> str:
        name = torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else None
        count = torch.get_num_threads()
        used = counted(count, "thread")
        threads = used if self.device.type == "cpu" else None
        slow = " (emulated on this device, which is slow: fp16 is not)" if self.emulated else ""
        parts = (str(self.device), name, f"{self.precision}{slow}", threads)
        return ", ".join(part for part in parts if part)


@dataclass
class Choice:
    """What was chosen by timing, once, and is kept from then on.

    Attributes:
        engine: how steps run; None if not chosen yet.
        threads: CPU threads of one operation; None for torch's default.
        precision: on a CPU, if it was tried; None: that of the configuration.
        compiler: what compiled the steps; None: nothing, or that is not known.
    """

    engine: str | None = None
    threads: int | None = None
    precision: Precision | None = None
    compiler: str | None = None


def prepare(config: DeviceConfig, seed: int, gpu: int | None = None, sharing: int = 1) -> Runtime:
    """Finds the device, sets the process up for it and seeds every generator.

    Args:
        gpu: the number of its GPU, if it is one of several processes that train together.
        sharing: how many of them share this one's processors. `OMP_NUM_THREADS` is for each of them.

    Raises:
        DeviceError: the machine lacks the device, the device lacks the precision, or a deterministic run
            is requested and cuBLAS is configured otherwise.
    """
    device = find_device(config.name)
    if gpu is not None:
        device = _of_rank(device, gpu)
    if device.type == "cuda":
        _set_up_cublas(config.deterministic)  # before anything uses it
        torch.cuda.set_device(device.index or 0)  # a previous run may have used another
    precision, emulated = _precision(config.precision, device)
    # A previous run of a sweep may have set or chosen another number.
    share = 1 if os.environ.get("OMP_NUM_THREADS") else sharing
    threads = config.threads if isinstance(config.threads, int) else max(1, _TORCHS_THREADS // share)
    torch.set_num_threads(threads)
    torch.set_float32_matmul_precision("high" if config.tf32 else "highest")
    torch.backends.cudnn.allow_tf32 = config.tf32
    if torch.are_deterministic_algorithms_enabled() != config.deterministic:
        torch.use_deterministic_algorithms(config.deterministic)  # loads the compiler: 80 MB, a second
    measure_kernels(False)  # until the shapes are known
    rng.seed_all(seed)
    return Runtime(device, precision, emulated)


def _of_rank(device: torch.device, gpu: int) -> torch.device:
    if device.type == "cpu":
        return device
    count = torch.cuda.device_count() if device.type == "cuda" else 1
    if gpu < count:
        return torch.device(device.type, gpu)
    raise DeviceError(
        f"device.ranks: rank {gpu} of this machine has no {device.type} device, of which"
        f" there {'is one' if count == 1 else f'are {count}'}.{_hidden_by()} Use fewer ranks, or"
        " device=cpu."
    )


def measure_kernels(wanted: bool) -> None:
    """Sets whether cuDNN times its kernels for each new shape and uses the fastest: worthwhile if shapes
    recur, not if each batch has its own width. Deterministic runs never do."""
    torch.backends.cudnn.benchmark = wanted and not torch.are_deterministic_algorithms_enabled()


def keep_memory() -> None:
    """Makes the C library keep freed memory for the next step instead of returning it to the system,
    which clears each page again: 2 to 9 % of a small transformer's step on a CPU.

    Does nothing unless the C library is GNU's.
    """
    if sys.platform != "linux":
        return
    library = ctypes.CDLL(None)
    if hasattr(library, "mallopt"):
        # The first fails if it is too high; the second alone would make things worse.
        _ = library.mallopt(_MMAP_THRESHOLD, 32 << 20) and library.mallopt(_TRIM_THRESHOLD, 512 << 20)


def available() -> list[str]:
    """The kinds of device that this machine has."""
    names = ["cpu"]
    if torch.cuda.is_available():
        names.append("cuda")
    if torch.backends.mps.is_available():
        names.append("mps")
    return names


def to_device(tensor: Tensor, device: torch.device | str) -> Tensor:
    """A tensor on `device`. To CUDA the copy is queued from pinned memory, so the host does not wait;
    torch reuses that memory only after the copy has finished."""
    if torch.device(device).type != "cuda" or tensor.is_cuda:
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


def environment(runtime: Runtime) -> dict[str, str]:
    """Versions and machine, to record with the run."""
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "platform": platform.platform(),
        "device": str(runtime),
        "cuda": str(torch.version.cuda),
    }


def find_device(name: str) -> torch.device:
    """The device of that name.

    Raises:
        DeviceError: this machine has none.
    """
    there = available()
    kind, _, digits = (there[-1] if name == "auto" else name).partition(":")
    if kind not in there:
        raise DeviceError(
            f"device={name}: this machine has no {kind} device that torch {torch.__version__} can use."
            f" There is: {', '.join(there)}. Use device={there[-1]} or device=auto."
        )
    if not digits:
        return torch.device(kind)
    count = torch.cuda.device_count() if kind == "cuda" else 1
    if int(digits) >= count:
        raise DeviceError(
            f"device={name}: there is no such device. There is: {', '.join(_listed(kind, count))}."
            f"{_hidden_by()} Use one of these, or device={kind}."
        )
    return torch.device(kind, int(digits)) if kind == "cuda" else torch.device(kind)


def _listed(kind: str, count: int) -> list[str]:
    """All devices of a kind, with their names if known."""
    if kind != "cuda":
        return [f"{kind}:{index}" for index in range(count)]
    return [f"cuda:{index} ({torch.cuda.get_device_name(index)})" for index in range(count)]


def _hidden_by() -> str:
    """A sentence about the variables that hide GPUs from the process."""
    named = ("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES")
    variables = [f"{name}={os.environ[name]}" for name in named if name in os.environ]
    return f" {', '.join(variables)} hides others, and numbers these from 0." if variables else ""


_CUBLAS = "CUBLAS_WORKSPACE_CONFIG"
_SAME_BITS = (":4096:8", ":16:8")
"""Values with which cuBLAS is deterministic, from its manual."""


def _set_up_cublas(deterministic: bool) -> None:
    """Makes cuBLAS deterministic, even if the run does not request it: cuBLAS reads its settings once
    per process, and a later run of a sweep may request it. It costs at most 24 MiB.

    Raises:
        DeviceError: it is requested, and cuBLAS has, or may have, other settings.
    """
    if not torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        os.environ.setdefault(_CUBLAS, _SAME_BITS[0])
    value = os.environ.get(_CUBLAS)
    if not deterministic or value in _SAME_BITS:
        return
    fix = f"Set the environment variable {_CUBLAS}={_SAME_BITS[0]} and start again."
    if value is None:
        raise DeviceError(
            "device.deterministic=true: CUDA is in use in this process already, and cuBLAS reads"
            f" {_CUBLAS} once, at its first use. {fix}"
        )
    raise DeviceError(
        f"device.deterministic=true: with {_CUBLAS}={value} cuBLAS may give other bits each time."
        f" Allowed: {' or '.join(_SAME_BITS)}. {fix}"
    )


def _precision(wanted: str, device: torch.device) -> tuple[Precision, bool]:
    """The number format, and whether the device only emulates it. `auto` chooses only fast formats:
    torch reports bf16 as supported on GPUs before Ampere, which compute it in fp32."""
    on_cuda = device.type == "cuda"
    quick = on_cuda and torch.cuda.is_bf16_supported(including_emulation=False)
    match wanted:
        case "fp32":
            return "fp32", False
        case "fp16" if not torch_internals.scales_gradients():
            raise DeviceError(
                "device.precision=fp16: its gradients are scaled by a part of torch that this version"
                f" ({torch.__version__}) does not have. Use device.precision=bf16, fp32 or auto."
            )
        case "fp16":
            return "fp16", False
        case "bf16" if quick or device.type == "cpu":
            return "bf16", False
        case "bf16" if on_cuda and torch.cuda.is_bf16_supported():
            return "bf16", True
        case "bf16":
            raise DeviceError(
                f"device.precision=bf16: {device} cannot compute in bf16."
                " Use device.precision=fp16, fp32 or auto."
            )
    if not (on_cuda and (quick or torch_internals.scales_gradients())):
        return "fp32", False
    return ("bf16" if quick else "fp16"), False
