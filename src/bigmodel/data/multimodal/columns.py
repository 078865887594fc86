"""Columns of texts, pictures and recordings: what is learnt of each from the training set, and how its
cells become inputs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, Literal, Self

import torch
from pydantic import Field
from torch import Tensor

from bigmodel.data.files.decode_cache import RowFormat, UnreadableFileError, io_threads
from bigmodel.data.fitted_state import FittedState
from bigmodel.data.media import audio, images
from bigmodel.data.media.audio import AudioSettings
from bigmodel.data.media.images import ResizeSettings
from bigmodel.data.multimodal.cells import Cells, Encoded
from bigmodel.data.normalize import ImageScaling, band_statistics, image_statistics
from bigmodel.data.parts import GatherOptions
from bigmodel.data.reader import truncation_row
from bigmodel.data.tabular.config import TableConfig
from bigmodel.data.texts.encoding import encode_texts
from bigmodel.data.texts.tokenizer_training import build_vocabulary
from bigmodel.data.texts.vocabulary import Vocabulary
from bigmodel.errors import DataError
from bigmodel.spec import Image, Tokens

_MOST_OWN, _USUAL_SIZE = 64, 64  # pixels: the largest pictures that keep their size, and what others get
_COVERED, _MOST_TOKENS = 0.95, 256  # share of texts that are not cut, if no length is set
_BANDS, _WINDOW, _HOP = 64, 0.025, 0.01  # of spectrograms, in seconds; as in data=audio


class TextColumn(FittedState):
    """A column of texts.

    Attributes:
        vocabulary: subwords of the training set, or of a pretrained encoder.
        length: the most tokens; longer texts are cut.
    """

    kind: Literal["text"] = "text"
    name: str
    vocabulary: Vocabulary
    length: int

    @classmethod
    def fit(cls, config: TableConfig, training: Cells) -> TextColumn:
        """The column as learnt from the cells of the training set."""
        texts = training.filled
        vocabulary = config.pretrained(Vocabulary)
        if vocabulary is None:
            vocabulary = build_vocabulary(texts, "bpe", config.vocab_size, None, ["pad", "unknown"])
        length = config.text_length
        if length is None:
            sizes = vocabulary.encode_all(texts).sizes.sort().values
            length = min(_MOST_TOKENS, max(1, int(sizes[math.ceil(_COVERED * len(sizes)) - 1])))
        return cls(name=training.name, vocabulary=vocabulary, length=length)

    @property
    def input(self) -> Tokens:
        """What a model reads."""
        return Tokens(self.length, self.vocabulary.size, self.vocabulary.pad)

    @property
    def scaling(self) -> None:
        """Tokens are not scaled."""

    def with_statistics(self, values: Tensor) -> Self:  # noqa: ARG002
        """The same column: there are none."""
        return self

    def cell(self, values: Tensor) -> str:
        """A sample's values in words: its text, as far as it is read."""
        pad = self.vocabulary.pad
        return self.vocabulary.decode(token for token in map(int, values.tolist()) if token != pad)

    def encode(self, cells: Cells) -> Encoded:
        """Texts as tokens, padded to `length`."""
        present, pad = cells.present, self.vocabulary.pad
        assert pad is not None
        targets = torch.zeros(len(cells.filled))  # not asked for
        texts, cut = encode_texts(self.vocabulary, cells.filled, self.length, targets)
        values = torch.full((len(present), self.length), pad, dtype=texts.tokens.dtype)
        if len(texts):
            rows, _ = texts.take(slice(0, len(texts)), GatherOptions(width=self.length))
            values[present] = rows.to(values.dtype)
        summary = f"{self.name}: {len(texts):,}, of {self.vocabulary}{cells.missing_words}"
        cut_row = truncation_row(cut, "text", f"{self.length:,} tokens")
        return Encoded(values, present, [("Texts", summary), *cut_row])


class FileColumn(FittedState):
    """Base of columns of paths.

    Attributes:
        mean, std: of the training set, by channel or band; empty: values are not standardised.
    """

    name: str
    mean: list[float] = Field([])
    std: list[float] = Field([])

    def cell(self, values: Tensor) -> str:  # noqa: ARG002
        """See `TextColumn.cell`: what was read is no text."""
        return "(file)"

    def _scaling(self, unit: float, *shape: int) -> tuple[Tensor, Tensor]:
        """Scale and shift of values that are divided by `unit` first; statistics get a `shape`."""
        mean, std = (
            torch.tensor(each, dtype=torch.float64).view(shape) for each in (self.mean, self.std)
        )
        return (1 / (unit * std)).float(), (-mean / std).float()

    def _with(self, statistics: tuple[Tensor, Tensor]) -> Self:
        mean, std = (each.flatten().tolist() for each in statistics)
        return self.model_copy(update={"mean": mean, "std": std})


