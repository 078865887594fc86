"""A model as an ONNX graph, with its preprocessing, for any batch size; compared with the model."""

from __future__ import annotations

import io
import itertools
from typing import Any, NamedTuple

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper
from torch import Tensor
from torch.export import Dim

from bigmodel.cli.commands.onnx_models.graphs import (
    OPSET,
    UncomparedError,
    cause,
    check_equal,
    graph_runner,
    quiet,
)
from bigmodel.cli.commands.onnx_models.inputs import LENGTH, Front, GraphInput
from bigmodel.cli.commands.onnx_models.outputs import ExportedModel
from bigmodel.errors import DIVERGED, SpecError, UndefinedError
from bigmodel.metrics import defined
from bigmodel.reporting.predictions import unused_name
from bigmodel.runtime import progress_messages
from bigmodel.spec import Classes, NextTokens

_ML_DOMAIN, _ML_OPSET = "ai.onnx.ml", 3
_BATCHES = (1, 3, 17)  # batch sizes that a graph is compared on


class OnnxGraph(NamedTuple):
    """A graph with the result of the comparison.

    Attributes:
        proto: the graph.
        front: its preprocessing and inputs.
        any_length: whether texts may have any length up to the longest; otherwise all have that length.
        uncompared: why it could not be compared with the model; None if both give the same.
    """

    proto: Any
    front: Front
    any_length: bool
    uncompared: str | None = None


def export_graph(exported: ExportedModel) -> OnnxGraph:
    """The model as a graph, compared with the model if an ONNX runtime can compute it.

    Raises:
        SpecError: no exporter writes a graph with the same outputs as the model.
        UndefinedError: the model gives NaN or infinity.
    """
    _check_defined(exported)
    has_texts = any(LENGTH in graph_input.shape for graph_input in exported.front.inputs)
    ways = [(_by_export, has_texts), (_by_trace, has_texts)]
    if has_texts:
        ways.append((_by_export, False))
    why, uncompared = "", None
    for number, (way, any_length) in enumerate(ways, start=1):
        try:
            text = f"Writing the graph, way {number} of {len(ways)}"
            with quiet(), torch.no_grad(), progress_messages.report_progress(text):
                proto = way(exported, any_length)
            _name_sizes(proto, exported, any_length)
            _add_word_inputs(proto, exported.front.inputs)
            _add_label_output(proto, exported)
            onnx.checker.check_model(proto, full_check=True)
            with quiet(), progress_messages.report_progress("Comparing the graph with the model"):
                compare(proto, exported, any_length)
            return OnnxGraph(proto, exported.front, any_length)
        except UncomparedError as error:
            uncompared = uncompared or OnnxGraph(proto, exported.front, any_length, str(error))
        except Exception as error:  # of many kinds, by exporter, checker and comparison
            why = why or cause(error)
    if uncompared is None:
        raise SpecError(f"This model cannot be written as an ONNX graph: {why}")
    return uncompared


def _check_defined(exported: ExportedModel) -> None:
    """Refuses a model that gives NaN or infinity for made-up samples."""
    with torch.inference_mode():
        outputs = exported.model(exported.preprocess(*_examples(exported, any_length=False)))
    if not bool(defined(outputs, exported.target).all()):
        raise UndefinedError(
            f"The model gives NaN or infinity for made-up samples: it is not exported. {DIVERGED}"
        )


