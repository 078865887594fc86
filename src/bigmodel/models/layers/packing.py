"""Attention within each of several texts that share a row, as `spec.PackedTokens` has them.

On a CPU, and wherever weights are dropped, a mask separates the texts. On a GPU that has the kernel,
attention over texts of different lengths skips whatever the mask would remove.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

Kernel = Callable[..., Any]
"""Torch's `varlen_attn`."""

_HALF = (torch.float16, torch.bfloat16)
_MOST_CHANNELS = 256  # of a head, in the kernel


def kernel() -> Kernel | None:
    """Torch's attention over texts of different lengths; None: this version has none, or another one."""
    try:
        from torch.nn.attention.varlen import varlen_attn
    except ImportError:
        return None
    options = inspect.signature(varlen_attn).parameters
    return varlen_attn if {"window_size", "enable_gqa"} <= options.keys() else None


class Packing:
    """The texts of a batch of rows; what attention needs of them is computed once for all layers.

    Args:
        positions: (batch, length) integers, of each token within its own text: it begins at each 0.
        kernel: from `kernel`.
    """

    def __init__(self, positions: Tensor, kernel: Kernel | None = None) -> None:
        self.positions, self.kernel = positions, kernel
        self._mask: Tensor | None = None  # `cached_property` has a lock, which torch.compile refuses
        self._bounds: Tensor | None = None

    @property
    def mask(self) -> Tensor:
        """True where a query sees a key, which is in its own text and not after it:
        (batch, 1, length, length)."""
        if self._mask is None:
            text = (self.positions == 0).cumsum(1)
            self._mask = (text.unsqueeze(2) == text.unsqueeze(1)).tril().unsqueeze(1)
        return self._mask

    @property
    def bounds(self) -> Tensor:
        """Where each text begins if all rows lie one after another, (batch × length + 1,) int32; the
        entries that are left over are the end. Their number is fixed, or the host would have to wait."""
        if self._bounds is None:
            begins = (self.positions == 0).flatten()
            count = begins.numel()
            found = torch.nonzero_static(begins, size=count + 1, fill_value=count)
            self._bounds = found.flatten().to(torch.int32)
        return self._bounds

    def can_split(self, query: Tensor) -> bool:
        """Whether `attention` has a kernel for these queries: (batch, heads, length, head_dim)."""
        return (
            self.kernel is not None
            and query.device.type == "cuda"
            and torch.version.hip is None
            and query.dtype in _HALF
            and query.shape[-1] % 8 == 0
            and query.shape[-1] <= _MOST_CHANNELS
            and torch.cuda.get_device_properties(query.device).major >= 8
        )

    def attention(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Causal attention within each text, without dropout: (batch, heads, length, head_dim) → the
        same. Keys and values may have fewer heads."""
        assert self.kernel is not None
        batch, _, length, _ = query.shape
        rows = [part.transpose(1, 2).flatten(0, 1) for part in (query, key, value)]
        mixed: Tensor = self.kernel(
            rows[0],
            rows[1],
            rows[2],
            self.bounds,
            self.bounds,
            length,
            length,
            window_size=(-1, 0),  # all keys before a query, and none after it
            enable_gqa=query.shape[1] != key.shape[1],
        )
        return mixed.view(batch, length, *mixed.shape[1:]).transpose(1, 2)
