"""Log-mel spectrograms against a Fourier transform of numpy's, and sines where they belong."""

import math

import numpy as np
import pytest
import torch

from bigmodel.data.media.spectrogram import POWER_FLOOR, LogMel, hertz_to_mel, mel_filters, mel_to_hertz
from bigmodel.errors import ConfigError


def sine(hertz, rate, seconds=0.5, height=1.0):
    return height * torch.sin(2 * math.pi * hertz * torch.arange(round(rate * seconds)) / rate)


def reference(sound, rate, window, hop, bands):
    """The same in numpy: frames, its own Hann window, its own transform, triangles point by point."""
    points = 1 << (window - 1).bit_length()
    hann = np.hanning(window + 1)[:-1]
    frames = max(1, math.ceil((len(sound) - window) / hop) + 1)
    padded = np.concatenate([sound, np.zeros(window + hop)])
    power = np.stack(
        [
            np.abs(np.fft.rfft(padded[n * hop : n * hop + window] * hann * 2 / hann.sum(), points)) ** 2
            for n in range(frames)
        ]
    )
    top = 2595 * np.log10(1 + rate / 2 / 700)
    corners = 700 * (10 ** (np.linspace(0, top, bands + 2) / 2595) - 1)
    hertz = np.fft.rfftfreq(points, 1 / rate)
    filters = [np.interp(hertz, corners[n : n + 3], [0, 1, 0]) for n in range(bands)]
    return np.log1p(power @ np.stack(filters).T / POWER_FLOOR) / np.log1p(1 / POWER_FLOOR)


@pytest.mark.parametrize(
    ("rate", "window", "hop", "bands", "samples"),
    [(8000, 200, 80, 20, 4000), (16000, 400, 160, 64, 5003), (16000, 512, 100, 40, 512)],
)
def test_equals_a_fourier_transform(rate, window, hop, bands, samples):
    sound = torch.randn(2, samples, generator=torch.Generator().manual_seed(1)) / 4
    found = LogMel(rate, window, hop, bands)(sound)
    for row, expected in zip(found, sound, strict=True):
        wanted = reference(expected.double().numpy(), rate, window, hop, bands)
        torch.testing.assert_close(row.double(), torch.from_numpy(wanted), atol=1e-5, rtol=1e-5)


def test_silence_is_zero_and_a_full_sine_about_one():
    make = LogMel(16000, 400, 160, 64)
    assert make(torch.zeros(1, 8000)).abs().max() == 0
    loud = make(sine(1000, 16000)[None])
    assert loud.max() == pytest.approx(1, abs=0.05)
    quieter = make(sine(1000, 16000, height=0.01)[None])
    assert float(loud.max() - quieter.max()) == pytest.approx(0.5, abs=0.02)  # 40 of 80 dB


@pytest.mark.parametrize("hertz", [300, 1000, 3000, 7000])
def test_a_sine_is_loudest_in_its_own_band(hertz):
    make = LogMel(16000, 400, 160, 64)
    band = int(make(sine(hertz, 16000)[None])[0, 10].argmax())
    centre = hertz_to_mel(8000) * (band + 1) / 65
    assert abs(centre - hertz_to_mel(hertz)) <= hertz_to_mel(8000) / 65


def test_a_click_is_in_its_own_frames():
    sound = torch.zeros(1, 4000)
    sound[0, 2000] = 1
    heard = LogMel(8000, 200, 80, 20)(sound)[0].sum(1) > 0
    assert heard.nonzero().flatten().tolist() == [23, 24]  # 1840 and 1920; where a window starts it is 0


def test_the_mel_scale():
    assert hertz_to_mel(0) == 0
    assert hertz_to_mel(1000) == pytest.approx(1000, abs=0.1)
    assert float(mel_to_hertz(torch.tensor(hertz_to_mel(440.0)).double())) == pytest.approx(440)
    filters = mel_filters(20, 512, 16000)
    assert filters.shape == (20, 257)
    assert filters.min() >= 0
    assert filters.max() <= 1
    inner = filters.sum(0)[10:200]  # triangles that meet at each other's feet sum to 1
    torch.testing.assert_close(inner, torch.ones_like(inner))


def test_no_band_is_empty():
    make = LogMel(8000, 200, 80, 80)
    assert bool((make.filters.sum(1) > 0).all())
    with pytest.raises(ConfigError, match=r"data\.n_mels=500.*are too short for that many bands"):
        LogMel(8000, 200, 80, 500)


@pytest.mark.parametrize(("samples", "frames"), [(1, 1), (200, 1), (201, 2), (280, 2), (281, 3)])
def test_no_sample_is_lost_at_the_end(samples, frames):
    make = LogMel(8000, 200, 80, 20)
    assert make.frames(samples) == frames
    assert make(torch.zeros(1, samples)).shape == (1, frames, 20)


def test_traces_without_complex_numbers():
    make = LogMel(8000, 200, 80, 20)
    sound = torch.randn(1, 1000)
    graph = torch.export.export(make, (sound,))
    kinds = {node.op for node in graph.graph.nodes}
    assert kinds <= {"placeholder", "call_function", "output"}
    names = [str(node.target) for node in graph.graph.nodes if node.op == "call_function"]
    assert not any("fft" in name or "complex" in name for name in names)
    torch.testing.assert_close(graph.module()(sound), make(sound))
