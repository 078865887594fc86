"""A CUDA device that is only pretended: tensors on it have shape, dtype and device, but no values.

Autograd and autocast do what they do on a GPU, torch complains of tensors on two devices, and each place
where the host would wait for the device is noted. Nothing is learnt here of kernels, numbers and memory.
"""

from __future__ import annotations

import contextlib
import importlib.util
import sys
import threading
import types
from collections.abc import Callable, Iterator
from ctypes import CDLL, RTLD_GLOBAL
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

NAME = "NVIDIA H100 80GB HBM3"
SPOILT = "CUDA error: operation failed due to a previous error during capture"


def load(library: Path) -> None:
    """Has torch find the device; `device.cpp` says how. To be called before torch is imported."""
    assert "torch" not in sys.modules, "torch has looked for devices already"
    spec = importlib.util.find_spec("torch")
    assert spec is not None
    assert spec.origin is not None
    beside = Path(spec.origin).parent / "lib"
    for name in ("libgomp.so.1", "libc10.so", "libtorch_cpu.so"):
        if (beside / name).is_file():
            CDLL(str(beside / name), RTLD_GLOBAL)
    CDLL(str(library), RTLD_GLOBAL)
    _pretend()


class Wait(NamedTuple):
    """A place where the host waits for the device.

    Attributes:
        what: `read` of a value, `from host`, `to host`, `synchronize`.
        place: the function of ours that has it wait, `module.function` without `bigmodel.`; without one
            it is the test's.
        step: which step was under way, from 1; 0: none.
    """

    what: str
    place: str
    step: int


@dataclass
class Device:
    """What has been seen of the device, and what it is to do.

    Attributes:
        waits: of the host for the device, in order.
        contexts: places that have asked for what takes a context on the device.
        step: which step is under way, counted from 1; 0: none.
        sync_debug: as torch.cuda.set_sync_debug_mode has it.
        capturing: whether kernels are recorded for a graph.
        captures: how many graphs were begun.
        capture_modes: in which modes of `capture_error_mode`.
        replays: how often one was replayed.
        freed: what gave memory back: `graph`, `cache`.
        sent_on: streams on which something was copied from the host.
        lent: which storages were recorded to be used on which other streams.
    """

    waits: list[Wait] = field(default_factory=list)
    contexts: set[str] = field(default_factory=set)
    step: int = 0
    sync_debug: int = 0
    capturing: bool = False
    captures: int = 0
    capture_modes: set[str] = field(default_factory=set)
    replays: int = 0
    freed: list[str] = field(default_factory=list)
    sent_on: set[Any] = field(default_factory=set)
    lent: set[tuple[int, Any]] = field(default_factory=set)

    def wait(self, what: str) -> None:
        """The host waits.

        Raises:
            RuntimeError: it must not now, in torch's words.
        """
        if self.capturing:
            raise RuntimeError("CUDA error: operation not permitted when stream is capturing")
        self.waits.append(Wait(what, _place(), self.step))
        if self.sync_debug == 2 and what != "synchronize":  # torch does not look at that one
            raise RuntimeError("called a synchronizing CUDA operation")

    def context(self) -> None:
        """Someone asks for what takes a context on the device."""
        self.contexts.add(_place())

    @contextlib.contextmanager
    def capture(self, *_: Any, capture_error_mode: str = "global") -> Iterator[None]:
        """torch.cuda.graph, which waits for the device before it begins."""
        self.capture_modes.add(capture_error_mode)
        self.wait("synchronize")
        self.capturing, spoilt = True, False
        self.captures += 1
        try:
            yield
        except BaseException as error:
            spoilt = not isinstance(error, RuntimeError) or "CUDA out of memory" not in str(error)
            raise
        finally:
            self.capturing = False
            if spoilt:
                raise RuntimeError(SPOILT)


device = Device()


def _storage(tensor: Any) -> int:
    """What a tensor has in common with its views."""
    known: int = tensor.untyped_storage()._cdata
    return known


def is_lent(tensor: Any, stream: Any) -> bool:
    """Whether memory that was taken on one stream is recorded to be used on this one."""
    return (_storage(tensor), stream) in device.lent


