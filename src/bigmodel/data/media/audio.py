"""Decodes a recording of any format into the shape that a model reads.

Nothing is random or depends on other recordings, so a new one is decoded as those of training were.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO, Literal, NamedTuple

import torch
from torch import Tensor

from bigmodel.data.files.decode_cache import UnreadableFileError, io_threads
from bigmodel.data.libraries import soundfile
from bigmodel.data.media.spectrogram import LogMel
from bigmodel.errors import DataError
from bigmodel.registry import Config
from bigmodel.runtime.disk import check_regular

_UNKNOWN = 0x7FFF0000  # bytes: a WAV file of this size or more was streamed, its length not known
_TRIMMED = 4  # frames that decoders leave out at the two ends of an MP3, at most
_HEAD = 1 << 16  # bytes at the start of an MP3 that contain its first frame


def header_frames(path: Path) -> int:
    """Samples in each channel according to the header of a WAV or MP3 file; 0 if it does not say.

    FLAC needs no check: its decoder reports files that are cut short.
    """
    with path.open("rb") as file:
        head = file.read(12)
        if head[:4] == b"RIFF" and head[8:] == b"WAVE":
            return _wav_frames(file)
        file.seek(0)
        return _mp3_frames(file) if path.suffix.lower() == ".mp3" else 0


def _wav_frames(file: BinaryIO) -> int:
    """By the size of its `data` chunk (Microsoft and IBM, "Multimedia programming interface", 1991)."""
    block = 0
    while len(chunk := file.read(8)) == 8:
        size = struct.unpack("<I", chunk[4:])[0]
        if chunk[:4] == b"data":
            return 0 if size >= _UNKNOWN or not block else size // block
        if chunk[:4] == b"fmt " and size >= 16:
            form = file.read(16)
            plain = len(form) == 16 and struct.unpack("<H", form[:2])[0] in (1, 3, 6, 7, 0xFFFE)
            block = struct.unpack("<H", form[12:14])[0] if plain else 0
            size -= 16
        file.seek(size + size % 2, 1)
    return 0


def _mp3_frames(file: BinaryIO) -> int:
    """From the number of frames in a `Xing` or `Info` header, which most encoders write."""
    head = file.read(10)
    start = 0
    if head[:3] == b"ID3" and len(head) == 10:
        start = 10 + sum((byte & 0x7F) << 7 * (3 - place) for place, byte in enumerate(head[6:]))
    file.seek(start)
    first = file.read(_HEAD)
    places = [place for mark in (b"Xing", b"Info") if 0 <= (place := first.find(mark)) <= 64]
    if not places or len(first) < places[0] + 12 or first[0] != 0xFF:
        return 0
    flags, frames = struct.unpack(">II", first[places[0] + 4 : places[0] + 12])
    of_mpeg1 = (first[1] >> 3) & 3 == 3
    frames = max(0, frames - _TRIMMED)
    return frames * (1152 if of_mpeg1 else 576) if flags & 1 else 0


SUFFIXES = {".wav": "WAV", ".flac": "FLAC", ".ogg": "OGG", ".oga": "OGG", ".mp3": "MP3"}
_KAISER_BETA = 8.6  # attenuates frequencies above half the new rate by 80 dB or more
_CANCELLED_POWER = 0.01  # share of the channels' mean power below which their mix has lost the sound
_MIN_COMPLETE = 0.98  # share of the length in the header that must be there
_COVERED = 0.95  # share of the training set that is not cut, if no duration is set
_FRAME_MULTIPLE = 8  # of the number of frames, if no duration is set
_MAX_SECONDS = 3600  # of one recording; longer ones are not samples, or would fill the memory


class AudioSettings(Config):
    """How recordings become arrays of one shape.

    Attributes:
        rate: samples per second after resampling.
        samples: in each recording; longer ones are cut, shorter ones padded with silence.
        form: a spectrogram or the samples themselves.
        layout: an image whose height is time, or a sequence.
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
        """The layer that computes spectrograms."""
        return LogMel(self.rate, self.window, self.hop, self.n_mels)

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one sample."""
        if self.form == "raw":
            return (math.ceil(self.samples / self.fold), self.fold)
        shape = (self.log_mel.frames(self.samples), self.n_mels)
        return (1, *shape) if self.layout == "image" else shape


def duration(path: Path) -> float:
    """Seconds of a recording, from its header.

    Raises:
        UnreadableFileError: see `read_recording`.
    """
    try:
        check_regular(path)
        info = soundfile.info(str(path))
    except (soundfile.SoundFileError, OSError) as error:
        raise UnreadableFileError(_reason(path, error)) from None
    return float(info.frames / info.samplerate)


def typical_samples(training: Sequence[Path], rate: int, window: int, hop: int) -> int:
    """How many samples most recordings of a training set do not exceed, for a spectrogram whose number
    of frames is a multiple of 8, so that patches tile it.

    Args:
        rate: samples per second.
        window, hop: of the spectrogram, in samples.

    Raises:
        DataError: none of the recordings can be read.
    """
    usual = _typical_seconds(training) * rate
    frames = max(1, math.ceil((usual - window) / hop) + 1)
    return window + hop * (_FRAME_MULTIPLE * math.ceil(frames / _FRAME_MULTIPLE) - 1)


def _typical_seconds(training: Sequence[Path]) -> float:
    """The duration that most recordings do not exceed, rounded up to a hundredth."""
    with ThreadPoolExecutor(io_threads()) as pool:
        durations = sorted(filter(None, pool.map(_duration, training)))
    if not durations:
        raise DataError(f"data: none of {len(training):,} recordings of the training set can be read.")
    return math.ceil(durations[int(_COVERED * (len(durations) - 1))] * 100) / 100


def _duration(path: Path) -> float:
    try:
        return duration(path)
    except UnreadableFileError:  # reported when it is decoded
        return 0.0


class Recording(NamedTuple):
    """A recording, mixed to one channel and resampled.

    Attributes:
        sound: (samples,) float32 from -1 to 1.
        rate: samples per second before resampling.
        seconds: its duration.
        level: see `loudness_db`.
        cancelled: see `mix_channels`.
    """

    sound: Tensor
    rate: int
    seconds: float
    level: float | None
    cancelled: bool


def read_recording(path: Path, rate: int) -> Recording:
    """A recording, mixed to one channel and resampled.

    Raises:
        UnreadableFileError: it is missing, broken, cut short, empty or hours long; the message says why.
    """
    try:
        check_regular(path)
        with soundfile.SoundFile(str(path)) as file:
            own = int(file.samplerate)
            if file.frames > _MAX_SECONDS * own:
                hours = file.frames / own / 3600
                raise UnreadableFileError(f"it is {hours:.1f} hours long; cut it into samples")
            expected = max(file.frames, header_frames(path))
            content = file.read(dtype="float32", always_2d=True)
    except (soundfile.SoundFileError, OSError) as error:
        raise UnreadableFileError(_reason(path, error)) from None
    if 0 < len(content) < _MIN_COMPLETE * expected:
        some, whole = len(content) / own, expected / own
        raise UnreadableFileError(f"it is truncated: {some:.2f} s of {whole:.2f} s")
    return recording_of(torch.from_numpy(content), own, rate)


def recording_of(channels: Tensor, own: int, rate: int) -> Recording:
    """A recording, mixed to one channel and resampled.

    Args:
        channels: (samples, channels) float32 from -1 to 1.
        own, rate: samples per second, before and after.

    Raises:
        UnreadableFileError: it is empty, or not finite.
    """
    if len(channels) == 0:
        raise UnreadableFileError("it is empty")
    if not bool(channels.isfinite().all()):
        raise UnreadableFileError("it holds samples that are not finite")
    sound, cancelled = mix_channels(channels)
    return Recording(resample(sound, own, rate), own, len(sound) / own, loudness_db(sound), cancelled)


def mix_channels(channels: Tensor) -> tuple[Tensor, bool]:
    """The mean of channels, (samples,); if they cancel each other, the loudest of them, and True.

    Args:
        channels: (samples, channels) float32.
    """
    mean = channels.mean(1)
    power = channels.square().mean(0)
    if bool(mean.square().mean() < _CANCELLED_POWER * power.mean()):
        return channels[:, int(power.argmax())].clone(), True
    return mean, False


def loudness_db(sound: Tensor) -> float | None:
    """Root mean square of a sound in dB of full scale; None: it is silent."""
    power = float(sound.double().square().mean())
    return 10 * math.log10(power) if power else None


def _reason(path: Path, error: Exception) -> str:
    if not path.exists():
        return "there is no such file"
    if path.stat().st_size == 0:
        return "the file is empty"
    if "is not a regular file" in str(error):  # libsndfile's message for anything that is not an MP3
        return "it is not a sound file, or is damaged"
    return getattr(error, "strerror", None) or str(error).split(": ")[-1].rstrip(".")


def resample(sound: Tensor, own: int, rate: int) -> Tensor:
    """A sound at another rate, without the frequencies that the new rate cannot represent.

    Polyphase filtering with a windowed sinc (Crochiere and Rabiner, "Multirate digital signal
    processing", 1983).

    Args:
        sound: (samples,) float32.
        own, rate: samples per second, before and after.
    """
    if own == rate:
        return sound
    from scipy.signal import resample_poly

    common, window = math.gcd(own, rate), ("kaiser", _KAISER_BETA)
    resampled = resample_poly(sound.double().numpy(), rate // common, own // common, window=window)
    return torch.from_numpy(resampled).float()


Note = tuple[str, int, float, float | None, bool]
"""Format, rate, seconds and level of a recording, and whether its channels cancel each other."""


def decode(path: Path, row: Tensor, settings: AudioSettings) -> Note:
    """Decodes a recording into a row.

    Args:
        row: `settings.shape` float32.

    Raises:
        UnreadableFileError: see `read_recording`.
    """
    recording = read_recording(path, settings.rate)
    _fit(recording, row, settings)
    return SUFFIXES[path.suffix.lower()], *recording[1:]


def decode_sound(sound: Any, row: Tensor, settings: AudioSettings) -> Note:
    """The same for a recording in memory.

    Args:
        sound: an array and its samples per second, as `soundfile.read` and `torchaudio.load` give them,
            or these as `array` and `sampling_rate` of a dictionary, as in Hugging Face `datasets`. The
            array is (samples,), (samples, channels) or (channels, samples), of which the longer axis is
            taken for time; whole numbers are in the range of their type.
    """
    if isinstance(sound, Mapping):
        sound = (sound.get("array"), sound.get("sampling_rate"))
    if not (isinstance(sound, tuple | list) and len(sound) == 2 and isinstance(sound[1], int | float)):
        raise UnreadableFileError("it is no pair of an array and its samples per second")
    content = torch.as_tensor(sound[0])
    if content.ndim == 1:
        content = content[:, None]
    if (
        content.ndim != 2
        or content.is_complex()
        or content.dtype in (torch.bool, torch.uint8)
        or sound[1] < 1
    ):
        raise UnreadableFileError("it is no array of one or several channels")
    if content.shape[0] < content.shape[1]:
        content = content.T
    if not content.is_floating_point():
        content = content / -torch.iinfo(content.dtype).min
    recording = recording_of(content.float(), int(sound[1]), settings.rate)
    _fit(recording, row, settings)
    return "array", *recording[1:]


def _fit(recording: Recording, row: Tensor, settings: AudioSettings) -> None:
    fitted = torch.zeros(settings.samples)
    count = min(len(recording.sound), settings.samples)
    fitted[:count] = recording.sound[:count]
    if settings.form == "log_mel":
        with torch.inference_mode():
            row.copy_(settings.log_mel(fitted[None]).view(settings.shape))
    else:
        row.zero_().view(-1)[: len(fitted)] = fitted
