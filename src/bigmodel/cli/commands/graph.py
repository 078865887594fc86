"""A model as an ONNX graph, with its preprocessing, for any batch size; compared with the model."""

from __future__ import annotations

import contextlib
import io
import logging
import re
import tempfile
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.export import Dim

from bigmodel.cli.commands.graph_inputs import LENGTH, Front, GraphInput
from bigmodel.cli.commands.graph_outputs import ExportedModel, free, names_of
from bigmodel.errors import DIVERGED, SpecError, UndefinedError
from bigmodel.metrics import defined
from bigmodel.runtime import activity
from bigmodel.spec import Classes, NextTokens, Target

OPSET = 18
_ML_OPSET = 3
_BATCHES = (1, 3, 17)  # samples that a graph is tried on
_TOLERANCE = 1e-4  # of the largest number: single precision, summed in another order


Ask = Callable[[dict[str, Any]], Any]


class Written(NamedTuple):
    """A graph, and what is known of it.

    Attributes:
        made: the graph.
        any_length: whether texts may have any length up to the longest; without, all have that length.
        uncompared: why it could not be compared with the model; None: it was, and gives the same.
    """

    made: Any
    any_length: bool
    uncompared: str | None = None


class UncomparedError(Exception):
    """The other program that is there cannot compute the graph; that says nothing of the graph."""


def exported(whole: ExportedModel, front: Front, target: Target, longest: int) -> Written:
    """The graph, compared with the model where another program can compute it.

    Raises:
        SpecError: no way of writing it gives what the model gives.
        UndefinedError: the model gives NaN or infinity.
    """
    _check_defined(whole, front, target, longest)
    has_texts = any(LENGTH in given.shape for given in front.inputs)
    ways = [(_translated, True), (_traced, True)]
    if has_texts:
        ways.append((_translated, False))
    why, uncompared = "", None
    for number, (way, any_length) in enumerate(ways, start=1):
        any_length = any_length and has_texts
        try:
            told = f"Writing the graph, way {number} of {len(ways)}"
            with _quiet(), torch.no_grad(), activity.report_progress(told):
                made = way(whole, front, target, longest, any_length)
            _name_sizes(made, target, any_length)
            _with_words(made, front.inputs)
            _with_labels(made, front, target)
            _check(made)
            with _quiet(), activity.report_progress("Comparing the graph with the model"):
                compare(made, whole, front, longest, any_length)
        except UncomparedError as error:
            uncompared = uncompared or Written(made, any_length, str(error))
            continue
        except Exception as error:  # of many kinds, by exporter, checker and comparison
            why = why or _told(error)
            continue
        return Written(made, any_length)
    if uncompared is not None:
        return uncompared
    raise SpecError(f"This model cannot be written as an ONNX graph: {why}")


def _check_defined(whole: ExportedModel, front: Front, target: Target, longest: int) -> None:
    """Refuses a model that says nothing of made-up samples."""
    with torch.inference_mode():
        outputs = whole.model(whole.front(*_examples(front, longest, any_length=False)))
    if not bool(defined(outputs, target).all()):
        raise UndefinedError(
            f"The model gives NaN or infinity for made-up samples: it is not exported. {DIVERGED}"
        )


