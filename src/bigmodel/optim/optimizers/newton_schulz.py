"""Muon's update: orthogonalised momentum, for all matrices of one shape at once."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from bigmodel.runtime.torch_internals import each

_COEFFICIENTS = 3.4445, -4.7750, 2.0315  # Jordan et al. 2024: for the largest slope at 0
_EPS = 1e-7


class Muon(torch.optim.Muon):
    """A faster torch.optim.Muon that knows matrices which are stored as one.

    Matrices of one shape go through each product together. A weight in which several layers are stacked,
    such as queries, keys and values, is several matrices: each is orthogonalised by itself, with the
    learning rate of its own shape. State and options are torch's.

    Args:
        params: matrices.
        rows: how many rows each matrix of a stacked weight has, from the top; a weight that is no key is
            one matrix.
        options: torch.optim.Muon's.
    """

    def __init__(
        self,
        params: Iterable[nn.Parameter],
        rows: Mapping[nn.Parameter, list[int]] | None = None,
        **options: Any,
    ) -> None:
        super().__init__(params, **options)
        self._rows = dict(rows or {})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Updates all matrices that have a gradient."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            params = [p for p in group["params"] if p.grad is not None]
            if params:
                self._update(params, group)
        return loss

    def _update(self, params: list[nn.Parameter], group: dict[str, Any]) -> None:
        gradients: list[Tensor] = [p.grad for p in params if p.grad is not None]
        for p in params:
            if not self.state[p]:
                self.state[p]["momentum_buffer"] = torch.zeros_like(p)
        momenta = [self.state[p]["momentum_buffer"] for p in params]
        each("lerp_", momenta, gradients, 1 - group["momentum"])
        updates = momenta
        if group["nesterov"]:
            updates = list(each("lerp", gradients, momenta, group["momentum"]))
        weights: list[Tensor] = [p.detach() for p in params]
        each("mul_", weights, 1 - group["lr"] * group["weight_decay"])
        matrices = [
            (part, update)
            for p, whole in zip(params, updates, strict=True)
            for part, update in zip(self._parts(p, p), self._parts(p, whole), strict=True)
        ]
        for same in _by_shape(matrices):
            orthogonalised = orthogonal(torch.stack([update for _, update in same]), group["ns_steps"])
            rate = group["lr"] * _scale(same[0][0].shape, group["adjust_lr_fn"])
            targets = [part for part, _ in same]
            each("add_", targets, list(orthogonalised.to(targets[0].dtype).unbind()), alpha=-rate)

    def _parts(self, parameter: nn.Parameter, tensor: Tensor) -> tuple[Tensor, ...]:
        """The matrices that a tensor of the parameter's shape consists of."""
        rows = self._rows.get(parameter)
        return (tensor.detach(),) if rows is None else torch.split(tensor.detach(), rows)


def orthogonal(matrices: Tensor, steps: int) -> Tensor:
    """Nearest matrices whose singular values are all about 1: (count, rows, columns), in bf16.

    Newton-Schulz iterations of degree five (Jordan et al. 2024); bf16 is exact enough for them.
    """
    tall = matrices.shape[1] > matrices.shape[2]
    x = matrices.bfloat16()
    x = x.mT if tall else x
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp(min=_EPS)
    a, b, c = _COEFFICIENTS
    for _ in range(steps):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.mT if tall else x


def _by_shape(pairs: list[tuple[Tensor, Tensor]]) -> Iterable[list[tuple[Tensor, Tensor]]]:
    """Matrices and their updates, grouped by shape, device and dtype."""
    groups: dict[Any, list[tuple[Tensor, Tensor]]] = {}
    for part, update in pairs:
        groups.setdefault((part.shape, part.device, part.dtype), []).append((part, update))
    return groups.values()


def _scale(shape: torch.Size, adjust_lr: str | None) -> float:
    """The learning rate's factor for a matrix, as in torch.optim.Muon."""
    rows, columns = shape
    if adjust_lr == "match_rms_adamw":
        return 0.2 * math.sqrt(max(rows, columns))
    return math.sqrt(max(1, rows / columns))
