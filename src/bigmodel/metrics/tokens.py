"""Metrics of next tokens."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from bigmodel.metrics.sums import Metrics, shape_error
from bigmodel.spec import IGNORED, NextTokens


class TokenMetrics(Metrics):
    """perplexity, bits_per_character if characters are counted, and accuracy, token by token.

    Perplexity is exp of the mean -log p of the target tokens. Bits per character is the sum of their
    -log2 p over how many characters they stand for, so that it can be compared between vocabularies.
    Without a token or a character to divide by, a metric is NaN.
    """

    counts_samples = True

    def __init__(self, target: NextTokens, device: torch.device) -> None:
        precision = torch.float32 if device.type == "mps" else torch.float64
        # -log p, hits, tokens, characters, samples; NaN and infinity stay visible in the sums
        super().__init__(torch.zeros(5, dtype=precision, device=device))
        self._vocab_size = target.vocab_size
        self._characters: Tensor | None = None
        if target.characters is not None:
            self._characters = torch.tensor(target.characters, device=device)

    def update(self, outputs: Tensor, targets: Tensor, valid: Tensor | None = None) -> None:
        """See `Metrics.update`; outputs (batch, length, vocab_size), targets (batch, length)."""
        if outputs.shape != (*targets.shape, self._vocab_size):
            raise shape_error(outputs, targets, (*targets.shape, self._vocab_size))
        logits, truths = outputs.flatten(0, -2).float(), targets.flatten()
        is_target = truths != IGNORED
        negative_log_p = F.cross_entropy(logits, truths, ignore_index=IGNORED, reduction="sum")
        hits = (logits.argmax(1) == truths).sum()
        characters = is_target.new_zeros(())
        if self._characters is not None:
            characters = (self._characters[truths.clamp(min=0)] * is_target).sum()
        samples = is_target.new_full((), targets.shape[0], dtype=torch.int64)
        new = torch.stack((negative_log_p, hits, is_target.sum(), characters, samples))
        self._sums.add_(new if valid is None else torch.where(valid, new, 0))
        self.count(targets.shape[0])

    def _values(self, sums: Tensor) -> dict[str, float]:
        negative_log_p, hits, tokens, characters, _ = sums.tolist()
        values = {"perplexity": math.exp(min(negative_log_p / (tokens or math.nan), 700.0))}
        if self._characters is not None:
            values["bits_per_character"] = negative_log_p / math.log(2) / (characters or math.nan)
        return {**values, "accuracy": hits / (tokens or math.nan)}
