"""Attention maps: where each head looks, as the model computes it; and attention rollout."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from bigmodel.errors import DIVERGED, ConfigError, UndefinedError
from bigmodel.explain.positions import has_class_token, position_labels
from bigmodel.explain.results import AttentionMap, AttentionMaps, AttentionOf
from bigmodel.explain.subject import Options, Subject
from bigmodel.explain.texts import read_text
from bigmodel.models.layers.blocks import CrossAttention
from bigmodel.models.transformer import EncoderDecoder
from bigmodel.spec import TokenPair, Tokens


@dataclass(frozen=True)
class LayerWeights:
    """The weights of one layer of attention for a batch.

    Attributes:
        name: of the layer in the model, such as `blocks.0.attention`.
        of: what attends to what.
        weights: (batch, heads, queries, keys) float32; each row adds up to 1.
    """

    name: str
    of: AttentionOf
    weights: Tensor


def attention(subject: Subject, options: Options) -> AttentionMaps:  # noqa: ARG001
    """Where each head of each layer looks, for each sample."""
    return AttentionMaps(tuple(_maps_of(subject, place) for place in range(len(subject))))


@torch.no_grad()
def layer_weights(model: nn.Module, inputs: Tensor) -> list[LayerWeights]:
    """The weights of every layer of attention, in the order in which the model computes them.

    A layer has them if it has a method `attention_weights`, which takes what its `forward` takes and
    returns (batch, heads, queries, keys).

    Args:
        model: in evaluation mode.
        inputs: as the model reads them, (batch, …).

    Raises:
        ConfigError: no layer has any.
        UndefinedError: they are NaN.
    """
    found: list[LayerWeights] = []
    hooks = []
    translates = isinstance(model, EncoderDecoder)
    for name, layer in model.named_modules():
        if not hasattr(layer, "attention_weights"):
            continue

        def record(layer: Any, args: Any, named: Any, name: str = name) -> None:
            weights = layer.attention_weights(*args, **named).float()
            found.append(LayerWeights(name, _of(name, layer, translates), weights))

        hooks.append(layer.register_forward_pre_hook(record, with_kwargs=True))
    if not hooks:
        raise ConfigError(
            f"{type(model).__name__} has no attention, so there are no attention maps. model=attention"
            " and model=transformer have them, and a model of yours whose layers have a method"
            " attention_weights."
        )
    try:
        model(inputs)
    finally:
        for hook in hooks:
            hook.remove()
    if not all(layer.weights.isfinite().all() for layer in found):
        raise UndefinedError(f"The model's attention is NaN. {DIVERGED}")
    return found


def rolled_out(weights: Sequence[Tensor]) -> Tensor:
    """How much of each position's input is in each position's output after all layers.

    The mean over heads is mixed half and half with the residual path, A = ½ (mean W + 1), and the layers
    are multiplied: A_L ⋯ A_1 (Abnar and Zuidema 2020, arXiv:2005.00928, section 3). What the layers
    between do to values is not seen.

    Args:
        weights: of the layers, first to last: (batch, heads, positions, positions).

    Returns:
        (batch, positions, positions); each row adds up to 1.
    """
    first = weights[0]
    identity = torch.eye(first.shape[-1], dtype=first.dtype, device=first.device)
    product = identity.expand(len(first), -1, -1)
    for layer in weights:
        product = (layer.mean(1) @ product + product) / 2
    return product


def _of(name: str, layer: nn.Module, translates: bool) -> AttentionOf:
    if isinstance(layer, CrossAttention):
        return "target to source"
    if not translates:
        return "input"
    return "source" if name.startswith("encoder.") else "target"


def _maps_of(subject: Subject, place: int) -> tuple[AttentionMap, ...]:
    spec = subject.preprocessing.spec
    labels: dict[str, tuple[str, ...]]
    if isinstance(spec.input, Tokens | TokenPair):
        text = read_text(subject, place)
        inputs, labels = text.inputs, {"input": text.labels, "target": text.labels}
        labels |= {"source": text.source_labels, "written": text.written_labels}
    else:
        inputs = subject.inputs(torch.tensor([place]))
        labels = {"input": position_labels(subject.model, spec)}
    if has_class_token(subject.model):
        labels["input"] = ("class token", *labels["input"])
    maps = []
    for layer in layer_weights(subject.model, inputs):
        crosses = layer.of == "target to source"
        queries, keys = (
            labels[of] for of in (("written", "source") if crosses else (layer.of, layer.of))
        )
        # Without padding. Positions of a model of the user's own may be others: they are numbered.
        if max(len(queries), len(keys)) > max(layer.weights.shape[2:]):
            queries, keys = (tuple(map(str, range(size))) for size in layer.weights.shape[2:])
        weights = layer.weights[0, :, : len(queries), : len(keys)].cpu()
        maps.append(AttentionMap(layer.name, layer.of, weights, queries, keys))
    return tuple(maps)
