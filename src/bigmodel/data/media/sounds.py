"""One recording of any kind as numbers of the shape that a model reads.

Nothing of it is random, and nothing depends on other recordings, so that a new one is heard as those of
training were.
"""

from __future__ import annotations

import math
from functools import cached_property
from pathlib import Path
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from bigmodel.data.files.collecting import Unreadable
from bigmodel.data.media.promised import promised_frames
from bigmodel.data.media.spectrogram import LogMel
from bigmodel.registry import Config
from bigmodel.runtime.disk import check_regular

SUFFIXES = {".wav": "WAV", ".flac": "FLAC", ".ogg": "OGG", ".oga": "OGG", ".mp3": "MP3"}
_BETA = 8.6  # of the Kaiser window: what is beyond the new half rate is damped by 80 dB and more
_CANCELLED = 0.01  # share of the channels' power below which their mean has lost the sound
_WHOLE = 0.98  # share of what the header promises that has to be there
_LONGEST = 3600  # seconds of one recording; longer ones are no samples, or would fill the memory


class Hearing(Config):
    """How recordings become arrays of one shape.

    Attributes:
        rate: samples a second after resampling.
        samples: in each recording; longer ones lose their end, shorter ones are filled with silence.
        form: a spectrogram or the samples themselves.
        layout: an image, height being time, or a sequence.
        n_mels: bands of a spectrogram.
        window, hop: samples in a window of a spectrogram, and from one to the next.
        fold: samples in a step of a raw sequence.
    """

    rate: int
    samples: int
    form: Literal["log_mel", "raw"]
    layout: Literal["image", "sequence"]
    n_mels: int
    window: int
    hop: int
    fold: int

    @cached_property
    def log_mel(self) -> LogMel:
        """What makes spectrograms."""
        return LogMel(self.rate, self.window, self.hop, self.n_mels)

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one sample."""
        if self.form == "raw":
            return (math.ceil(self.samples / self.fold), self.fold)
        shape = (self.log_mel.frames(self.samples), self.n_mels)
        return (1, *shape) if self.layout == "image" else shape


def duration(path: Path) -> float:
    """Seconds of a recording, by its header.

    Raises:
        Unreadable: see `listen`.
    """
    import soundfile

    try:
        check_regular(path)
        found = soundfile.info(str(path))
    except (soundfile.SoundFileError, OSError) as error:
        raise Unreadable(_why(path, error)) from None
    return float(found.frames / found.samplerate)


class Heard(NamedTuple):
    """A recording, its channels mixed, at another rate.

    Attributes:
        sound: (samples,) float32 from -1 to 1.
        rate: samples a second that it had.
        seconds: that it lasts.
        level: see `level`.
        cancelled: see `mixed`.
    """

    sound: Tensor
    rate: int
    seconds: float
    level: float | None
    cancelled: bool


def listen(path: Path, rate: int) -> Heard:
    """A recording, its channels mixed, at another rate.

    Raises:
        Unreadable: it is not there, broken, cut short, empty or hours long; says why.
    """
    import soundfile

    try:
        check_regular(path)
        with soundfile.SoundFile(str(path)) as file:
            own = int(file.samplerate)
            if file.frames > _LONGEST * own:
                raise Unreadable(f"it is {file.frames / own / 3600:.1f} hours long; cut it into samples")
            promised = max(file.frames, promised_frames(path))
            content = file.read(dtype="float32", always_2d=True)
    except (soundfile.SoundFileError, OSError) as error:
        raise Unreadable(_why(path, error)) from None
    if len(content) == 0:
        raise Unreadable("it holds no sound")
    if len(content) < _WHOLE * promised:
        raise Unreadable(
            f"it is cut short: {len(content) / own:.2f} s are there of {promised / own:.2f} s"
        )
    channels = torch.from_numpy(content)
    if not bool(channels.isfinite().all()):
        raise Unreadable("it holds samples that are not finite")
    sound, cancelled = mixed(channels)
    return Heard(resampled(sound, own, rate), own, len(sound) / own, level(sound), cancelled)


def mixed(channels: Tensor) -> tuple[Tensor, bool]:
    """Channels as one, (samples,), and whether they cancel each other: then it is the loudest of them.

    Args:
        channels: (samples, channels) float32.
    """
    mean = channels.mean(1)
    power = channels.square().mean(0)
    if bool(mean.square().mean() < _CANCELLED * power.mean()):
        return channels[:, int(power.argmax())].clone(), True
    return mean, False


def level(sound: Tensor) -> float | None:
    """Root mean square of a sound in dB of full scale; None: it is silent throughout."""
    power = float(sound.double().square().mean())
    return 10 * math.log10(power) if power else None


def _why(path: Path, error: Exception) -> str:
    if not path.exists():
        return "there is no such file"
    if path.stat().st_size == 0:
        return "the file is empty"
    if "is not a regular file" in str(error):  # which is said of any MP3 that is none
        return "it is no sound, or damaged"
    return getattr(error, "strerror", None) or str(error).split(": ")[-1].rstrip(".")


def resampled(sound: Tensor, own: int, rate: int) -> Tensor:
    """A sound at another rate, without what the new rate cannot hold.

    By a windowed sinc, one phase of it for each place between samples (Crochiere and Rabiner,
    "Multirate digital signal processing", 1983).

    Args:
        sound: (samples,) float32.
        own, rate: samples a second, before and after.
    """
    if own == rate:
        return sound
    from scipy.signal import resample_poly

    common = math.gcd(own, rate)
    made = resample_poly(sound.double().numpy(), rate // common, own // common, window=("kaiser", _BETA))
    return torch.from_numpy(made).float()


def decode(path: Path, row: Tensor, hearing: Hearing) -> tuple[str, int, float, float | None, bool]:
    """Reads a recording into a row.

    Args:
        row: `hearing.shape` float32.

    Returns:
        Format, rate, seconds and level that it had, and whether its channels cancelled each other.

    Raises:
        Unreadable: see `listen`.
    """
    heard = listen(path, hearing.rate)
    sound = heard.sound
    fitted = torch.zeros(hearing.samples)
    count = min(len(sound), hearing.samples)
    fitted[:count] = sound[:count]
    if hearing.form == "log_mel":
        with torch.inference_mode():
            row.copy_(hearing.log_mel(fitted[None]).view(hearing.shape))
    else:
        row.zero_().view(-1)[: len(fitted)] = fitted
    return SUFFIXES[path.suffix.lower()], heard.rate, heard.seconds, heard.level, heard.cancelled
