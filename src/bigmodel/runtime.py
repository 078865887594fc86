"""The machine a run uses: device, precision, threads, seeds."""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
import random
import sys
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from bigmodel.errors import DeviceError
from bigmodel.registry import Config

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # of malloc.h

Precision = Literal["fp32", "bf16", "fp16"]

_TORCHS_THREADS = torch.get_num_threads()
"""CPU threads of one operation as torch begins: by the machine, or by OMP_NUM_THREADS."""


class DeviceConfig(Config):
    """Where and how precisely to compute."""

    name: Literal["auto", "cpu", "cuda", "mps"] = Field(
        default="auto", description="which device; auto takes the fastest that is there"
    )
    precision: Literal["auto", "fp32", "bf16", "fp16"] = Field(
        default="auto",
        description="number format of matrix work; auto: bf16 (else fp16) on cuda, fp32 elsewhere",
    )
    tf32: bool = Field(
        default=True, description="let CUDA round fp32 matrix products to 19 bits, for speed"
    )
    compile: bool = Field(default=False, description="compile the model with torch.compile")
    engine: Literal["auto", "eager", "compiled", "graph"] = Field(
        default="auto",
        description="how steps are done: eager, compiled or (on cuda) as a graph; auto: by what pays",
    )
    threads: Annotated[int, Field(ge=1)] | Literal["auto"] | None = Field(
        default="auto",
        description="CPU threads of one operation; auto: torch's number or 1, by trial; null: torch's",
    )
    deterministic: bool = Field(
        default=False, description="use only operations that give the same bits each time"
    )


@dataclass(frozen=True)
class Runtime:
    """A device made ready, and how to compute on it.

    Attributes:
        device: where tensors live.
        precision: what matrix work is done in; weights stay float32.
    """

    device: torch.device
    precision: Precision

    def autocast(self) -> contextlib.AbstractContextManager[Any]:
        """Mixed precision around forward and loss; nothing at all in fp32."""
        if self.precision == "fp32":
            return contextlib.nullcontext()
        dtype = torch.bfloat16 if self.precision == "bf16" else torch.float16
        return torch.autocast(self.device.type, dtype=dtype)

    def scaler(self) -> torch.amp.GradScaler | None:
        """Gradient scaling, which fp16 alone needs: its smallest numbers are too large."""
        return torch.amp.GradScaler(self.device.type) if self.precision == "fp16" else None

    def __str__(self) -> str:
        name = torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else None
        count = torch.get_num_threads()
        used = "1 thread" if count == 1 else f"{count} threads"
        threads = used if self.device.type == "cpu" else None
        return ", ".join(part for part in (str(self.device), name, self.precision, threads) if part)


@dataclass
class Choice:
    """What was chosen by measuring, once, and is kept from then on.

    Attributes:
        engine: how steps are done; None: not chosen yet.
        threads: CPU threads of one operation; None: as many as torch takes.
    """

    engine: str | None = None
    threads: int | None = None


def prepare(config: DeviceConfig, seed: int) -> Runtime:
    """Finds the device, sets the process up for it and seeds every generator.

    Raises:
        DeviceError: the machine lacks the device, or the device the precision.
    """
    device = _device(config.name)
    precision = _precision(config.precision, device)
    # A run before this one, in a sweep, may have set or chosen another number.
    torch.set_num_threads(config.threads if isinstance(config.threads, int) else _TORCHS_THREADS)
    torch.set_float32_matmul_precision("high" if config.tf32 else "highest")
    torch.backends.cudnn.allow_tf32 = config.tf32
    # cuBLAS reads this when it is first used; without it, deterministic mode refuses matrix products.
    if config.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    if torch.are_deterministic_algorithms_enabled() != config.deterministic:
        torch.use_deterministic_algorithms(config.deterministic)  # loads the compiler: 80 MB, a second
    torch.backends.cudnn.benchmark = not config.deterministic
    torch.manual_seed(seed)
    random.seed(seed)  # what a user's own code may draw from
    np.random.seed(seed % 2**32)
    return Runtime(device, precision)


def keep_memory() -> None:
    """Has the C library keep memory that is freed, for the next step, instead of handing it back to the
    system, which clears every page of it anew: 2 to 9 % of a small transformer's step on a CPU.

    Does nothing where the C library is none of GNU's.
    """
    if sys.platform != "linux":
        return
    library = ctypes.CDLL(None)
    if hasattr(library, "mallopt"):
        # The first is refused where it is too high; the second alone would make things worse.
        _ = library.mallopt(_MMAP_THRESHOLD, 32 << 20) and library.mallopt(_TRIM_THRESHOLD, 512 << 20)


def available() -> list[str]:
    """Names of the devices this machine has."""
    names = ["cpu"]
    if torch.cuda.is_available():
        names.append("cuda")
    if torch.backends.mps.is_available():
        names.append("mps")
    return names


def environment(runtime: Runtime) -> dict[str, str]:
    """What the run's figures were made with: versions and machine."""
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "platform": platform.platform(),
        "device": str(runtime),
        "cuda": str(torch.version.cuda),
    }


def random_tensors() -> dict[str, Tensor]:
    """The states of torch's own generators, by device."""
    states = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        states["cuda"] = torch.cuda.get_rng_state()
    return states


def random_facts() -> dict[str, Any]:
    """The states of the generators that are not torch's, which a user's own code may draw from."""
    kind, numbers, *rest = np.random.get_state()
    assert isinstance(numbers, np.ndarray)
    return {"python": random.getstate(), "numpy": (kind, numbers.tolist(), *rest)}


def restore_generators(tensors: dict[str, Tensor]) -> None:
    """Takes over what `random_tensors` gave."""
    torch.set_rng_state(tensors["cpu"].cpu())
    if "cuda" in tensors and torch.cuda.is_available():
        torch.cuda.set_rng_state(tensors["cuda"].cpu())


def restore_random(tensors: dict[str, Tensor], facts: dict[str, Any]) -> None:
    """Takes over what `random_tensors` and `random_facts` gave."""
    restore_generators(tensors)
    random.setstate(facts["python"])
    if facts["numpy"] is not None:
        np.random.set_state(facts["numpy"])


def _device(name: str) -> torch.device:
    there = available()
    if name == "auto":
        return torch.device(there[-1])
    if name not in there:
        raise DeviceError(
            f"device={name}: this machine has no {name} device that torch {torch.__version__} can use."
            f" There is: {', '.join(there)}. Use device={there[-1]} or device=auto."
        )
    return torch.device(name)


def _precision(wanted: str, device: torch.device) -> Precision:
    bf16 = device.type == "cpu" or (device.type == "cuda" and torch.cuda.is_bf16_supported())
    match wanted:
        case "fp32":
            return "fp32"
        case "fp16":
            return "fp16"
        case "bf16" if bf16:
            return "bf16"
        case "bf16":
            raise DeviceError(
                f"device.precision=bf16: {device} cannot compute in bf16."
                " Use device.precision=fp16, fp32 or auto."
            )
    if device.type != "cuda":
        return "fp32"
    return "bf16" if bf16 else "fp16"
