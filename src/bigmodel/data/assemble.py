"""From samples as a source reads them to a `Dataset`: checked, split, standardised.

A source, a user's own too, reads its inputs and targets, says what they are, and calls `assemble`:

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
from bigmodel.data.normalize import image_statistics, scored, standard, value_statistics
from bigmodel.data.parts import Part, SplitData, Texts
from bigmodel.data.preprocessing import Preprocessing
from bigmodel.data.splits import plain_split, stratified_split
from bigmodel.spec import Classes, DataSpec, Image, Input, NextTokens, Target, Tokens, Values


def assemble(
    config: DataConfig,
    spec: DataSpec,
    samples: Part,
    test: Part | None = None,
    normalize: bool = True,
    *,
    as_read: bool = False,
) -> Dataset:
    """Splits samples into training and validation, and learns from training what both are scaled by.

    Args:
        config: says how large the validation part is and how it is drawn.
        spec: name, inputs and target. What follows from the training part is filled in here: the
            `counts` of classes, the `mean` and `std` of values, and `sizes`.
        samples: what to split. Real numbers may be of any floating type; values are in their own unit.
        test: an official test part, in the same form.
        normalize: standardise the inputs. Features and sequences are changed once, here; images stay
            as they are stored, and `Dataset.mean` and `std` say what to do with each batch.
        as_read: whether samples are what was read, to the last bit. Otherwise real numbers count as
            computed, so that a run may be resumed on another processor, which rounds differently.

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

    read = DigestBuilder().parts(named).read() if as_read else None
    scaled = standardised(config, spec.input, named, normalize)
    done = completed(spec, scaled.parts, config.learnt(spec.input))
    as_bytes = samples.inputs.dtype == torch.uint8
    reader = ArraysReader.of(done.spec, scaled.statistics, bytes=as_bytes)
    return replace(done, mean=scaled.mean, std=scaled.std, reader=reader, read=read)


class Standardised(NamedTuple):
    """Parts with inputs as a model expects them, or images as they are stored.

    Attributes:
        parts: features and sequences standardised.
        statistics: mean and deviation that they were standardised by, (features,) float64.
        mean, std: of images; see `Dataset`.
    """

    parts: Mapping[PartName, Part]
    statistics: tuple[Tensor, Tensor] | None = None
    mean: Tensor | None = None
    std: Tensor | None = None


def standardised(
    config: DataConfig, inputs: Input, parts: Mapping[PartName, Part], normalize: bool
) -> Standardised:
    """Standardises parts by what a resumed run has learnt, or by statistics of the training part."""
    if not normalize or isinstance(inputs, Tokens):
        return Standardised(parts)
    learnt, training = config.learnt(inputs), parts["train"].inputs
    if isinstance(inputs, Image):
        known = None if learnt is None else (learnt.mean, learnt.std)
        mean, std = known or image_statistics(training)
        return Standardised(parts, None, mean, std)
    reader = None if learnt is None else config.learnt_reader(ArraysReader)
    by = (reader and reader.statistics) or value_statistics(training)
    changed = {name: Part(standard(part.inputs, *by), part.targets) for name, part in parts.items()}
    return Standardised(changed, by)


def completed(
    spec: DataSpec, parts: Mapping[PartName, SplitData], learnt: Preprocessing | None = None
) -> Dataset:
    """A `Dataset` of parts that are split already, for sources that do that themselves.

    Args:
        spec: name, inputs and target; `counts` of classes, `mean` and `std` of values and `sizes` are
            filled in here, from the training part.
        parts: `train`, `val` and maybe `test`; inputs ready, or images as they are stored. Values are in
            their own unit: they are standardised here.
        learnt: what a resumed run has learnt from the source, `config.learnt(spec.input)`.

    Raises:
        DataError: a part is not what the spec says.
    """
    for name, part in parts.items():
        check_part(part, spec, name)
    target = _completed(spec.target, parts["train"], learnt)
    ready = {name: _ready(part, target) for name, part in parts.items()}
    done = Dataset(spec, ready["train"], ready["val"], ready.get("test"))
    sizes = {str(name): len(part) for name, part in done.parts.items()}  # in the order of the header
    return replace(done, spec=replace(spec, target=target, sizes=sizes))


def _completed(target: Target, training: SplitData, learnt: Preprocessing | None) -> Target:
    """The target with what follows from the training part, or what a resumed run has learnt of it."""
    if not isinstance(training, Part | Texts):
        return target
    match target:
        case Classes():
            counts = torch.bincount(training.targets, minlength=target.count)
            return replace(target, counts=tuple(counts.tolist()))
        case Values(names=names):
            known = None if learnt is None else learnt.spec.target
            if isinstance(known, Values) and known.names == names:
                return known
            mean, std = value_statistics(training.targets)
            return replace(target, mean=tuple(mean.tolist()), std=tuple(std.tolist()))
        case _:
            return target


def _ready(part: SplitData, target: Target) -> SplitData:
    """Bytes and tokens as they are, other inputs in float32, targets as a loss reads them."""
    if not isinstance(part, Part | Texts) or isinstance(target, NextTokens):
        return part
    if isinstance(part, Part) and part.inputs.is_floating_point():
        part = replace(part, inputs=part.inputs.float())
    return replace(part, targets=scored(part.targets, target))
