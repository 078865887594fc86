"""The user's own pictures: photographs, drawings, scans, of any size and format, each with a label.

    bigmodel-train data=images data.path=photos/ model=cnn

with `photos/cat/1.jpg`, or a list `photos.csv` with columns `file` and `label`; `files.discovery` has
all layouts. Pictures are decoded once, resized to one size, and cached for later runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import Field, field_validator

from bigmodel.data.assemble import completed, standardised
from bigmodel.data.base import Dataset, ImageConfig
from bigmodel.data.class_counts import describe_target
from bigmodel.data.files import samples as file_samples
from bigmodel.data.files.decode_cache import DecodedRows, RowFormat
from bigmodel.data.files.samples import CollectedFiles, FilesConfig, FilesReader
from bigmodel.data.media import images as decoding
from bigmodel.data.media.images import SUFFIXES, ResizeSettings, Side
from bigmodel.data.reader import HeaderRows, NewSamples, reads
from bigmodel.data.targets import TargetEncoder
from bigmodel.registry import data
from bigmodel.spec import DataSpec, Image

_WHAT = "pictures"


class ImagesConfig(FilesConfig, ImageConfig):
    """Where pictures are and how they are resized."""

    size: Side | list[Side] = Field(
        64, description="height and width that all pictures get, or [height, width]"
    )
    fit: Literal["crop", "pad", "stretch"] = Field(
        "crop", description="other proportions: crop the middle, pad with black, or stretch"
    )
    channels: Literal["auto", 1, 3] = Field(
        "auto", description="1 for grey, 3 for colours; auto: colours where any picture has some"
    )
    background: Literal["white", "black"] = Field(
        "white", description="what shows through transparent pictures: white or black"
    )
    cache: str | None = Field(
        "auto",
        description="folder that stores decoded pictures; auto: the user's cache folder; null: none",
    )

    @field_validator("size")
    @classmethod
    def _two_sides(cls, size: int | list[int]) -> int | list[int]:
        if isinstance(size, list) and len(size) != 2:
            raise ValueError("use one number for squares, or [height, width]")
        return size


@data.register("images", ImagesConfig)
def images(config: ImagesConfig) -> Dataset:
    """Pictures in files, as images channels×height×width of bytes."""
    files = file_samples.collect_files(config, SUFFIXES, _WHAT)
    with decoding.checked_image_sizes():
        before = config.learnt_reader(ImagesReader)
        settings = _resize_settings(config, files.training_paths) if before is None else before.settings
        row, options = _row(settings), settings.model_dump()
        read = file_samples.read_samples(files, row, _WHAT, config.max_bad, config.cache, options)
    spec = DataSpec("images", Image(*row.shape), files.target)
    dataset = completed(spec, read.parts, config.learnt(spec.input))
    scaled = standardised(config, spec.input, read.parts, config.normalize)
    labels, warnings = describe_target(files.target, (part.targets for part in read.parts.values()))
    return replace(
        dataset,
        mean=scaled.mean,
        std=scaled.std,
        reader=ImagesReader(
            settings=settings,
            patterns=config.for_new_files(),
            target_encoder=TargetEncoder.of(dataset.spec.target),
        ),
        header_rows=[*_header_rows(files, read.rows, settings, labels), *warnings],
        left_out=read.left_out,
        read=read.digest.read(),
        val_rows=read.val_rows,
        val_files=read.val_files,
    )


def _row(settings: ResizeSettings) -> RowFormat:
    shape = (settings.channels, settings.height, settings.width)
    return RowFormat(shape, torch.uint8, partial(decoding.decode, settings=settings))


def _resize_settings(config: ImagesConfig, training: Sequence[Path]) -> ResizeSettings:
    """The settings for all pictures; in colour if any of the training set is."""
    channels = config.channels
    if channels == "auto":
        channels = 1 if decoding.all_grey(training) else 3
    height, width = config.size if isinstance(config.size, list) else (config.size, config.size)
    return ResizeSettings(
        height=height, width=width, channels=channels, fit=config.fit, background=config.background
    )


_FIT_NAMES = {"crop": "scaled and cropped to", "pad": "padded to", "stretch": "stretched to"}


def _header_rows(
    files: CollectedFiles, rows: DecodedRows, settings: ResizeSettings, labels: str
) -> HeaderRows:
    kinds = file_samples.format_summary(kind for kind, _, _ in rows.notes)
    sizes = sorted(((width * height, width, height) for _, height, width in rows.notes))
    smallest, largest = (f"{width}×{height}" for _, width, height in (sizes[0], sizes[-1]))
    spread = smallest if smallest == largest else f"{smallest} to {largest}"
    form = f"{_FIT_NAMES[settings.fit]} {settings.width}×{settings.height}"
    colours = "in grey" if settings.channels == 1 else "in colours"
    text = f"{len(rows.kept):,} {kinds}, {spread}, {form} {colours}; {labels}"
    return [("Pictures", text), *file_samples.file_messages(files.files, rows.trouble)]


@reads("images")
class ImagesReader(FilesReader):
    """Reads a folder or a list of pictures.

    Attributes:
        settings: how all pictures are resized.
    """

    settings: ResizeSettings

    def read(self, path: Path, *, with_targets: bool, max_bad: int = 0) -> NewSamples:
        """See `Reader.read`."""
        with decoding.checked_image_sizes():
            row = _row(self.settings)
            return self.read_files(path, SUFFIXES, _WHAT, row, with_targets, max_bad)[0]

    def read_values(self, values: Sequence[Any], targets: Sequence[Any] | None = None) -> NewSamples:
        """See `Reader.read_values`: pictures of PIL, arrays of bytes, or paths."""
        with decoding.checked_image_sizes():
            row = _row(self.settings)
            decode = partial(decoding.decode_picture, settings=self.settings)
            return self.decode_values(values, targets, row._replace(decode=decode), row, _WHAT)[0]
