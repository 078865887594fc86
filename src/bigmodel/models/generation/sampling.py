"""How the next token is chosen: the likeliest, or drawn from those that are likely enough."""

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
        max_tokens: new tokens at most.
        temperature: logits are divided by it; 0: always the likeliest token.
        top_k: choose among that many likeliest tokens only (Fan et al. 2018, arXiv:1805.04833).
        top_p: choose among the fewest tokens that together are at least so likely, after `top_k`
            (Holtzman et al. 2019, arXiv:1904.09751).
        beams: texts kept side by side, of which the best is given; 1: no search.
        length_penalty: α of Wu et al. 2016 (arXiv:1609.08144), equation 14: a text of n tokens, its end
            included, is as good as its log-probability over ((5 + n) / 6)^α.
        end: the token that ends a text, no part of the output; None: the data's own, where it has one.
        seed: of the draws. Each depends on it, the text's index and the token's, and on nothing else.

    Raises:
        ConfigError: a value out of its range; a search and draws at once.
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
                raise ConfigError(f"{name}={getattr(self, name)}: has to be {allowed}.")
        drawn = self.temperature not in (0, 1) or self.top_k is not None or self.top_p is not None
        if self.beams > 1 and drawn:
            raise ConfigError(
                f"beams={self.beams} looks for the likeliest text and draws nothing: leave temperature,"
                " top_k and top_p as they are, or choose beams=1."
            )


def probabilities(logits: Tensor, sampling: Sampling) -> Tensor:
    """What a draw is made from: (rows, vocab_size) → the same, each row adding up to 1.

    Tokens as likely as the last of the `top_k` stay, too.
    """
    x = logits.float() / sampling.temperature
    if sampling.top_k is not None:
        least = x.topk(min(sampling.top_k, x.shape[1])).values[:, -1:]
        x = x.masked_fill(x < least, -torch.inf)
    chances = torch.softmax(x, dim=-1)
    if sampling.top_p is not None and sampling.top_p < 1:
        ordered, order = chances.sort(dim=-1, descending=True, stable=True)
        enough = ordered.cumsum(-1) - ordered >= sampling.top_p  # without this one
        chances = chances.masked_fill(torch.zeros_like(enough).scatter(1, order, enough), 0.0)
    return chances / chances.sum(-1, keepdim=True)


def chosen(logits: Tensor, sampling: Sampling, going: list[int], position: int) -> list[int]:
    """The next token of each text, of which `going` says the indices."""
    if sampling.temperature == 0:
        greedy: list[int] = logits.argmax(-1).tolist()
        return greedy
    draws = [random.Random(f"{sampling.seed}/{index}/{position}").random() for index in going]
    below = probabilities(logits, sampling).double().cumsum(-1)
    reached = torch.tensor(draws, dtype=torch.float64).unsqueeze(1) * below[:, -1:]
    drawn = torch.searchsorted(below, reached, right=True).clamp(max=logits.shape[1] - 1)
    tokens: list[int] = drawn[:, 0].tolist()
    return tokens


def with_end(sampling: Sampling, spec: DataSpec) -> Sampling:
    """With the data's own end where none is given."""
    if sampling.end is not None:
        return sampling
    if isinstance(spec.input, TokenPair):
        return replace(sampling, end=spec.input.end)
    return replace(sampling, end=spec.target.end) if isinstance(spec.target, NextTokens) else sampling
