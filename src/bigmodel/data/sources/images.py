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
from bigmodel.data.files.collecting import (
    Collected,
    Decoded,
    FilesConfig,
    FilesReader,
    Unreadable,
    check_bad,
    collect,
    content_of,
    parts_of,
    threads,
    told_files,
    told_kinds,
    told_labels,
    told_odd_classes,
)
from bigmodel.data.files.decoded import cache_folder, contents_of, decoded
from bigmodel.data.media.pictures import SUFFIXES, Framing, Side, allowed_sizes, decode, looks
from bigmodel.data.reader import Found, reads
from bigmodel.data.targets import Answers
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
    found = collect(config, SUFFIXES, _WHAT)
    # Part by part, so that each is one stretch of the rows and none has to be copied.
    order = torch.cat(list(found.parts.values())).tolist()
    paths = [found.files.paths[index] for index in order]
    contents = contents_of(paths)
    with allowed_sizes():
        learnt = config.learnt_reader(ImagesReader)
        framing = (
            _framing(config, paths[: len(found.parts["train"])]) if learnt is None else learnt.framing
        )
        rows = decoded(
            paths,
            (framing.channels, framing.height, framing.width),
            torch.uint8,
            partial(decode, framing=framing),
            most_bad=config.max_bad,
            cache=cache_folder(config.cache),
            contents=contents,
            options=framing.model_dump(),
        )
    bad = sorted((found.files.names[order[place]], reason) for place, reason in rows.bad)
    left_out = check_bad(bad, len(paths), config.max_bad, _WHAT)
    parts = parts_of(found, order, rows.kept, rows.rows, _WHAT)
    spec = DataSpec("images", Image(framing.channels, framing.height, framing.width), found.target)
    dataset = completed(spec, parts, config.learnt(spec.input))
    scaled = standardised(config, spec.input, parts, config.normalize)
    reader = ImagesReader(
        framing=framing, naming=config.naming(), answers=Answers.of(dataset.spec.target)
    )
    told = _told(found, rows, framing, told_labels(spec.target, parts))
    told += told_odd_classes(spec.target, parts)
    return replace(
        dataset,
        mean=scaled.mean,
        std=scaled.std,
        reader=reader,
        told=told,
        left_out=left_out,
        read=content_of(contents, rows.kept, parts).read(),
    )


def _framing(config: ImagesConfig, training: Sequence[Path]) -> Framing:
    """The one form of all pictures; colours where any of the training part has some."""
    channels = config.channels
    if channels == "auto":
        with ThreadPoolExecutor(threads()) as pool:
            channels = 1 if all(pool.map(_seems_grey, training)) else 3
    height, width = config.size if isinstance(config.size, list) else (config.size, config.size)
    return Framing(
        height=height, width=width, channels=channels, fit=config.fit, background=config.background
    )


def _seems_grey(path: Path) -> bool:
    try:
        return looks(path)[3]
    except Unreadable:  # told when it is read
        return True


_DONE = {"crop": "cropped to", "pad": "padded to", "stretch": "stretched to"}


def _told(found: Collected, rows: Decoded, framing: Framing, labels: str) -> list[tuple[str, str]]:
    """What was understood, for the header."""
    kinds = told_kinds(kind for kind, _, _ in rows.notes)
    sizes = sorted(((width * height, width, height) for _, height, width in rows.notes))
    smallest, largest = (f"{width}×{height}" for _, width, height in (sizes[0], sizes[-1]))
    spread = smallest if smallest == largest else f"{smallest} to {largest}"
    form = f"{_DONE[framing.fit]} {framing.width}×{framing.height}"
    colours = "in grey" if framing.channels == 1 else "in colours"
    text = f"{len(rows.kept):,} {kinds}, {spread}, {form} {colours}; {labels}"
    return [("Pictures", text), *told_files(found.files, rows.trouble)]


@reads("images")
class ImagesReader(FilesReader):
    """Reads pictures, a folder or a list of them.

    Attributes:
        framing: the one form of all pictures.
    """

    framing: Framing

    def read(self, path: Path, *, answers: bool, max_bad: int = 0) -> Found:
        """See `Reader.read`."""
        files = self.find(path, SUFFIXES, _WHAT, answers=answers)
        with allowed_sizes():
            rows = decoded(
                files.paths,
                (self.framing.channels, self.framing.height, self.framing.width),
                torch.uint8,
                partial(decode, framing=self.framing),
            )
        return self.found(files, path, rows, answers=answers, max_bad=max_bad, what=_WHAT)