def _place() -> str:
    frame = sys._getframe(2)
    while frame is not None:
        module = frame.f_globals.get("__name__", "")
        if module.startswith("bigmodel."):
            return f"{module.removeprefix('bigmodel.')}.{frame.f_code.co_qualname}"
        frame = frame.f_back  # type: ignore[assignment]
    return ""


def _pretend() -> None:
    """Puts the pretended device in the place of torch.cuda's functions that need a real one."""
    import torch
    import torch.cuda.amp.common

    cuda: Any = torch.cuda
    about = types.SimpleNamespace(
        name=NAME, major=9, minor=0, total_memory=80 << 30, multi_processor_count=132
    )

    def always(answer: Any) -> Callable[..., Any]:
        return lambda *_, **__: answer

    def within_context(answer: Any) -> Callable[..., Any]:
        def call(*_: Any, **__: Any) -> Any:
            device.context()
            return answer() if callable(answer) else answer

        return call

    def set_sync_debug_mode(mode: int | str) -> None:
        device.sync_debug = {"default": 0, "warn": 1, "error": 2}.get(mode, mode)  # type: ignore

    def waited(*_: Any, **__: Any) -> None:
        device.wait("synchronize")

    class Stream:
        def __init__(self, *_: Any, **__: Any) -> None:
            self.awaited: set[Stream] = set()

        def wait_stream(self, other: Stream) -> None:
            self.awaited.add(other)

        def record_event(self) -> Event:
            return Event(self)

        def wait_event(self, event: Event) -> None:
            self.awaited.add(event.stream)

        def is_capturing(self) -> bool:
            return device.capturing

        synchronize = waited

    class Event(NamedTuple):
        stream: Stream

    current, default = threading.local(), Stream()

    def current_stream(*_: Any) -> Stream:
        found: Stream = getattr(current, "stream", default)
        return found

    @contextlib.contextmanager
    def on_stream(stream: Stream) -> Iterator[None]:
        before, current.stream = current_stream(), stream
        try:
            yield
        finally:
            current.stream = before

    class CUDAGraph:
        def replay(self) -> None:
            device.replays += 1

        def reset(self) -> None:
            device.freed.append("graph")

    without_context = {
        "is_available": always(True),
        "is_initialized": lambda: bool(device.contexts),
        "device_count": always(1),
        "manual_seed": always(None),
        "manual_seed_all": always(None),
        "set_rng_state": always(None),
        "is_bf16_supported": always(True),
        "is_current_stream_capturing": lambda: device.capturing,
        "set_sync_debug_mode": set_sync_debug_mode,
        "get_sync_debug_mode": lambda: device.sync_debug,
        "Stream": Stream,
        "CUDAGraph": CUDAGraph,
        "graph": device.capture,
        "stream": on_stream,
    }
    with_context = {
        "_lazy_init": None,
        "current_device": 0,
        "set_device": None,
        "get_device_properties": about,
        "get_device_name": NAME,
        "get_device_capability": (9, 0),
        "mem_get_info": (70 << 30, 80 << 30),
        "reset_peak_memory_stats": None,
        "max_memory_allocated": 1 << 30,
        "memory_reserved": 1 << 30,
        "set_per_process_memory_fraction": None,
        "empty_cache": lambda: device.freed.append("cache"),
        "current_stream": current_stream,
        "get_rng_state": lambda: torch.zeros(16, dtype=torch.uint8, device="cpu"),
        "synchronize": waited,
    }
    for name, replacement in without_context.items():
        setattr(cuda, name, replacement)
    for name, answer in with_context.items():
        setattr(cuda, name, within_context(answer))
    torch.backends.cudnn.is_acceptable = always(False)  # type: ignore
    cuda.amp.common.amp_definitely_not_available = always(False)
    accelerator: Any = torch.accelerator
    accelerator.current_accelerator = always(torch.device("cuda"))
    accelerator.current_stream = current_stream
    torch.Tensor.record_stream = lambda tensor, stream: device.lent.add((_storage(tensor), stream))  # type: ignore
    # In inference mode composite operations would come whole, and torch cannot pretend those.
    torch.inference_mode = lambda mode=True: torch.no_grad() if mode else contextlib.nullcontext()  # type: ignore
