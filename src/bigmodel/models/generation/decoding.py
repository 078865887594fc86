"""Texts being decoded side by side: their tokens, the window that the model sees, and its cache."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from bigmodel.models.base import Writer
from bigmodel.runtime.device import to_device
from bigmodel.spec import DataSpec, TokenPair, Tokens


def window_start(length: int, context: int) -> int:
    """Where the model's window on a text begins, once the text has `length` tokens.

    0 while the text fits into `context`; after that half a context, rounded down, is dropped at a time.
    """
    half = max(1, context // 2)
    return half * max(0, math.ceil((length - context) / half))


class DecodingBatch:
    """Texts being decoded, the model's cache of them, and the logits of each one's next token.

    Args:
        rows: the tokens of each text.
        max_new_tokens: how many more each text may get.
        sources: what an encoder–decoder translates.

    Attributes:
        logits: (texts, vocab_size) float32, on the CPU.
        undefined: for which texts they are NaN or infinite, so that there is no next token.
    """

    def __init__(
        self,
        model: Writer,
        rows: list[list[int]],
        spec: DataSpec,
        device: torch.device | str,
        max_new_tokens: int,
        sources: list[list[int]] | None = None,
    ) -> None:
        assert isinstance(spec.input, Tokens | TokenPair)
        self.model, self.rows, self.sources, self.device = model, rows, sources, device
        self.context, self.max_new_tokens = spec.input.length, max_new_tokens
        self.pad, self.banned = 0, list[int]()
        if isinstance(spec.input, TokenPair):  # no target contains these two
            self.pad, self.banned = spec.input.pad, [spec.input.pad, spec.input.start]
        self.cache: Any = None
        self.logits = torch.empty(0)
        self.undefined: list[bool] = []

    def prefill(self) -> None:
        """Reads each text as far as the model can see it."""
        visible = [row[window_start(len(row), self.context) :] for row in self.rows]
        lengths = [len(row) for row in visible]
        inputs = self._padded(visible)
        if self.sources is not None:
            width = max(len(row) for row in (*visible, *self.sources))
            both = [self._padded(self.sources, width), self._padded(visible, width)]
            inputs = torch.stack(both, dim=1)
        max_length = min(self.context, max(lengths) + self.max_new_tokens)
        logits, self.cache = self.model.prefill(inputs, lengths, max_length)
        self._set_logits(logits)

    def append(self, tokens: list[int]) -> None:
        """Adds a token to each text."""
        is_window_moved = False
        for row, token in zip(self.rows, tokens, strict=True):
            row.append(token)
            start, before = (window_start(size, self.context) for size in (len(row), len(row) - 1))
            is_window_moved |= start != before
        if is_window_moved:  # all positions are others now
            self.prefill()
        else:
            new = to_device(torch.tensor(tokens), self.device)
            self._set_logits(self.model.decode(new, self.cache))

    def select(self, rows: list[int]) -> None:
        """Keeps these texts only; one may be selected several times."""
        if rows == list(range(len(self.rows))):
            return
        self.rows = [list(self.rows[row]) for row in rows]
        self.sources = None if self.sources is None else [self.sources[row] for row in rows]
        self.cache = self.cache.select(rows)

    def _set_logits(self, logits: Tensor) -> None:
        # On the CPU, where tokens are needed next, and where sums do not depend on the order of threads.
        self.logits = logits.float().cpu()
        self.undefined = (~self.logits.amax(-1).isfinite()).tolist()
        if self.banned:
            self.logits[:, self.banned] = -torch.inf

    def _padded(self, rows: list[list[int]], width: int = 0) -> Tensor:
        width = width or max(len(row) for row in rows)
        padded = [row + [self.pad] * (width - len(row)) for row in rows]
        return to_device(torch.tensor(padded), self.device)
