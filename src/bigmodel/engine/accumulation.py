"""The state of a step between two of its micro-batches."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor


@dataclass
class Accumulation:
    """A step whose gradient is being accumulated.

    Attributes:
        micro_batch: samples that go through the model at once; halved when memory runs out.
        losses: the sum of the losses of each micro-batch done so far, without dimensions; empty between
            two steps.
        sums: the sums of their metrics.
        grad_norm: norm of the whole gradient before clipping, of the newest step that measured it.
    """

    micro_batch: int
    losses: list[Tensor] = field(default_factory=list)
    sums: Tensor | None = None
    grad_norm: Tensor | None = None
