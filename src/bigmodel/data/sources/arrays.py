"""The user's own arrays: samples that another program has turned into numbers.

    numpy.savez("sensors.npz", inputs=inputs, targets=targets)
    bigmodel-train data=arrays data.path=sensors.npz

Type and shape say what the inputs are: (samples, features), (samples, steps, features), (samples,
channels, height, width); whole numbers may be tokens. Likewise for the targets: whole numbers and words
are classes, real numbers values, rows of zeros and ones flags.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from torch import Tensor

from bigmodel.data.arrays.files import open_arrays
from bigmodel.data.arrays.inference import ArraySamples, ArraysConfig, interpret_arrays
from bigmodel.data.arrays.reader import NOT_FINITE, ArraysReader, finite_rows
from bigmodel.data.assemble import completed, standardised
from bigmodel.data.base import SET_NAMES, Dataset, PartName
from bigmodel.data.class_counts import describe_target
from bigmodel.data.custom_data import check_trained_classes, resolve_path, separate_parts, split_samples
from bigmodel.data.digest import DigestBuilder
from bigmodel.data.parts import Part
from bigmodel.data.reader import HeaderRows
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
    finite = finite_rows(samples.inputs, samples.targets, config.max_bad, where)
    if samples.inputs.numel() == 0:
        shape = tuple(samples.inputs.shape)
        raise DataError(f"{where}: array '{config.inputs}' has shape {shape}: it holds no numbers.")
    parts, val_rows = _split(config, samples, finite)
    if isinstance(samples.target, Classes):
        check_trained_classes(samples.target.names, parts["train"].targets, where, "samples")
    separate = {part: resolve_path(config, f"{part}_path") for part in separate_parts(config)}
    digest = DigestBuilder().parts(parts).files(separate.values())
    scaled = standardised(config, samples.input, parts, config.normalize)
    spec = DataSpec("arrays", samples.input, samples.target)
    dataset = completed(spec, scaled.parts, config.learnt(spec.input))
    reader = ArraysReader.of(dataset.spec, scaled.statistics, samples.inputs.dtype)
    names = {"inputs": config.inputs, "targets": config.targets, "indexed": samples.indexed}
    reader = reader.model_copy(update=names)
    left_out = len(samples.inputs) - len(finite)
    for part, part_path in separate.items():
        read = reader.read(part_path, with_targets=True, max_bad=config.max_bad)
        setattr(dataset, part, read.part)
        left_out += sum(read.left_out.values())
    sizes = {str(name): len(part) for name, part in dataset.parts.items()}
    return replace(
        dataset,
        spec=replace(dataset.spec, sizes=sizes),
        mean=scaled.mean,
        std=scaled.std,
        reader=reader,
        header_rows=_header_rows(path.name, samples, parts),
        left_out={NOT_FINITE: left_out} if left_out else {},
        read=digest.read(),
        val_rows=val_rows,
    )


def _header_rows(name: str, samples: ArraySamples, parts: Mapping[PartName, Part]) -> HeaderRows:
    """Inputs and targets, classes with their counts; and warnings about classes and features."""
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


def _split(
    config: ArraysConfig, samples: ArraySamples, finite: Tensor
) -> tuple[dict[PartName, Part], Tensor | None]:
    """The parts of the file itself, without the rows that are not finite; and the rows of its validation
    set."""
    rows = finite.tolist()
    groups, marks = samples.groups, samples.assigned_parts
    index = split_samples(
        config,
        len(rows),
        labels=samples.targets[finite] if isinstance(samples.target, Classes) else None,
        groups=None if groups is None else [groups[row] for row in rows],
        assigned_parts=None if marks is None else [marks[row] for row in rows],
        class_names=samples.target.names if isinstance(samples.target, Classes) else (),
    )
    for part in ("val", "test"):
        if part in index and getattr(config, f"{part}_path") is not None:
            raise ConfigError(
                f"data.{part}_path={getattr(config, f'{part}_path')}: data.split={config.split} names a"
                f" {SET_NAMES[part]} set already. Leave one of them out."
            )
    whole = Part(samples.inputs, samples.targets)
    chosen = {name: finite[places] for name, places in index.items()}
    return {name: whole.select(rows) for name, rows in chosen.items()}, chosen.get("val")
