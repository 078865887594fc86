"""The order in which values are computed, those over the same elements in one loop."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from bigmodel.engine.native.values import (
    Gathered,
    Input,
    Joined,
    Operand,
    Part,
    Pointwise,
    Product,
    Reduction,
    RowSums,
    Shape,
    Value,
)


@dataclass(eq=False)
class Group:
    """Values that are computed together.

    Attributes:
        shape: of the loop, without dimensions of length 1; None: one value that is no loop.
        values: in order.
    """

    shape: Shape | None
    values: list[Value] = field(default_factory=list)


@dataclass(eq=False)
class Schedule:
    """Groups in order, and where each value is computed.

    Attributes:
        place: the number of the group of each value; that of inputs and constants is -1.
        results: what all is computed for.
        stored: the values that have to be in memory.
    """

    groups: list[Group]
    place: dict[Value, int]
    results: set[Value]
    stored: set[Value]


def schedule(results: Iterable[Value]) -> Schedule:
    """Orders all values that the results need."""
    groups: list[Group] = []
    place: dict[Value, int] = {}
    by_shape: dict[Shape, list[int]] = {}
    results = list(results)
    for value in _in_order(results):
        if isinstance(value, Input) or _is_constant(value):
            place[value] = -1
            continue
        if isinstance(value, Joined):
            place[value] = max(place[part.value] for part in value.operands)
            continue
        shape = _loop_shape(value)
        first = 0
        for operand in value.operands:
            at = place[operand.value]
            together = at >= 0 and groups[at].shape == shape and is_at_hand(value, operand)
            first = max(first, at if together else at + 1)
        later = by_shape.setdefault(shape, []) if shape is not None else []
        number = next((known for known in later if known >= first), len(groups))
        if number == len(groups):
            groups.append(Group(shape))
            later.append(number)
        groups[number].values.append(value)
        place[value] = number
    ordered = Schedule(groups, place, set(results), set(results))
    ordered.stored |= _read_from_memory(ordered)
    return ordered


def _read_from_memory(of: Schedule) -> set[Value]:
    found: set[Value] = set()
    for number, group in enumerate(of.groups):
        for value in group.values:
            if isinstance(value, Reduction):
                found.add(value)
            found |= {
                operand.value
                for operand in value.operands
                if of.place[operand.value] >= 0
                and not (of.place[operand.value] == number and is_at_hand(value, operand))
            }
    return found


def is_at_hand(value: Value, operand: Operand) -> bool:
    """Whether a loop that computes an operand has just computed the element that the value reads."""
    computed_in_loop = isinstance(operand.value, Pointwise | Gathered)
    in_loop = isinstance(value, Pointwise | Gathered | Reduction | Part)
    is_source = isinstance(value, Gathered) and operand is value.operands[1]
    return in_loop and computed_in_loop and operand.is_whole and not is_source


def _is_constant(value: Value) -> bool:
    return isinstance(value, Pointwise) and value.constant is not None


def _loop_shape(value: Value) -> Shape | None:
    if isinstance(value, Product | RowSums):
        return None
    shape = value.operands[0].shape if isinstance(value, Reduction) else value.shape
    return tuple(size for size in shape if size != 1)


def _in_order(results: Iterable[Value]) -> list[Value]:
    """All values that the results need, each after its operands."""
    ordered: dict[Value, None] = {}
    stack = [(value, False) for value in reversed(list(results))]
    while stack:
        value, is_ready = stack.pop()
        if value in ordered:
            continue
        if is_ready:
            ordered[value] = None
        else:
            stack.append((value, True))
            stack += [(operand.value, False) for operand in reversed(value.operands)]
    return list(ordered)
