"""Texts with a target each as tokens, none longer than a model reads."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from bigmodel.data.parts import Texts
from bigmodel.data.texts.vocabulary import Encoded, Vocabulary


def encode_texts(
    vocabulary: Vocabulary, texts: Sequence[str], length: int, targets: Tensor
) -> tuple[Texts, int]:
    """Texts as tokens, and how many of them were cut to `length`.

    Args:
        vocabulary: with tokens for padding and for unknown text.
        texts: one for each target.
        length: the most tokens of a text, those of a pretrained model's template included.
        targets: as a part stores them.
    """
    return as_samples(vocabulary, vocabulary.encode_all(texts), length, targets)


def as_samples(
    vocabulary: Vocabulary, encoded: Encoded, length: int, targets: Tensor
) -> tuple[Texts, int]:
    """The same for texts that `vocabulary` has encoded."""
    assert vocabulary.pad is not None
    assert vocabulary.unknown is not None
    sizes = encoded.sizes.clamp(min=1, max=length)
    # The user's own tokenizer may produce no tokens for a text: one unknown token replaces it.
    tokens = torch.cat([encoded.tokens, encoded.tokens.new_tensor([vocabulary.unknown])])
    starts = encoded.starts.masked_fill(encoded.sizes == 0, len(encoded.tokens))
    for place in range(1, vocabulary.template[1] + 1):  # what comes after a text is never cut
        longer = encoded.sizes > length
        last = encoded.starts + encoded.sizes - place
        tokens[(starts + length - place)[longer]] = tokens[last[longer]]
    return Texts(tokens, starts, sizes, targets, vocabulary.pad), int((encoded.sizes > length).sum())
