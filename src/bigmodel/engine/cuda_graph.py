"""Steps as a CUDA graph: the kernels of a whole step, launched by one call.

The kernels are those of the eager step, fused optimizer included. A graph saves the time that Python and
torch take to launch them one by one, which is most of the time for small networks.
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
from bigmodel.engine.fixed_shape import FixedShapeEngine
from bigmodel.engine.functional_step import StepInputs, UntraceableError
from bigmodel.engine.step import Step
from bigmodel.errors import DeviceError, first_line, is_out_of_memory
from bigmodel.runtime import torch_internals

_WARM_UP_STEPS = 3  # cuDNN and cuBLAS choose their kernels in them


class GraphEngine(FixedShapeEngine):
    """Captures a step, and replays it: `warm_up`, then `capture`, then `run_step`.

    Args:
        step: with a fused optimizer on CUDA, after at least one update.
        example: a batch like those to come.

    Raises:
        UntraceableError: the step needs the host between its kernels.
    """

    name = "graph"

    def __init__(self, step: Step, example: Batch) -> None:
        super().__init__(step, example)
        _check_capturable(step, example)
        # The graph reads batch and rates from fixed places in memory.
        self._batch = Batch(*(tensor.clone() for tensor in example))
        groups = step.optimizer.param_groups
        self._learning_rates = [torch.tensor(float(g["lr"]), device=self._device) for g in groups]
        self._graph = torch.cuda.CUDAGraph()

    def warm_up(self) -> None:
        """Does some steps, in which kernels are chosen and memory is allocated. The caller restores the
        state. What cannot be captured fails here, while that does no harm.

        Raises:
            UntraceableError: the host waits for the device within a step.
        """
        with _tensor_rates(self.step.optimizer, self._learning_rates), _waiting_forbidden():
            stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
            stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(stream):
                for _ in range(_WARM_UP_STEPS):
                    self.step.full_batch_step(self._batch)
            torch.cuda.current_stream().wait_stream(stream)

    def capture(self) -> None:
        """Records a step without doing it.

        Raises:
            UntraceableError: there is too little memory to keep a whole step's.
            DeviceError: it failed, and left CUDA in a state in which this process cannot go on.
        """
        step, samples = self.step, self.step.metrics.samples
        # Threads that gather batches meanwhile take memory, which by default would spoil the capture.
        recorded = torch.cuda.graph(self._graph, capture_error_mode="thread_local")
        try:
            with _tensor_rates(step.optimizer, self._learning_rates), recorded:
                self._metrics = step.full_batch_step(self._batch)
        except Exception as error:
            # Raised by the allocator; had the capture been spoilt, that would be the error.
            if is_out_of_memory(error):
                self.release()
                raise UntraceableError("there is not enough memory to record one") from error
            what = first_line(error, type(error).__name__)
            raise DeviceError(
                f"A step could not be recorded as a CUDA graph ({what}), and CUDA cannot be used in "
                "this process any more. Set device.engine=eager and resume the run: its checkpoints "
                "are intact."
            ) from error
        step.metrics.count(samples - step.metrics.samples)
        for parameter in step.model.parameters():
            parameter.grad = None  # it lies in the graph's memory

    def run_step(self, inputs: StepInputs) -> Tensor:
        """See `FixedShapeEngine.run_step`; the next call overwrites the metrics."""
        for fixed, new in zip(self._batch, inputs[:2], strict=True):
            fixed.copy_(new)
        torch_internals.each("copy_", self._learning_rates, list(inputs.rates[:-1].unbind()))
        self._graph.replay()
        return self._metrics

    def release(self) -> bool:
        """See `Engine.release`: frees the graph and its private memory."""
        self._graph.reset()
        vars(self).pop("_metrics", None)
        torch.cuda.empty_cache()
        return True

    def rebind(self) -> None:
        """See `Engine.rebind`: the graph has the addresses of the old tensors."""
        raise UntraceableError("a CUDA graph cannot be reused after a state was loaded")


def _check_capturable(step: Step, example: Batch) -> None:
    """Raises UntraceableError for what `FunctionalStep`, which is made before, accepts."""
    if example.inputs.device.type != "cuda":
        raise UntraceableError("CUDA graphs need a CUDA device")
    if not all(group.get("fused") for group in step.optimizer.param_groups):
        raise UntraceableError(f"the optimizer {type(step.optimizer).__name__} has no fused kernel")
    if step.ema is not None:
        raise UntraceableError("averaged weights count their updates on the host")


@contextlib.contextmanager
def _tensor_rates(optimizer: torch.optim.Optimizer, rates: list[Tensor]) -> Iterator[None]:
    """The optimizer's kernels read the learning rates from these tensors."""
    originals = [dict(group) for group in optimizer.param_groups]
    for group, rate in zip(optimizer.param_groups, rates, strict=True):
        group["lr"] = rate
        if "capturable" in group:
            group["capturable"] = True
    try:
        yield
    finally:
        for group, original in zip(optimizer.param_groups, originals, strict=True):
            group.update(original)


@contextlib.contextmanager
def _waiting_forbidden() -> Iterator[None]:
    """An operation for which the host waits for the device raises an error.

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
    """File and line of the innermost frame outside torch, in brackets; empty if there is none."""
    torch_folder = str(Path(torch.__file__).parent)
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if not frame.filename.startswith(torch_folder)]
    return f" ({Path(own[-1].filename).name}, line {own[-1].lineno})" if own else ""
