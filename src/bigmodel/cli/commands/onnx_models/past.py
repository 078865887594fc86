"""A model that writes as an ONNX graph with its cache: keys and values go in and come out.

Names and shapes are those of Optimum's exports for text generation:

    input_ids, position_ids           (batch_size, sequence_length) int64
    attention_mask                    (batch_size, past_sequence_length + sequence_length) int64
    past_key_values.N.key, .value     (batch_size, kv_heads, past_sequence_length, head_dim) of block N
    logits                            (batch_size, sequence_length, vocab_size)
    present.N.key, .value             the past, and what was read after it
"""

from __future__ import annotations

from typing import Any

import onnx
import torch
from torch import Tensor, nn
from torch.export import Dim

from bigmodel.cli.commands.onnx_models.graphs import (
    OPSET,
    UncomparedError,
    cause,
    check_equal,
    graph_runner,
    quiet,
)
from bigmodel.cli.commands.onnx_models.inputs import Front, GraphInput
from bigmodel.cli.commands.onnx_models.model import OnnxGraph
from bigmodel.errors import DIVERGED, SpecError, UndefinedError
from bigmodel.models.base import Model
from bigmodel.models.generation.decoding import DecodingBatch
from bigmodel.models.layers.blocks import SelfAttention
from bigmodel.models.layers.kv_cache import KVCache, LayerKVCache
from bigmodel.models.transformer import Transformer
from bigmodel.runtime import progress_messages
from bigmodel.spec import DataSpec, Tokens

_BATCH, _READ, _PAST = "batch_size", "sequence_length", "past_sequence_length"
_TOTAL = f"{_PAST} + {_READ}"
_SIZES = {"attention_mask": (_BATCH, _TOTAL), "past_key_values": (_BATCH, "", _PAST)}
_SIZES |= {"present": (_BATCH, "", _TOTAL)}
"""Names of the sizes of inputs and outputs that are not (batch_size, sequence_length, …)."""


def export_with_past(model: Model, spec: DataSpec) -> OnnxGraph:
    """A model that writes, which is in evaluation mode, as a graph with keys and values.

    Raises:
        SpecError: it has none, no exporter can write it, or graph and model differ.
        UndefinedError: the model gives NaN or infinity.
    """
    if not (isinstance(model, Transformer) and model.writes):
        raise SpecError(
            "Only a transformer that continues texts has keys and values that a graph can take and give:"
            " leave out --with-past."
        )
    whole = WithPast(model).eval()
    examples = _examples(model, spec, read=4, past=5)
    try:
        with quiet(), torch.no_grad(), progress_messages.report_progress("Writing the graph"):
            if not bool(whole(*examples)[0].isfinite().all()):
                raise UndefinedError(f"The model gives NaN or infinity: it is not exported. {DIVERGED}")
            proto = _written(whole, examples)
        _name_sizes(proto)
        onnx.checker.check_model(proto, full_check=True)
        with quiet(), progress_messages.report_progress("Comparing the graph with the model"):
            compare_writing(proto, model, spec)
    except (UndefinedError, SpecError):
        raise
    except UncomparedError as error:
        return OnnxGraph(proto, _front(whole, examples, spec), True, str(error))
    except Exception as error:  # of many kinds, by exporter and checker
        raise SpecError(f"This model cannot be written as an ONNX graph: {cause(error)}") from error
    return OnnxGraph(proto, _front(whole, examples, spec), True)


def _front(whole: WithPast, examples: tuple[Tensor, ...], spec: DataSpec) -> Front:
    """What the inputs are."""
    assert isinstance(spec.input, Tokens)
    size = spec.input.vocab_size
    inputs = [
        GraphInput("input_ids", "int64", (_READ,), "tokens to read", most=size),
        GraphInput("attention_mask", "int64", (_TOTAL,), "0 at padding, which comes first, else 1"),
        GraphInput("position_ids", "int64", (_READ,), "places of the tokens in the text"),
    ]
    for name, one in zip(whole.input_names[3:], examples[3:], strict=True):
        shape = (one.shape[1], _PAST, one.shape[3])
        inputs.append(GraphInput(name, "float32", shape, "the last call's present"))
    note = f"A text has at most {spec.input.length} tokens; it begins with past_key_values of length 0."
    return Front(inputs, nn.Identity(), note)


class _PastLayer(LayerKVCache):
    """Keys and values of a layer that are handed in and out."""

    def __init__(self, cache: KVCache, past: tuple[Tensor, Tensor]) -> None:
        super().__init__(cache)
        self.own = past

    def update(self, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        assert self.own is not None
        self.own = (torch.cat([self.own[0], keys], 2), torch.cat([self.own[1], values], 2))
        return self.own


class WithPast(nn.Module):
    """A causal transformer that reads tokens after others, of which it is given keys and values.

    Args:
        model: in evaluation mode.
    """

    def __init__(self, model: Transformer) -> None:
        super().__init__()
        self.model = model
        self.depth = len(model.blocks)

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, position_ids: Tensor, *past: Tensor
    ) -> tuple[Tensor, ...]:
        cache = KVCache(0, [], 0, input_ids.device)
        cache.positions = position_ids
        cache.mask = _visible(attention_mask, input_ids.shape[1])
        layers = [_PastLayer(cache, (past[2 * n], past[2 * n + 1])) for n in range(self.depth)]
        x = self.model.embed(input_ids, position_ids)
        for block, layer in zip(self.model.blocks, layers, strict=True):
            x = block(x, None, layer)
        present = [tensor for layer in layers for tensor in layer.own or ()]
        return (self.model.unembed(x), *present)

    @property
    def input_names(self) -> list[str]:
        return ["input_ids", "attention_mask", "position_ids", *self._names("past_key_values")]

    @property
    def output_names(self) -> list[str]:
        return ["logits", *self._names("present")]

    def _names(self, start: str) -> list[str]:
        return [f"{start}.{n}.{part}" for n in range(self.depth) for part in ("key", "value")]


