"""torch.cuda's functions for the fake device: those that need a real one are replaced."""

from __future__ import annotations

import contextlib
import threading
import types
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
import torch.cuda.amp.common

from tests.fake_cuda.device import device, storage_id

NAME = "NVIDIA H100 80GB HBM3"
PROPERTIES = types.SimpleNamespace(
    name=NAME, major=9, minor=0, total_memory=80 << 30, multi_processor_count=132
)


def synchronize(*_: Any, **__: Any) -> None:
    device.wait("synchronize")


class Stream:
    """A stream that knows which others it waits for."""

    def __init__(self, *_: Any, **__: Any) -> None:
        self.waited_for: set[Stream] = set()

    def wait_stream(self, other: Stream) -> None:
        self.waited_for.add(other)

    def record_event(self) -> Event:
        return Event(self)

    def wait_event(self, event: Event) -> None:
        self.waited_for.add(event.stream)

    def is_capturing(self) -> bool:
        return device.capturing

    synchronize = synchronize


class Event(NamedTuple):
    """An event recorded on a stream."""

    stream: Stream


class CUDAGraph:
    """A graph whose replays are counted."""

    def replay(self) -> None:
        device.replays += 1

    def reset(self) -> None:
        device.freed.append("graph")


_default_stream = Stream()
_current = threading.local()


def current_stream(*_: Any) -> Stream:
    stream: Stream = getattr(_current, "stream", _default_stream)
    return stream


@contextlib.contextmanager
def use_stream(stream: Stream) -> Iterator[None]:
    """torch.cuda.stream."""
    before, _current.stream = current_stream(), stream
    try:
        yield
    finally:
        _current.stream = before


def set_sync_debug_mode(mode: int | str) -> None:
    device.sync_debug = {"default": 0, "warn": 1, "error": 2}.get(mode, mode)  # type: ignore


def _returns(value: Any) -> Callable[..., Any]:
    return lambda *_, **__: value


def _creates_context(value: Any) -> Callable[..., Any]:
    """A function that creates a context and returns `value`, or what it returns if it is a function."""

    def call(*_: Any, **__: Any) -> Any:
        device.create_context()
        return value() if callable(value) else value

    return call


WITHOUT_CONTEXT: dict[str, Any] = {
    "is_available": _returns(True),
    "is_initialized": lambda: bool(device.contexts),
    "device_count": _returns(1),
    "manual_seed": _returns(None),
    "manual_seed_all": _returns(None),
    "set_rng_state": _returns(None),
    "is_bf16_supported": _returns(True),
    "is_current_stream_capturing": lambda: device.capturing,
    "set_sync_debug_mode": set_sync_debug_mode,
    "get_sync_debug_mode": lambda: device.sync_debug,
    "Stream": Stream,
    "CUDAGraph": CUDAGraph,
    "graph": device.capture,
    "stream": use_stream,
}
WITH_CONTEXT: dict[str, Any] = {
    "_lazy_init": None,
    "current_device": 0,
    "set_device": None,
    "get_device_properties": PROPERTIES,
    "get_device_name": NAME,
    "get_device_capability": (9, 0),
    "mem_get_info": (70 << 30, 80 << 30),
    "reset_peak_memory_stats": None,
    "max_memory_allocated": 1 << 30,
    "max_memory_reserved": 1 << 30,
    "memory_reserved": 1 << 30,
    "set_per_process_memory_fraction": None,
    "empty_cache": lambda: device.freed.append("cache"),
    "current_stream": current_stream,
    "get_rng_state": lambda: torch.zeros(16, dtype=torch.uint8, device="cpu"),
    "synchronize": synchronize,
}


def replace_functions() -> None:
    """Replaces everything in torch that needs a real device."""
    cuda: Any = torch.cuda
    for name, replacement in WITHOUT_CONTEXT.items():
        setattr(cuda, name, replacement)
    for name, value in WITH_CONTEXT.items():
        setattr(cuda, name, _creates_context(value))
    torch.backends.cudnn.is_acceptable = _returns(False)  # type: ignore
    cuda.amp.common.amp_definitely_not_available = _returns(False)
    accelerator: Any = torch.accelerator
    accelerator.current_accelerator = _returns(torch.device("cuda"))
    accelerator.current_stream = current_stream
    torch.Tensor.record_stream = lambda tensor, stream: device.recorded_streams.add(  # type: ignore
        (storage_id(tensor), stream)
    )
    # In inference mode composite operations reach the fake mode undecomposed, and it cannot fake those.
    torch.inference_mode = lambda mode=True: torch.no_grad() if mode else contextlib.nullcontext()  # type: ignore
