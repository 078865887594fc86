"""Mean and standard deviation of the training set, for images, features, sequences and targets.

Sums are in float64. A column that is constant in the training set gets a deviation of 1, to avoid a
division by 0.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from bigmodel.errors import DataError
from bigmodel.spec import Classes, Multitask, Target, Values


class ImageSize(NamedTuple):
    """Height and width of the images that a pretrained model was trained with."""

    height: int
    width: int


class ImageScaling(NamedTuple):
    """Mean and deviation of each channel, of pixels from 0 to 1, that a pretrained model was trained
    with: both (channels, 1, 1)."""

    mean: Tensor
    std: Tensor


_CHUNK = 4096  # images at once, so that a large part is never all in float64


def image_statistics(images: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and deviation of each channel over all pixels; bytes are scaled to 0 to 1.

    Args:
        images: (samples, channels, height, width), uint8 or float.

    Returns:
        Two float32 tensors of shape (channels, 1, 1).
    """
    statistics = _byte_statistics if images.dtype == torch.uint8 else _float_statistics
    mean, std = statistics(images)
    return mean.float()[:, None, None], std.float()[:, None, None]


def band_statistics(spectrograms: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and deviation of each band over all frames: two float32 tensors of shape (bands,).

    Args:
        spectrograms: (samples, …, bands), float.
    """
    bands = spectrograms.shape[-1]
    by_band = spectrograms.reshape(len(spectrograms), -1, bands).transpose(1, 2)[..., None]
    mean, std = image_statistics(by_band)
    return mean.view(bands), std.view(bands)


def value_statistics(values: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and deviation of each column of (…, columns), over all other dimensions: float64 (columns,).

    Both are rounded to 44 bits: the last digits of a sum in float64 depend on the number of threads, and
    inputs must be the same on any machine.

    Raises:
        DataError: values are too large to be squared.
    """
    rows = values.reshape(-1, values.shape[-1]).double()
    mean, std = rows.mean(0), rows.std(0, correction=0)
    std = torch.where(rows.amin(0) == rows.amax(0), 1.0, std)
    if not bool((mean.isfinite() & std.isfinite()).all()):
        raise DataError(
            f"The training set holds numbers as large as {rows.abs().max():.3g}, too large to "
            "standardise. Use another unit."
        )
    return _rounded(mean), _rounded(std)


def standardise(numbers: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """(numbers - mean) / std, computed in float64, as float32."""
    return ((numbers.double() - mean) / std).float()


def scale_targets(targets: Tensor, target: Target) -> Tensor:
    """Targets, values in their own unit, as a loss reads them."""
    if isinstance(target, Multitask):
        target = target.columns
    if isinstance(target, Values):
        # Statistics in float32: runs of earlier versions need exactly the same targets when resumed.
        mean, std = (torch.tensor(values).double() for values in (target.mean, target.std))
        return standardise(targets, mean, std)
    return targets if isinstance(target, Classes) else targets.float()


def _rounded(values: Tensor) -> Tensor:
    fraction, exponent = torch.frexp(values)
    return torch.ldexp((fraction * 2.0**44).round() / 2.0**44, exponent)


def _byte_statistics(images: Tensor) -> tuple[Tensor, Tensor]:
    """Exact mean and deviation, from a histogram of each channel."""
    whole = torch.zeros(images.shape[1], 256, dtype=torch.int64)
    for chunk in torch.split(images, _CHUNK):
        for channel, seen in zip(chunk.unbind(1), whole, strict=True):
            seen += torch.bincount(channel.flatten(), minlength=256)
    counts = whole.double()
    level = torch.arange(256, dtype=torch.float64) / 255
    pixels = counts.sum(1)
    mean = counts @ level / pixels
    variance = (counts * (level - mean[:, None]) ** 2).sum(1) / pixels
    constant = (counts > 0).sum(1) == 1
    return mean, torch.where(constant, 1.0, variance.sqrt())


def _float_statistics(images: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and deviation in two passes: a single one loses digits if the mean is large."""
    pixels = images.shape[0] * images.shape[2] * images.shape[3]
    mean = _sum_over(images, torch.zeros(images.shape[1]).double(), power=1) / pixels
    variance = _sum_over(images, mean, power=2) / pixels
    constant = images.amin((0, 2, 3)) == images.amax((0, 2, 3))
    return mean, torch.where(constant, 1.0, variance.sqrt())


def _sum_over(images: Tensor, centre: Tensor, power: int) -> Tensor:
    """Sum of `(pixel - centre) ** power` in each channel: (channels,) float64."""
    total = torch.zeros_like(centre)
    for chunk in torch.split(images, _CHUNK):
        total += ((chunk.double() - centre[:, None, None]) ** power).sum((0, 2, 3))
    return total
