"""A fake CUDA device: tensors on it have shape, dtype and device, but no values.

Autograd and autocast work as on a GPU, torch complains about tensors on two devices, and every place
where the host would wait for the device is recorded. This says nothing about kernels, numbers or memory.
"""

from __future__ import annotations

import contextlib
import importlib.util
import sys
from collections.abc import Iterator
from ctypes import CDLL, RTLD_GLOBAL
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

BROKEN_CAPTURE = "CUDA error: operation failed due to a previous error during capture"


def load(library: Path) -> None:
    """Makes torch find the device, see `device.cpp`; must be called before torch is imported."""
    assert "torch" not in sys.modules, "torch has already looked for devices"
    spec = importlib.util.find_spec("torch")
    assert spec is not None
    assert spec.origin is not None
    torch_libraries = Path(spec.origin).parent / "lib"
    for name in ("libgomp.so.1", "libc10.so", "libtorch_cpu.so"):
        if (torch_libraries / name).is_file():
            CDLL(str(torch_libraries / name), RTLD_GLOBAL)
    CDLL(str(library), RTLD_GLOBAL)

    from tests.fake_cuda.torch_cuda import replace_functions  # imports torch

    replace_functions()


class Wait(NamedTuple):
    """A place where the host waits for the device.

    Attributes:
        what: `read` of a value, `from host`, `to host`, `synchronize`.
        place: the function of ours that waits, `module.function` without `bigmodel.`; empty if the test
            itself does.
        step: the current step, counted from 1; 0: none.
    """

    what: str
    place: str
    step: int


@dataclass
class Device:
    """What happened on the device, and its settings.

    Attributes:
        waits: of the host for the device, in order.
        contexts: places that called something which creates a context on the device.
        step: the current step, counted from 1; 0: none.
        sync_debug: the number that torch.cuda.set_sync_debug_mode has set.
        capturing: whether kernels are being recorded for a graph.
        captures: how many graphs were started.
        capture_modes: the values of `capture_error_mode` they were started with.
        replays: how often a graph was replayed.
        freed: what released memory: `graph`, `cache`.
        copy_streams: streams on which something was copied from the host.
        recorded_streams: storages and the streams they were passed to `record_stream` with.
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
    copy_streams: set[Any] = field(default_factory=set)
    recorded_streams: set[tuple[int, Any]] = field(default_factory=set)

    def wait(self, what: str) -> None:
        """Records that the host waits.

        Raises:
            RuntimeError: waiting is not allowed now, in torch's words.
        """
        if self.capturing:
            raise RuntimeError("CUDA error: operation not permitted when stream is capturing")
        self.waits.append(Wait(what, _place(), self.step))
        if self.sync_debug == 2 and what != "synchronize":  # torch does not check that one
            raise RuntimeError("called a synchronizing CUDA operation")

    def create_context(self) -> None:
        """Records a call that creates a context on the device."""
        self.contexts.add(_place())

    @contextlib.contextmanager
    def capture(self, *_: Any, capture_error_mode: str = "global") -> Iterator[None]:
        """torch.cuda.graph, which waits for the device before it starts."""
        self.capture_modes.add(capture_error_mode)
        self.wait("synchronize")
        self.capturing, broken = True, False
        self.captures += 1
        try:
            yield
        except BaseException as error:
            broken = not isinstance(error, RuntimeError) or "CUDA out of memory" not in str(error)
            raise
        finally:
            self.capturing = False
            if broken:
                raise RuntimeError(BROKEN_CAPTURE)


device = Device()


def storage_id(tensor: Any) -> int:
    """The identity of the memory that a tensor shares with its views."""
    identity: int = tensor.untyped_storage()._cdata
    return identity


def is_recorded(tensor: Any, stream: Any) -> bool:
    """Whether `tensor.record_stream(stream)` was called."""
    return (storage_id(tensor), stream) in device.recorded_streams


def _place() -> str:
    frame = sys._getframe(2)
    while frame is not None:
        module = frame.f_globals.get("__name__", "")
        if module.startswith("bigmodel."):
            return f"{module.removeprefix('bigmodel.')}.{frame.f_code.co_qualname}"
        frame = frame.f_back  # type: ignore[assignment]
    return ""
