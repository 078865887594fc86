"""Runs a step once and notes torch's operations as values."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from bigmodel.engine.compiled import UnknownOperationError
from bigmodel.engine.functional_step import UntraceableError
from bigmodel.engine.native.building import Lowering, layout_of, literal
from bigmodel.engine.native.operations import OPERATIONS
from bigmodel.engine.native.operations.elementwise import works_in_place
from bigmodel.engine.native.operations.indexing import replaced
from bigmodel.engine.native.values import Draw, Input, Operand, Pointwise, Value, laid_out
from bigmodel.runtime import torch_internals

aten = torch.ops.aten

_IN_PLACE_VIEWS = {aten.transpose_.default, aten.t_.default, aten.squeeze_.dim, aten.unsqueeze_.default}


MAX_BYTES = 1 << 30
"""Bytes that a step may compute, since a recording keeps all of them, and eager steps far less."""


class Recording(torch_internals.OperationMode or object):  # type: ignore[misc]
    """While it is entered, every operation on tensors is done and noted.

    Args:
        given: the tensors that the step may read and change, in order.

    Attributes:
        draws: the random numbers that it needs.

    Raises:
        UnknownOperationError: when an operation comes that this compiler does not know.
        UntraceableError: when one reads a tensor that was not given.
    """

    def __init__(self, given: Sequence[Tensor]) -> None:
        super().__init__()
        self._contents: dict[int, Value] = {}
        self._inputs: dict[int, Input] = {}
        # Memory of tensors that are gone would be given to others.
        self._kept: list[Any] = list(given)
        self._given = len(given)
        self._bytes = 0
        self.draws: list[Draw] = []
        for position, tensor in enumerate(given):
            value = Input(**layout_of(tensor), position=position)
            self._contents[_memory(tensor)] = self._inputs[_memory(tensor)] = value
        if len(self._contents) < len(given):
            raise UnknownOperationError("two tensors that share memory")

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # or torch would load its own compiler, which takes seconds

    def written(self) -> dict[Input, Value]:
        """The newest contents of the given tensors that were changed."""
        newest = ((given, self._contents[memory]) for memory, given in self._inputs.items())
        return {given: value for given, value in newest if given is not value}

    def operand(self, tensor: Tensor) -> Operand:
        """A tensor as it is now."""
        value = self._contents.get(_memory(tensor))
        if value is None:
            raise UntraceableError("it stores a tensor that is neither a parameter nor a buffer")
        offset = int(tensor.storage_offset())
        return Operand(value, tuple(tensor.shape), tuple(tensor.stride()), offset)

    def __torch_dispatch__(
        self, operation: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Does the operation and notes it."""
        kwargs = kwargs or {}
        lowering = OPERATIONS.get(operation)
        if lowering is None:
            # Views are none of torch's decompositions, but some operations that may be views are made of
            # others, such as reshape.
            known = None if operation.is_view else torch_internals.decomposition(operation)
            with self:
                parts = (known or operation.decompose)(*args, **kwargs)
            if parts is not NotImplemented:
                return parts
        # Before the operation is done: one that works in place reads what was there.
        noted = self._noted((args, kwargs)) if lowering is not None else None
        result = operation(*args, **kwargs)
        self._kept.append(result)
        self._count(result)
        if operation is aten.lift_fresh.default:
            self._note_constant(result)
        elif operation is aten.bernoulli_.float and set(kwargs) <= {"generator"}:
            self._note_draw(result, *args[1:])
        elif lowering is not None:
            self._note(operation, lowering, noted, result)
        elif not self._is_view(operation, result):
            raise UnknownOperationError(str(operation))
        return result

    def _count(self, result: Any) -> None:
        for tensor in result if isinstance(result, list | tuple) else [result]:
            if isinstance(tensor, Tensor) and _memory(tensor) not in self._contents:
                self._bytes += tensor.untyped_storage().nbytes()
        if self._bytes > MAX_BYTES:
            raise UnknownOperationError("a step that computes more than fits here")

    def _note(self, operation: Any, lowering: Lowering, noted: Any, result: Any) -> None:
        arguments, options = noted
        results = [result] if isinstance(result, Tensor) else [t for t in result if t is not None]
        for tensor, value in zip(results, lowering(results, *arguments, **options), strict=True):
            if laid_out(value) != laid_out(Operand(value, tuple(tensor.shape), tensor.stride())):
                raise UnknownOperationError(f"{operation} with a result that is laid out otherwise")
            if works_in_place(operation) and not self.operand(tensor).is_whole:
                value = replaced(self.operand(tensor), value)
            self._contents[_memory(tensor)] = value

    def _noted(self, argument: Any) -> Any:
        """Operands in place of tensors."""
        if isinstance(argument, Tensor):
            return self.operand(argument)
        if isinstance(argument, list | tuple):
            return [self._noted(item) for item in argument]
        if isinstance(argument, dict):
            return {key: self._noted(item) for key, item in argument.items()}
        return argument

    def _note_draw(self, tensor: Tensor, share: float = 0.5) -> None:
        """Random numbers are drawn by torch, in the same order as by eager steps."""
        if tensor.dtype is not torch.float32 or not _fills_memory(tensor) or not tensor.is_contiguous():
            raise UnknownOperationError("random numbers in a part of a tensor")
        position = self._given + len(self.draws)
        self.draws.append(Draw(tensor.numel(), share))
        self._contents[_memory(tensor)] = Input(**layout_of(tensor), position=position)

    def _note_constant(self, tensor: Tensor) -> None:
        if tensor.numel() != 1:
            raise UnknownOperationError("a tensor of several numbers")
        text = literal(tensor.item(), tensor.dtype)
        constant = Pointwise(**layout_of(tensor), expression=lambda: text, compute=None)
        self._contents[_memory(tensor)] = constant

    def _is_view(self, operation: Any, result: Any) -> bool:
        if operation in _IN_PLACE_VIEWS or operation.namespace == "profiler":
            return True
        tensors = [result] if isinstance(result, Tensor) else result
        return (
            not works_in_place(operation)
            and isinstance(tensors, list | tuple)
            and all(isinstance(t, Tensor) and _memory(t) in self._contents for t in tensors)
        )


def _memory(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


def _fills_memory(tensor: Tensor) -> bool:
    """Whether it is all of its memory, each element once."""
    return (
        tensor.numel() > 0
        and tensor.numel() * tensor.element_size() == tensor.untyped_storage().nbytes()
    )
