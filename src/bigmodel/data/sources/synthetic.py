"""Synthetic data that can be learnt: any shape of input, any kind of target, from a seed.

For trying a model at some size without data of that size, and for timing. The targets come from a fixed
random teacher:

- Features, sequences and tokens are random. The teacher scores each position (a feature, a step, a
  token), and a sample's score is their sum: `tanh` and linear for real inputs, a score for each word for
  tokens. The target is the score plus noise, its sign, or the class with the highest score.
- Images show their target: each output has a smooth pattern, and an image is the sum of the patterns,
  weighted by its target, on grey, plus noise.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import Field, PositiveInt, ValidationInfo, field_validator
from torch import Tensor

from bigmodel import spec as specs
from bigmodel.data.assemble import assemble
from bigmodel.data.base import Dataset, RealConfig
from bigmodel.data.counter_rng import generator_of
from bigmodel.data.digest import DigestBuilder, SourceDigest
from bigmodel.data.parts import Part
from bigmodel.registry import data

_DIMENSIONS = {
    "features": "[count]",
    "image": "[channels, height, width]",
    "sequence": "[steps, features]",
    "tokens": "[length]",
}
_VERSION = 1  # of the drawn data: another one means other data from the same settings
_TEACHER, _SAMPLES, _NOISE = 0, 1, 2  # separate random streams of a seed
_CONTRAST = 0.15  # deviation of an image's patterns, from black 0 to white 1


class SyntheticConfig(RealConfig):
    """Sizes and kinds of synthetic data."""

    input: Literal["features", "image", "sequence", "tokens"] = Field(
        "features", description="kind of the inputs: features, image, sequence or tokens"
    )
    shape: list[PositiveInt] = Field(
        [10],
        validate_default=True,
        description="of one input: count; channels, height, width; steps, features; or length",
    )
    vocab_size: int = Field(10, ge=2, description="number of words that tokens are drawn from")
    target: Literal["classes", "values", "flags"] = Field(
        "values", description="kind of the targets: classes, values or flags"
    )
    outputs: int = Field(
        1, ge=1, validate_default=True, description="number of classes, values or flags"
    )
    samples: int = Field(1000, ge=2, description="samples in all, before the split")
    noise: float = Field(0.1, ge=0, description="deviation of the noise, as a share of the signal's")
    seed: int = Field(0, ge=0, description="seed of the teacher and of the samples")

    @field_validator("shape")
    @classmethod
    def _shape_fits(cls, shape: list[int], info: ValidationInfo) -> list[int]:
        kind = info.data.get("input", "features")
        if len(shape) != _DIMENSIONS[kind].count(",") + 1:
            raise ValueError(f"input={kind} needs shape={_DIMENSIONS[kind]}")
        return shape

    @field_validator("outputs")
    @classmethod
    def _outputs_fit(cls, outputs: int, info: ValidationInfo) -> int:
        if info.data.get("target") == "classes" and outputs < 2:
            raise ValueError("target=classes needs 2 outputs or more, one for each class")
        return outputs

    @field_validator("samples")
    @classmethod
    def _every_class_occurs(cls, samples: int, info: ValidationInfo) -> int:
        outputs = info.data.get("outputs", 1)
        if info.data.get("target") == "classes" and samples < outputs:
            raise ValueError(f"target=classes needs a sample of each of its {outputs} classes or more")
        return samples


@data.register("synthetic", SyntheticConfig)
def synthetic(config: SyntheticConfig) -> Dataset:
    """Synthetic data of the shapes and kinds in `config`."""
    if config.input == "image":
        targets = _codes(config)
        inputs = _images(config, targets)
    else:
        inputs = _inputs(config)
        targets = _teacher_targets(config, inputs)
    if config.target == "classes":
        targets = _labels(targets)
    elif config.target == "flags":
        targets = (targets > 0).float()
    spec = specs.DataSpec("synthetic", _input(config), _target(config))
    dataset = assemble(config, spec, Part(inputs, targets), normalize=config.normalize)
    return replace(dataset, read=_digest(config))


def _digest(config: SyntheticConfig) -> SourceDigest:
    """Of the settings that determine the data, except for rounding: it is computed."""
    names = ("input", "shape", "vocab_size", "target", "outputs", "samples", "noise", "seed")
    settings = [(name, getattr(config, name)) for name in (*names, "val_fraction", "split_seed")]
    if config.cross_validation is not None:
        settings.append(("folds", config.cross_validation))
    if not config.validation:
        settings.append(("validation", False))
    return DigestBuilder().word(f"synthetic {_VERSION} {settings}").read(exact=False)


def _input(config: SyntheticConfig) -> specs.Input:
    if config.input == "tokens":
        return specs.Tokens(config.shape[0], config.vocab_size)
    kinds: dict[str, Callable[..., specs.Input]] = {
        "features": specs.Features,
        "image": specs.Image,
        "sequence": specs.Sequence,
    }
    return kinds[config.input](*config.shape)


def _target(config: SyntheticConfig) -> specs.Target:
    word = {"classes": "class", "values": "value", "flags": "flag"}[config.target]
    count = config.outputs
    names = (word,) if count == 1 else tuple(f"{word} {index}" for index in range(count))
    if config.target == "classes":
        return specs.Classes(names, counts=())
    return specs.Flags(names) if config.target == "flags" else specs.Values(names, mean=(), std=())


def _inputs(config: SyntheticConfig) -> Tensor:
    """Features, sequences or tokens: (samples, *shape)."""
    size, generator = (config.samples, *config.shape), generator_of(config.seed, _SAMPLES)
    if config.input == "tokens":
        return torch.randint(config.vocab_size, size, generator=generator)
    return torch.randn(size, generator=generator)


def _teacher_targets(config: SyntheticConfig, inputs: Tensor) -> Tensor:
    """The teacher's scores, standardised, plus noise: (samples, outputs)."""
    teacher = generator_of(config.seed, _TEACHER)
    if config.input == "tokens":
        word_scores = torch.randn(config.vocab_size, config.outputs, generator=teacher)
        scores = F.embedding(inputs, word_scores).sum(1)
    else:
        width, hidden = inputs.shape[-1], 4 * config.outputs
        linear = torch.randn(width, config.outputs, generator=teacher) / width**0.5
        inner = torch.randn(width, hidden, generator=teacher) / width**0.5
        outer = torch.randn(hidden, config.outputs, generator=teacher) / hidden**0.5
        scores = inputs @ linear + torch.tanh(2 * (inputs @ inner)) @ outer
        scores = scores.sum(1) if config.input == "sequence" else scores
    scores = (scores - scores.mean(0)) / scores.std(0, correction=0).clamp(min=1e-6)
    noise = torch.randn(scores.shape, generator=generator_of(config.seed, _NOISE))
    return scores + config.noise * noise


