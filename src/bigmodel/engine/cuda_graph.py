"""Steps as a CUDA graph: the kernels of a whole step, launched by one call.

The kernels are those of the eager step, fused optimizer included; what goes is the time that Python and
torch take to launch them one by one, which is most of it for small networks.
"""

from __future__ import annotations

import contextlib
import traceback
import warnings
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from bigmodel.data.base import Batch
from bigmodel.engine.fixed_shape import Pieces
from bigmodel.engine.functional_step import Given, UntraceableError
from bigmodel.engine.step import Step
from bigmodel.errors import DeviceError
from bigmodel.runtime.memory import is_out_of_memory

_WARM_UP = 3  # steps before the capture: cuDNN and cuBLAS choose their kernels in them


class Graphed(Pieces):
    """Captures a step of batches like `like`, and replays it: `warm_up`, then `capture`, then `once`.

    Args:
        step: of a fused optimizer on CUDA, which has done one update at least.
        like: such a batch.

    Raises:
        UntraceableError: the step needs the host between its kernels.
    """

    name = "graph"

    def __init__(self, step: Step, like: Batch) -> None:
        super().__init__(step, like)
        _check(step, like)
        self._batch = Batch(*(tensor.clone() for tensor in like))
        groups = step.optimizer.param_groups
        self._rates_read = [torch.tensor(float(g["lr"]), device=self._device) for g in groups]
        self._graph = torch.cuda.CUDAGraph()

    def warm_up(self) -> None:
        """Does some steps, in which kernels are chosen and memory is found; whoever calls this puts the
        state back. What could not be captured fails here, while that does no harm.

        Raises:
            UntraceableError: the host waits for the device within a step.
        """
        with _read_from(self.step.optimizer, self._rates_read), _waits_refused():
            aside = torch.cuda.Stream()  # type: ignore[no-untyped-call]
            aside.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(aside):
                for _ in range(_WARM_UP):
                    self.step.figures(self._batch)
            torch.cuda.current_stream().wait_stream(aside)

    def capture(self) -> None:
        """Records a step, of which nothing is done yet.

        Raises:
            UntraceableError: there is too little memory to keep a whole step's.
            DeviceError: it failed, and left CUDA in a state in which this process cannot go on.
        """
        step, counted = self.step, self.step.metrics.samples
        try:
            with _read_from(step.optimizer, self._rates_read), torch.cuda.graph(self._graph):
                self._figures = step.figures(self._batch)
        except Exception as error:
            if is_out_of_memory(
                error
            ):  # by the allocator: had it spoilt the capture, that would be told
                self.release()
                raise UntraceableError("memory is too little to record one") from error
            what = next(iter(str(error).splitlines()), type(error).__name__)
            raise DeviceError(
                f"A step could not be recorded as a CUDA graph ({what}), and CUDA cannot be used in this"
                " process any more. Say device.engine=eager; what the run has saved is good, and resume="
                " goes on from there."
            ) from error
        step.metrics.count(counted - step.metrics.samples)
        for parameter in step.model.parameters():
            parameter.grad = None  # it lies in the graph's memory

    def once(self, given: Given) -> Tensor:
        """See `Pieces.once`; the next call overwrites what it gives."""
        for kept, new in zip(self._batch, given[:2], strict=True):
            kept.copy_(new)
        torch._foreach_copy_(self._rates_read, list(given.numbers[:-1].unbind()))
        self._graph.replay()
        return self._figures

    def release(self) -> bool:
        """See `Engine.release`: the graph goes, and the memory that was kept for it alone."""
        self._graph.reset()
        vars(self).pop("_figures", None)
        torch.cuda.empty_cache()
        return True

    def renew(self) -> None:
        """See `Engine.renew`: the graph knows the old tensors only."""
        raise UntraceableError("a CUDA graph cannot follow a state that was loaded anew")


def _check(step: Step, like: Batch) -> None:
    """What `Whole` does not refuse already, which whoever makes this engine has made before."""
    if like.inputs.device.type != "cuda":
        raise UntraceableError("CUDA graphs need a CUDA device")
    if not all(group.get("fused") for group in step.optimizer.param_groups):
        raise UntraceableError(f"the optimizer {type(step.optimizer).__name__} has no fused kernel")
    if step.ema is not None:
        raise UntraceableError("averaged weights count their updates on the host")


@contextlib.contextmanager
def _read_from(optimizer: torch.optim.Optimizer, rates: list[Tensor]) -> Iterator[None]:
    """Within it the optimizer's kernels read the learning rates from memory."""
    before = [(group["lr"], group.get("capturable")) for group in optimizer.param_groups]
    for group, rate in zip(optimizer.param_groups, rates, strict=True):
        group["lr"] = rate
        if "capturable" in group:
            group["capturable"] = True
    try:
        yield
    finally:
        for group, (rate, capturable) in zip(optimizer.param_groups, before, strict=True):
            group["lr"] = rate
            if "capturable" in group:
                group["capturable"] = capturable


@contextlib.contextmanager
def _waits_refused() -> Iterator[None]:
    """Within it an operation for which the host waits for the device raises an error.

    Raises:
        UntraceableError: there was one.
    """
    before = torch.cuda.get_sync_debug_mode()
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Synchronization debug mode is a prototype")
            torch.cuda.set_sync_debug_mode("error")
        yield
    except RuntimeError as error:
        if "called a synchronizing CUDA operation" not in str(error):
            raise
        raise UntraceableError(f"within a step the host waits for the device{_place(error)}") from error
    finally:
        torch.cuda.set_sync_debug_mode(before)


def _place(error: BaseException) -> str:
    """Where the last of the code that is not torch's stood, in brackets; empty where nothing tells."""
    torchs = str(Path(torch.__file__).parent)
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if not frame.filename.startswith(torchs)]
    return f" ({Path(own[-1].filename).name}, line {own[-1].lineno})" if own else ""
