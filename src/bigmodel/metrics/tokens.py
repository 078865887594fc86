"""Figures of next tokens."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from bigmodel.metrics.base import Metrics, misfit
from bigmodel.spec import IGNORED, NextTokens


class TokenMetrics(Metrics):
    """perplexity, bits_per_character where characters are counted, and accuracy, token by token.

    Perplexity is exp of the mean -log p of each token asked for. Bits per character divides the sum of
    their -log2 p by how many characters they stand for, so that it can be compared between vocabularies.
    Where there is nothing to divide by, no token or no character, a figure is not defined: NaN.
    """

    counts_samples = True

    def __init__(self, target: NextTokens, device: torch.device) -> None:
        precision = torch.float32 if device.type == "mps" else torch.float64
        # -log p, hits, tokens, characters, samples; NaN and infinity come through
        super().__init__(torch.zeros(5, dtype=precision, device=device))
        self._vocab_size = target.vocab_size
        self._characters: Tensor | None = None
        if target.characters is not None:
            self._characters = torch.tensor(target.characters, device=device)

    def update(self, outputs: Tensor, targets: Tensor, fit: Tensor | None = None) -> None:
        """See `Metrics.update`; outputs (batch, length, vocab_size), targets (batch, length)."""
        if outputs.shape != (*targets.shape, self._vocab_size):
            raise misfit(outputs, targets, (*targets.shape, self._vocab_size))
        logits, truths = outputs.flatten(0, -2).float(), targets.flatten()
        asked = truths != IGNORED
        surprise = F.cross_entropy(logits, truths, ignore_index=IGNORED, reduction="sum")
        hits = (logits.argmax(1) == truths).sum()
        characters = asked.new_zeros(())
        if self._characters is not None:
            characters = (self._characters[truths.clamp(min=0)] * asked).sum()
        samples = asked.new_full((), targets.shape[0], dtype=torch.int64)
        new = torch.stack((surprise, hits, asked.sum(), characters, samples))
        self._sums.add_(new if fit is None else torch.where(fit, new, 0))
        self.count(targets.shape[0])

    def _figures(self, sums: Tensor) -> dict[str, float]:
        surprise, hits, tokens, characters, _ = sums.tolist()
        figures = {"perplexity": math.exp(min(surprise / (tokens or math.nan), 700.0))}
        if self._characters is not None:
            figures["bits_per_character"] = surprise / math.log(2) / (characters or math.nan)
        return {**figures, "accuracy": hits / (tokens or math.nan)}
