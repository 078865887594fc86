"""What anyone would write by hand to learn a text letter by letter: torch's own modules and a loop.

`bench.py` runs it beside ours. The recipe is nanoGPT's: random windows of the text stacked into a batch,
learnt positions, pre-norm blocks, AdamW.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class PlainWriter(nn.Module):
    """A decoder of torch's own layers: (batch, length) tokens → (batch, length, vocab_size) logits."""

    def __init__(self, vocab_size: int, dim: int, depth: int, heads: int, context: int) -> None:
        super().__init__()
        self.tokens = nn.Embedding(vocab_size, dim)
        self.places = nn.Embedding(context, dim)
        layer = nn.TransformerEncoderLayer(
            dim, heads, 4 * dim, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
        )
        norm = nn.LayerNorm(dim)
        self.blocks = nn.TransformerEncoder(layer, depth, norm=norm, enable_nested_tensor=False)
        self.head = nn.Linear(dim, vocab_size)
        self.register_buffer("mask", nn.Transformer.generate_square_subsequent_mask(context))

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.tokens(tokens) + self.places(torch.arange(tokens.shape[1]))
        return self.head(self.blocks(x, mask=self.mask, is_causal=True))


def train(model: PlainWriter, text: Tensor, steps: int, batch_size: int, **options: Any) -> list[float]:
    """Trains on windows of `text`, (tokens,) int64; returns the loss of each step."""
    context = model.places.num_embeddings
    optimizer = torch.optim.AdamW(model.parameters(), fused=True, **options)
    base, losses = options["lr"], []
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = base * (1 - step / steps)
        starts = torch.randint(len(text) - context, (batch_size,)).tolist()
        inputs = torch.stack([text[start : start + context] for start in starts])
        targets = torch.stack([text[start + 1 : start + context + 1] for start in starts])
        loss = F.cross_entropy(model(inputs).flatten(0, 1), targets.flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses
