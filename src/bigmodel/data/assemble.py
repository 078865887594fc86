"""From samples as a source reads them to a `Dataset`: checked, split, normalised.

A source, a user's own too, reads its inputs and targets, says what they are, and calls `assemble`:

    @data.register("my_data", RealConfig)
    def my_data(config: RealConfig) -> Dataset:
        spec = DataSpec("my_data", Features(4), Classes(names=("no", "yes"), counts=()))
        return assemble(config, spec, Part(inputs, labels), normalize=config.normalize)
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from bigmodel.data.base import DataConfig, Dataset, Part
from bigmodel.data.checks import check_part
from bigmodel.data.normalize import image_statistics, value_statistics
from bigmodel.data.splits import plain_split, stratified_split
from bigmodel.spec import Classes, DataSpec, Image, Target, Tokens, Values


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
    named = {"train": samples.select(train), "val": samples.select(val)}
    if test is not None:
        named["test"] = test

    target = _completed(spec.target, named["train"].targets)
    sizes = {name: len(part) for name, part in named.items()}
    mean = std = None
    if normalize and isinstance(spec.input, Image):
        mean, std = image_statistics(named["train"].inputs)
    elif normalize and not isinstance(spec.input, Tokens):
        statistics = value_statistics(named["train"].inputs)
        named = {
            name: Part(_standard(part.inputs, *statistics), part.targets) for name, part in named.items()
        }
    return Dataset(
        spec=replace(spec, target=target, sizes=sizes),
        **{
            name: Part(_stored(part.inputs), _scored(part.targets, target))
            for name, part in named.items()
        },
        mean=mean,
        std=std,
    )


def _completed(target: Target, training: Tensor) -> Target:
    """The target with what only the training part's targets can tell."""
    match target:
        case Classes():
            counts = torch.bincount(training, minlength=target.count)
            return replace(target, counts=tuple(counts.tolist()))
        case Values():
            mean, std = value_statistics(training)
            return replace(target, mean=tuple(mean.tolist()), std=tuple(std.tolist()))
        case _:
            return target


def _standard(numbers: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    return ((numbers.double() - mean) / std).float()


def _stored(inputs: Tensor) -> Tensor:
    """Bytes and tokens as they are, all else in float32."""
    return inputs.float() if inputs.is_floating_point() else inputs


def _scored(targets: Tensor, target: Target) -> Tensor:
    """Targets as a loss reads them."""
    if isinstance(target, Values):
        return _standard(targets, torch.tensor(target.mean).double(), torch.tensor(target.std).double())
    return targets if isinstance(target, Classes) else targets.float()
