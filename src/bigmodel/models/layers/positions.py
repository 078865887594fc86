"""Position encodings: sinusoidal, learnt and rotary, along a line or over an image.

Over an image each axis gets an equal share of the channels, rows first. A line is one axis, with the
formulas of the papers.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from bigmodel.models.transformer_config import RotaryScaling

LINE_BASE = 10_000.0
"""The longest wavelength along a line is about 2π times this many positions (Vaswani et al. 2017)."""

IMAGE_BASE = 100.0
"""The same for each axis of an image, which is shorter (Heo et al. 2024, arXiv:2403.13298)."""


def coordinates(grid: tuple[int, ...]) -> Tensor:
    """Integer coordinates of each position of a grid, row by row: (positions, axes), float32."""
    axes = torch.meshgrid(*(torch.arange(size) for size in grid), indexing="ij")
    return torch.stack([axis.flatten() for axis in axes], dim=1).float()


def frequencies(base: float, channels: int) -> Tensor:
    """base^(-2i/channels), in radians a position: (channels / 2,)."""
    return base ** (-torch.arange(0, channels, 2) / channels)


def angles(grid: tuple[int, ...], channels: int) -> Tensor:
    """p · base^(-2i/channels), in radians, for each coordinate p: (positions, axes, channels / 2)."""
    base = LINE_BASE if len(grid) == 1 else IMAGE_BASE
    return coordinates(grid).unsqueeze(-1) * frequencies(base, channels)


def stretched(own: Tensor, scaling: RotaryScaling, base: float) -> Tensor:
    """Frequencies that reach `scaling.factor` times further along a line; see `RotaryScaling`.

    `linear` is Chen et al. 2023 (arXiv:2306.15595), `yarn` Peng et al. 2023 (arXiv:2309.00071), section
    3.2, and `llama3` how Llama 3.1 was trained (Grattafiori et al. 2024, arXiv:2407.21783).

    Args:
        own: (channels / 2,), as `frequencies` gives them for `base`.
    """
    slow = own / scaling.factor
    match scaling.kind:
        case "none":
            return own
        case "linear":
            return slow
        case "llama3":
            turns = scaling.original_length * own / (2 * math.pi)
            low, high = scaling.low_freq_factor, scaling.high_freq_factor
            kept = ((turns - low) / (high - low)).clamp(0, 1)
        case "yarn":
            channels = 2 * len(own)

            def channel_of(turns: float) -> float:
                ratio = scaling.original_length / (turns * 2 * math.pi)
                return channels * math.log(ratio) / (2 * math.log(base))

            first = max(math.floor(channel_of(scaling.beta_fast)), 0)
            last = min(math.ceil(channel_of(scaling.beta_slow)), channels - 1)
            ramp = (torch.arange(len(own)) - first) / max(last - first, 1e-3)
            kept = 1 - ramp.clamp(0, 1)
    return kept * own + (1 - kept) * slow


def sinusoids(grid: tuple[int, ...], dim: int) -> Tensor:
    """The fixed codes of Vaswani et al. 2017 (arXiv:1706.03762), section 3.5: (positions, dim).

    Along each axis, with d channels for it: PE(p, 2i) = sin(p / base^(2i/d)) and
    PE(p, 2i+1) = cos(p / base^(2i/d)).
    """
    share = 2 * math.ceil(dim / (2 * len(grid)))
    rotation = angles(grid, share)
    return torch.stack([rotation.sin(), rotation.cos()], dim=-1).flatten(1)[:, :dim].contiguous()


class Positions(nn.Module):
    """Adds a vector to each position, since attention does not see the order otherwise.

    Both kinds start as large as the content, with unit variance. With smaller ones a small network
    learns what there is long before it learns where, and generalises less well.

    Args:
        kind: `sinusoidal` (fixed) or `learned`.
        before: positions that come before those of the grid; only learnt ones can.

    Shapes: (batch, positions, dim) → the same. Fewer positions than the grid holds are the first ones,
    or those in `positions`, (batch, positions) integers.
    """

    weight: Tensor

    def __init__(self, kind: str, grid: tuple[int, ...], dim: int, before: int = 0) -> None:
        super().__init__()
        if kind == "learned":
            self.weight = nn.Parameter(nn.init.normal_(torch.empty(before + math.prod(grid), dim)))
        else:
            self.register_buffer("weight", sinusoids(grid, dim) * math.sqrt(2), persistent=False)

    def forward(self, inputs: Tensor, positions: Tensor | None = None) -> Tensor:
        return inputs + (self.weight[: inputs.shape[1]] if positions is None else self.weight[positions])


class Rotary(nn.Module):
    """Rotates queries and keys by angles that grow with their position (Su et al. 2021,
    arXiv:2104.09864).

    Channels i and i + d/2 of a head form a pair, rotated by p · base^(-2i/d) at position p. The score of
    a query and a key then depends on their distance, not on where they are.

    Args:
        grid: the positions' grid; twice its number of axes divides `head_dim`.
        head_dim: channels of a head.
        base: along a line; over an image it is `IMAGE_BASE`.
        scaling: along a line.

    Shapes: (batch, heads, positions, head_dim) → the same. Positions are the first ones of the grid, or
    those in `positions`, (batch, positions) integers.
    """

    cos: Tensor
    sin: Tensor

    def __init__(
        self,
        grid: tuple[int, ...],
        head_dim: int,
        base: float = LINE_BASE,
        scaling: RotaryScaling | None = None,
    ) -> None:
        super().__init__()
        if len(grid) == 1:
            own = frequencies(base, head_dim)
            own = own if scaling is None else stretched(own, scaling, base)
            rotation = coordinates(grid) * own
        else:
            rotation = angles(grid, head_dim // len(grid)).flatten(1)
        size = 1.0
        if scaling is not None and scaling.kind == "yarn":
            size = scaling.attention_factor or 0.1 * math.log(scaling.factor) + 1
        # (x, y) rotated is (x, y) · cos + (y, x) · (-sin, sin): three kernels, as wide as the head.
        sin = rotation.sin() * size
        self.register_buffer("cos", rotation.cos().repeat(1, 2) * size, persistent=False)
        self.register_buffer("sin", torch.cat([-sin, sin], dim=1), persistent=False)

    def forward(self, inputs: Tensor, positions: Tensor | None = None) -> Tensor:
        if positions is None:
            cos, sin = self.cos[: inputs.shape[-2]], self.sin[: inputs.shape[-2]]
        else:
            cos, sin = self.cos[positions].unsqueeze(1), self.sin[positions].unsqueeze(1)
        # Under autocast values are bf16, and attention wants queries, keys and values in one dtype.
        cos, sin = cos.to(inputs.dtype), sin.to(inputs.dtype)
        swapped = inputs.roll(inputs.shape[-1] // 2, -1)
        return torch.addcmul(inputs * cos, swapped, sin)
