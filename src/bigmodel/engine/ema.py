"""Averaged weights: an exponential moving average of the model, often better than its last step."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from bigmodel.runtime import torch_internals


class EMA:
    """Exponential moving average of a model's weights (Polyak and Juditsky, 1992).

    After update t, `average = d * average + (1 - d) * weights` with
    `d = min(decay, (1 + t) / (10 + t))`, so that the first steps are soon forgotten. Floating-point
    buffers (running statistics) are averaged too, integer ones copied. Frozen weights are their own
    average, and have none here.

    Args:
        model: whose weights to average, by the names of its state dict.
        decay: the share of the old average that is kept, 0 to 1.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.updates = 0
        live = {
            name: value
            for name, value in model.state_dict(keep_vars=True).items()
            if value.requires_grad or not isinstance(value, nn.Parameter)
        }
        self.weights: dict[str, Tensor] = {name: value.detach().clone() for name, value in live.items()}
        floating = [name for name, value in live.items() if value.is_floating_point()]
        self._averages = [self.weights[name] for name in floating]
        self._sources = [live[name].detach() for name in floating]
        self._copies = [(self.weights[n], live[n].detach()) for n in live if n not in set(floating)]

    @torch.no_grad()
    def update(self) -> None:
        """Moves the averages towards the model as it is now; never waits for the device.

        If any weight is NaN or infinite, the averages stay as they are.
        """
        share = self.next_share()
        is_finite = nn.utils.get_total_norm(self._sources).isfinite()
        sources = self._sources
        if is_finite.device.type == "cpu":
            if not is_finite:
                return
        else:  # reading the flag would wait for the device: averages are moved towards themselves
            pairs = zip(self._sources, self._averages, strict=True)
            sources = [torch.where(is_finite, source, average) for source, average in pairs]
        torch_internals.each("lerp_", self._averages, sources, share)
        for average, source in self._copies:
            average.copy_(source)

    def next_share(self) -> float:
        """Counts an update; returns by which share it moves averages towards the model, 0 to 1."""
        self.updates += 1
        return 1.0 - min(self.decay, (1 + self.updates) / (10 + self.updates))

    def load(self, weights: dict[str, Tensor], updates: int) -> None:
        """Loads saved averages, in place.

        Args:
            weights: tensors by name, as in `self.weights`.
            updates: how many updates they have had.
        """
        for name, value in self.weights.items():
            value.copy_(weights[name])
        self.updates = updates
