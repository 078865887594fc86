"""A user's own pictures: photographs, drawings, scans, of any size and kind, each with a label.

    bigmodel-train data=images data.path=photos/ model=cnn

with `photos/cat/1.jpg`, or a list `photos.csv` with columns `file` and `label`; see `finding` for all
ways. Pictures are read once, made one size, and kept in a cache for the runs to come.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Literal

import torch
from pydantic import Field, field_validator

from bigmodel.data.assemble import completed, standardised
from bigmodel.data.base import Dataset, ImageConfig
from bigmodel.data.files.decode_cache import cache_folder, decode_files, file_digests
from bigmodel.data.files.samples import (
    CollectedFiles,
    DecodedRows,
    FilesConfig,
    FilesReader,
    UnreadableFileError,
    check_unreadable,
    collect_files,
    digest_samples,
    file_messages,
    format_summary,
    io_threads,
    label_summary,
    label_warnings,
    split_rows,
)
from bigmodel.data.media.images import (
    SUFFIXES,
    ResizeSettings,
    Side,
    checked_image_sizes,
    decode,
    image_info,
)
from bigmodel.data.reader import Found, reads
from bigmodel.data.targets import TargetEncoder
from bigmodel.registry import data
from bigmodel.spec import DataSpec, Image

_WHAT = "pictures"


class ImagesConfig(FilesConfig, ImageConfig):
    """Where pictures lie and what size they get."""

    size: Side | list[Side] = Field(
        default=64, description="height and width that all pictures get, or [height, width]"
    )
    fit: Literal["crop", "pad", "stretch"] = Field(
        default="crop", description="other proportions: crop the middle, pad with black, or stretch"
    )
    channels: Literal["auto", 1, 3] = Field(
        default="auto", description="1 for grey, 3 for colours; auto: colours where any picture has some"
    )
    background: Literal["white", "black"] = Field(
        default="white", description="what shows through transparent pictures: white or black"
    )
    cache: str | None = Field(
        default="auto",
        description="folder that keeps decoded pictures; auto: the user's cache folder; null: none does",
    )

    @field_validator("size")
    @classmethod
    def _two_sides(cls, size: int | list[int]) -> int | list[int]:
        if isinstance(size, list) and len(size) != 2:
            raise ValueError("give one number for squares, or [height, width]")
        return size


@data.register("images", ImagesConfig)
def images(config: ImagesConfig) -> Dataset:
    """Pictures in files, as images channels×height×width of bytes."""
    found = collect_files(config, SUFFIXES, _WHAT)
    # Part by part, so that each is one stretch of the rows and none has to be copied.
    order = torch.cat(list(found.parts.values())).tolist()
    paths = [found.files.paths[index] for index in order]
    contents = file_digests(paths)
    with checked_image_sizes():
        learnt = config.learnt_reader(ImagesReader)
        settings = (
            _resize_settings(config, paths[: len(found.parts["train"])])
            if learnt is None
            else learnt.settings
        )
        rows = decode_files(
            paths,
            (settings.channels, settings.height, settings.width),
            torch.uint8,
            partial(decode, settings=settings),
            most_bad=config.max_bad,
            cache=cache_folder(config.cache),
            contents=contents,
            options=settings.model_dump(),
        )
    bad = sorted((found.files.names[order[place]], reason) for place, reason in rows.bad)
    left_out = check_unreadable(bad, len(paths), config.max_bad, _WHAT)
    parts = split_rows(found, order, rows.kept, rows.rows, _WHAT)
    spec = DataSpec("images", Image(settings.channels, settings.height, settings.width), found.target)
    dataset = completed(spec, parts, config.learnt(spec.input))
    scaled = standardised(config, spec.input, parts, config.normalize)
    reader = ImagesReader(
        settings=settings,
        patterns=config.for_new_files(),
        target_encoder=TargetEncoder.of(dataset.spec.target),
    )
    told = _messages(found, rows, settings, label_summary(spec.target, parts))
    told += label_warnings(spec.target, parts)
    return replace(
        dataset,
        mean=scaled.mean,
        std=scaled.std,
        reader=reader,
        told=told,
        left_out=left_out,
        read=digest_samples(contents, rows.kept, parts).read(),
    )


def _resize_settings(config: ImagesConfig, training: Sequence[Path]) -> ResizeSettings:
    """The one form of all pictures; colours where any of the training part has some."""
    channels = config.channels
    if channels == "auto":
        with ThreadPoolExecutor(io_threads()) as pool:
            channels = 1 if all(pool.map(_seems_grey, training)) else 3
    height, width = config.size if isinstance(config.size, list) else (config.size, config.size)
    return ResizeSettings(
        height=height, width=width, channels=channels, fit=config.fit, background=config.background
    )


def _seems_grey(path: Path) -> bool:
    try:
        return image_info(path)[3]
    except UnreadableFileError:  # told when it is read
        return True


_FIT_NAMES = {"crop": "cropped to", "pad": "padded to", "stretch": "stretched to"}


def _messages(
    found: CollectedFiles, rows: DecodedRows, settings: ResizeSettings, labels: str
) -> list[tuple[str, str]]:
    """What was understood, for the header."""
    kinds = format_summary(kind for kind, _, _ in rows.notes)
    sizes = sorted(((width * height, width, height) for _, height, width in rows.notes))
    smallest, largest = (f"{width}×{height}" for _, width, height in (sizes[0], sizes[-1]))
    spread = smallest if smallest == largest else f"{smallest} to {largest}"
    form = f"{_FIT_NAMES[settings.fit]} {settings.width}×{settings.height}"
    colours = "in grey" if settings.channels == 1 else "in colours"
    text = f"{len(rows.kept):,} {kinds}, {spread}, {form} {colours}; {labels}"
    return [("Pictures", text), *file_messages(found.files, rows.trouble)]


@reads("images")
class ImagesReader(FilesReader):
    """Reads pictures, a folder or a list of them.

    Attributes:
        settings: the one form of all pictures.
    """

    settings: ResizeSettings

    def read(self, path: Path, *, with_targets: bool, max_bad: int = 0) -> Found:
        """See `Reader.read`."""
        files = self.find(path, SUFFIXES, _WHAT, with_targets=with_targets)
        with checked_image_sizes():
            rows = decode_files(
                files.paths,
                (self.settings.channels, self.settings.height, self.settings.width),
                torch.uint8,
                partial(decode, settings=self.settings),
            )
        return self.found(files, path, rows, with_targets=with_targets, max_bad=max_bad, what=_WHAT)
