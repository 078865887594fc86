"""Tokens as text, one by one."""

from __future__ import annotations

from collections.abc import Callable, Sequence

_PENDING = 8  # tokens held back until a character is complete: it has at most 4 bytes


class Decoder:
    """Decodes tokens as they arrive; a character of several tokens comes once it is complete.

    The text of a token, such as a leading space, may depend on the token before it. So each piece is
    decoded together with the previous one.

    Args:
        decode: tokens to text.
        before: the tokens that precede the text, such as a prompt.
    """

    def __init__(self, decode: Callable[[list[int]], str], before: Sequence[int] = ()) -> None:
        self._decode = decode
        self._before = list(before)
        self._new: list[int] = []

    def add(self, token: int) -> str | None:
        """Adds a token; gives what is complete, or None if that is nothing yet."""
        self._new.append(token)
        text = self._text()
        pending = text.endswith("\ufffd") and len(self._new) <= _PENDING
        return None if pending else self._given(text)

    def finish(self) -> str:
        """Gives the rest, complete or not."""
        return self._given(self._text())

    def _text(self) -> str:
        known = self._decode(self._before)
        return self._decode(self._before + self._new)[len(known) :]

    def _given(self, text: str) -> str:
        self._before, self._new = self._new, []
        return text
