"""Writes the loops of a schedule."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import torch

from bigmodel.engine.native.building import C_TYPES
from bigmodel.engine.native.memory import Memory, in_memory_type
from bigmodel.engine.native.schedule import Group, Schedule, is_at_hand
from bigmodel.engine.native.values import (
    Gathered,
    Operand,
    Part,
    Pointwise,
    Reduction,
    Shape,
    Value,
)

_COMBINED = {
    "+": "{0} + {1}",
    "&": "{0} & {1}",
    "|": "{0} | {1}",
    "max": "{1} > {0} ? {1} : {0}",
    "min": "{1} < {0} ? {1} : {0}",
}


@dataclass
class _Nest:
    """A loop's dimensions, in the order in which they are nested, merged where that changes nothing.

    Attributes:
        dims: for each level: the dimensions of the group that it runs over, the innermost last.
    """

    sizes: Shape
    dims: list[list[int]]

    def strides(self, of: Shape) -> list[int]:
        """Strides by level."""
        return [of[level[-1]] for level in self.dims]

    def length(self, level: int) -> int:
        """Iterations of a level."""
        length = 1
        for d in self.dims[level]:
            length *= self.sizes[d]
        return length


@dataclass
class Loop:
    """Writes a group of values as one loop nest.

    Attributes:
        pointers: by where the loop reads or writes, in C, the type and the loop's own name, numbered in
            the order of use, so that loops that do the same have the same text.
    """

    group: Group
    schedule: Schedule
    memory: Memory
    before: list[list[str]] = field(default_factory=list)
    after: list[list[str]] = field(default_factory=list)
    stores: list[str] = field(default_factory=list)
    start: list[str] = field(default_factory=list)
    combined: dict[str, list[str]] = field(default_factory=dict)
    loaded: dict[tuple[str, str], str] = field(default_factory=dict)
    pointers: dict[str, tuple[str, str]] = field(default_factory=dict)
    variables: dict[Value, str] = field(default_factory=dict)

    def lines(self) -> Iterator[str]:
        """The loop nest."""
        shape = self.group.shape
        assert shape is not None
        self.nest = _nested(shape, self.group.values)
        depth = len(self.nest.dims)
        self.before = [[] for _ in range(depth + 1)]
        self.after = [[] for _ in range(depth + 1)]
        for value in self.group.values:
            self._compute(value)
        yield from self.start
        for level in range(depth):
            yield from self.before[level]
            if level == depth - 1:
                kinds = "".join(
                    f" reduction({how} : {', '.join(names)})" for how, names in self.combined.items()
                )
                yield f"#pragma omp simd{kinds}"
            yield f"    for (i64 i{level} = 0; i{level} < {self.nest.length(level)}; i{level}++) {{"
        yield from self.before[depth]
        yield from self.stores
        for level in reversed(range(depth)):
            yield "    }"
            yield from self.after[level]

    def _variable(self, value: Value) -> str:
        return self.variables.setdefault(value, f"v{len(self.variables)}")

    def _pointer(self, value: Value, offset: int = 0) -> str:
        place = f"{self.memory.name(value)} + {offset}" if offset else self.memory.name(value)
        own = in_memory_type(value.dtype), f"a{len(self.pointers)}"
        return self.pointers.setdefault(place, own)[1]

    def _compute(self, value: Value) -> None:
        body = self.before[-1]
        name, kind = self._variable(value), C_TYPES[value.dtype]
        if isinstance(value, Pointwise):
            texts = [self._read(value, operand, value.compute) for operand in value.operands]
            if value.counted is not None:
                texts.append(self._index(value.shape, value.counted))
            text = value.expression(*texts)
            is_flag = value.dtype is torch.bool  # whatever is not 0 is 1
            body.append(f"const {kind} {name} = {f'({text}) != 0' if is_flag else text};")
        elif isinstance(value, Gathered):
            self._gather(value, name, kind)
        elif isinstance(value, Part):
            text = self._read(value, value.operands[0], value.dtype)
            at = self._place(_of_levels(value.shape, value.strides))
            self.stores.append(f"{self._pointer(value, value.offset)}[{at}] = {text};")
            return
        elif isinstance(value, Reduction):
            self._reduce(value, name, kind)
            return
        if value in self.schedule.stored:
            at = self._place(_of_levels(value.shape, value.strides))
            self.stores.append(f"{self._pointer(value)}[{at}] = {name};")

    def _gather(self, value: Gathered, name: str, kind: str) -> None:
        index, source = value.operands
        at = self._read(value, index, torch.int64)
        place = self._place(_of_levels(source.shape, source.strides))
        self.combined.setdefault("|", [])
        if "fault" not in self.combined["|"]:
            self.combined["|"].append("fault")
        self.before[-1] += [
            f"const int off{name} = (unsigned long long){at} >= {value.length};",
            f"fault |= off{name};",
            f"const {kind} {name} = {self._pointer(source.value, source.offset)}"
            f"[{place} + {value.step} * (off{name} ? 0 : {at})];",
        ]

    def _reduce(self, value: Reduction, name: str, kind: str) -> None:
        operand = value.operands[0]
        text = self._read(value, operand, value.dtype)
        kept = self.nest.strides(_of_levels(operand.shape, value.kept))
        depth = 1 + max((level for level, stride in enumerate(kept) if stride), default=-1)
        target = f"{self._pointer(value)}[{self._terms(kept[:depth])}]"
        goes_on = 0 in kept[:depth]
        combine = _COMBINED[value.combine]
        if depth == len(kept) and kept:
            goes_on = True
            self.stores.append(f"{target} = {combine.format(target, text)};")
        else:
            self.before[depth].append(f"{kind} {name} = {value.start};")
            self.combined.setdefault(value.combine, []).append(name)
            self.before[-1].append(f"{name} = {combine.format(name, text)};")
            result = combine.format(target, name) if goes_on else name
            (self.after[depth] if kept else self.stores).append(f"{target} = {result};")
        if goes_on:
            memory = self._pointer(value)
            self.start.append(f"for (i64 i = 0; i < {value.size}; i++) {memory}[i] = {value.start};")

    def _read(self, value: Value, operand: Operand, compute: torch.dtype | None) -> str:
        source = operand.value
        if isinstance(source, Pointwise) and (text := source.constant) is not None:
            return f"(({C_TYPES[compute or source.dtype]}){text})"
        same_group = self.schedule.place[source] == self.schedule.place[value]
        if same_group and is_at_hand(value, operand):
            name = self._variable(source)
        else:
            name = self._load(operand)
        if compute is None or compute is source.dtype:
            return name
        return f"({name} != 0)" if compute is torch.bool else f"(({C_TYPES[compute]}){name})"

    def _load(self, operand: Operand) -> str:
        strides = self.nest.strides(_of_levels(operand.shape, operand.strides))
        depth = 1 + max((level for level, stride in enumerate(strides) if stride), default=-1)
        memory, place = self._pointer(operand.value, operand.offset), self._terms(strides)
        if (memory, place) not in self.loaded:
            name = self.loaded[memory, place] = f"l{len(self.loaded)}"
            kind = C_TYPES[operand.value.dtype]
            self.before[depth].append(f"const {kind} {name} = {memory}[{place}];")
        return self.loaded[memory, place]

    def _place(self, strides: Shape) -> str:
        return self._terms(self.nest.strides(strides))

    def _terms(self, strides: list[int]) -> str:
        terms = [f"i{level} * {stride}" for level, stride in enumerate(strides) if stride]
        return " + ".join(terms or ["0"])

    def _index(self, shape: Shape, dimension: int) -> str:
        """C of the index along a dimension of the values, which is never merged with others."""
        if not shape or shape[dimension] == 1:
            return "0"
        own = sum(size != 1 for size in shape[:dimension])
        return f"i{next(level for level, dims in enumerate(self.nest.dims) if dims == [own])}"


def _of_levels(shape: Shape, strides: Shape) -> Shape:
    """Strides of the dimensions that a loop has: those longer than 1."""
    return tuple(stride for size, stride in zip(shape, strides, strict=True) if size != 1)


def _nested(shape: Shape, values: list[Value]) -> _Nest:
    """The dimensions in the order in which most lies together, merged where all strides allow."""
    accesses: list[Shape] = []
    for value in values:
        if isinstance(value, Reduction):
            accesses.append(_of_levels(value.operands[0].shape, value.kept))
        else:
            accesses.append(_of_levels(value.shape, value.strides))
        accesses += [_of_levels(operand.shape, operand.strides) for operand in value.operands]
    lead = next((a for a in accesses if 0 not in a), accesses[0])
    order = sorted(range(len(shape)), key=lambda d: -lead[d])
    counted = {
        sum(size != 1 for size in value.shape[: value.counted])
        for value in values
        if isinstance(value, Pointwise) and value.counted is not None
    }
    levels: list[list[int]] = []
    for d in order:
        previous = levels[-1][-1] if levels else None
        if (
            previous is not None
            and not {previous, d} & counted
            and all(a[previous] == a[d] * shape[d] for a in accesses)
        ):
            levels[-1].append(d)
        else:
            levels.append([d])
    return _Nest(shape, levels)
