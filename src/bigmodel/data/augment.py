"""Augmentation of training images, in whole batches, on their device.

The changes to an image depend on (seed, epoch, sample index) alone; see `counter_rng`. They are made in
the stored scale, before normalisation, so that the area beyond an image is black.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from bigmodel.data.counter_rng import uniforms
from bigmodel.errors import ConfigError
from bigmodel.registry import Config
from bigmodel.spec import Image

_SMALLEST_AREA = 0.02  # share of an image: less would hardly be visible
_LARGEST_ASPECT = 3.3  # height over width of an erased rectangle, or the inverse
_NUMBERS = 8  # random numbers for each image, used or not, so that no option changes another's


class AugmentConfig(Config):
    """Random changes to training images; all off by default."""

    shift: int = Field(0, ge=0, description="largest random shift up, down, left or right, in pixels")
    flip: float = Field(0.0, ge=0, le=1, description="probability of mirroring left to right")
    erase: float = Field(0.0, ge=0, le=1, description="probability of blanking a random rectangle")
    erase_area: float = Field(
        0.2,
        ge=_SMALLEST_AREA,
        le=1,
        description="largest share of the image that such a rectangle covers, 0.02 to 1",
    )

    @property
    def active(self) -> bool:
        return self.shift > 0 or self.flip > 0 or self.erase > 0


def check_augment(config: AugmentConfig, image: Image) -> None:
    """Raises ConfigError if images of this size cannot be shifted as far as `config` says."""
    if config.shift >= min(image.height, image.width):
        raise ConfigError(
            f"data.augment.shift={config.shift}: must be smaller than the images, which are"
            f" {image.height}×{image.width} pixels. A tenth of the width is usual."
        )


def augment(images: Tensor, config: AugmentConfig, index: Tensor, key: int) -> Tensor:
    """Flips, shifts and erases each image at random.

    Shifting over a black border equals "random crop with padding" (He et al., "Deep residual
    learning", 2016); erasing follows Zhong et al., "Random erasing data augmentation" (2017).

    Args:
        images: (batch, channels, height, width), uint8 or float, 0 being black.
        config: which changes to make.
        index: (batch,) int64 indices of the samples in their part.
        key: from `counter_rng.key_of`, of the seed and the epoch.

    Returns:
        New images of the same shape and type.
    """
    random = uniforms(key, index, _NUMBERS)
    row = torch.arange(len(images), device=images.device)
    if config.flip > 0:  # picking rows from both is faster than choosing pixel by pixel
        row = row + len(images) * (random[:, 0] < config.flip)
        images = torch.cat([images, images.flip(-1)])
    if config.shift > 0:
        images = _shifted(images, row, config.shift, random[:, 1:3])
    elif config.flip > 0:
        images = images.index_select(0, row)
    if config.erase > 0:
        images = images * _erasure(images, config, random[:, 3:])
    return images


def _shifted(images: Tensor, row: Tensor, limit: int, random: Tensor) -> Tensor:
    """The images at `row`, each moved by up to `limit` pixels both ways; random: (batch, 2)."""
    height, width = images.shape[-2:]
    start = (random * (2 * limit + 1)).to(torch.int64).clamp_(max=2 * limit)
    # (images, channels, offsets down, offsets right, height, width): a view of every possible crop
    crops = F.pad(images, (limit, limit, limit, limit)).unfold(2, height, 1).unfold(3, width, 1)
    return crops[row, :, start[:, 0], start[:, 1]]


def _erasure(images: Tensor, config: AugmentConfig, random: Tensor) -> Tensor:
    """0 within each image's erased rectangle, 1 elsewhere: (batch, 1, height, width), of its type."""
    chosen, area_share, aspect_share = random[:, 0] < config.erase, random[:, 1], random[:, 2]
    area = _SMALLEST_AREA + area_share * (config.erase_area - _SMALLEST_AREA)
    aspect = torch.exp((2 * aspect_share - 1) * math.log(_LARGEST_ASPECT))
    rows = _inside(images.shape[2], (area * aspect).sqrt(), random[:, 3]) & chosen[:, None]
    columns = _inside(images.shape[3], (area / aspect).sqrt(), random[:, 4])
    # Products of the images' own type are several times faster than a boolean mask.
    return 1 - rows.to(images.dtype)[:, None, :, None] * columns.to(images.dtype)[:, None, None, :]


def _inside(length: int, share: Tensor, place: Tensor) -> Tensor:
    """Which of `length` pixels are in a stretch of that share, at `place` (0 to 1): (batch, length)."""
    stretch = (share * length).round().clamp(1, length)
    first = (place * (length - stretch + 1)).floor().minimum(length - stretch)
    pixel = torch.arange(length, device=place.device)
    return (pixel >= first[:, None]) & (pixel < (first + stretch)[:, None])