def _labels(scores: Tensor) -> Tensor:
    """The class with the highest score, (samples,), from scores (samples, classes).

    A class without a sample gets the nearest one whose own class has others.
    """
    labels = scores.argmax(1)
    counts = torch.bincount(labels, minlength=scores.shape[1])
    for missing in (counts == 0).nonzero().flatten().tolist():
        behind = scores.amax(1) - scores[:, missing]
        nearest = torch.where(counts[labels] > 1, behind, torch.inf).argmin()
        counts[labels[nearest]] -= 1
        counts[missing] = 1
        labels[nearest] = missing
    return labels


def _codes(config: SyntheticConfig) -> Tensor:
    """The weights of images' patterns, (samples, outputs): values, flags as ±1, or one-hot classes."""
    size, generator = (config.samples, config.outputs), generator_of(config.seed, _SAMPLES)
    match config.target:
        case "classes":
            drawn = torch.randint(config.outputs, size[:1], generator=generator)
            labels = _labels(F.one_hot(drawn, config.outputs).float())
            return F.one_hot(labels, config.outputs).float()
        case "flags":
            return torch.randint(2, size, generator=generator).float() * 2 - 1
        case _:
            return torch.randn(size, generator=generator)


def _images(config: SyntheticConfig, codes: Tensor) -> Tensor:
    """Images, (samples, *shape) uint8, that show their codes."""
    channels, height, width = config.shape
    generator = generator_of(config.seed, _TEACHER)
    coarse = torch.randn(config.outputs, channels, 4, 4, generator=generator)
    tint = torch.randn(config.outputs, channels, 1, 1, generator=generator)
    patterns = F.interpolate(coarse, size=(height, width), mode="bilinear") + 0.5 * tint
    if config.target != "classes":  # several show at once: keep the sum's contrast
        patterns = patterns / config.outputs**0.5
    noise = generator_of(config.seed, _NOISE)
    images = torch.empty((config.samples, *config.shape), dtype=torch.uint8)
    for chunk, code in zip(torch.split(images, 256), torch.split(codes, 256), strict=True):
        light = torch.einsum("no,ochw->nchw", code, patterns)
        light += config.noise * torch.randn(light.shape, generator=noise)
        chunk.copy_((0.5 + _CONTRAST * light).clamp_(0, 1).mul_(255).round_())
    return images
