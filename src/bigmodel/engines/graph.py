"""Steps as a CUDA graph: the kernels of a whole step, launched by one call.

The kernels are those of the eager step, fused optimizer included; what goes is the time that Python and
torch take to launch them one by one, which is most of it for small networks.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor

from bigmodel.data.base import Batch
from bigmodel.engines.pieces import Pieces
from bigmodel.engines.whole import Given, UntraceableError
from bigmodel.step import Step

_WARM_UP = 3  # steps before the capture: cuDNN and cuBLAS choose their kernels in them


class Graphed(Pieces):
    """Captures a step of batches like `like`, and replays it.

    Args:
        step: of a fused optimizer on CUDA, which has done one update at least. The capture does some
            more; whoever makes this engine puts the state back.
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
        counted = step.metrics.samples
        with _read_from(step.optimizer, self._rates_read):
            aside = torch.cuda.Stream()  # type: ignore[no-untyped-call]
            aside.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(aside):
                for _ in range(_WARM_UP):
                    step.figures(self._batch)
            torch.cuda.current_stream().wait_stream(aside)
            with torch.cuda.graph(self._graph):
                self._figures = step.figures(self._batch)
        step.metrics.count(counted - step.metrics.samples)

    def once(self, given: Given) -> Tensor:
        """See `Pieces.once`."""
        for kept, new in zip(self._batch, given[:2], strict=True):
            kept.copy_(new)
        torch._foreach_copy_(self._rates_read, list(given.numbers[:-1].unbind()))
        self._graph.replay()
        return self._figures.clone()

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
