"""Samples as what they are: pictures, spectrograms, curves, rows, texts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bigmodel.data.reader import Reader, TextReader
from bigmodel.data.tabular.reader import TableReader
from bigmodel.reporting.report.charts import sparkline
from bigmodel.reporting.report.content import Block, Exhibit, Exhibits, Table, cut
from bigmodel.reporting.report.held_out import Mistake
from bigmodel.reporting.report.raster import png_of_pixels
from bigmodel.spec import Features, Image, Input, Multimodal, Tokens
from bigmodel.spec import Sequence as Steps

_SIDE = 128  # pixels of the longer side of a picture, at most
_MOST_CELLS = 12  # columns of a row
_MOST_LETTERS = 200  # of a cell
_MOST_LINES = 8  # features of a sequence that are drawn as lines


@dataclass(frozen=True)
class Shown:
    """How samples of a set are shown.

    Attributes:
        input: what they are.
        reader: of the data; None if it has none.
        spectrogram: pictures and sequences are spectrograms: rows are moments, columns pitches.
        waveform: sequences are the samples of a recording, cut into steps.
        names: a name for each sample, such as that of its file; or empty.
    """

    input: Input
    reader: Reader | None
    spectrogram: bool = False
    waveform: bool = False
    names: Sequence[str] = ()

    def mistakes(self, inputs: Sequence[Tensor], mistakes: Sequence[Mistake]) -> Block:
        """Mistakes, worst first.

        Args:
            inputs: of each, as it is stored.
            mistakes: of the same order.
        """
        if isinstance(self.input, Features | Multimodal):
            return self._rows(inputs, mistakes)
        exhibits = []
        for stored, mistake in zip(inputs, mistakes, strict=True):
            lines = [("prediction", mistake.prediction), ("truth", mistake.truth)]
            lines.append(("sample", self._name(mistake.index)))
            exhibits.append(self._exhibit(stored, lines))
        return Exhibits(exhibits)

    def _name(self, index: int) -> str:
        return self.names[index] if self.names else str(index)

    def _rows(self, inputs: Sequence[Tensor], mistakes: Sequence[Mistake]) -> Table:
        heads, rows = ["sample", "prediction", "truth"], []
        for stored, mistake in zip(inputs, mistakes, strict=True):
            cells = self._cells(stored)
            rows.append([self._name(mistake.index), mistake.prediction, mistake.truth])
            rows[-1] += [cut(cell, _MOST_LETTERS) for cell in list(cells.values())[:_MOST_CELLS]]
            if len(rows) == 1:
                heads += list(cells)[:_MOST_CELLS]
        return Table(heads, rows)

    def _cells(self, stored: Tensor) -> dict[str, str]:
        if isinstance(self.reader, TableReader):
            return self.reader.cells(stored)
        values = stored.tolist()
        names = self.input.names if isinstance(self.input, Features) else ()
        names = names or tuple(f"feature {n}" for n in range(len(values)))
        return {name: f"{value:.4g}" for name, value in zip(names, values, strict=True)}

    def _exhibit(self, stored: Tensor, lines: Sequence[tuple[str, str]]) -> Exhibit:
        said = ", ".join(f"{label} {text}" for label, text in lines)
        match self.input:
            case Image():
                if self.spectrogram:
                    return Exhibit(
                        f"Spectrogram: {said}", lines, png=_spectrogram(stored[0]), smooth=True
                    )
                pixels, smooth = pixels_of(stored, _SIDE)
                return Exhibit(f"Picture: {said}", lines, png=png_of_pixels(pixels), smooth=smooth)
            case Steps():
                if self.spectrogram or (stored.shape[1] > _MOST_LINES and not self.waveform):
                    kind = "Spectrogram" if self.spectrogram else "Features over time"
                    return Exhibit(f"{kind}: {said}", lines, png=_spectrogram(stored), smooth=True)
                values = stored.double().numpy()
                values = values.reshape(-1, 1) if self.waveform else values
                kind = "Waveform" if self.waveform else "Values over time"
                return Exhibit("", lines, drawing=sparkline(f"{kind}: {said}", values))
            case _:
                return Exhibit("", lines, text=self._text(stored))

    def _text(self, tokens: Tensor) -> str:
        assert isinstance(self.input, Tokens)
        known = [token for token in tokens.flatten().tolist() if token != self.input.pad]
        if isinstance(self.reader, TextReader):
            return cut(self.reader.decode(known))
        return cut(" ".join(map(str, known)))


def pixels_of(stored: Tensor, side: int | None = None) -> tuple[NDArray[np.uint8], bool]:
    """An image, (channels, height, width), as pixels; and whether they are too many to see each.

    Bytes and numbers from 0 to 1 are shown as they are; others from their least to their largest.

    Args:
        side: of the longer side, at most; None: as many as there are.
    """
    image = stored.to(torch.float32).nan_to_num()
    if stored.dtype == torch.uint8:
        image = image / 255
    elif image.min() < 0 or image.max() > 1:
        image = stretched(image)
    image = image if len(image) == 3 else image[:1]
    height, width = image.shape[1:]
    if side is not None and max(height, width) > side:
        image = _resized(image, side / max(height, width))
    bytes_ = (image.clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
    return (bytes_ if bytes_.shape[2] == 3 else bytes_[:, :, 0]), max(height, width) > _SIDE // 2


def upright(rows: Tensor) -> Tensor:
    """Moments × pitches as a picture: time from left to right, high pitches above."""
    return rows.T.flip(0)


def _spectrogram(rows: Tensor) -> bytes:
    """Moments × pitches as a PNG file."""
    picture = upright(stretched(rows.to(torch.float32).nan_to_num()))[None]
    height, width = picture.shape[1:]
    if max(height, width) > 2 * _SIDE:
        picture = _resized(picture, 2 * _SIDE / max(height, width))
    return png_of_pixels((picture[0] * 255).round().clamp(0, 255).to(torch.uint8).numpy())


def stretched(values: Tensor) -> Tensor:
    """Values from 0 to 1, in place of their least and their largest."""
    low, high = values.min(), values.max()
    return (values - low) / (high - low).clamp(min=1e-12)


def _resized(image: Tensor, factor: float) -> Tensor:
    size: Any = [max(1, round(side * factor)) for side in image.shape[1:]]
    return torch.nn.functional.interpolate(image[None], size=size, mode="area")[0]
