"""From samples as a source reads them to a `Dataset`: checked, split, normalised.

A source, a user's own too, reads its inputs and targets, says what they are, and calls `assemble`:

    @data.register("my_data", RealConfig)
    def my_data(config: RealConfig) -> Dataset:
        spec = DataSpec("my_data", Features(4), Classes(names=("no", "yes"), counts=()))
        return assemble(config, spec, Part(inputs, labels), normalize=config.normalize)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch

from bigmodel.data.array.reader import ArraysReader
from bigmodel.data.base import DataConfig, Dataset, PartName
from bigmodel.data.checks import check_part
from bigmodel.data.normalize import image_statistics, scored, standard, value_statistics
from bigmodel.data.parts import Part, Stored, Texts
from bigmodel.data.splits import plain_split, stratified_split
from bigmodel.spec import Classes, DataSpec, Image, NextTokens, Target, Tokens, Values


def assemble(
    config: DataConfig,
    spec: DataSpec,
    samples: Part,
    test: Part | None = None,
    normalize: bool = True,
) -> Dataset:
    """Splits samples into training and validation, and learns from training what both are scaled by.

    Args:
        config: says how large the validation part is and how it is drawn.
        spec: name, inputs and target. What only the training part can tell is filled in here: the
            `counts` of classes, the `mean` and `std` of values, and `sizes`.
        samples: what to split. Real numbers may be of any floating type; values are in their own unit.
        test: an official test part, in the same form.
        normalize: standardise the inputs. Features and sequences are changed once, here; images stay
            as they are stored, and `Dataset.mean` and `std` say what to do with each batch.

    Raises:
        DataError: the samples are not what the spec says, or a part would be empty.
    """
    check_part(samples, spec, "training")
    if test is not None:
        check_part(test, spec, "test")
    if isinstance(spec.target, Classes):
        train, val = stratified_split(samples.targets, config.val_fraction, config.split_seed)
    else:
        train, val = plain_split(len(samples), config.val_fraction, config.split_seed)
    named: dict[PartName, Part] = {"train": samples.select(train), "val": samples.select(val)}
    if test is not None:
        named["test"] = test

    statistics = mean = std = None
    if normalize and isinstance(spec.input, Image):
        mean, std = image_statistics(named["train"].inputs)
    elif normalize and not isinstance(spec.input, Tokens):
        statistics = value_statistics(named["train"].inputs)
        named = {
            name: Part(standard(part.inputs, *statistics), part.targets) for name, part in named.items()
        }
    done = completed(spec, named)
    as_bytes = samples.inputs.dtype == torch.uint8
    reader = ArraysReader.of(done.spec, statistics, bytes=as_bytes)
    return replace(done, mean=mean, std=std, reader=reader)


def completed(spec: DataSpec, parts: Mapping[PartName, Stored]) -> Dataset:
    """A `Dataset` of parts that are split already; for sources that learn from training themselves.

    Args:
        spec: name, inputs and target; `counts` of classes, `mean` and `std` of values and `sizes` are
            filled in here, from the training part.
        parts: `train`, `val` and maybe `test`; inputs ready, or images as they are stored. Values are in
            their own unit: they are standardised here.

    Raises:
        DataError: a part is not what the spec says.
    """
    for name, part in parts.items():
        check_part(part, spec, name)
    target = _completed(spec.target, parts["train"])
    every: tuple[PartName, ...] = ("train", "val", "test")  # as a header tells them, however they came
    sizes: dict[str, int] = {name: len(parts[name]) for name in every if name in parts}
    ready = {name: _ready(part, target) for name, part in parts.items()}
    spec = replace(spec, target=target, sizes=sizes)
    return Dataset(spec, ready["train"], ready["val"], ready.get("test"))


def _completed(target: Target, training: Stored) -> Target:
    """The target with what only the training part's targets can tell."""
    if not isinstance(training, Part | Texts):
        return target
    match target:
        case Classes():
            counts = torch.bincount(training.targets, minlength=target.count)
            return replace(target, counts=tuple(counts.tolist()))
        case Values():
            mean, std = value_statistics(training.targets)
            return replace(target, mean=tuple(mean.tolist()), std=tuple(std.tolist()))
        case _:
            return target


def _ready(part: Stored, target: Target) -> Stored:
    """Bytes and tokens as they are, other inputs in float32, targets as a loss reads them."""
    if not isinstance(part, Part | Texts) or isinstance(target, NextTokens):
        return part
    targets = scored(part.targets, target)
    if isinstance(part, Texts):
        return replace(part, targets=targets)
    inputs = part.inputs
    return Part(inputs.float() if inputs.is_floating_point() else inputs, targets)