def compare(made: Any, whole: nn.Module, front: Front, longest: int, any_length: bool) -> None:
    """Has the graph and the model answer the same made-up questions.

    Raises:
        SpecError: they answer differently.
        UncomparedError: only the program that comes with onnx is there, and it cannot compute the graph.
    """
    ask, computes_all = _asked(made)
    if not computes_all:
        _check_computes(ask, front, longest, any_length)
    draw = torch.Generator().manual_seed(0)
    lengths = (longest, max(1, longest // 2)) if any_length else (longest,)
    for samples in _BATCHES:
        for length in lengths:
            examples = [given.example(samples, length, draw) for given in front.inputs]
            with torch.inference_mode():
                expected = whole(*examples)
            feed = {g.name: _fed(g, e) for g, e in zip(front.inputs, examples, strict=True)}
            found = ask(feed)
            _same(found[0], expected[0] if isinstance(expected, tuple) else expected, samples)


def _check_computes(ask: Ask, front: Front, longest: int, any_length: bool) -> None:
    """Raises UncomparedError where a program fails on the very samples that a graph was written by: then
    it is not their number, or their length, that the graph cannot take."""
    examples = _examples(front, longest, any_length)
    try:
        ask({g.name: _fed(g, e) for g, e in zip(front.inputs, examples, strict=True)})
    except Exception as error:
        raise UncomparedError(_told(error)) from error


def _asked(made: Any) -> tuple[Ask, bool]:
    """Another program that computes graphs, and whether it computes all that there are: onnxruntime, or
    the slow one that comes with onnx itself, which does not."""
    try:
        import onnxruntime
    except ImportError:
        from onnx.reference import ReferenceEvaluator

        return partial(ReferenceEvaluator(made).run, None), False
    onnxruntime.set_default_logger_severity(4)
    session = onnxruntime.InferenceSession(made.SerializeToString(), providers=["CPUExecutionProvider"])
    return partial(session.run, None), True


def _translated(whole: nn.Module, front: Front, target: Target, longest: int, any_length: bool) -> Any:
    """By torch.export: what torch recommends, and what it goes on with."""
    shapes: list[dict[int, Any]] = []
    for given in front.inputs:
        shape: dict[int, Any] = {0: Dim.DYNAMIC}
        for axis, size in enumerate(given.shape, start=1):
            if size == LENGTH and any_length:
                shape[axis] = Dim.DYNAMIC
        shapes.append(shape)
    program: Any = torch.onnx.export(
        whole,
        _examples(front, longest, any_length),
        dynamo=True,
        dynamic_shapes=(tuple(shapes),),
        input_names=[_inner(given) for given in front.inputs],
        output_names=names_of(target, _names(front)),
        opset_version=OPSET,
        verbose=False,
    )
    return program.model_proto


def _traced(whole: nn.Module, front: Front, target: Target, longest: int, any_length: bool) -> Any:
    """By tracing, the older way, which some operators need for texts of any length."""
    import onnx

    axes: dict[str, dict[int, str]] = {}
    for given in front.inputs:
        axes[_inner(given)] = {0: "batch"}
        for axis, size in enumerate(given.shape, start=1):
            if size == LENGTH and any_length:
                axes[_inner(given)][axis] = LENGTH
    outputs = names_of(target, _names(front))
    with tempfile.TemporaryDirectory() as folder:
        torch.onnx.export(
            whole,
            _examples(front, longest, any_length),
            str(Path(folder) / "traced.onnx"),
            dynamo=False,
            dynamic_axes={**axes, **{name: {0: "batch"} for name in outputs}},
            input_names=[_inner(given) for given in front.inputs],
            output_names=outputs,
            opset_version=OPSET,
            verbose=False,
        )
        return onnx.load(str(Path(folder) / "traced.onnx"))


def _examples(front: Front, longest: int, any_length: bool) -> tuple[Tensor, ...]:
    draw = torch.Generator().manual_seed(0)
    length = (
        max(2, longest - 1) if any_length else longest
    )  # the longest would be taken for the only one
    return tuple(given.example(3, min(length, longest), draw) for given in front.inputs)


def _names(front: Front) -> list[str]:
    return [given.name for given in front.inputs]


def _inner(given: GraphInput) -> str:
    """A word comes to the model as an index."""
    return f"{given.name} (index)" if given.kind == "word" else given.name


def _name_sizes(made: Any, target: Target, any_length: bool) -> None:
    """Says which sizes may differ, by name; exporters take some of an example's for the only ones."""
    del made.graph.value_info[:]
    for given in (*made.graph.input, *made.graph.output):
        sizes = given.type.tensor_type.shape.dim
        sizes[0].dim_param = "batch"
        is_text = isinstance(target, NextTokens) or given.name in {one.name for one in made.graph.input}
        if any_length and is_text and len(sizes) > 1:
            sizes[1].dim_param = LENGTH


def _told(error: Exception) -> str:
    cause = error.__cause__ or error  # exporters wrap it in advice to programmers
    return re.sub(r"\x1b\[\d*m", "", next(iter(str(cause).splitlines()), type(cause).__name__))


def _with_words(made: Any, inputs: list[GraphInput]) -> None:
    """Puts a table before each input of words: which index each is; what is not in it is 0."""
    from onnx import TensorProto, helper

    for given in inputs:
        if given.kind != "word":
            continue
        place = next(i for i, one in enumerate(made.graph.input) if one.name == _inner(given))
        shape = ["batch", *given.shape]
        made.graph.input.remove(made.graph.input[place])
        made.graph.input.insert(
            place, helper.make_tensor_value_info(given.name, TensorProto.STRING, shape)
        )
        node = helper.make_node(
            "LabelEncoder",
            [given.name],
            [_inner(given)],
            domain="ai.onnx.ml",
            keys_strings=list(given.words),
            values_int64s=list(given.words.values()),
            default_int64=0,
        )
        made.graph.node.insert(0, node)
        _knows_ml(made)


def _with_labels(made: Any, front: Front, target: Target) -> None:
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
    made.graph.node.append(node)
    made.graph.output.append(helper.make_tensor_value_info(label, TensorProto.STRING, ["batch"]))
    _knows_ml(made)


def _knows_ml(made: Any) -> None:
    from onnx import helper

    if all(known.domain != "ai.onnx.ml" for known in made.opset_import):
        made.opset_import.append(helper.make_opsetid("ai.onnx.ml", _ML_OPSET))


def _check(made: Any) -> None:
    import onnx

    onnx.checker.check_model(made, full_check=True)


def _fed(given: GraphInput, example: Tensor) -> Any:
    """An example as a graph takes it; an index as the word that becomes it."""
    if given.kind != "word":
        return example.numpy()
    words = {index: word for word, index in given.words.items()}
    told = [words.get(index, "\ufffdnever seen") for index in example.flatten().tolist()]
    return np.array(told, dtype=object).reshape(tuple(example.shape))


def _same(found: Any, expected: Tensor, samples: int) -> None:
    wanted = expected.numpy()
    if found.shape != wanted.shape:
        raise SpecError(
            f"for {samples} samples the graph gives {found.shape}, the model {wanted.shape}."
        )
    largest = max(1.0, float(np.abs(wanted).max()))
    worst = float(np.abs(found - wanted).max()) / largest
    if not worst <= _TOLERANCE:
        raise SpecError(
            f"for {samples} samples the graph's answers differ from the model's by {worst:.2g}."
        )


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without what the exporters print, warn of and log: whether it worked is seen by the result."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
