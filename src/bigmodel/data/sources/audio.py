"""The user's own recordings: words, bird calls, machines, each with a label.

    bigmodel-train data=audio data.path=recordings/ model=cnn

with `recordings/yes/1.wav`, or labels in the files' names or in a list; `files.discovery` has all
layouts. Recordings are mixed to one channel, resampled, cut or padded to one duration, and turned into
log-mel spectrograms.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import Field, ValidationInfo, field_validator
from torch import Tensor

from bigmodel.data.assemble import completed
from bigmodel.data.base import Dataset, ImageConfig
from bigmodel.data.class_counts import describe_target
from bigmodel.data.files import samples as file_samples
from bigmodel.data.files.decode_cache import DecodedRows, RowFormat
from bigmodel.data.files.samples import CollectedFiles, FilesConfig, FilesReader
from bigmodel.data.media.audio import SUFFIXES, AudioSettings, decode, decode_sound, typical_samples
from bigmodel.data.normalize import band_statistics
from bigmodel.data.reader import HeaderRows, NewSamples, reads, truncation_row
from bigmodel.data.targets import TargetEncoder
from bigmodel.errors import ConfigError, counted
from bigmodel.registry import Config, data
from bigmodel.spec import DataSpec, Image, Input
from bigmodel.spec import Sequence as Steps

_WHAT = "recordings"
_NOTES_VERSION = 2  # of each recording's note in the cache
_LEVEL_MARGIN_DB = 6.0  # how far outside training's levels new recordings may be without a warning


class AudioConfig(FilesConfig, ImageConfig):
    """Where recordings are and how they are turned into spectrograms."""

    rate: int = Field(
        16000, ge=100, le=384000, description="samples per second that all are resampled to"
    )
    seconds: float | None = Field(
        None,
        gt=0,
        description="each is cut or padded to; null: the 95th percentile of the training set",
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
    files = file_samples.collect_files(config, SUFFIXES, _WHAT)
    before = config.learnt_reader(AudioReader)
    settings = before.settings if before else _audio_settings(config, layout, files.training_paths)
    options = [_NOTES_VERSION, settings.model_dump()]
    read = file_samples.read_samples(files, _row(settings), _WHAT, config.max_bad, config.cache, options)
    inputs: Input = Image(*settings.shape) if layout == "image" else Steps(*settings.shape)
    learnt = config.learnt(inputs)
    dataset = completed(DataSpec("audio", inputs, files.target), read.parts, learnt)
    mean, std = (None, None) if learnt is None else (learnt.mean, learnt.std)
    if config.normalize and learnt is None:
        mean, std = _statistics(read.parts["train"].inputs, config)
    labels, warnings = describe_target(files.target, (part.targets for part in read.parts.values()))
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
        header_rows=[*_header_rows(files, read.rows, settings, labels), *warnings],
        left_out=read.left_out,
        read=read.digest.read(exact=False),
        val_rows=read.val_rows,
        val_files=read.val_files,
    )


def _row(settings: AudioSettings) -> RowFormat:
    return RowFormat(settings.shape, torch.float32, partial(decode, settings=settings))


def _audio_settings(
    config: AudioConfig, layout: Literal["image", "sequence"], training: Sequence[Path]
) -> AudioSettings:
    """The settings for all recordings; if no duration is set, most of the training set fits."""
    window, hop = round(config.window * config.rate), round(config.hop * config.rate)
    if config.seconds is not None:
        samples = max(1, round(config.seconds * config.rate))
    else:
        samples = typical_samples(training, config.rate, window, hop)
    same = config.model_dump(include={"rate", "form", "n_mels", "fold"})
    return AudioSettings(**same, samples=samples, layout=layout, window=window, hop=hop)


def _statistics(training: Tensor, config: AudioConfig) -> tuple[Tensor, Tensor]:
    """Mean and deviation of each band, (bands,), or of all samples if raw, (1,)."""
    return band_statistics(training if config.form == "log_mel" else training[..., None])


def _header_rows(
    files: CollectedFiles, rows: DecodedRows, settings: AudioSettings, labels: str
) -> HeaderRows:
    kinds = file_samples.format_summary(note[0] for note in rows.notes)
    rates = sorted({note[1] for note in rows.notes})
    rate = f"{rates[0]:,}" if len(rates) == 1 else f"{rates[0]:,} to {rates[-1]:,}"
    durations = sorted(note[2] for note in rows.notes)
    seconds = settings.samples / settings.rate
    cut = sum(length > seconds for length in durations)
    silent = sum(note[3] is None for note in rows.notes)
    text = (
        f"{len(rows.kept):,} {kinds}, {durations[0]:.2f} to {durations[-1]:.2f} s at {rate} Hz, heard"
        f" for {seconds:.2f} s at {settings.rate:,} Hz ({cut:,} cut short); {labels}"
    )
    return [
        ("Recordings", text),
        *([("Silent", f"{silent:,} recordings throughout")] if silent else []),
        *_cancelled_warning(rows),
        *file_samples.file_messages(files.files, rows.trouble),
    ]


def _cancelled_warning(rows: DecodedRows) -> HeaderRows:
    count = sum(note[4] for note in rows.notes)
    warning = (
        f"the channels of {counted(count, 'recording')} cancel each other, being in opposite phase: only"
        " the louder one is used"
    )
    return [("Warning", warning)] if count else []


class RecordingStatistics(Config):
    """Statistics of training's recordings.

    Attributes:
        rates: samples per second, before resampling.
        levels: of the softest and of the loudest, in dB of full scale; empty if all are silent.
    """

    rates: list[int]
    levels: list[float]

    @classmethod
    def of(cls, rows: DecodedRows) -> RecordingStatistics:
        """The statistics of decoded recordings."""
        levels = [note[3] for note in rows.notes if note[3] is not None]
        return cls(
            rates=sorted({note[1] for note in rows.notes}),
            levels=[min(levels), max(levels)] if levels else [],
        )

    def differing(self, rows: DecodedRows) -> HeaderRows:
        """Warnings about new recordings that are unlike those of training."""
        warnings = []
        rates = [note[1] for note in rows.notes if note[1] not in self.rates]
        if rates:
            known = ", ".join(f"{rate:,}" for rate in self.rates)
            warnings.append(
                f"{len(rates):,} of {len(rows.notes):,} recordings have a rate that does not occur in "
                f"training, such as {rates[0]:,} Hz (training: {known} Hz); they are resampled, but may "
                "lack frequencies or contain others"
            )
        levels = [note[3] for note in rows.notes if note[3] is not None]
        if self.levels:
            low, high = self.levels
            low_limit, high_limit = low - _LEVEL_MARGIN_DB, high + _LEVEL_MARGIN_DB
            far = [level for level in levels if not low_limit <= level <= high_limit]
            if far:
                warnings.append(
                    f"{len(far):,} of {len(rows.notes):,} recordings are louder or softer than any in "
                    f"training, such as {far[0]:.0f} dB (training: {low:.0f} to {high:.0f} dB)"
                )
        return [("Warning", warning) for warning in warnings]


@reads("audio")
class AudioReader(FilesReader):
    """Reads a folder or a list of recordings.

    Attributes:
        settings: how all are turned into spectrograms.
        training_statistics: of training's recordings; None: an earlier version did not keep them.
    """

    settings: AudioSettings
    training_statistics: RecordingStatistics | None = None

    def read(self, path: Path, *, with_targets: bool, max_bad: int = 0) -> NewSamples:
        """See `Reader.read`."""
        row = _row(self.settings)
        samples, rows = self.read_files(path, SUFFIXES, _WHAT, row, with_targets, max_bad)
        return self._with_rows(samples, rows)

    def read_values(self, values: Sequence[Any], targets: Sequence[Any] | None = None) -> NewSamples:
        """See `Reader.read_values`: what `audio.decode_sound` reads, or paths."""
        row = _row(self.settings)
        in_memory = row._replace(decode=partial(decode_sound, settings=self.settings))
        return self._with_rows(*self.decode_values(values, targets, in_memory, row, _WHAT))

    def _with_rows(self, samples: NewSamples, rows: DecodedRows) -> NewSamples:
        seconds = self.settings.samples / self.settings.rate
        cut = sum(note[2] > seconds for note in rows.notes)
        header_rows = [*samples.header_rows, *_cancelled_warning(rows)]
        if self.training_statistics is not None:
            header_rows += self.training_statistics.differing(rows)
        header_rows += truncation_row(cut, "recording", f"{seconds:.2f} s")
        return replace(samples, header_rows=header_rows)
