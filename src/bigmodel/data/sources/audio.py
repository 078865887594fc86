"""A user's own recordings: words, calls of birds, machines, each with a label.

    bigmodel-train data=audio data.path=recordings/ model=cnn

with `recordings/yes/1.wav`, or names or a list that tell; see `files.discovery` for all ways.
Recordings are mixed to one channel, resampled, cut or filled up to one duration, and read as log-mel
spectrograms.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Literal

import torch
from pydantic import Field, ValidationInfo, field_validator
from torch import Tensor

from bigmodel.data.assemble import completed
from bigmodel.data.base import Dataset, ImageConfig
from bigmodel.data.class_counts import describe_target
from bigmodel.data.files import samples as file_samples
from bigmodel.data.files.decode_cache import DecodedRows, RowFormat, UnreadableFileError, io_threads
from bigmodel.data.files.samples import CollectedFiles, FilesConfig, FilesReader
from bigmodel.data.media.audio import SUFFIXES, AudioSettings, decode, duration
from bigmodel.data.normalize import image_statistics
from bigmodel.data.reader import Found, reads, truncation_row
from bigmodel.data.targets import TargetEncoder
from bigmodel.errors import ConfigError, DataError
from bigmodel.registry import Config, data
from bigmodel.spec import DataSpec, Image, Input
from bigmodel.spec import Sequence as Steps

_WHAT = "recordings"
_NOTES_VERSION = 2  # version of what is noted of each recording in the cache
_COVERED = 0.95  # share of the training part that is heard to its end, where no duration is given

_LOUDER_DB = 6.0  # dB that new recordings may be beyond training's before it is told
_FRAME_MULTIPLE = 8  # frames, if no duration is given, are a multiple, so that patches tile an image


class AudioConfig(FilesConfig, ImageConfig):
    """Where recordings lie and what they are heard as."""

    rate: int = Field(
        16000, ge=100, le=384000, description="samples per second that all are resampled to"
    )
    seconds: float | None = Field(
        None,
        gt=0,
        description="each is cut or padded to; null: the 95th percentile of the training part",
    )
    form: Literal["log_mel", "raw"] = Field(
        "log_mel", description="log_mel: pitches over time; raw: the samples themselves"
    )
    layout: Literal["image", "sequence"] | None = Field(
        None,
        description="image (rows are moments) or sequence; null: image for log_mel, sequence for raw",
    )
    n_mels: int = Field(64, ge=1, description="bands of pitch of a log_mel form")
    window: float = Field(0.025, gt=0, description="seconds of sound in a row of log_mel")
    hop: float = Field(0.01, gt=0, description="seconds from one row of log_mel to the next")
    fold: int = Field(1, ge=1, description="samples in a step of a raw form")
    cache: str | None = Field(
        "auto",
        description="folder that stores decoded recordings; auto: the user's cache folder; null: none",
    )

    @field_validator("layout")
    @classmethod
    def _raw_is_no_image(cls, layout: str | None, info: ValidationInfo) -> str | None:
        if layout == "image" and info.data.get("form") == "raw":
            raise ValueError("form=raw is a sequence; set layout=sequence or form=log_mel")
        return layout

    @field_validator("window", "hop")
    @classmethod
    def _some_samples(cls, seconds: float, info: ValidationInfo) -> float:
        samples = seconds * info.data.get("rate", 16000)
        if info.field_name == "window" and samples < 2:
            raise ValueError("it is shorter than two samples; 0.025 is usual")
        if samples < 1:
            raise ValueError("it is shorter than a sample; 0.01 is usual")
        return seconds


@data.register("audio", AudioConfig)
def audio(config: AudioConfig) -> Dataset:
    """Recordings in files, as images 1×frames×bands, or sequences of frames or samples."""
    layout = config.layout or ("image" if config.form == "log_mel" else "sequence")
    if config.augment.active and layout == "sequence":
        raise ConfigError(
            "data.augment: changes images, but these recordings are sequences. Set data.layout=image, or"
            " leave the augmentation out."
        )
    found = file_samples.collect_files(config, SUFFIXES, _WHAT)
    if (before := config.learnt_reader(AudioReader)) is not None:
        settings = before.settings
    else:
        settings = _audio_settings(config, layout, found.training_paths)
    options = [_NOTES_VERSION, settings.model_dump()]
    read = file_samples.read_samples(found, _row(settings), _WHAT, config.max_bad, config.cache, options)
    form: Input = Image(*settings.shape) if layout == "image" else Steps(*settings.shape)
    known = config.learnt(form)
    dataset = completed(DataSpec("audio", form, found.target), read.parts, known)
    statistics = None if known is None else (known.mean, known.std)
    if config.normalize and statistics is None:
        statistics = _statistics(read.parts["train"].inputs, config)
    mean, std = statistics or (None, None)
    labels, warnings = describe_target(found.target, (part.targets for part in read.parts.values()))
    return replace(
        dataset,
        mean=mean,
        std=std,
        reader=AudioReader(
            settings=settings,
            patterns=config.for_new_files(),
            target_encoder=TargetEncoder.of(dataset.spec.target),
            training_statistics=RecordingStatistics.of(read.rows),
        ),
        header_rows=[*_messages(found, read.rows, settings, labels), *warnings],
        left_out=read.left_out,
        read=read.digest.read(exact=False),
    )


def _row(settings: AudioSettings) -> RowFormat:
    return RowFormat(settings.shape, torch.float32, partial(decode, settings=settings))


def _audio_settings(
    config: AudioConfig, layout: Literal["image", "sequence"], training: Sequence[Path]
) -> AudioSettings:
    """What all recordings are heard as; for as long as most of the training part last."""
    window, hop = round(config.window * config.rate), round(config.hop * config.rate)
    if config.seconds is not None:
        samples = max(1, round(config.seconds * config.rate))
    else:
        usual = _typical_seconds(training) * config.rate
        frames = max(1, math.ceil((usual - window) / hop) + 1)
        samples = window + hop * (_FRAME_MULTIPLE * math.ceil(frames / _FRAME_MULTIPLE) - 1)
    same = config.model_dump(include={"rate", "form", "n_mels", "fold"})
    return AudioSettings(**same, samples=samples, layout=layout, window=window, hop=hop)


def _typical_seconds(training: Sequence[Path]) -> float:
    """What most recordings last at most, rounded up to a hundredth."""
    with ThreadPoolExecutor(io_threads()) as pool:
        durations = sorted(filter(None, pool.map(_duration, training)))
    if not durations:
        raise DataError(f"data: none of {len(training):,} {_WHAT} of the training part can be read.")
    return math.ceil(durations[int(_COVERED * (len(durations) - 1))] * 100) / 100


def _duration(path: Path) -> float:
    try:
        return duration(path)
    except UnreadableFileError:  # told when it is read
        return 0.0


def _statistics(training: Tensor, config: AudioConfig) -> tuple[Tensor, Tensor]:
    """Mean and deviation of each band, (bands,), or of all samples of a raw form, (1,)."""
    bands = training.shape[-1] if config.form == "log_mel" else 1
    by_band = training.reshape(len(training), -1, bands).transpose(1, 2)[..., None]
    mean, std = image_statistics(by_band)
    return mean.view(bands), std.view(bands)


def _messages(
    found: CollectedFiles, rows: DecodedRows, settings: AudioSettings, labels: str
) -> list[tuple[str, str]]:
    """What was understood, for the header."""
    kinds = file_samples.format_summary(note[0] for note in rows.notes)
    rates = sorted({note[1] for note in rows.notes})
    rate = f"{rates[0]:,}" if len(rates) == 1 else f"{rates[0]:,} to {rates[-1]:,}"
    lasting = sorted(note[2] for note in rows.notes)
    seconds = settings.samples / settings.rate
    cut = sum(length > seconds for length in lasting)
    silent = sum(note[3] is None for note in rows.notes)
    text = (
        f"{len(rows.kept):,} {kinds}, {lasting[0]:.2f} to {lasting[-1]:.2f} s at {rate} Hz, heard for"
        f" {seconds:.2f} s at {settings.rate:,} Hz ({cut:,} cut short); {labels}"
    )
    header_rows = [("Recordings", text)]
    if silent:
        header_rows.append(("Silent", f"{silent:,} recordings throughout"))
    header_rows += _cancelled_warning(rows)
    return header_rows + file_samples.file_messages(found.files, rows.trouble)


def _cancelled_warning(rows: DecodedRows) -> list[tuple[str, str]]:
    """The line that tells whose channels cancel each other."""
    count = sum(note[4] for note in rows.notes)
    what = "1 recording" if count == 1 else f"{count:,} recordings"
    line = (
        f"the channels of {what} cancel each other, being in opposite phase: only the louder one is used"
    )
    return [("Warning", line)] if count else []


class RecordingStatistics(Config):
    """What training's recordings were like.

    Attributes:
        rates: samples a second that they had.
        levels: of the softest and of the loudest, in dB of full scale; none where all are silent.
    """

    rates: list[int]
    levels: list[float]

    @classmethod
    def of(cls, rows: DecodedRows) -> RecordingStatistics:
        """What recordings are like."""
        levels = [note[3] for note in rows.notes if note[3] is not None]
        return cls(
            rates=sorted({note[1] for note in rows.notes}),
            levels=[min(levels), max(levels)] if levels else [],
        )

    def differing(self, rows: DecodedRows) -> list[tuple[str, str]]:
        """Warnings of new recordings that are not like them."""
        header_rows = []
        rates = [note[1] for note in rows.notes if note[1] not in self.rates]
        if rates:
            known = ", ".join(f"{rate:,}" for rate in self.rates)
            header_rows.append(
                f"{len(rates):,} of {len(rows.notes):,} recordings have a rate that does not occur in "
                f"training, such as {rates[0]:,} Hz (training: {known} Hz); they are resampled, but may "
                "lack frequencies or contain others"
            )
        levels = [note[3] for note in rows.notes if note[3] is not None]
        if self.levels:
            low, high = self.levels
            far = [one for one in levels if not low - _LOUDER_DB <= one <= high + _LOUDER_DB]
            if far:
                header_rows.append(
                    f"{len(far):,} of {len(rows.notes):,} recordings are louder or softer than any in "
                    f"training, such as {far[0]:.0f} dB (training: {low:.0f} to {high:.0f} dB)"
                )
        return [("Warning", line) for line in header_rows]


@reads("audio")
class AudioReader(FilesReader):
    """Reads recordings, a folder or a list of them.

    Attributes:
        settings: what all are heard as.
        training_statistics: what training's were like; None: an earlier version did not keep it.
    """

    settings: AudioSettings
    training_statistics: RecordingStatistics | None = None

    def read(self, path: Path, *, with_targets: bool, max_bad: int = 0) -> Found:
        """See `Reader.read`."""
        row = _row(self.settings)
        found, rows = self.read_files(path, SUFFIXES, _WHAT, row, with_targets, max_bad)
        seconds = self.settings.samples / self.settings.rate
        cut = sum(note[2] > seconds for note in rows.notes)
        other = [] if self.training_statistics is None else self.training_statistics.differing(rows)
        header_rows = [*found.header_rows, *_cancelled_warning(rows), *other]
        header_rows += truncation_row(cut, "recording", f"{seconds:.2f} s")
        return replace(found, header_rows=header_rows)
