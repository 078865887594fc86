"""Turns the samples that a source has read into a `Dataset`: checked, split, standardised.

A source, also a plugin's, reads inputs and targets, describes them in a spec, and calls `assemble`:

    @data.register("my_data", RealConfig)
    def my_data(config: RealConfig) -> Dataset:
        spec = DataSpec("my_data", Features(4), Classes(names=("no", "yes"), counts=()))
        return assemble(config, spec, Part(inputs, labels), normalize=config.normalize)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from bigmodel.data.arrays.reader import ArraysReader
from bigmodel.data.base import DataConfig, Dataset, PartName
from bigmodel.data.checks import check_part
from bigmodel.data.digest import DigestBuilder
from bigmodel.data.normalize import (
    ImageScaling,
    image_statistics,
    scale_targets,
    standardise,
    value_statistics,
)
from bigmodel.data.parts import Labelled, MultimodalPart, Part, SplitData
from bigmodel.data.preprocessing import Preprocessing
from bigmodel.data.splits import fold_split, plain_split, stratified_split
from bigmodel.errors import DataError
from bigmodel.spec import (
    Classes,
    DataSpec,
    Image,
    Input,
    Multitask,
    NextTokens,
    Target,
    Tokens,
    Values,
)


def assemble(
    config: DataConfig,
    spec: DataSpec,
    samples: Part,
    test: Part | None = None,
    normalize: bool = True,
    *,
    as_read: bool = False,
) -> Dataset:
    """Splits samples into training and validation, standardised with statistics of the training set.

    Args:
        config: size and seed of the validation set.
        spec: name, inputs and target. `counts` of classes, `mean` and `std` of values and `sizes` are
            filled in here.
        samples: what to split. Real numbers may have any floating type; values are in their own unit.
        test: an official test set, in the same form.
        normalize: standardise the inputs. Features and sequences are changed once, here; images stay
            as they are, and batches are scaled by `Dataset.mean` and `std`.
        as_read: samples are exactly what was read. Otherwise real numbers count as computed, so that a
            run can be resumed on another processor, which rounds differently.

    Raises:
        DataError: the samples are not what the spec says, or a part would be empty.
    """
    check_part(samples, spec, "training")
    if test is not None:
        check_part(test, spec, "test")
    train, val = _split(config, spec, samples)
    named: dict[PartName, Part] = {"train": samples if train is None else samples.select(train)}
    if val is not None:
        named["val"] = samples.select(val)
    if test is not None:
        named["test"] = test

    read = DigestBuilder().parts(named).read() if as_read else None
    scaled = standardised(config, spec.input, named, normalize)
    dataset = completed(spec, scaled.parts, config.learnt(spec.input))
    reader = ArraysReader.of(dataset.spec, scaled.statistics, samples.inputs.dtype)
    return replace(dataset, mean=scaled.mean, std=scaled.std, reader=reader, read=read, val_rows=val)


def _split(
    config: DataConfig, spec: DataSpec, samples: Part
) -> tuple[Tensor, Tensor] | tuple[None, None]:
    """The samples for training and those for validation; None: all are for training."""
    classes = spec.target if isinstance(spec.target, Classes) else None
    if not config.validation:
        return None, None
    if config.cross_validation is not None:
        return fold_split(
            len(samples),
            *config.cross_validation,
            config.split_seed,
            labels=None if classes is None else samples.targets,
            class_names=() if classes is None else classes.names,
        )
    if classes is not None:
        return stratified_split(samples.targets, config.val_fraction, config.split_seed)
    return plain_split(len(samples), config.val_fraction, config.split_seed)


class Standardised(NamedTuple):
    """Standardised parts.

    Attributes:
        parts: with standardised features and sequences; images as they are stored.
        statistics: mean and deviation of features and sequences, (features,) float64.
        mean, std: of images; see `Dataset`.
    """

    parts: Mapping[PartName, Part]
    statistics: tuple[Tensor, Tensor] | None = None
    mean: Tensor | None = None
    std: Tensor | None = None


def standardised(
    config: DataConfig, inputs: Input, parts: Mapping[PartName, Part], normalize: bool
) -> Standardised:
    """Standardises parts with the statistics of a resumed run or a pretrained model, or else with those
    of the training set."""
    if not normalize or isinstance(inputs, Tokens):
        return Standardised(parts)
    learnt, training = config.learnt(inputs), parts["train"].inputs
    if isinstance(inputs, Image):
        if learnt is not None:
            return Standardised(parts, None, learnt.mean, learnt.std)
        pretrained = config.pretrained(ImageScaling)
        if pretrained is not None and len(pretrained.mean) == inputs.channels:
            return Standardised(parts, None, *pretrained)
        return Standardised(parts, None, *image_statistics(training))
    reader = None if learnt is None else config.learnt_reader(ArraysReader)
    statistics = (reader and reader.statistics) or value_statistics(training)
    scaled = {
        name: Part(standardise(part.inputs, *statistics), part.targets) for name, part in parts.items()
    }
    return Standardised(scaled, statistics)


def completed(
    spec: DataSpec, parts: Mapping[PartName, SplitData], learnt: Preprocessing | None = None
) -> Dataset:
    """A `Dataset` of parts that the source has split itself.

    Args:
        spec: name, inputs and target; `counts` of classes, `mean` and `std` of values and `sizes` are
            filled in here, from the training set.
        parts: `train`, maybe `val` and `test`; inputs ready, or images as they are stored. Values are in
            their own unit: they are standardised here.
        learnt: the preprocessing of a resumed run, `config.learnt(spec.input)`.

    Raises:
        DataError: a part does not match the spec.
    """
    for name, part in parts.items():
        check_part(part, spec, name)
    target = _completed(spec.target, parts["train"], learnt)
    ready = {name: _ready(part, target) for name, part in parts.items()}
    dataset = Dataset(spec, ready["train"], ready.get("val"), ready.get("test"))
    sizes = {str(name): len(part) for name, part in dataset.parts.items()}
    return replace(dataset, spec=replace(spec, target=target, sizes=sizes))


def without_validation(dataset: Dataset) -> Dataset:
    """The data with its validation set as part of the training set. A source that can do so before it
    computes statistics does it itself.

    Raises:
        DataError: the source stores its samples in a way of its own.
    """
    train, val = dataset.train, dataset.val
    joined = None
    if isinstance(train, Part | MultimodalPart) and val is not None:
        joined = train.joined(val)
    if joined is None or val is None:
        raise DataError(
            f"data.validation=false: data '{dataset.spec.name}' has a validation set of its own, which"
            " cannot be joined with its training set. Leave the setting out."
        )
    row = ("Validation set", "part of the training set, whose statistics are those without it")
    sizes = {name: size for name, size in dataset.spec.sizes.items() if name != "val"}
    return replace(
        dataset,
        train=joined,
        val=None,
        val_rows=None,
        val_files=(),
        spec=replace(dataset.spec, sizes=sizes | {"train": len(train) + len(val)}),
        header_rows=[*dataset.header_rows, row],
    )


def _completed(target: Target, training: SplitData, learnt: Preprocessing | None) -> Target:
    """The target with counts of the training set, and with its statistics or a resumed run's."""
    if not isinstance(training, Labelled):
        return target
    match target:
        case Classes():
            return _counted(target, training.targets)
        case Values(names=names):
            known = None if learnt is None else learnt.spec.target
            if isinstance(known, Values) and known.names == names:
                return known
            return _measured(target, training.targets)
        case Multitask(names=names):
            known = None if learnt is None else learnt.spec.target
            if isinstance(known, Multitask) and known.names == names:
                return known
            columns = zip(target.parts, torch.split(training.targets, 1, dim=1), strict=True)
            parts = (
                _counted(part, own[:, 0].long()) if isinstance(part, Classes) else _measured(part, own)
                for part, own in columns
            )
            return replace(target, parts=tuple(parts))
        case _:
            return target


def _counted(target: Classes, training: Tensor) -> Classes:
    counts = torch.bincount(training, minlength=target.count)
    return replace(target, counts=tuple(counts.tolist()))


def _measured(target: Values, training: Tensor) -> Values:
    mean, std = value_statistics(training)
    return replace(target, mean=tuple(mean.tolist()), std=tuple(std.tolist()))


def _ready(part: SplitData, target: Target) -> SplitData:
    """A part with targets as a loss reads them, and real inputs in float32."""
    if not isinstance(part, Labelled) or isinstance(target, NextTokens):
        return part
    if isinstance(part, Part) and part.inputs.is_floating_point():
        part = replace(part, inputs=part.inputs.float())
    return replace(part, targets=scale_targets(part.targets, target))
