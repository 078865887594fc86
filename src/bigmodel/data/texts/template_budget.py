"""What a chat template may do in one rendering: counted, not timed, for the same result anywhere."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from jinja2.exceptions import SecurityError
from jinja2.utils import Namespace

MOST_STEPS = 200_000
"""Loops, calls and look-ups of a template."""

MOST_TEXT = 10_000_000
"""Characters of one value; an entry of a list or a mapping counts as ten."""

MOST_WORK = 100_000_000
"""Characters, counted alike, that a rendering reads and makes."""

_ENTRY = 10  # also the size of what has no length
_MOST_INTEGER = 1 << 128
_CONTAINERS: Any = (list, tuple, dict, type({}.keys()), type({}.values()), type({}.items()))
_SIZED: Any = (*_CONTAINERS, range)


class Budget:
    """Steps and work of one rendering."""

    def __init__(self) -> None:
        self._steps = self._work = 0
        # By identity. Holding on to the containers keeps their identities theirs; they cannot change.
        self._sizes: dict[int, tuple[Any, int]] = {}

    def step(self) -> bool:
        """Counts a step; True, for use as a condition.

        Raises:
            SecurityError: the template has taken too many.
        """
        self._steps += 1
        if self._steps > MOST_STEPS:
            raise SecurityError(f"it takes more than {MOST_STEPS:,} steps")
        return True

    def charge(self, size: int) -> None:
        """Counts work, and checks that it is no more than one value may ask for.

        Raises:
            SecurityError: it is, or the template has done too much in all.
        """
        if size > MOST_TEXT:
            raise SecurityError(f"it makes something of more than {MOST_TEXT:,} characters")
        self.spend(size)

    def spend(self, size: int) -> None:
        """Counts work of any size.

        Raises:
            SecurityError: the template has done too much in all.
        """
        self._work += size
        if self._work > MOST_WORK:
            raise SecurityError(f"it reads and makes more than {MOST_WORK:,} characters")

    def made(self, value: Any) -> Any:
        """The value, once it is charged for; what it contains was charged for before.

        Raises:
            SecurityError: it is too large, all that is nested in it included.
        """
        self.size(value)
        self.charge(shallow_size(value))
        return value

    def taken(self, iterator: Iterator[Any]) -> list[Any]:
        """All that an iterator gives, each a step."""
        found = []
        for value in iterator:
            self.step()
            found.append(value)
        return found

    def size(self, value: Any) -> int:
        """The size of a value and of all that is nested in it, however often it is the same.

        Raises:
            SecurityError: it is too large, or holds a namespace, which could change later.
        """
        if isinstance(value, str):
            size = len(value)
        elif isinstance(value, _CONTAINERS):
            size = self._nested_size(value)
        elif isinstance(value, Namespace):
            raise SecurityError("a namespace cannot be compared, written or kept in another value")
        else:
            if isinstance(value, int) and abs(value) > _MOST_INTEGER:
                raise SecurityError("its numbers are too large")
            size = shallow_size(value)
        if size > MOST_TEXT:
            raise SecurityError(f"it makes something of more than {MOST_TEXT:,} characters")
        return size

    def _nested_size(self, value: Any) -> int:
        known = self._sizes.get(id(value))
        if known is None:
            inside: Iterable[Any] = value
            if isinstance(value, Mapping):
                inside = (part for pair in value.items() for part in pair)
            size = shallow_size(value) + sum(self.size(part) for part in inside)
            known = self._sizes[id(value)] = (value, size)
        return known[1]


def shallow_size(value: Any) -> int:
    """The size of a value without what is nested in it."""
    if isinstance(value, str):
        return len(value)
    entries = len(value) if isinstance(value, _SIZED) else 0
    return _ENTRY * (1 + entries)