class ImageColumn(FileColumn):
    """A column of paths of pictures.

    Attributes:
        settings: how all are resized.
    """

    kind: Literal["image"] = "image"
    settings: ResizeSettings

    @classmethod
    def fit(cls, config: TableConfig, training: Cells) -> ImageColumn:
        """See `TextColumn.fit`."""
        height, width = (
            _own_size(training.paths) if config.image_size is None else (config.image_size,) * 2
        )
        scaling = config.pretrained(ImageScaling)
        grey = images.all_grey(training.paths) if scaling is None else len(scaling.mean) == 1
        settings = ResizeSettings(
            height=height, width=width, channels=1 if grey else 3, fit="crop", background="white"
        )
        column = cls(name=training.name, settings=settings)
        return column if scaling is None else column._with(scaling)

    @property
    def input(self) -> Image:
        """See `TextColumn.input`."""
        return Image(self.settings.channels, self.settings.height, self.settings.width)

    @property
    def scaling(self) -> tuple[Tensor, Tensor]:
        """Scale and shift of bytes to model inputs: (channels, 1, 1), or numbers."""
        if not self.mean:
            return torch.tensor(1 / 255), torch.tensor(0.0)
        return self._scaling(255.0, -1, 1, 1)

    def with_statistics(self, values: Tensor) -> Self:
        """The same column, standardised by the training set's pictures, (samples, *shape) uint8, unless
        a pretrained encoder says how."""
        return self if self.mean else self._with(image_statistics(values))

    def encode(self, cells: Cells) -> Encoded:
        """Pictures as bytes.

        Raises:
            DataError: one cannot be read.
        """
        decode = partial(images.decode, settings=self.settings)
        row = RowFormat(self.input.shape, torch.uint8, decode)
        decoded = cells.decode(row, images.SUFFIXES, "pictures", self.settings.model_dump())
        colours = "grey" if self.settings.channels == 1 else "colours"
        size = f"{self.settings.width}×{self.settings.height}"
        summary = f"{self.name}: {len(decoded.notes):,} files, {size} in {colours}{cells.missing_words}"
        rows = [("Pictures", summary), *decoded.header_rows]
        return Encoded(decoded.values, decoded.present, rows, decoded.digests)


class AudioColumn(FileColumn):
    """A column of paths of recordings, which become log-mel spectrograms.

    Attributes:
        settings: how all are turned into spectrograms.
    """

    kind: Literal["audio"] = "audio"
    settings: AudioSettings

    @classmethod
    def fit(cls, config: TableConfig, training: Cells) -> AudioColumn:
        """See `TextColumn.fit`."""
        rate = config.sample_rate
        window, hop = max(2, round(_WINDOW * rate)), max(1, round(_HOP * rate))
        samples = window
        if config.seconds is not None:
            samples = max(1, round(config.seconds * rate))
        else:
            with suppress(DataError):  # none can be read: `encode` says which is the first, and why
                samples = audio.typical_samples(training.paths, rate, window, hop)
        settings = AudioSettings(
            rate=rate,
            samples=samples,
            form="log_mel",
            layout="image",
            n_mels=_BANDS,
            window=window,
            hop=hop,
            fold=1,
        )
        return cls(name=training.name, settings=settings)

    @property
    def input(self) -> Image:
        """See `TextColumn.input`: an image whose rows are moments."""
        return Image(*self.settings.shape)

    @property
    def scaling(self) -> tuple[Tensor, Tensor] | None:
        """Scale and shift of each band, (bands,)."""
        return self._scaling(1.0, -1) if self.mean else None

    def with_statistics(self, values: Tensor) -> Self:
        """The same column, standardised by the training set's spectrograms, (samples, *shape)."""
        return self._with(band_statistics(values))

    def encode(self, cells: Cells) -> Encoded:
        """Recordings as spectrograms.

        Raises:
            DataError: one cannot be read.
        """
        decode = partial(audio.decode, settings=self.settings)
        row = RowFormat(self.input.shape, torch.float32, decode)
        decoded = cells.decode(row, audio.SUFFIXES, "recordings", self.settings.model_dump())
        seconds = self.settings.samples / self.settings.rate
        cut = sum(note[2] > seconds for note in decoded.notes)
        summary = f"{self.name}: {len(decoded.notes):,} files, {seconds:.2f} s each{cells.missing_words}"
        rows = [("Recordings", summary), *decoded.header_rows]
        rows += truncation_row(cut, "recording", f"{seconds:.2f} s")
        return Encoded(decoded.values, decoded.present, rows, decoded.digests)


MediaColumn = TextColumn | ImageColumn | AudioColumn

KINDS: dict[str, Any] = {"text": TextColumn, "image": ImageColumn, "audio": AudioColumn}
"""The column of each kind, by its name in `data.columns`."""


def _own_size(paths: Sequence[Path]) -> tuple[int, int]:
    """Height and width of all pictures if they are the same and small, else the usual size."""
    with ThreadPoolExecutor(io_threads()) as pool:
        sizes = set(filter(None, pool.map(_size, paths)))
    own = next(iter(sizes)) if len(sizes) == 1 else (_USUAL_SIZE, _USUAL_SIZE)
    return own if max(own) <= _MOST_OWN else (_USUAL_SIZE, _USUAL_SIZE)


def _size(path: Path) -> tuple[int, int] | None:
    try:
        return images.image_info(path)[1:3]
    except UnreadableFileError:  # reported when it is decoded
        return None
