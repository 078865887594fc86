"""What every model is: a body that turns inputs into features, and a head that reads them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

from torch import Tensor, nn


class Model(nn.Module):
    """Base of all models: `head(features(inputs))`.

    The two parts are apart so that a loss may fuse with the head, and so that another head can be put
    on the same body. A subclass sets `head` and implements `features`; it is built from its typed
    config and the `DataSpec`, and raises `SpecError` where it cannot read the data.
    """

    head: nn.Module

    def features(self, inputs: Tensor) -> Tensor:
        """Maps inputs, shaped as the spec says, to features of shape (batch, width).

        Where the target is the next token, they are (batch, length, width).
        """
        raise NotImplementedError

    def forward(
        self, inputs: Tensor, score: Callable[[Tensor, nn.Module], Tensor] | None = None
    ) -> Tensor:
        """Maps inputs to outputs of shape (batch, spec.target.output_size).

        Where the target is the next token, they are (batch, length, vocab_size).

        Args:
            score: is given features and head instead of outputs; its result is returned.
        """
        features = self.features(inputs)
        if score is not None:
            return score(features, self.head)
        outputs: Tensor = self.head(features)
        return outputs


class Memory(ABC):
    """What a model that writes keeps of the tokens read so far, one row for each text of the batch."""

    @abstractmethod
    def select(self, rows: list[int]) -> Memory:
        """The memory of `rows`, in that order: some, all, or one several times."""


class Writer(Model):
    """A model whose target is the next token, and that can write: token after token, from a memory.

    What `begin` and `extend` give is what `forward` gives at the last token of each text, as if all of
    it had been read at once.
    """

    def begin(self, inputs: Tensor, lengths: list[int], room: int) -> tuple[Tensor, Any]:
        """Reads what is known of each text.

        Args:
            inputs: shaped as the spec says; texts shorter than others are filled up with any token.
            lengths: how many tokens each text has, 1 or more; of pairs, those of row 1.
            room: how many tokens a text may come to have.

        Returns:
            Logits of the next token, (batch, vocab_size), and the `Memory` of what was read.
        """
        raise NotImplementedError

    def extend(self, tokens: Tensor, memory: Any) -> Tensor:
        """Reads one more token of each text, and remembers it in `memory` itself.

        Args:
            tokens: (batch,) whole numbers.

        Returns:
            Logits of the token after it: (batch, vocab_size).
        """
        raise NotImplementedError
