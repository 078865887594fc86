"""Which part of a tensor a rank holds, when no rank holds all of it."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

Runs = tuple[tuple[int, int], ...]
Box = tuple[tuple[int, int], ...]
"""A block of a tensor: for each dimension where it starts and stops."""


@dataclass(frozen=True)
class Part:
    """The rows, columns, … of a whole tensor that a rank holds.

    Attributes:
        shape: of the whole tensor.
        index: for each dimension the runs (start, stop) that are held, in the order in which they lie in
            the part. Query, key and value weights in one matrix, for example, are three runs of rows.
        kept: whether this rank writes the part into checkpoints; False if another one, which holds the
            same, does.
    """

    shape: tuple[int, ...]
    index: tuple[Runs, ...]
    kept: bool = True

    @classmethod
    def rows(cls, shape: tuple[int, ...], start: int, stop: int, *, kept: bool = True) -> Part:
        """Rows `start` to `stop` of a tensor with at least one dimension."""
        return cls(shape, (((start, stop),), *(((0, size),) for size in shape[1:])), kept)

    @property
    def part_shape(self) -> tuple[int, ...]:
        """The shape of the part."""
        return tuple(sum(stop - start for start, stop in runs) for runs in self.index)

    def cut(self, whole: Tensor) -> Tensor:
        """This part of the whole tensor; a view where it is one block, otherwise a copy.

        Raises:
            ValueError: the whole tensor has another shape.
        """
        self._check(whole, self.shape)
        for dimension, runs in enumerate(self.index):
            pieces = [whole.narrow(dimension, start, stop - start) for start, stop in runs]
            if len(pieces) == 1:
                whole = pieces[0]
            else:
                whole = torch.cat(pieces, dimension) if pieces else whole.narrow(dimension, 0, 0)
        return whole

    def paste(self, part: Tensor, whole: Tensor) -> None:
        """Copies the part into its place in the whole tensor.

        Raises:
            ValueError: one of them has another shape.
        """
        self._check(part, self.part_shape)
        self._check(whole, self.shape)
        for here, there in self.boxes():
            whole[_slices(there)] = part[_slices(here)]

    def boxes(self) -> Iterator[tuple[Box, Box]]:
        """The blocks that the part consists of: where each lies in the part, and where in the whole."""
        for there in itertools.product(*self.index):
            yield self._within(there), there

    def to_json(self) -> dict[str, Any]:
        """For JSON, without `kept` and empty runs."""
        index = [[run for run in runs if run[0] < run[1]] for runs in self.index]
        return {"shape": self.shape, "index": index}

    @classmethod
    def from_json(cls, value: Any) -> Part:
        """The part that `to_json` described.

        Raises:
            ValueError: it describes no part of a tensor.
        """
        try:
            shape = tuple(map(int, value["shape"]))
            index = tuple(tuple((int(a), int(b)) for a, b in runs) for runs in value["index"])
        except (KeyError, TypeError, OverflowError) as error:
            raise ValueError(f"no part of a tensor: {value!r}") from error
        inside = all(
            0 <= start < stop <= size
            for size, runs in zip(shape, index, strict=False)
            for start, stop in runs
        )
        if len(shape) != len(index) or not inside or min(shape, default=0) < 0:
            raise ValueError(f"no part of a tensor: {value!r}")
        return cls(shape, index)

    def _within(self, there: Box) -> Box:
        """Where a block of the whole lies in the part."""
        here = []
        for runs, run in zip(self.index, there, strict=True):
            before = sum(stop - start for start, stop in runs[: runs.index(run)])
            here.append((before, before + run[1] - run[0]))
        return tuple(here)

    def _check(self, tensor: Tensor, shape: tuple[int, ...]) -> None:
        if tuple(tensor.shape) != shape:
            raise ValueError(f"a tensor of shape {tuple(tensor.shape)}, where {shape} was expected")


def _slices(box: Box) -> tuple[slice, ...]:
    return tuple(slice(start, stop) for start, stop in box)
