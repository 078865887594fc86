"""Interprets the user's arrays: kinds of inputs and targets, from the options or from type and shape."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from bigmodel.data.arrays.files import Arrays
from bigmodel.data.arrays.reader import as_bytes, is_one_hot, parse_class_labels
from bigmodel.data.base import ImageConfig
from bigmodel.data.custom_data import CustomDataConfig, check_classes
from bigmodel.data.targets import class_indices, sorted_names
from bigmodel.errors import ConfigError, DataError
from bigmodel.spec import Classes, Features, Flags, Image, Input, Target, Tokens, Values
from bigmodel.spec import Sequence as Steps

_CHANNEL_COUNTS = (1, 3, 4)  # of pictures: an axis of that size holds the channels


class ArraysConfig(CustomDataConfig, ImageConfig):
    """Which arrays of a file are inputs and targets, and what they mean."""

    inputs: str = Field("inputs", description="name of the array of inputs")
    targets: str = Field("targets", description="name of the array of targets")
    input: Literal["auto", "features", "sequence", "image", "tokens"] = Field(
        "auto", description="features, sequence, image, tokens, or auto: by type and shape"
    )
    task: Literal["auto", "classes", "flags", "values"] = Field(
        "auto", description="classes, flags, values, or auto: by type and shape of the targets"
    )
    names: list[str] | None = Field(
        None, description="words for classes 0, 1, …, for flags or for values; null: numbers"
    )
    vocab_size: int | None = Field(
        None, ge=2, description="size of the vocabulary; null: the largest token plus one"
    )
    group: str | None = Field(
        None, description="name of an array of groups, each kept in one set; null: none"
    )
    split: str | None = Field(None, description="name of an array of train, val and test; null: none")


@dataclass(frozen=True)
class ArraySamples:
    """A file's arrays, interpreted.

    Attributes:
        inputs: in their own unit.
        targets: class indices, flags, or values in their own unit.
        target: their spec, without counts or statistics.
        indexed: whole numbers are indices of classes, not their names.
    """

    input: Input
    inputs: Tensor
    target: Target
    targets: Tensor
    indexed: bool
    groups: list[object] | None
    assigned_parts: list[str] | None


def interpret_arrays(file: Arrays, config: ArraysConfig, where: str) -> ArraySamples:
    """The arrays of a file, interpreted.

    Raises:
        DataError: an array is missing, or its type or shape is not supported.
    """
    given = file.read(config.inputs, "data.inputs")
    if isinstance(given, list):
        raise DataError(f"data.inputs={config.inputs}: holds words, expected numbers. Use data=table.")
    kind, inputs = _inputs(given, config)
    given_targets = file.read(config.targets, "data.targets")
    if len(given_targets) != len(inputs):
        raise DataError(
            f"{where}: '{config.inputs}' holds {len(inputs):,} samples, but '{config.targets}'"
            f" {len(given_targets):,}: the numbers must be equal."
        )
    target, targets, indexed = _targets(given_targets, config)

    def column(name: str | None, key: str) -> list[object] | None:
        if name is None:
            return None
        array = file.read(name, key)
        values = array if isinstance(array, list) else array.tolist()
        if len(values) != len(inputs):
            raise DataError(f"{key}={name}: holds {len(values):,} for {len(inputs):,} samples.")
        return list(values)

    assigned_parts = column(config.split, "data.split")
    groups = column(config.group, "data.group")
    named = None if assigned_parts is None else [str(mark) for mark in assigned_parts]
    return ArraySamples(kind, inputs, target, targets, indexed, groups, named)


def _inputs(given: Tensor, config: ArraysConfig) -> tuple[Input, Tensor]:
    """The kind of inputs, and the inputs as they are stored: real numbers in any floating type."""
    kind, shape = config.input, tuple(given.shape)
    whole = not given.is_floating_point()
    if kind == "auto":
        kind = _infer_input(given, config.inputs)
    where = f"data.input={kind}: array '{config.inputs}' has shape {shape}"
    if kind == "tokens":
        if len(shape) != 2 or not whole:
            raise DataError(f"{where}, expected whole numbers (samples, length). It is {given.dtype}.")
        return _tokens(given, config)
    if kind == "image":
        return _image(given, where)
    real = given.double() if whole else given
    if kind == "sequence":
        if len(shape) == 2:  # one number a step
            real = real[..., None]
        elif len(shape) != 3:
            raise DataError(f"{where}, expected (samples, steps, features) or (samples, steps).")
        return Steps(real.shape[1], real.shape[2]), real
    if len(shape) == 1:
        real = real[:, None]
    elif len(shape) != 2:
        raise DataError(f"{where}, expected (samples, features).")
    return Features(real.shape[1]), real


def _infer_input(given: Tensor, name: str) -> Literal["features", "sequence", "image", "tokens"]:
    """The kind of inputs by their type and shape."""
    if given.ndim == 4 or (given.ndim == 3 and given.dtype == torch.uint8):
        return "image"
    if given.ndim == 3:
        return "sequence"
    if given.ndim == 2 and not given.is_floating_point() and given.dtype != torch.bool:
        raise DataError(
            f"data.inputs={name}: whole numbers of shape {tuple(given.shape)} may be tokens or features."
            " Set data.input=tokens or data.input=features."
        )
    if given.ndim in (1, 2):
        return "features"
    raise DataError(
        f"data.inputs={name}: has shape {tuple(given.shape)}; supported are (samples, features), "
        "(samples, steps, features), (samples, channels, height, width) and, whole numbers, (samples, "
        "length)."
    )


def _tokens(given: Tensor, config: ArraysConfig) -> tuple[Input, Tensor]:
    if bool((given < 0).any()):
        least = given.min()
        raise DataError(f"data.inputs={config.inputs}: tokens are 0 or more, but there is {least}.")
    largest = int(given.max()) if given.numel() else 0
    vocab_size = config.vocab_size or max(largest + 1, 2)
    if largest >= vocab_size:
        raise DataError(
            f"data.vocab_size={vocab_size}: array '{config.inputs}' holds token {largest}. Raise it to"
            f" {largest + 1} or more."
        )
    return Tokens(given.shape[1], vocab_size), given.long()


def _image(given: Tensor, where: str) -> tuple[Input, Tensor]:
    """Images with the channels before height and width; whole numbers as bytes."""
    if given.ndim == 3:
        given = given[:, None]
    if given.ndim != 4:
        raise DataError(
            f"{where}, expected (samples, channels, height, width) or (samples, height, width)."
        )
    if given.shape[1] not in _CHANNEL_COUNTS and given.shape[3] in _CHANNEL_COUNTS:
        given = given.permute(0, 3, 1, 2).contiguous()
    if not given.is_floating_point():
        given = as_bytes(given, where)
    channels, height, width = given.shape[1:]
    return Image(channels, height, width), given


def _targets(given: Tensor | list[str], config: ArraysConfig) -> tuple[Target, Tensor, bool]:
    """The kind of targets, the targets, and whether they are indices of classes."""
    where = f"data.targets={config.targets}"
    if isinstance(given, list):
        if config.task not in ("auto", "classes"):
            raise DataError(f"data.task={config.task}: array '{config.targets}' holds words.")
        names = tuple(config.names) if config.names is not None else sorted_names(given)
        check_classes(names, where)
        return Classes(names, counts=()), class_indices(given, names, where), False
    given = given.to(torch.uint8) if given.dtype == torch.bool else given
    task = _infer_task(given, where) if config.task == "auto" else config.task
    if task == "classes":
        return _classes(given, config, where)
    own = given[:, None] if given.ndim == 1 else given
    if own.ndim != 2:
        raise DataError(f"{where}: has shape {tuple(given.shape)}, expected (samples, {task}).")
    if task == "flags" and bool(((own != 0) & (own != 1)).any()):
        fault = "flags are 0 or 1, but others are among them"
        raise DataError(f"{where}: {fault}. Is data.task=values meant?")
    names = _output_names(config, own.shape[1], task.removesuffix("s"))
    if task == "flags":
        return Flags(names), own.float(), False
    return Values(names, mean=(), std=()), own.double(), False


def _infer_task(given: Tensor, where: str) -> Literal["classes", "flags", "values"]:
    """The kind of targets by their type and shape."""
    column = given.ndim == 1 or (given.ndim == 2 and given.shape[1] == 1)
    if column:
        return "values" if given.is_floating_point() else "classes"
    if is_one_hot(given):
        raise DataError(
            f"{where}: each row holds a single 1 among zeros: classes that exclude each other, or labels"
            " that do not? Set data.task=classes or data.task=flags."
        )
    if given.ndim == 2 and bool(((given == 0) | (given == 1)).all()):
        return "flags"
    if given.ndim == 2 and given.is_floating_point():
        return "values"
    raise DataError(
        f"{where}: {given.dtype} of shape {tuple(given.shape)} is ambiguous; supported are (samples"
        ",) and (samples, count). Set data.task=values if they are quantities."
    )


def _classes(given: Tensor, config: ArraysConfig, where: str) -> tuple[Target, Tensor, bool]:
    if config.names is not None:
        names = tuple(config.names)
        check_classes(names, "data.names")
        return Classes(names, counts=()), parse_class_labels(given, len(names), where), True
    labels = parse_class_labels(given, None, where)
    names = sorted_names([str(label) for label in set(labels.tolist())])
    check_classes(names, where)
    return Classes(names, counts=()), class_indices(labels.tolist(), names, where), False


def _output_names(config: ArraysConfig, count: int, word: str) -> tuple[str, ...]:
    if config.names is None:
        return (config.targets,) if count == 1 else tuple(f"{word} {index}" for index in range(count))
    if len(config.names) != count:
        raise ConfigError(
            f"data.names={config.names}: {len(config.names)} names for {count} "
            f"columns of array '{config.targets}'. Name each of them."
        )
    return tuple(config.names)
