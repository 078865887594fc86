"""Texts of different lengths side by side: where each ends, and means and last states up to there."""

from __future__ import annotations

import torch
from torch import Tensor

from bigmodel.spec import Input, Tokens


def pad_of(kind: Input) -> int | None:
    """The token that fills up shorter samples of single texts, or None where there is none."""
    return kind.pad if isinstance(kind, Tokens) else None


def lengths_of(tokens: Tensor, pad: int) -> Tensor:
    """How many tokens each text has up to the last that is not `pad`: (batch, length) → (batch,).

    A `pad` in the middle is a token like any other. A text of nothing but padding counts as one `pad`,
    so that there is something to attend to and to take the mean of.
    """
    places = torch.arange(1, tokens.shape[1] + 1, device=tokens.device)
    return ((tokens != pad) * places).amax(1).clamp(min=1)


def within(lengths: Tensor, steps: int) -> Tensor:
    """True at the positions that hold a real token: (batch,) → (batch, steps)."""
    return torch.arange(steps, device=lengths.device) < lengths.unsqueeze(1)


def mean_within(x: Tensor, lengths: Tensor | None) -> Tensor:
    """The mean over positions, real ones only: (batch, positions, width) → (batch, width)."""
    if lengths is None:
        return x.mean(1)
    real = within(lengths, x.shape[1]).unsqueeze(-1)
    return x.masked_fill(~real, 0.0).sum(1) / lengths.unsqueeze(1)


def last_within(x: Tensor, lengths: Tensor | None) -> Tensor:
    """The last real position: (batch, positions, width) → (batch, width)."""
    if lengths is None:
        return x[:, -1]
    return x[torch.arange(x.shape[0], device=x.device), lengths - 1]


def filled(tokens: Tensor, pad: int, length: int) -> Tensor:
    """Every text made `length` tokens long: (batch, up to length) → (batch, length)."""
    return torch.nn.functional.pad(tokens, (0, length - tokens.shape[1]), value=pad)
