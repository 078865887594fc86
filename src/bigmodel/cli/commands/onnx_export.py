"""A model as an ONNX graph, with its preprocessing, for any batch size; compared with the model."""

from __future__ import annotations

import contextlib
import io
import logging
import re
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.export import Dim

from bigmodel.cli.commands.onnx_inputs import LENGTH, Front, GraphInput
from bigmodel.cli.commands.onnx_outputs import ExportedModel, free, names_of
from bigmodel.errors import DIVERGED, SpecError, UndefinedError, first_line
from bigmodel.metrics import defined
from bigmodel.runtime import progress_messages
from bigmodel.spec import Classes, NextTokens, Target

OPSET = 18
_ML_OPSET = 3
_BATCHES = (1, 3, 17)  # samples that a graph is tried on
_TOLERANCE = 1e-4  # of the largest number: single precision, summed in another order


RunGraph = Callable[[dict[str, Any]], Any]


class OnnxGraph(NamedTuple):
    """A graph, and what is known of it.

    Attributes:
        proto: the graph.
        any_length: whether texts may have any length up to the longest; without, all have that length.
        uncompared: why it could not be compared with the model; None: it was, and gives the same.
    """

    proto: Any
    any_length: bool
    uncompared: str | None = None


class UncomparedError(Exception):
    """The installed ONNX runtime cannot compute the graph, which says nothing about the graph."""


def export_graph(exported: ExportedModel, front: Front, target: Target, longest: int) -> OnnxGraph:
    """The model as a graph, compared with the model if an ONNX runtime can compute it.

    Raises:
        SpecError: no way of writing it gives what the model gives.
        UndefinedError: the model gives NaN or infinity.
    """
    _check_defined(exported, front, target, longest)
    has_texts = any(LENGTH in graph_input.shape for graph_input in front.inputs)
    ways = [(_by_export, True), (_by_trace, True)]
    if has_texts:
        ways.append((_by_export, False))
    why, uncompared = "", None
    for number, (way, any_length) in enumerate(ways, start=1):
        any_length = any_length and has_texts
        try:
            text = f"Writing the graph, way {number} of {len(ways)}"
            with _quiet(), torch.no_grad(), progress_messages.report_progress(text):
                proto = way(exported, front, target, longest, any_length)
            _name_sizes(proto, target, any_length)
            _add_word_inputs(proto, front.inputs)
            _add_label_output(proto, front, target)
            _check(proto)
            with _quiet(), progress_messages.report_progress("Comparing the graph with the model"):
                compare(proto, exported, front, longest, any_length)
        except UncomparedError as error:
            uncompared = uncompared or OnnxGraph(proto, any_length, str(error))
            continue
        except Exception as error:  # of many kinds, by exporter, checker and comparison
            why = why or _first_line(error)
            continue
        return OnnxGraph(proto, any_length)
    if uncompared is not None:
        return uncompared
    raise SpecError(f"This model cannot be written as an ONNX graph: {why}")


def _check_defined(exported: ExportedModel, front: Front, target: Target, longest: int) -> None:
    """Refuses a model that gives NaN or infinity for made-up samples."""
    with torch.inference_mode():
        outputs = exported.model(exported.front(*_examples(front, longest, any_length=False)))
    if not bool(defined(outputs, target).all()):
        raise UndefinedError(
            f"The model gives NaN or infinity for made-up samples: it is not exported. {DIVERGED}"
        )


