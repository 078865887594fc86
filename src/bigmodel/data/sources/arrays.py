"""A user's own arrays: samples that some other program has made numbers of already.

    numpy.savez("sensors.npz", inputs=inputs, targets=targets)
    bigmodel-train data=arrays data.path=sensors.npz

What the inputs are shows in their type and shape: (samples, features), (samples, steps, features),
(samples, channels, height, width); whole numbers may be tokens. What the targets are, too: whole numbers
and words are classes, real numbers values, rows of zeros and ones flags.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from bigmodel.data.arrays.files import open_arrays
from bigmodel.data.arrays.inference import ArraySamples, ArraysConfig, interpret_arrays
from bigmodel.data.arrays.reader import NOT_FINITE, ArraysReader, finite_rows
from bigmodel.data.assemble import completed, standardised
from bigmodel.data.base import Dataset, PartName
from bigmodel.data.class_counts import describe_target
from bigmodel.data.custom_data import check_trained_classes, resolve_path, separate_parts, split_samples
from bigmodel.data.digest import DigestBuilder
from bigmodel.data.parts import Part
from bigmodel.data.reader import HeaderRows
from bigmodel.data.targets import TargetEncoder
from bigmodel.errors import ConfigError, DataError, join_names
from bigmodel.registry import data
from bigmodel.spec import Classes, DataSpec, Features


@data.register("arrays", ArraysConfig)
def arrays(config: ArraysConfig) -> Dataset:
    """Arrays of a .npz or safetensors file."""
    path = resolve_path(config)
    where = f"data.path={config.path}"
    with open_arrays(path, "data.path") as file:
        samples = interpret_arrays(file, config, where)
    fine = finite_rows(samples.inputs, samples.targets, config.max_bad, where)
    if samples.inputs.numel() == 0:
        shape = tuple(samples.inputs.shape)
        raise DataError(f"{where}: array '{config.inputs}' has shape {shape}: it holds no numbers.")
    parts = _parts(config, samples, fine)
    if isinstance(samples.target, Classes):
        check_trained_classes(samples.target.names, parts["train"].targets, where, "samples")
    others = [resolve_path(config, f"{part}_path") for part in separate_parts(config)]
    digest = DigestBuilder().parts(parts).files(others)
    scaled = standardised(config, samples.input, parts, config.normalize)
    spec = DataSpec("arrays", samples.input, samples.target)
    reader = ArraysReader.of(spec, scaled.statistics, bytes=samples.inputs.dtype == torch.uint8)
    learnt = {"inputs": config.inputs, "targets": config.targets, "indexed": samples.indexed}
    dataset = _with_separate_parts(config, spec, scaled.parts, reader.model_copy(update=learnt))
    left_out = len(samples.inputs) - len(fine) + dataset.left_out.get(NOT_FINITE, 0)
    return replace(
        dataset,
        mean=scaled.mean,
        std=scaled.std,
        read=digest.read(),
        header_rows=_header_rows(path.name, samples, parts),
        left_out={NOT_FINITE: left_out} if left_out else {},
    )


def _header_rows(name: str, samples: ArraySamples, parts: Mapping[PartName, Part]) -> HeaderRows:
    """What the arrays are, classes with their counts; and warnings about classes and features."""
    lines = [("Arrays", f"{name}: {samples.input}, {samples.target}")]
    if isinstance(target := samples.target, Classes):
        classes, warnings = describe_target(target, (part.targets for part in parts.values()))
        lines += [("Classes", classes), *warnings]
    training = parts["train"].inputs
    if isinstance(samples.input, Features) and samples.input.count > 1:
        constant = (training == training[:1]).all(0).nonzero().flatten().tolist()
        if constant:
            some, which = f"{len(constant):,} of {samples.input}", join_names([*map(str, constant)])
            text = f"nothing can be learnt from {some}, which are constant (counted from 0): {which}"
            lines.append(("Warning", text))
    return lines


def _parts(config: ArraysConfig, samples: ArraySamples, fine: Tensor) -> dict[PartName, Part]:
    """The parts of the file itself, of the rows that are fine."""
    rows = fine.tolist()
    groups, marks = samples.groups, samples.assigned_parts
    found = split_samples(
        config,
        len(fine),
        labels=samples.targets[fine] if isinstance(samples.target, Classes) else None,
        groups=None if groups is None else [groups[row] for row in rows],
        assigned_parts=None if marks is None else [marks[row] for row in rows],
    )
    for part in ("val", "test"):
        if part in found and getattr(config, f"{part}_path") is not None:
            raise ConfigError(
                f"data.{part}_path={getattr(config, f'{part}_path')}: data.split={config.split} names a"
                f" {part} part already. Leave one of them out."
            )
    whole = Part(samples.inputs, samples.targets)
    return {name: whole.select(fine[index]) for name, index in found.items()}


def _with_separate_parts(
    config: ArraysConfig, spec: DataSpec, parts: Mapping[PartName, Part], reader: ArraysReader
) -> Dataset:
    """All parts, those that lie elsewhere as the reader reads them."""
    # `completed` wants a validation part: training stands in until the other file is read
    every: dict[PartName, Part] = {"train": parts["train"], "val": parts["train"]}
    dataset = completed(spec, every | dict(parts), config.learnt(spec.input))
    reader = reader.model_copy(update={"target_encoder": TargetEncoder.of(dataset.spec.target)})
    sizes, left_out = dict(dataset.spec.sizes), 0
    for part in separate_parts(config):
        path = resolve_path(config, f"{part}_path")
        found = reader.read(path, with_targets=True, max_bad=config.max_bad)
        setattr(dataset, part, found.part)
        sizes[part] = len(found.part)
        left_out += sum(found.left_out.values())
    return replace(
        dataset,
        spec=replace(dataset.spec, sizes=sizes),
        reader=reader,
        left_out={NOT_FINITE: left_out} if left_out else {},
    )
