"""Made-up data with a rule in it: any shape of input, any kind of target, from a seed.

For trying a model at some size without data of that size, and for timing. A fixed random teacher
decides the targets, so that training means something:

- Features, sequences and tokens are drawn at random. The teacher gives each position (a feature, a
  step, a token) a score, and a sample's score is their sum: `tanh` and linear for real inputs, a worth
  for each word for tokens. The target is the score plus noise; its sign; or the class with the highest.
- Images show what they mean: each output has a soft pattern of its own, and an image is the sum of
  patterns, weighted by its target, on grey, plus noise.
"""

from __future__ import annotations

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
_VERSION = 1  # of what is drawn; another one makes other data of the same settings
_CONTRAST = 0.15  # deviation of an image's patterns, from black 0 to white 1


class SyntheticConfig(RealConfig):
    """Sizes and kinds of made-up data."""

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
    """Made-up data of the shapes and kinds that `config` asks for."""
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
    made = assemble(config, spec, Part(inputs, targets), normalize=config.normalize)
    return replace(made, read=_digest(config))


def _digest(config: SyntheticConfig) -> SourceDigest:
    """What decides all of it but for rounding: `randn` and the teacher are computed."""
    names = ("input", "shape", "vocab_size", "target", "outputs", "samples", "noise", "seed")
    settings = [(name, getattr(config, name)) for name in (*names, "val_fraction", "split_seed")]
    return DigestBuilder().word(f"synthetic {_VERSION} {settings}").read(exact=False)


def _input(config: SyntheticConfig) -> specs.Input:
    match config.input:
        case "image":
            return specs.Image(*config.shape)
        case "sequence":
            return specs.Sequence(*config.shape)
        case "tokens":
            return specs.Tokens(config.shape[0], config.vocab_size)
        case _:
            return specs.Features(config.shape[0])


def _target(config: SyntheticConfig) -> specs.Target:
    word = {"classes": "class", "values": "value", "flags": "flag"}[config.target]
    count = config.outputs
    names = (word,) if count == 1 else tuple(f"{word} {index}" for index in range(count))
    match config.target:
        case "classes":
            return specs.Classes(names, counts=())
        case "flags":
            return specs.Flags(names)
        case _:
            return specs.Values(names, mean=(), std=())


def _generator(config: SyntheticConfig, purpose: int) -> torch.Generator:
    """Random numbers of their own for each purpose: 0 the teacher, 1 the samples, 2 the noise."""
    return generator_of(config.seed, purpose)


def _inputs(config: SyntheticConfig) -> Tensor:
    """Features, sequences or tokens: (samples, *shape)."""
    size, generator = (config.samples, *config.shape), _generator(config, 1)
    if config.input == "tokens":
        return torch.randint(config.vocab_size, size, generator=generator)
    return torch.randn(size, generator=generator)


def _teacher_targets(config: SyntheticConfig, inputs: Tensor) -> Tensor:
    """The teacher's scores, standardised, plus noise: (samples, outputs)."""
    teacher = _generator(config, 0)
    if config.input == "tokens":
        worth = torch.randn(config.vocab_size, config.outputs, generator=teacher)
        scores = F.embedding(inputs, worth).sum(1)
    else:
        width, hidden = inputs.shape[-1], 4 * config.outputs
        straight = torch.randn(width, config.outputs, generator=teacher) / width**0.5
        inner = torch.randn(width, hidden, generator=teacher) / width**0.5
        outer = torch.randn(hidden, config.outputs, generator=teacher) / hidden**0.5
        scores = inputs @ straight + torch.tanh(2 * (inputs @ inner)) @ outer
        scores = scores.sum(1) if config.input == "sequence" else scores
    scores = (scores - scores.mean(0)) / scores.std(0, correction=0).clamp(min=1e-6)
    return scores + config.noise * torch.randn(scores.shape, generator=_generator(config, 2))


def _labels(scores: Tensor) -> Tensor:
    """The class of each sample's highest score, (samples,), from scores (samples, classes).

    A class that would have no sample gets the one that comes nearest to it, of those that are not the
    only one of their own class.
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
    """What images are to mean, (samples, outputs): values, flags as ±1, or classes as 0 and 1."""
    size, generator = (config.samples, config.outputs), _generator(config, 1)
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
    generator = _generator(config, 0)
    coarse = torch.randn(config.outputs, channels, 4, 4, generator=generator)
    tint = torch.randn(config.outputs, channels, 1, 1, generator=generator)
    patterns = F.interpolate(coarse, size=(height, width), mode="bilinear") + 0.5 * tint
    if config.target != "classes":  # several show at once: keep the sum's contrast
        patterns = patterns / config.outputs**0.5
    noise = _generator(config, 2)
    images = torch.empty((config.samples, *config.shape), dtype=torch.uint8)
    for chunk, code in zip(torch.split(images, 256), torch.split(codes, 256), strict=True):
        light = torch.einsum("no,ochw->nchw", code, patterns)
        light += config.noise * torch.randn(light.shape, generator=noise)
        chunk.copy_((0.5 + _CONTRAST * light).clamp_(0, 1).mul_(255).round_())
    return images
