"""The words that pieces of a text belong to."""

from __future__ import annotations

import re
from collections.abc import Sequence

_WORD = re.compile(r"\w+(?:['’]\w+)*")


def words_of(pieces: Sequence[str]) -> tuple[list[str], list[int]]:
    """The words of a text, and for each piece the index of the word that most of it is in; -1: none,
    such as of a blank."""
    text = "".join(pieces)
    spans = [word.span() for word in _WORD.finditer(text)]
    found: list[int] = []
    word = first = 0
    for piece in pieces:
        last = first + len(piece)
        while word < len(spans) and spans[word][1] <= first:
            word += 1
        most, best = 0, -1
        for index in range(word, len(spans)):
            start, end = spans[index]
            if start >= last:
                break
            if (shared := min(end, last) - max(start, first)) > most:
                most, best = shared, index
        found.append(best)
        first = last
    return [text[start:end] for start, end in spans], found


def word_sums(pieces: Sequence[str], values: Sequence[float]) -> list[tuple[str, float]]:
    """Each word of a text, in order, with the sum of its pieces' numbers."""
    words, indices = words_of(pieces)
    sums = [0.0] * len(words)
    for index, value in zip(indices, values, strict=True):
        if index >= 0:
            sums[index] += value
    return list(zip(words, sums, strict=True))
