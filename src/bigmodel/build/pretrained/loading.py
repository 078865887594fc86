"""Loads weights into a new model, and says what was loaded, what is new, and what was left."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bigmodel.build.pretrained.source import Source
from bigmodel.errors import CheckpointError, SpecError
from bigmodel.models.families.base import Weights
from bigmodel.registry import EntryConfig
from bigmodel.spec import Classes, DataSpec, Image, NextTokens

LEAST = 0.9
"""Share of the model without its head that has to be loaded."""

_LISTED = 6  # names in a message or in a row of the header
_LENGTHS = {"text": "data.context", "chat": "data.context", "table": "data.text_length"}
"""The setting of the longest text, by source of the data; else data.length."""
_POSITIONS = "positions.weight"


class Loaded(NamedTuple):
    """What was loaded, what is new and what was left, in words; and the names of what is new."""

    told: str
    new: list[str]


def load_weights(model: nn.Module, source: Source, config: EntryConfig, spec: DataSpec) -> Loaded:
    """Loads weights into a new model; a head for other classes stays as it is.

    Args:
        config, spec: that the model was built from.

    Raises:
        CheckpointError: a shape differs, or less than `LEAST` of the model would be loaded.
    """
    _check_kind(source, spec)
    given, left = source.weights(getattr(config, "depth", 0))
    own = model.state_dict()
    before, given = given, _with_positions(given, own, spec, source)
    given = _with_head(given, own, source, config, spec)
    _check_shapes(given, own, source)
    loaded, new = [name for name in own if name in given], [name for name in own if name not in given]
    left = sorted({*left, *(name for name in given if name not in own and not _is_head(name))})
    share = _numbers(own, loaded, head=False) / max(1, _numbers(own, list(own), head=False))
    if share < LEAST:
        missing = [name for name in new if not _is_head(name)]
        raise CheckpointError(
            f"{source.where}: holds {share:.1%} of the model, and at least {LEAST:.0%} are needed."
            f" Missing: {_listed(missing)}. Not used: {_listed(left)}."
        )
    model.load_state_dict({name: given[name] for name in loaded}, strict=False)
    total = _numbers(own, list(own))
    parts = [f"{_numbers(own, loaded):,} of {total:,} numbers from {source.about}"]
    if isinstance(spec.input, Image) and given.get(_POSITIONS) is not before.get(_POSITIONS):
        parts.append(f"{len(before[_POSITIONS])} positions interpolated to {len(given[_POSITIONS])}")
    parts += [f"new: {_listed(new)}"] if new else []
    parts += [f"left: {_listed(left)}"] if left else []
    return Loaded("; ".join(parts), new)


def _check_kind(source: Source, spec: DataSpec) -> None:
    """Raises SpecError if models of the family read other data, or cannot write."""
    family = source.family
    if family is None:
        return
    if not isinstance(spec.input, family.reads):
        kind = "images" if family.reads is Image else "texts"
        raise SpecError(
            f"{source.where}: a {family.model_type} reads {kind}, and data={spec.name} holds"
            f" {spec.input}."
        )
    if isinstance(spec.target, NextTokens) and family.writer is None:
        raise SpecError(
            f"{source.where}: a {family.model_type} sees whole texts and was not trained to write them,"
            f" as data={spec.name} asks for. Use weights of a gpt2 or a llama, or data=text_labels."
        )


def _check_shapes(given: Weights, own: Mapping[str, Tensor], source: Source) -> None:
    differing = [
        f"{name} is {_shape(given[name])}, here {_shape(own[name])}"
        for name in own
        if name in given and given[name].shape != own[name].shape
    ]
    if differing:
        raise CheckpointError(
            f"{source.where}: the model has other shapes: {_listed(differing, '; ')}. Use the options"
            " that the weights were trained with, and inputs of the same size."
        )


def _with_head(
    given: Weights, own: Mapping[str, Tensor], source: Source, config: EntryConfig, spec: DataSpec
) -> Weights:
    """The weights with the head if it is for the same tokens, or sees the same and is for the same
    classes, which then come in the order that they have here."""
    heads = [name for name in own if _is_head(name) and name in given]
    same = all(given[name].shape == own[name].shape for name in heads)
    if same and isinstance(spec.target, NextTokens):
        return given
    readout = getattr(config, "effective_readout", None)
    sees_same = source.family is None or readout == source.family.readout
    if same and sees_same and isinstance(spec.target, Classes):
        names = spec.target.names
        if len(set(names)) == len(names) and sorted(source.labels) == sorted(names):
            order = torch.tensor([source.labels.index(name) for name in names])
            return {**given, **{name: given[name][order] for name in heads}}
    return {name: weight for name, weight in given.items() if not _is_head(name)}


def _is_head(name: str) -> bool:
    return name.startswith("head.")


def _numbers(tensors: Mapping[str, Tensor], names: Sequence[str], head: bool = True) -> int:
    return sum(tensors[name].numel() for name in names if head or not _is_head(name))


def _with_positions(
    given: Weights, own: Mapping[str, Tensor], spec: DataSpec, source: Source
) -> Weights:
    """The weights with learnt positions for as many as the data has: the first ones, or interpolated for
    an image of another size (Dosovitskiy et al. 2020, arXiv:2010.11929, section 3.2)."""
    theirs, ours = given.get(_POSITIONS), own.get(_POSITIONS)
    if theirs is None or ours is None or len(theirs) == len(ours):
        return given
    if isinstance(spec.input, Image):
        before = int("class_token" in own)
        ratio = spec.input.height / spec.input.width
        scaled = _scaled_grid(theirs, len(ours) - before, before, ratio)
        return given if scaled is None else {**given, _POSITIONS: scaled}
    if len(theirs) < len(ours):
        raise CheckpointError(
            f"{source.where}: has {len(theirs):,} positions, and the texts here have up to"
            f" {len(ours):,} tokens. Set {_LENGTHS.get(spec.name, 'data.length')} to at most"
            f" {len(theirs):,}."
        )
    return {**given, _POSITIONS: theirs[: len(ours)]}


def _scaled_grid(positions: Tensor, count: int, before: int, ratio: float) -> Tensor | None:
    """Positions of a square image, interpolated to `count`; None if it was no square.

    Args:
        positions: (before + side², dim).
        before: positions that are not in the image.
        ratio: rows over columns.
    """
    side = round((len(positions) - before) ** 0.5)
    if side * side != len(positions) - before:
        return None
    rows = round((count * ratio) ** 0.5)
    grid = positions[before:].float().T.reshape(1, -1, side, side)
    scaled = F.interpolate(grid, (rows, count // rows), mode="bicubic")
    return torch.cat([positions[:before], scaled[0].flatten(1).T.to(positions.dtype)])


def _listed(names: Sequence[str], between: str = ", ") -> str:
    more = f" and {len(names) - _LISTED:,} more" if len(names) > _LISTED else ""
    return (between.join(names[:_LISTED]) or "none") + more


def _shape(tensor: Tensor) -> str:
    return " × ".join(map(str, tensor.shape)) or "one number"
