"""Runs the library of a compiled step: many steps in one call."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from bigmodel.data.base import Batch, Block
from bigmodel.engine.fixed_shape import FixedShapeEngine
from bigmodel.engine.functional_step import StepInputs, StepTensors
from bigmodel.engine.native.values import Draw
from bigmodel.engine.step import Step

_ALIGNMENT = 64


class NativeEngine(FixedShapeEngine):
    """Runs a library that `native.compiler` has made.

    Args:
        step: whose tensors it works on.
        library: the path of the compiled step.
        example: a batch like those that it was compiled for.

    Raises:
        OSError: the library cannot be loaded.
    """

    name = "compiled"
    compiler = "native"

    def __init__(self, step: Step, library: Path, example: Batch) -> None:
        super().__init__(step, example)
        code = ctypes.CDLL(str(library))
        self._run = code.run
        scratch = ctypes.c_longlong.in_dll(code, "scratch_bytes").value
        address = ctypes.addressof(ctypes.c_char.in_dll(code, "draws"))
        listed = ctypes.string_at(address).decode()
        self._draws = [
            Draw(int(n), float(p)) for n, p in map(str.split, filter(None, listed.split(";")))
        ]
        self._scratch = torch.zeros(scratch + _ALIGNMENT, dtype=torch.uint8)
        self.rebind()

    def run_steps(self, batches: Sequence[Batch], rates: Tensor) -> Tensor:
        """See `FixedShapeEngine.run_steps`.

        Raises:
            IndexError: a token or class is not among those that there are.
        """
        if not isinstance(batches, Block):  # each has memory of its own
            return torch.cat(
                [
                    self._run_together(batch, own)
                    for batch, own in zip(batches, torch.split(rates, 1), strict=True)
                ]
            )
        return self._run_together(batches.joined, rates)

    def _run_together(self, batch: Batch, rates: Tensor) -> Tensor:
        """Steps with as many batches as there are rows of rates, which are parts of one."""
        metrics = torch.empty(len(rates), 4)
        drawn = self._drawn(len(rates))
        (inputs, targets) = batch
        fault = self._run(
            ctypes.c_longlong(len(rates)),
            self._given,
            ctypes.c_void_p(inputs.data_ptr()),
            ctypes.c_longlong(_bytes_between(inputs, len(rates))),
            ctypes.c_void_p(targets.data_ptr()),
            ctypes.c_longlong(_bytes_between(targets, len(rates))),
            ctypes.c_void_p(rates.data_ptr()),
            (ctypes.c_void_p * len(drawn))(*[numbers.data_ptr() for numbers in drawn]),
            ctypes.c_void_p(metrics.data_ptr()),
            ctypes.c_void_p(-(-self._scratch.data_ptr() // _ALIGNMENT) * _ALIGNMENT),
        )
        if fault:
            raise IndexError("a token or class is not among those that there are")
        return metrics

    def _drawn(self, steps: int) -> list[Tensor]:
        """Random numbers for some steps, drawn in the order in which eager steps draw them."""
        drawn = [torch.empty(steps, draw.numbers) for draw in self._draws]
        for rows in zip(*(numbers.unbind() for numbers in drawn), strict=True):
            for row, draw in zip(rows, self._draws, strict=True):
                row.bernoulli_(draw.share)
        return drawn

    def run_step(self, inputs: StepInputs) -> Tensor:
        """See `FixedShapeEngine.run_step`."""
        return self._run_together(Batch(inputs.inputs, inputs.targets), inputs.rates.unsqueeze(0))[0]

    def rebind(self) -> None:
        """See `Engine.rebind`."""
        self._tensors = StepTensors.of(self.step).flatten()
        addresses = [tensor.data_ptr() for tensor in self._tensors]
        self._given = (ctypes.c_void_p * len(addresses))(*addresses)


def _bytes_between(samples: Tensor, batches: int) -> int:
    """From the beginning of one batch to that of the next."""
    return int(samples.stride(0)) * samples.element_size() * (len(samples) // batches)
