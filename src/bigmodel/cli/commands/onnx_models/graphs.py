"""What all exports of ONNX graphs share: running a graph, and comparing it with its model."""

from __future__ import annotations

import contextlib
import io
import logging
import re
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
from torch import Tensor

from bigmodel.errors import SpecError, first_line

OPSET = 18
_TOLERANCE = 1e-4  # of the largest number: single precision, summed in another order

RunGraph = Callable[[dict[str, Any]], Any]


class UncomparedError(Exception):
    """The installed ONNX runtime cannot compute the graph, which says nothing about the graph."""


def graph_runner(proto: Any) -> tuple[RunGraph, bool]:
    """A function that runs the graph, and whether it supports every operator: onnxruntime does; the slow
    evaluator that comes with onnx does not."""
    try:
        import onnxruntime
    except ImportError:
        from onnx.reference import ReferenceEvaluator

        return partial(ReferenceEvaluator(proto).run, None), False
    onnxruntime.set_default_logger_severity(4)
    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    return partial(session.run, None), True


def cause(error: Exception) -> str:
    """What an exporter failed of, in a line."""
    inner = error.__cause__ or error  # exporters wrap it in advice for programmers
    return re.sub(r"\x1b\[\d*m", "", first_line(inner, type(inner).__name__))


def check_equal(outputs: Any, expected: Tensor, samples: int) -> None:
    """Compares what a graph gives with what its model gives.

    Raises:
        SpecError: they differ.
    """
    wanted = expected.numpy()
    if outputs.shape != wanted.shape:
        raise SpecError(
            f"for {samples} samples the graph gives {outputs.shape}, the model {wanted.shape}."
        )
    largest = max(1.0, float(np.abs(wanted).max()))
    worst = float(np.abs(outputs - wanted).max()) / largest
    if not worst <= _TOLERANCE:
        raise SpecError(
            f"for {samples} samples the graph's outputs differ from the model's by {worst:.2g}."
        )


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silences what the exporters print, warn and log: the result shows whether they worked."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
