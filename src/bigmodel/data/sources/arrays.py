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
from bigmodel.data.digest import DigestBuilder
from bigmodel.data.parts import Part
from bigmodel.data.targets import TargetEncoder
from bigmodel.data.user_data import check_trained_classes, resolve_path, separate_parts, split_samples
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
    digest = (
        DigestBuilder()
        .parts(parts)
        .files(resolve_path(config, f"{part}_path") for part in separate_parts(config))
    )
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
        header_rows=[
            ("Arrays", f"{path.name}: {samples.input}, {samples.target}"),
            *_warnings(samples, parts),
        ],
        left_out={NOT_FINITE: left_out} if left_out else {},
    )


def _warnings(samples: ArraySamples, parts: Mapping[PartName, Part]) -> list[tuple[str, str]]:
    """The classes with their counts; and warnings about them, and about features."""
    lines = []
    if isinstance(target := samples.target, Classes):
        classes, warnings = describe_target(target, (part.targets for part in parts.values()))
        lines += [("Classes", classes), *warnings]
    training = parts["train"].inputs
    if isinstance(samples.input, Features) and samples.input.count > 1:
        constant = (training == training[:1]).all(0).nonzero().flatten().tolist()
        if constant:
            header_rows = (
                f"nothing can be learnt from {len(constant):,} of {samples.input}, which are constant"
            )
            lines.append(
                ("Warning", f"{header_rows} (counted from 0): {join_names(list(map(str, constant)))}")
            )
    return lines


def _parts(config: ArraysConfig, samples: ArraySamples, fine: Tensor) -> dict[PartName, Part]:
    """The parts of the file itself, of the rows that are fine."""
    rows = fine.tolist()
    found = split_samples(
        config,
        len(fine),
        labels=samples.targets[fine] if isinstance(samples.target, Classes) else None,
        groups=None if samples.groups is None else [samples.groups[row] for row in rows],
        assigned_parts=None
        if samples.assigned_parts is None
        else [samples.assigned_parts[row] for row in rows],
    )
    for part in ("val", "test"):
        if part in found and getattr(config, f"{part}_path") is not None:
            raise ConfigError(
                f"data.{part}_path={getattr(config, f'{part}_path')}: data.split={config.split} names a"
                f" {part} part already. Leave one of them out."
            )
    return {
        name: Part(samples.inputs[fine[index]], samples.targets[fine[index]])
        for name, index in found.items()
    }


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