def _visible(attention_mask: Tensor, read: int) -> Tensor:
    """Which positions each of the last `read` sees: (batch, 1, read, positions).

    Each sees itself, also padding: a row without any would be NaN, and spread.
    """
    places = torch.arange(attention_mask.shape[1], device=attention_mask.device)
    own = places[-read:, None]
    return (((places < own) & attention_mask.bool()[:, None]) | (places == own))[:, None]


def _examples(model: Transformer, spec: DataSpec, read: int, past: int) -> tuple[Tensor, ...]:
    """Made-up inputs; exporters would take sizes of 0 and 1 for fixed ones."""
    assert isinstance(spec.input, Tokens)
    batch, attention = 3, model.blocks[0].attention
    assert isinstance(attention, SelfAttention)
    draw = torch.Generator().manual_seed(0)
    tokens = torch.randint(spec.input.vocab_size, (batch, read), generator=draw)
    mask = torch.ones(batch, past + read, dtype=torch.int64)
    places = torch.randint(spec.input.length, (batch, read), generator=draw)
    size = (batch, attention.num_kv_heads, past, attention.head_dim)
    return (
        tokens,
        mask,
        places,
        *(torch.randn(size, generator=draw) for _ in range(2 * len(model.blocks))),
    )


def _written(whole: WithPast, examples: tuple[Tensor, ...]) -> Any:
    free = {0: Dim.DYNAMIC, 1: Dim.DYNAMIC}
    pasts = tuple({0: Dim.DYNAMIC, 2: Dim.DYNAMIC} for _ in examples[3:])
    program: Any = torch.onnx.export(
        whole,
        examples,
        dynamo=True,
        dynamic_shapes=(free, free, free, pasts),
        input_names=whole.input_names,
        output_names=whole.output_names,
        opset_version=OPSET,
        verbose=False,
    )
    return program.model_proto


def _name_sizes(proto: Any) -> None:
    del proto.graph.value_info[:]
    for value in (*proto.graph.input, *proto.graph.output):
        names = _SIZES.get(value.name.partition(".")[0], (_BATCH, _READ))
        for size, name in zip(value.type.tensor_type.shape.dim, names, strict=False):
            if name:
                size.dim_param = name


def compare_writing(proto: Any, model: Transformer, spec: DataSpec) -> None:
    """Compares logits with the model's while two texts of different lengths are written.

    Raises:
        SpecError: they differ.
        UncomparedError: only the evaluator that comes with onnx is installed, and it cannot compute it.
    """
    assert isinstance(spec.input, Tokens)
    draw, context = torch.Generator().manual_seed(0), spec.input.length
    steps = min(3, context - 1)
    lengths = [max(1, context - steps), max(1, context // 2)]
    rows = [torch.randint(spec.input.vocab_size, (n,), generator=draw).tolist() for n in lengths]
    batch = DecodingBatch(model, [list(row) for row in rows], spec, "cpu", steps)
    graph = _GraphReader(proto, [one[:2, :, :0] for one in _examples(model, spec, 1, 1)[3:]])
    before = [max(lengths) - length for length in lengths]  # padding comes first
    tokens = [[0] * missing + row for missing, row in zip(before, rows, strict=True)]
    mask = [[0] * missing + [1] * length for missing, length in zip(before, lengths, strict=True)]
    with torch.inference_mode():
        batch.prefill()
        check_equal(graph.read(torch.tensor(tokens), torch.tensor(mask)), batch.logits, len(rows))
        for _ in range(steps):
            chosen = batch.logits.argmax(-1).tolist()
            batch.append(chosen)
            new = torch.tensor(chosen)[:, None]
            check_equal(graph.read(new, torch.ones_like(new)), batch.logits, len(rows))


class _GraphReader:
    """Texts that a graph reads one part after another.

    Args:
        past: of texts of which nothing has been read.
    """

    def __init__(self, proto: Any, past: list[Tensor]) -> None:
        self._run, self._computes_all = graph_runner(proto)
        self._names = [value.name for value in proto.graph.input]
        self._past = [tensor.numpy() for tensor in past]
        self._mask = torch.zeros(len(past[0]), 0, dtype=torch.int64)

    def read(self, tokens: Tensor, mask: Tensor) -> Any:
        """Logits after the last of the tokens, (texts, vocab_size); the mask is 0 at padding."""
        self._mask = torch.cat([self._mask, mask], dim=1)
        places = (self._mask.cumsum(1) - 1).clamp(min=0)[:, -tokens.shape[1] :]
        given = [*(one.numpy() for one in (tokens, self._mask, places)), *self._past]
        try:
            logits, *self._past = self._run(dict(zip(self._names, given, strict=True)))
        except Exception as error:
            raise (error if self._computes_all else UncomparedError(cause(error))) from error
        return logits[:, -1]
