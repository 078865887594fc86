"""The base of all models: a body that turns inputs into features, and a head that reads them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

Score = Callable[[Tensor, nn.Module], Tensor]
"""Gives a loss or scores from features and a head."""


class Model(nn.Module):
    """Base of all models: `head(features(inputs))`.

    The two parts are separate so that a loss can fuse with the head, and so that another head can be put
    on the same body. A subclass sets `head` and implements `features`. It is built from its typed config
    and the `DataSpec`, and raises `SpecError` if it cannot read the data.
    """

    head: nn.Module

    def features(self, inputs: Tensor) -> Tensor:
        """Maps inputs, shaped as the spec says, to features of shape (batch, width).

        If the target is the next token, they are (batch, length, width).
        """
        raise NotImplementedError

    def forward(self, inputs: Tensor, score: Score | None = None) -> Tensor:
        """Maps inputs to outputs of shape (batch, spec.target.output_size).

        If the target is the next token, they are (batch, length, vocab_size).

        Args:
            score: called with features and head; its result is returned instead of outputs.
        """
        features = self.features(inputs)
        if score is not None:
            return score(features, self.head)
        outputs: Tensor = self.head(features)
        return outputs


class DecodingCache(ABC):
    """What a model that writes keeps of the tokens read so far, one row for each text of the batch."""

    @abstractmethod
    def select(self, rows: list[int]) -> DecodingCache:
        """The cache of `rows`, in that order: some, all, or one several times."""


Memory = DecodingCache  # its former name, which plugins may import


class Writer(Model):
    """A model whose target is the next token, and that writes token by token, with a cache.

    The logits of `prefill` and `decode` are those of `forward` at the last token of each text, as if the
    whole text had been read at once. A subclass may instead define them under their former names,
    `begin` and `extend`.
    """

    def prefill(self, inputs: Tensor, lengths: list[int], max_length: int) -> tuple[Tensor, Any]:
        """Reads the beginning of each text.

        Args:
            inputs: shaped as the spec says; shorter texts are padded with any token.
            lengths: how many tokens each text has, at least 1; of pairs, those of row 1.
            max_length: how many tokens a text may come to have.

        Returns:
            Logits of the next token, (batch, vocab_size), and the `DecodingCache`.
        """
        # Called by position, since plugins call the last argument `room`.
        first: tuple[Tensor, Any] = self._former("begin")(inputs, lengths, max_length)
        return first

    def decode(self, tokens: Tensor, cache: Any) -> Tensor:
        """Reads one more token of each text, and updates `cache` in place.

        Args:
            tokens: (batch,) integers.

        Returns:
            Logits of the token after it: (batch, vocab_size).
        """
        logits: Tensor = self._former("extend")(tokens, cache)
        return logits

    def _former(self, name: str) -> Callable[..., Any]:
        """The method that a plugin has under its former name.

        Raises:
            NotImplementedError: it has none.
        """
        method: Callable[..., Any] | None = getattr(self, name, None)
        if method is None:
            raise NotImplementedError(f"{type(self).__name__} has no `prefill` and `decode`.")
        return method


@contextmanager
def eval_mode(model: nn.Module) -> Iterator[None]:
    """Within it all modules are in evaluation mode; afterwards each has its own mode again."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training