def compare(proto: Any, exported: nn.Module, front: Front, longest: int, any_length: bool) -> None:
    """Compares the graph's outputs with the model's on made-up samples.

    Raises:
        SpecError: they differ.
        UncomparedError: only the evaluator that comes with onnx is installed, and it cannot compute it.
    """
    run_graph, computes_all = _graph_runner(proto)
    if not computes_all:
        _check_computes(run_graph, front, longest, any_length)
    draw = torch.Generator().manual_seed(0)
    lengths = (longest, max(1, longest // 2)) if any_length else (longest,)
    for samples in _BATCHES:
        for length in lengths:
            examples = [graph_input.example(samples, length, draw) for graph_input in front.inputs]
            with torch.inference_mode():
                expected = exported(*examples)
            found = run_graph(_feed(front, examples))
            _check_equal(found[0], expected[0] if isinstance(expected, tuple) else expected, samples)


def _check_computes(run_graph: RunGraph, front: Front, longest: int, any_length: bool) -> None:
    """Raises UncomparedError if the evaluator fails even on the samples of the export itself:
    then the fault is not in their number or length."""
    examples = _examples(front, longest, any_length)
    try:
        run_graph(_feed(front, examples))
    except Exception as error:
        raise UncomparedError(_first_line(error)) from error


def _graph_runner(proto: Any) -> tuple[RunGraph, bool]:
    """What runs a graph, and whether it supports every operator: onnxruntime does; the slow evaluator
    that comes with onnx does not."""
    try:
        import onnxruntime
    except ImportError:
        from onnx.reference import ReferenceEvaluator

        return partial(ReferenceEvaluator(proto).run, None), False
    onnxruntime.set_default_logger_severity(4)
    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    return partial(session.run, None), True


def _by_export(exported: nn.Module, front: Front, target: Target, longest: int, any_length: bool) -> Any:
    """By torch.export, as torch recommends."""
    shapes = tuple(
        dict.fromkeys(_free_axes(graph_input, any_length), Dim.DYNAMIC) for graph_input in front.inputs
    )
    program: Any = torch.onnx.export(
        exported,
        _examples(front, longest, any_length),
        dynamo=True,
        dynamic_shapes=(shapes,),
        **_export_options(front, target),
    )
    return program.model_proto


def _by_trace(exported: nn.Module, front: Front, target: Target, longest: int, any_length: bool) -> Any:
    """By tracing, torch's older way, which some operators need for texts of any length."""
    import onnx

    options = _export_options(front, target)
    axes = {name: {0: "batch"} for name in options["output_names"]}
    axes |= {_inner(one): _free_axes(one, any_length) for one in front.inputs}
    with tempfile.TemporaryDirectory() as folder:
        torch.onnx.export(
            exported,
            _examples(front, longest, any_length),
            str(Path(folder) / "traced.onnx"),
            dynamo=False,
            dynamic_axes=axes,
            **options,
        )
        return onnx.load(str(Path(folder) / "traced.onnx"))


def _export_options(front: Front, target: Target) -> dict[str, Any]:
    """The options of `torch.onnx.export` that both ways share."""
    return {
        "input_names": [_inner(graph_input) for graph_input in front.inputs],
        "output_names": names_of(target, _names(front)),
        "opset_version": OPSET,
        "verbose": False,
    }


def _free_axes(graph_input: GraphInput, any_length: bool) -> dict[int, str]:
    """The axes of an input whose size may differ from call to call, with their names."""
    lengths = [axis for axis, size in enumerate(graph_input.shape, start=1) if size == LENGTH]
    return {0: "batch"} | (dict.fromkeys(lengths, LENGTH) if any_length else {})


def _examples(front: Front, longest: int, any_length: bool) -> tuple[Tensor, ...]:
    draw = torch.Generator().manual_seed(0)
    # Exporters would take the longest for the only length.
    length = min(max(2, longest - 1), longest) if any_length else longest
    return tuple(graph_input.example(3, length, draw) for graph_input in front.inputs)


def _names(front: Front) -> list[str]:
    return [graph_input.name for graph_input in front.inputs]


def _inner(graph_input: GraphInput) -> str:
    """A word comes to the model as an index."""
    return f"{graph_input.name} (index)" if graph_input.kind == "word" else graph_input.name


def _name_sizes(proto: Any, target: Target, any_length: bool) -> None:
    """Names the sizes that may differ; exporters take some of the example's sizes for fixed."""
    del proto.graph.value_info[:]
    texts = [*proto.graph.input, *(proto.graph.output if isinstance(target, NextTokens) else [])]
    for value in (*proto.graph.input, *proto.graph.output):
        sizes = value.type.tensor_type.shape.dim
        sizes[0].dim_param = "batch"
        if any_length and value in texts and len(sizes) > 1:
            sizes[1].dim_param = LENGTH


def _first_line(error: Exception) -> str:
    cause = error.__cause__ or error  # exporters wrap it in advice to programmers
    return re.sub(r"\x1b\[\d*m", "", first_line(cause, type(cause).__name__))


def _add_word_inputs(proto: Any, inputs: list[GraphInput]) -> None:
    """Puts a lookup table before each input of words; unknown words become 0."""
    from onnx import TensorProto, helper

    for graph_input in inputs:
        if graph_input.kind != "word":
            continue
        place = next(i for i, one in enumerate(proto.graph.input) if one.name == _inner(graph_input))
        shape = ["batch", *graph_input.shape]
        word = helper.make_tensor_value_info(graph_input.name, TensorProto.STRING, shape)
        proto.graph.input[place].CopyFrom(word)
        node = helper.make_node(
            "LabelEncoder",
            [graph_input.name],
            [_inner(graph_input)],
            domain="ai.onnx.ml",
            keys_strings=list(graph_input.words),
            values_int64s=list(graph_input.words.values()),
            default_int64=0,
        )
        proto.graph.node.insert(0, node)
        _declare_ml_opset(proto)


def _add_label_output(proto: Any, front: Front, target: Target) -> None:
    """Adds an output with the label of the likeliest class."""
    if not isinstance(target, Classes):
        return
    from onnx import TensorProto, helper

    label = free("label", _names(front))
    node = helper.make_node(
        "LabelEncoder",
        [names_of(target, _names(front))[1]],
        [label],
        domain="ai.onnx.ml",
        keys_int64s=list(range(target.count)),
        values_strings=list(target.names),
        default_string="",
    )
    proto.graph.node.append(node)
    proto.graph.output.append(helper.make_tensor_value_info(label, TensorProto.STRING, ["batch"]))
    _declare_ml_opset(proto)


def _declare_ml_opset(proto: Any) -> None:
    from onnx import helper

    if all(known.domain != "ai.onnx.ml" for known in proto.opset_import):
        proto.opset_import.append(helper.make_opsetid("ai.onnx.ml", _ML_OPSET))


def _check(proto: Any) -> None:
    import onnx

    onnx.checker.check_model(proto, full_check=True)


def _feed(front: Front, examples: Sequence[Tensor]) -> dict[str, Any]:
    return {one.name: _as_feed(one, e) for one, e in zip(front.inputs, examples, strict=True)}


def _as_feed(graph_input: GraphInput, example: Tensor) -> Any:
    """An example as a graph takes it; an index as the word that becomes it."""
    if graph_input.kind != "word":
        return example.numpy()
    words = {index: word for word, index in graph_input.words.items()}
    text = [words.get(index, "\ufffdnever seen") for index in example.flatten().tolist()]
    return np.array(text, dtype=object).reshape(tuple(example.shape))


def _check_equal(found: Any, expected: Tensor, samples: int) -> None:
    wanted = expected.numpy()
    if found.shape != wanted.shape:
        raise SpecError(
            f"for {samples} samples the graph gives {found.shape}, the model {wanted.shape}."
        )
    largest = max(1.0, float(np.abs(wanted).max()))
    worst = float(np.abs(found - wanted).max()) / largest
    if not worst <= _TOLERANCE:
        raise SpecError(
            f"for {samples} samples the graph's outputs differ from the model's by {worst:.2g}."
        )


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silences what the exporters print, warn and log: the result shows whether they worked."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
