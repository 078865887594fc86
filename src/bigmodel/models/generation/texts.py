"""Texts being written: their tokens, what of them the model sees, and what it remembers."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from bigmodel.models.base import Writer
from bigmodel.runtime.device import sent
from bigmodel.spec import DataSpec, TokenPair, Tokens


def window_start(length: int, context: int) -> int:
    """Where what a model sees of a text begins, once the text has `length` tokens.

    0 while it fits into `context`; after that half a context, rounded down, is dropped at a time.
    """
    half = max(1, context // 2)
    return half * max(0, math.ceil((length - context) / half))


class Texts:
    """Texts being written, the model's memory of them, and the logits of each one's next token.

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
        more: int,
        sources: list[list[int]] | None = None,
    ) -> None:
        assert isinstance(spec.input, Tokens | TokenPair)
        self.model, self.rows, self.sources, self.device = model, rows, sources, device
        self.context, self.more = spec.input.length, more
        self.pad, self.banned = 0, list[int]()
        if isinstance(spec.input, TokenPair):  # neither is ever asked for
            self.pad, self.banned = spec.input.pad, [spec.input.pad, spec.input.start]
        self.memory: Any = None
        self.logits = torch.empty(0)
        self.undefined: list[bool] = []

    def begin(self) -> None:
        """Reads all there is of each text that the model can see."""
        known = [row[window_start(len(row), self.context) :] for row in self.rows]
        lengths = [len(row) for row in known]
        inputs = self._filled(known)
        if self.sources is not None:
            width = max(len(row) for row in (*known, *self.sources))
            inputs = torch.stack([self._filled(self.sources, width), self._filled(known, width)], dim=1)
        room = min(self.context, max(lengths) + self.more)
        logits, self.memory = self.model.begin(inputs, lengths, room)
        self._take(logits)

    def append(self, tokens: list[int]) -> None:
        """Adds a token to each text."""
        full = False
        for row, token in zip(self.rows, tokens, strict=True):
            row.append(token)
            full |= window_start(len(row), self.context) != window_start(len(row) - 1, self.context)
        if full:
            self.begin()
        else:
            added = sent(torch.tensor(tokens), self.device)
            self._take(self.model.extend(added, self.memory))

    def select(self, rows: list[int]) -> None:
        """Goes on with these texts, of which one may be there several times."""
        if rows == list(range(len(self.rows))):
            return
        self.rows = [list(self.rows[row]) for row in rows]
        self.sources = None if self.sources is None else [self.sources[row] for row in rows]
        self.memory = self.memory.select(rows)

    def _take(self, logits: Tensor) -> None:
        # on the CPU, where tokens are needed next, and where adding up is repeatable
        self.logits = logits.float().cpu()
        self.undefined = (~self.logits.amax(-1).isfinite()).tolist()
        if self.banned:
            self.logits[:, self.banned] = -torch.inf

    def _filled(self, rows: list[list[int]], width: int = 0) -> Tensor:
        width = width or max(len(row) for row in rows)
        full = [row + [self.pad] * (width - len(row)) for row in rows]
        return sent(torch.tensor(full), self.device)
