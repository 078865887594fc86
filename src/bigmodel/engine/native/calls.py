"""Writes the functions of a step, each once however often it is needed, and the calls of them."""

from __future__ import annotations

from collections.abc import Iterator

from bigmodel.engine.native.building import contiguous
from bigmodel.engine.native.loops import Loop
from bigmodel.engine.native.memory import Memory
from bigmodel.engine.native.schedule import Group, Schedule
from bigmodel.engine.native.values import Operand, Pointwise, Product, RowSums, Value


class Calls:
    """Writes calls, and each function that they need once: equal layers share theirs, and one long
    function takes a compiler longer than several short ones do.

    Attributes:
        functions: C of the functions.
        panel_floats: what the largest of the products needs for its panels.
    """

    def __init__(self, schedule: Schedule, memory: Memory) -> None:
        self._schedule, self._memory = schedule, memory
        self._loops: dict[str, str] = {}
        self._names: dict[tuple[int, ...], str] = {}
        self.functions: list[str] = []
        self.panel_floats = 0

    def lines(self, group: Group) -> Iterator[str]:
        """The calls that compute the values of a group."""
        if group.shape is not None:
            yield self._loop(group)
        elif isinstance(value := group.values[0], Product):
            yield from self._product(value)
        else:
            yield from self._row_sums(value)

    def _loop(self, group: Group) -> str:
        loop = Loop(group, self._schedule, self._memory)
        body = "\n".join(loop.lines())
        arguments = ", ".join(f"{kind}* const {name}" for kind, name in loop.pointers.values())
        text = f"({arguments}, int& fault) {{\n{body}\n}}"
        if text not in self._loops:
            name = self._loops[text] = f"loop_{len(self._loops)}"
            self.functions.append(f"static __attribute__((noinline)) void {name}{text}")
        given = ", ".join(loop.pointers)
        return f"    {self._loops[text]}({given}, fault);"

    def _product(self, value: Value) -> Iterator[str]:
        left, right = value.operands
        m, k, n = *left.shape[-2:], right.shape[-1]
        name = self._function(m, n, k, *left.strides[-2:], *right.strides[-2:])
        self.panel_floats = max(self.panel_floats, k * (n + 64))
        for level, size in enumerate(left.shape[:-2]):
            yield f"    for (i64 i{level} = 0; i{level} < {size}; i{level}++)"
        places = (self._at(left), self._at(right), self._memory.name(value))
        strides = (left.strides[:-2], right.strides[:-2], contiguous((*left.shape[:-2], m, n))[:-2])
        matrices = ", ".join(
            " + ".join([place, *(f"i{level} * {step}" for level, step in enumerate(steps))])
            for place, steps in zip(places, strides, strict=True)
        )
        yield f"      {name}({matrices}, panels);"

    def _function(self, m: int, n: int, k: int, *strides: int) -> str:
        """A product of matrices of one size; compiled apart, since all numbers in it are constants."""
        key = (m, n, k, *strides)
        if key not in self._names:
            name = self._names[key] = f"product_{len(self._names)}"
            am, ak, bk, bn = strides
            self.functions.append(
                f"static __attribute__((noinline)) void {name}"
                "(const float* a, const float* b, float* c, float* panels) "
                f"{{ product({m}, {n}, {k}, a, {am}, {ak}, b, {bk}, {bn}, c, panels); }}"
            )
        return self._names[key]

    def _row_sums(self, value: Value) -> Iterator[str]:
        assert isinstance(value, RowSums)
        base, index, source = value.operands
        rows, width, target = source.shape[0], value.size // value.shape[0], self._memory.name(value)
        row, column = (*source.strides, 0)[:2]
        first = self._element(base, "i")
        added = self._element(source, f"i * {row} + j * {column}")
        yield f"    for (i64 i = 0; i < {value.size}; i++) {target}[i] = {first};"
        yield f"    for (i64 i = 0; i < {rows}; i++) {{"
        yield f"      i64 at = {self._element(index, f'i * {index.strides[0]}')};"
        yield f"      if ((unsigned long long)at >= {value.shape[0]}) {{ fault = 1; at = 0; }}"
        yield f"      for (i64 j = 0; j < {width}; j++) {target}[at * {width} + j] += {added};"
        yield "    }"

    def _element(self, operand: Operand, place: str) -> str:
        value = operand.value
        if isinstance(value, Pointwise) and (text := value.constant) is not None:
            return text
        return f"({self._at(operand)})[{place}]"

    def _at(self, operand: Operand) -> str:
        return f"{self._memory.name(operand.value)} + {operand.offset}"