def compare(proto: Any, exported: ExportedModel, any_length: bool) -> None:
    """Compares the graph's outputs with the model's on made-up samples.

    Raises:
        SpecError: they differ.
        UncomparedError: only the evaluator that comes with onnx is installed, and it cannot compute it.
    """
    run_graph, computes_all = graph_runner(proto)
    if not computes_all:
        # If it fails even on the samples of the export, their number or length is not the reason.
        try:
            run_graph(_feed(exported, _examples(exported, any_length)))
        except Exception as error:
            raise UncomparedError(cause(error)) from error
    draw = torch.Generator().manual_seed(0)
    longest = exported.longest
    lengths = (longest, max(1, longest // 2)) if any_length else (longest,)
    for samples, length in itertools.product(_BATCHES, lengths):
        examples = tuple(one.example(samples, length, draw) for one in exported.front.inputs)
        with torch.inference_mode():
            expected = exported(*examples)
        outputs = run_graph(_feed(exported, examples))
        check_equal(outputs[0], expected[0] if isinstance(expected, tuple) else expected, samples)


def _by_export(exported: ExportedModel, any_length: bool) -> Any:
    """With torch.export, as torch recommends."""
    shapes = tuple(
        dict.fromkeys(_free_axes(one, any_length), Dim.DYNAMIC) for one in exported.front.inputs
    )
    program: Any = torch.onnx.export(
        exported,
        _examples(exported, any_length),
        dynamo=True,
        dynamic_shapes=(shapes,),
        **_export_options(exported),
    )
    return program.model_proto


def _by_trace(exported: ExportedModel, any_length: bool) -> Any:
    """By tracing, the older method, which some operators need for texts of any length."""
    axes = {name: {0: "batch"} for name in exported.output_names}
    axes |= {one.inner_name: _free_axes(one, any_length) for one in exported.front.inputs}
    written = io.BytesIO()
    torch.onnx.export(
        exported,
        _examples(exported, any_length),
        written,  # type: ignore[arg-type]  # this exporter also takes open files
        dynamo=False,
        dynamic_axes=axes,
        **_export_options(exported),
    )
    return onnx.load_from_string(written.getvalue())


def _export_options(exported: ExportedModel) -> dict[str, Any]:
    """The options of `torch.onnx.export` that both exporters share."""
    return {
        "input_names": [one.inner_name for one in exported.front.inputs],
        "output_names": exported.output_names,
        "opset_version": OPSET,
        "verbose": False,
    }


def _free_axes(graph_input: GraphInput, any_length: bool) -> dict[int, str]:
    """The axes of an input whose size may differ from call to call, with their names."""
    lengths = [axis for axis, size in enumerate(graph_input.shape, start=1) if size == LENGTH]
    return {0: "batch"} | (dict.fromkeys(lengths, LENGTH) if any_length else {})


def _examples(exported: ExportedModel, any_length: bool) -> tuple[Tensor, ...]:
    draw = torch.Generator().manual_seed(0)
    # Given the longest, exporters would assume that it is the only length.
    length = min(max(2, exported.longest - 1), exported.longest) if any_length else exported.longest
    return tuple(one.example(3, length, draw) for one in exported.front.inputs)


def _name_sizes(proto: Any, exported: ExportedModel, any_length: bool) -> None:
    """Names the sizes that may vary; exporters take some of the example's sizes as fixed."""
    del proto.graph.value_info[:]
    writes = isinstance(exported.target, NextTokens)
    texts = [*proto.graph.input, *(proto.graph.output if writes else [])]
    for value in (*proto.graph.input, *proto.graph.output):
        sizes = value.type.tensor_type.shape.dim
        sizes[0].dim_param = "batch"
        if any_length and value in texts and len(sizes) > 1:
            sizes[1].dim_param = LENGTH


def _add_word_inputs(proto: Any, inputs: list[GraphInput]) -> None:
    """Puts a lookup table before each input of words; unknown words become 0."""
    declared = {value.name: value for value in proto.graph.input}
    for one in (one for one in inputs if one.kind == "word"):
        word = helper.make_tensor_value_info(one.name, TensorProto.STRING, ["batch", *one.shape])
        declared[one.inner_name].CopyFrom(word)
        keys, values = list(one.words), list(one.words.values())
        table = {"keys_strings": keys, "values_int64s": values, "default_int64": 0}
        proto.graph.node.insert(0, _lookup(proto, one.name, one.inner_name, table))


def _add_label_output(proto: Any, exported: ExportedModel) -> None:
    """Adds an output with the label of the likeliest class."""
    if not isinstance(exported.target, Classes):
        return
    label, names = unused_name("label", exported.input_names), list(exported.target.names)
    table = {"keys_int64s": list(range(len(names))), "values_strings": names, "default_string": ""}
    proto.graph.node.append(_lookup(proto, exported.output_names[1], label, table))
    proto.graph.output.append(helper.make_tensor_value_info(label, TensorProto.STRING, ["batch"]))


def _lookup(proto: Any, source: str, result: str, table: dict[str, Any]) -> Any:
    """A node that looks values up in a table."""
    if all(known.domain != _ML_DOMAIN for known in proto.opset_import):
        proto.opset_import.append(helper.make_opsetid(_ML_DOMAIN, _ML_OPSET))
    return helper.make_node("LabelEncoder", [source], [result], domain=_ML_DOMAIN, **table)


def _feed(exported: ExportedModel, examples: tuple[Tensor, ...]) -> dict[str, Any]:
    return {one.name: _as_feed(one, e) for one, e in zip(exported.front.inputs, examples, strict=True)}


def _as_feed(graph_input: GraphInput, example: Tensor) -> Any:
    """An example as the graph's input; an index becomes a word that is mapped to it."""
    if graph_input.kind != "word":
        return example.numpy()
    words = {index: word for word, index in graph_input.words.items()}
    text = [words.get(index, "\ufffdnever seen") for index in example.flatten().tolist()]
    return np.array(text, dtype=object).reshape(tuple(example.shape))
