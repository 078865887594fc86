"""Log-mel spectrograms: the power of a sound in each band of pitch, over time.

A window slides over the samples; its power at each frequency comes from a discrete Fourier transform,
here one convolution with cosines and sines, so that it exports like any other layer. Triangular filters,
spaced evenly on the mel scale, sum the power into bands; the logarithm approximates perceived loudness.

The mel scale is that of O'Shaughnessy ("Speech communication", 1987) and of the HTK book (Young et al.,
2006, section 5.4), mel = 2595 log10(1 + hertz / 700), with triangles of height 1.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bigmodel.errors import ConfigError

POWER_FLOOR = 1e-8
"""Power, relative to a full-scale sine, below which a band counts as silent: 80 dB."""

_MAX_PADDING = 8  # how many times longer than its window a transform may be


def hertz_to_mel(hertz: float) -> float:
    """The pitch of a frequency on the mel scale."""
    return 2595 * math.log10(1 + hertz / 700)


def mel_to_hertz(mel: Tensor) -> Tensor:
    """The frequency of a pitch on the mel scale."""
    return 700 * (10 ** (mel / 2595) - 1)


def mel_filters(bands: int, points: int, rate: int) -> Tensor:
    """Triangular filters that sum a power spectrum into bands: (bands, points // 2 + 1) float64.

    Args:
        bands: how many; their corners are spaced evenly on the mel scale from 0 to half the rate.
        points: of the Fourier transform.
        rate: samples per second.
    """
    corners = mel_to_hertz(torch.linspace(0, hertz_to_mel(rate / 2), bands + 2, dtype=torch.float64))
    hertz = torch.arange(points // 2 + 1, dtype=torch.float64) * rate / points
    rising = (hertz - corners[:-2, None]) / (corners[1:-1] - corners[:-2])[:, None]
    falling = (corners[2:, None] - hertz) / (corners[2:] - corners[1:-1])[:, None]
    return torch.minimum(rising, falling).clamp(min=0)


class LogMel(nn.Module):
    """The log-mel spectrogram of a sound: 0 for silence, about 1 for the loudest sine.

    Args:
        rate: samples per second.
        window, hop: samples in a window, and from one window to the next.
        bands: of the mel scale.

    Shapes: (batch, samples) → (batch, frames(samples), bands).

    Raises:
        ConfigError: there are more bands than the window can resolve.
    """

    basis: Tensor
    filters: Tensor

    def __init__(self, rate: int, window: int, hop: int, bands: int) -> None:
        super().__init__()
        self.window, self.hop = window, hop
        # zero padding makes the frequency grid finer, or narrow bands would fall between its points
        points = 1 << (window - 1).bit_length()
        filters = mel_filters(bands, points, rate)
        while bool((filters.sum(1) == 0).any()):
            points *= 2
            if points > _MAX_PADDING * window:
                raise ConfigError(
                    f"data.n_mels={bands}: windows of {window} samples (data.window seconds at"
                    f" {rate} Hz) are too short for that many bands. Lower it, such as to"
                    f" {max(bands // 2, 1)}, or raise data.window."
                )
            filters = mel_filters(bands, points, rate)
        place = torch.arange(window, dtype=torch.float64)
        hann = 0.5 - 0.5 * torch.cos(2 * math.pi * place / window)
        hann = 2 * hann / hann.sum()  # a sine of full scale has power 1
        angle = 2 * math.pi * torch.arange(points // 2 + 1)[:, None] * place / points
        basis = torch.cat([angle.cos() * hann, angle.sin() * hann])
        self.register_buffer("basis", basis.float()[:, None])  # (2 × frequencies, 1, window)
        self.register_buffer("filters", filters.float())

    def frames(self, samples: int) -> int:
        """Frames of a sound of so many samples; its end is padded with silence."""
        return max(1, math.ceil((samples - self.window) / self.hop) + 1)

    def forward(self, sound: Tensor) -> Tensor:
        missing = (self.frames(sound.shape[-1]) - 1) * self.hop + self.window - sound.shape[-1]
        waves = F.conv1d(F.pad(sound, (0, missing))[:, None], self.basis, stride=self.hop)
        cosine, sine = waves.chunk(2, dim=1)  # (batch, frequencies, frames) each
        power = cosine.square() + sine.square()
        bands = (self.filters @ power).transpose(1, 2)
        return torch.log1p(bands / POWER_FLOOR) / math.log1p(1 / POWER_FLOOR)
