"""Where values lie: in the tensors that are given, or in scratch memory that is used again and again."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch

from bigmodel.engine.compiled import UnknownOperationError
from bigmodel.engine.native.building import C_TYPES
from bigmodel.engine.native.schedule import Schedule
from bigmodel.engine.native.values import Gathered, Input, Joined, Part, Pointwise, Value, laid_out

_ALIGNMENT = 64


class Memory:
    """Places for all values that have to be in memory.

    Args:
        schedule: of the values.
        written: the new contents of inputs, which replace the old ones when a step is done.

    Attributes:
        bytes: of scratch memory.
    """

    def __init__(self, schedule: Schedule, written: dict[Input, Value]) -> None:
        self._schedule = schedule
        self._readers = self._all_readers()
        self._names: dict[Value, int] = {}
        self._at: dict[Value, int] = {}
        self._direct: dict[Value, Input] = {}
        self._copied: list[tuple[Input, Value]] = []
        self.bytes = 0
        for given, value in written.items():
            if laid_out(given) != laid_out(value) or given.dtype is not value.dtype:
                raise UnknownOperationError("a tensor whose layout changes")
            if self._can_replace(given, value):
                self._direct[value] = given
            elif math.prod(given.shape) < given.size:
                raise UnknownOperationError("a tensor with gaps that is written at the end")
            else:
                self._copied.append((given, value))
        self._allocate()

    def name(self, value: Value) -> str:
        """The name of a pointer to a value's memory."""
        if isinstance(value, Part):
            value = self._joined[value]
        value = self._direct.get(value, value)
        if isinstance(value, Input):
            return f"p{value.position}"
        return f"m{self._number(value)}"

    def declarations(self, inputs: int) -> str:
        """All pointers.

        Args:
            inputs: from which position on inputs are of the batch.
        """
        used = sorted(
            {value for value in self._schedule.place if isinstance(value, Input)}
            | set(self._direct.values())
            | {given for given, _ in self._copied},
            key=lambda value: value.position,
        )
        lines = []
        for value in used:
            kind, at = in_memory_type(value.dtype), value.position
            place = f"given[{at}]" if at < inputs else f"batch[{at - inputs}]"
            lines.append(f"    {kind}* const p{at} = ({kind}*){place};")
        lines += [
            f"    {in_memory_type(value.dtype)}* const m{self._number(value)} = "
            f"({in_memory_type(value.dtype)}*)(scratch + {at});"
            for value, at in self._at.items()
        ]
        return "\n".join(lines)

    def copies(self) -> Iterator[str]:
        """What has to be copied when all else is done."""
        for given, value in self._copied:
            size = given.size * given.dtype.itemsize
            yield f"    __builtin_memcpy({self.name(given)}, {self.name(value)}, {size});"

    def _number(self, value: Value) -> int:
        return self._names.setdefault(value, len(self._names))

    def _all_readers(self) -> dict[Value, list[tuple[int, Value]]]:
        """By value, who reads it, and in which group."""
        readers: dict[Value, list[tuple[int, Value]]] = {}
        self._joined: dict[Value, Joined] = {}
        for value in self._schedule.place:
            if isinstance(value, Joined):
                self._joined |= {part.value: value for part in value.operands}
        for number, group in enumerate(self._schedule.groups):
            for value in group.values:
                for operand in value.operands:
                    readers.setdefault(operand.value, []).append((number, value))
        return readers

    def _can_replace(self, given: Input, value: Value) -> bool:
        """Whether a value can be computed into the memory of an input, since nobody reads that later."""
        at = self._schedule.place[value]
        if at < 0 or value in self._direct or isinstance(value, Joined):
            return False
        # What combines elements is begun before the loop that may read them.
        is_in_turn = isinstance(value, Pointwise | Gathered)
        for number, reader in self._readers.get(given, []):
            if number > at:
                return False
            if number == at:
                whole = all(o.is_whole for o in reader.operands if o.value is given)
                if not (is_in_turn and whole):
                    return False
        return True

    def _allocate(self) -> None:
        """Gives each value its place; memory of values that nobody reads any more is used again."""
        begins: dict[int, list[Value]] = {}
        ends: dict[int, list[Value]] = {}
        last_group = len(self._schedule.groups)
        kept = {value for _, value in self._copied} | self._schedule.results
        for value in self._schedule.stored | kept:
            if isinstance(value, Input | Part) or value in self._direct:
                continue
            first = self._schedule.place[value]
            if isinstance(value, Joined):
                first = min(self._schedule.place[part.value] for part in value.operands)
            last = max((number for number, _ in self._readers.get(value, [])), default=first)
            begins.setdefault(first, []).append(value)
            ends.setdefault(last_group if value in kept else last, []).append(value)
        free: list[tuple[int, int]] = []
        for number in range(last_group + 1):
            for value in sorted(begins.get(number, []), key=self._number):
                self._at[value] = self._place(free, value.size * value.dtype.itemsize)
            free += [
                (self._at[value], _rounded(value.size * value.dtype.itemsize))
                for value in ends.get(number, [])
            ]

    def _place(self, free: list[tuple[int, int]], size: int) -> int:
        needed = _rounded(size)
        fitting = [hole for hole in free if hole[1] >= needed]
        if not fitting:
            self.bytes += needed
            return self.bytes - needed
        at, length = hole = min(fitting, key=lambda hole: hole[1])
        free.remove(hole)
        if length > needed:
            free.append((at + needed, length - needed))
        return at


def _rounded(size: int) -> int:
    return -(-size // _ALIGNMENT) * _ALIGNMENT


def in_memory_type(dtype: torch.dtype) -> str:
    """The type in C of a tensor's elements."""
    return "unsigned char" if dtype is torch.bool else C_TYPES[dtype]
