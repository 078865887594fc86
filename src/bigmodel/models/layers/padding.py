"""Padded batches of texts: where each text ends, and means and last states up to there."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from bigmodel.spec import Input, Tokens


def pad_token(kind: Input) -> int | None:
    """The token that pads shorter texts; None if the inputs are no single texts."""
    return kind.pad if isinstance(kind, Tokens) else None


def text_lengths(tokens: Tensor, pad: int) -> Tensor:
    """How many tokens each text has up to the last that is not `pad`: (batch, length) → (batch,).

    A `pad` in the middle is a token like any other. A text of padding alone counts as one `pad`, so that
    there is something to attend to and to take the mean of.
    """
    positions = torch.arange(1, tokens.shape[1] + 1, device=tokens.device)
    return ((tokens != pad) * positions).amax(1).clamp(min=1)


def length_mask(lengths: Tensor, steps: int) -> Tensor:
    """True at the positions that hold a real token: (batch,) → (batch, steps)."""
    return torch.arange(steps, device=lengths.device) < lengths.unsqueeze(1)


def masked_mean(x: Tensor, lengths: Tensor | None) -> Tensor:
    """The mean over real positions: (batch, positions, width) → (batch, width)."""
    if lengths is None:
        return x.mean(1)
    mask = length_mask(lengths, x.shape[1]).unsqueeze(-1)
    return x.masked_fill(~mask, 0.0).sum(1) / lengths.unsqueeze(1)


def last_position(x: Tensor, lengths: Tensor | None) -> Tensor:
    """The last real position: (batch, positions, width) → (batch, width)."""
    if lengths is None:
        return x[:, -1]
    return x[torch.arange(x.shape[0], device=x.device), lengths - 1]


def pad_to_length(tokens: Tensor, pad: int, length: int) -> Tensor:
    """Pads every text: (batch, up to length) → (batch, length)."""
    return F.pad(tokens, (0, length - tokens.shape[1]), value=pad)
