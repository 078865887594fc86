"""How the next token is chosen: the most likely one, or drawn at random."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from bigmodel.errors import ConfigError
from bigmodel.spec import DataSpec, NextTokens, TokenPair


@dataclass(frozen=True)
class Sampling:
    """How the next token is chosen.

    Attributes:
        max_tokens: the most new tokens of a text.
        temperature: logits are divided by it; 0: always the most likely token.
        top_k: choose among that many most likely tokens only (Fan et al. 2018, arXiv:1805.04833).
        top_p: choose among the fewest tokens that together have at least this probability, after
            `top_k` (Holtzman et al. 2019, arXiv:1904.09751).
        beams: texts kept side by side, of which the best is returned; 1: no search.
        length_penalty: α of Wu et al. 2016 (arXiv:1609.08144), equation 14: the score of a text of n
            tokens, its end included, is its log-probability over ((5 + n) / 6)^α.
        end: the token that ends a text, not part of the output; None: the data's own, if it has one.
        seed: of the random draws. Each depends on it, the text's index and the token's alone.

    Raises:
        ConfigError: a value is out of its range, or beam search is combined with random draws.
    """

    max_tokens: int = 200
    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None
    beams: int = 1
    length_penalty: float = 0.6
    end: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        for name, good, allowed in (
            ("max_tokens", self.max_tokens >= 1, "a whole number from 1"),
            ("temperature", 0 <= self.temperature < math.inf, "a number from 0, which is greedy"),
            ("top_k", self.top_k is None or self.top_k >= 1, "a whole number from 1, or null"),
            ("top_p", self.top_p is None or 0 < self.top_p <= 1, "above 0 and at most 1, or null"),
            ("beams", self.beams >= 1, "a whole number from 1"),
            ("length_penalty", 0 <= self.length_penalty < math.inf, "a number from 0"),
        ):
            if not good:
                raise ConfigError(f"{name}={getattr(self, name)}: must be {allowed}.")
        drawn = self.temperature not in (0, 1) or self.top_k is not None or self.top_p is not None
        if self.beams > 1 and drawn:
            raise ConfigError(
                f"beams={self.beams} looks for the likeliest text and draws nothing: leave temperature,"
                " top_k and top_p as they are, or choose beams=1."
            )


def probabilities(logits: Tensor, sampling: Sampling) -> Tensor:
    """The distribution of the next token: (rows, vocab_size) → the same, each row adding up to 1.

    Tokens that are as likely as the last of the `top_k` are kept, too.
    """
    x = logits.float() / sampling.temperature
    if sampling.top_k is not None:
        threshold = x.topk(min(sampling.top_k, x.shape[1])).values[:, -1:]
        x = x.masked_fill(x < threshold, -torch.inf)
    probs = torch.softmax(x, dim=-1)
    if sampling.top_p is not None and sampling.top_p < 1:
        ordered, order = probs.sort(dim=-1, descending=True, stable=True)
        is_dropped = ordered.cumsum(-1) - ordered >= sampling.top_p  # those before it are enough
        probs = probs.masked_fill(torch.zeros_like(is_dropped).scatter(1, order, is_dropped), 0.0)
    return probs / probs.sum(-1, keepdim=True)


def next_tokens(logits: Tensor, sampling: Sampling, indices: list[int], position: int) -> list[int]:
    """The next token of each text.

    Args:
        logits: (texts, vocab_size).
        indices: of these texts among all texts.
        position: how many tokens each text has got before.
    """
    if sampling.temperature == 0:
        greedy: list[int] = logits.argmax(-1).tolist()
        return greedy
    # A generator of its own for each draw: no draw depends on how many were made before.
    draws = [random.Random(f"{sampling.seed}/{index}/{position}").random() for index in indices]
    cumulative = probabilities(logits, sampling).double().cumsum(-1)
    thresholds = torch.tensor(draws, dtype=torch.float64).unsqueeze(1) * cumulative[:, -1:]
    drawn = torch.searchsorted(cumulative, thresholds, right=True).clamp(max=logits.shape[1] - 1)
    tokens: list[int] = drawn[:, 0].tolist()
    return tokens


def with_end(sampling: Sampling, spec: DataSpec) -> Sampling:
    """With the data's own end if there is none."""
    if sampling.end is not None:
        return sampling
    if isinstance(spec.input, TokenPair):
        return replace(sampling, end=spec.input.end)
    return replace(sampling, end=spec.target.end) if isinstance(spec.target, NextTokens) else sampling
