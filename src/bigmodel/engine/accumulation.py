"""A step's gradient while its micro-batches are added up."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor


@dataclass
class Accumulation:
    """A step's gradient while it is being added up.

    Attributes:
        micro_batch: samples that go through the model at once; halved where memory runs out.
        losses: sums of the losses of the micro-batches done, each without dimensions; empty between
            two steps.
        sums: those of their metrics.
        grad_norm: norm of the whole gradient of the newest step that measured it, before clipping.
    """

    micro_batch: int
    losses: list[Tensor] = field(default_factory=list)
    sums: Tensor | None = None
    grad_norm: Tensor | None = None
