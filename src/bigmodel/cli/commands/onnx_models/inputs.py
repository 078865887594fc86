"""The inputs of an exported graph, and the preprocessing from them to the model's inputs, as a module.

A plugin's reader may define `graph_front(preprocessing)`, which returns a `Front`; without it, the
graph's inputs are the samples as the reader stores them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn

from bigmodel.data.arrays.reader import ArraysReader
from bigmodel.data.preprocessing import Preprocessing
from bigmodel.data.sources.audio import AudioReader
from bigmodel.data.spelling_variants import CASELESS_SPELLINGS, ValueIndex
from bigmodel.data.tabular.columns import CategoryColumn, NumberColumn, Scale
from bigmodel.data.tabular.date_formats import TimeKind, calendar_part
from bigmodel.data.tabular.reader import TableReader
from bigmodel.errors import SpecError
from bigmodel.spec import Features, Image, Multimodal, TokenPair, Tokens

LENGTH = "length"
"""Name of a dimension that varies between batches: the tokens of a text."""


@dataclass(frozen=True)
class GraphInput:
    """One input of a graph.

    Attributes:
        name: its name in the graph.
        kind: the type of its elements.
        shape: without the batch; `LENGTH` may vary.
        meaning: a description for users.
        most: for `int64`: elements are below it, and at least 0.
        words: for `word`: the index of each word seen in training; others become 0.
        may_miss: for `float32` and `float64`: whether NaN stands for a missing value.
        span: for `float64`: the range of likely values.
        categories: for `float32`: see `spec.Features`.
    """

    name: str
    kind: Literal["float32", "float64", "uint8", "int64", "word"]
    shape: tuple[int | str, ...]
    meaning: str
    most: int = 0
    words: dict[str, int] = field(default_factory=dict)
    may_miss: bool = False
    span: tuple[float, float] = (0.0, 1.0)
    categories: tuple[int, ...] = ()

    @property
    def inner_name(self) -> str:
        """The name behind the lookup table of words."""
        return f"{self.name} (index)" if self.kind == "word" else self.name

    def example(self, samples: int, length: int, draw: torch.Generator) -> Tensor:
        """Made-up values, (samples, *shape); indices instead of words."""
        sizes = [samples, *(length if size == LENGTH else int(size) for size in self.shape)]
        if self.kind not in ("float32", "float64"):
            limits = {"uint8": 256, "int64": self.most, "word": 1 + max(self.words.values(), default=0)}
            drawn = torch.randint(limits[self.kind], sizes, generator=draw)
            return drawn.to(torch.uint8) if self.kind == "uint8" else drawn
        if self.kind == "float64":
            low, high = self.span
            values = low + (high - low) * torch.rand(sizes, generator=draw, dtype=torch.float64)
        else:
            values = torch.randn(sizes, generator=draw)
        for column, size in enumerate(self.categories):
            if size:
                values[:, column] = torch.randint(size, (samples,), generator=draw).float()
        missing = torch.rand(sizes, generator=draw) < 0.2
        return values.masked_fill(missing, torch.nan) if self.may_miss else values


@dataclass(frozen=True)
class Front:
    """The preprocessing in front of a model.

    Attributes:
        inputs: the graph's inputs.
        module: maps them, in that order, to the model's inputs.
        note: what the user of the graph must do beforehand.
    """

    inputs: list[GraphInput]
    module: nn.Module
    note: str = ""


def front_of(preprocessing: Preprocessing) -> Front:
    """The preprocessing of a run's model.

    Raises:
        SpecError: the run reads several kinds of data at once.
    """
    reader, kind = preprocessing.reader, preprocessing.spec.input
    own = getattr(reader, "graph_front", None)
    if own is not None:
        front: Front = own(preprocessing)
        return front
    if isinstance(kind, Multimodal):
        raise SpecError(
            f"A run that reads several kinds of data at once ({kind}) cannot be written as an ONNX"
            " graph. Predict with the run itself: bigmodel predict."
        )
    if isinstance(reader, TableReader):
        return _of_table(reader)
    scaled = Scaled(preprocessing)
    if isinstance(reader, AudioReader):
        settings = reader.settings
        given = GraphInput(
            "sound", "float32", (settings.samples,), f"samples at {settings.rate} Hz, -1 to 1"
        )
        note = "Mix channels and resample; pad with zeros at the end, or cut there."
        return Front([given], Heard(settings, scaled), note)
    match kind:
        case Image() if preprocessing.bytes:
            note = "Images of another size or with other channels are made this size first."
            return Front([GraphInput("image", "uint8", kind.shape, "pixels, 0 to 255")], scaled, note)
        case Image():
            given = GraphInput(
                "image", "float32", kind.shape, "pixels, in the scale of the training data"
            )
            return Front([given], scaled)
        case Tokens(vocab_size=size):
            given = GraphInput("tokens", "int64", (LENGTH,), _filled(kind.pad), most=size)
            return Front([given], nn.Identity(), f"At most {kind.length} tokens.")
        case TokenPair(vocab_size=size):
            source = GraphInput("source", "int64", (LENGTH,), _filled(kind.pad), most=size)
            known = f"the target so far, {kind.start} first; {_filled(kind.pad)}"
            target = GraphInput("target", "int64", (LENGTH,), known, most=size)
            note = (
                f"Both have equal length, at most {kind.length} tokens; the source ends with {kind.end}."
            )
            return Front([source, target], Paired(), note)
    categories = kind.categories if isinstance(kind, Features) else ()
    note = "Columns of categories hold whole numbers." if any(categories) else ""
    given = GraphInput("inputs", "float32", kind.shape, "as in the training data", categories=categories)
    if isinstance(reader, ArraysReader):
        mean, std = reader.mean or [0.0], reader.std or [1.0]
        return Front([given], Standardised(mean, std), note)
    return Front([given], scaled, note)


class Scaled(nn.Module):
    """Stored inputs to model inputs."""

    scale: Tensor | None
    shift: Tensor | None

    def __init__(self, preprocessing: Preprocessing) -> None:
        super().__init__()
        scaling = preprocessing.scaling()
        self.register_buffer("scale", None if scaling is None else scaling.scale)
        self.register_buffer("shift", None if scaling is None else scaling.shift)

    def forward(self, stored: Tensor) -> Tensor:
        inputs = stored.to(torch.float32)
        if self.scale is None or self.shift is None:
            return inputs
        return inputs * self.scale + self.shift


class Standardised(nn.Module):
    """Standardises numbers as their reader does: in float64."""

    mean: Tensor
    std: Tensor

    def __init__(self, mean: list[float], std: list[float]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float64))
        self.register_buffer("std", torch.tensor(std, dtype=torch.float64))

    def forward(self, inputs: Tensor) -> Tensor:
        return ((inputs.double() - self.mean) / self.std).float()


class Heard(nn.Module):
    """Audio samples to the model's input, as `AudioReader` decodes and scales them."""

    def __init__(self, settings: Any, scaled: Scaled) -> None:
        super().__init__()
        self.shape, self.scaled = settings.shape, scaled
        self.log_mel = settings.log_mel if settings.form == "log_mel" else None
        self.missing = 0 if self.log_mel else self.shape[0] * self.shape[1] - settings.samples

    def forward(self, sound: Tensor) -> Tensor:
        heard = sound if self.log_mel is None else self.log_mel(sound)
        if self.missing:
            heard = nn.functional.pad(heard, (0, self.missing))
        scaled: Tensor = self.scaled(heard.reshape(-1, *self.shape))
        return scaled


class Paired(nn.Module):
    """Stacks a source and the known beginning of its target."""

    def forward(self, source: Tensor, target: Tensor) -> Tensor:
        return torch.stack([source, target], dim=1)


class Measured(nn.Module):
    """A column of numbers, dates, times of day or durations to features.

    Args:
        times: the kind of time that it holds; None for numbers.
        parts: the features made of it, with the statistics that fill and standardise each.
        flag: whether to add a feature that marks missing values.
    """

    def __init__(self, times: TimeKind | None, parts: dict[str, Scale], flag: bool) -> None:
        super().__init__()
        self.times, self.flag = times, flag
        self.parts = [(part, scale.fill, scale.mean, scale.std) for part, scale in parts.items()]
        self.most = None if times is not None else parts[""].most

    def forward(self, column: Tensor) -> list[Tensor]:
        missing = torch.isnan(column)
        if self.most is not None:  # numbers that are too large count as missing
            missing = missing | ((column.double() - self.parts[0][2]).abs() > self.most)
        read = []
        for part, fill, mean, std in self.parts:
            values = torch.where(missing, fill, self._part(column, part))
            read.append(((values - mean) / std).float())
        return [*read, missing.float()] if self.flag else read

    def _part(self, column: Tensor, part: str) -> Tensor:
        if self.times is None:
            return column.double()
        # Few runtimes have sines of float64, and float32 is enough for the seconds of a day.
        seconds = column.float() if part in ("sine", "cosine") else column
        values: Tensor = calendar_part(seconds, self.times, part, torch)
        return values.double()


class Columns(nn.Module):
    """The columns of a table, each (batch, 1), to the features of a model.

    Args:
        measured: how each column is processed; None for the index of a category.
    """

    def __init__(self, measured: list[Measured | None]) -> None:
        super().__init__()
        self.measured = measured

    def forward(self, *columns: Tensor) -> Tensor:
        read: list[Tensor] = []
        for column, measured in zip(columns, self.measured, strict=True):
            read += [column.float()] if measured is None else measured(column)
        return torch.cat(read, dim=1)


_SECONDS: dict[TimeKind, tuple[str, tuple[float, float]]] = {
    "date": ("seconds since 1970 in UTC", (0.0, 2.0**31)),
    "time": ("seconds since midnight", (0.0, 86_400.0)),
    "duration": ("seconds", (0.0, 86_400.0)),
}


def _of_table(reader: TableReader) -> Front:
    """One input per column of the table; dates and times are in seconds."""
    inputs: list[GraphInput] = []
    measured: list[Measured | None] = []
    seconds = set()
    for column in reader.columns:
        if isinstance(column, CategoryColumn):
            meant = ValueIndex(column.values).of(
                [*CASELESS_SPELLINGS, "0", "1", "0.0", "1.0", *column.aliases]
            )
            words = {word: place + 1 for word, place in meant.items()}
            words |= {word or "": place for place, word in enumerate(column.values, start=1)}
            meaning = "a word without spaces around it, empty if it is missing"
            inputs.append(GraphInput(column.name, "word", (1,), meaning, words=words))
            measured.append(None)
        elif isinstance(column, NumberColumn):
            unit = column.number_format.unit
            meaning = f"a number{f' in {unit}' if unit else ''}, NaN if it is missing"
            inputs.append(GraphInput(column.name, "float32", (1,), meaning, may_miss=True))
            measured.append(Measured(None, {"": column.scale}, column.flag))
        else:
            unit, span = _SECONDS[column.times]
            meaning = f"{unit}, NaN if it is missing"
            inputs.append(GraphInput(column.name, "float64", (1,), meaning, may_miss=True, span=span))
            measured.append(Measured(column.times, column.parts, column.flag))
            seconds.add(f"{column.noun}s are {unit}")
    return Front(inputs, Columns(measured), _sentence(sorted(seconds)))


def _sentence(parts: list[str]) -> str:
    text = "; ".join(parts)
    return f"{text[:1].upper()}{text[1:]}." if text else ""


def _filled(pad: int | None) -> str:
    return "tokens" if pad is None else f"tokens, padded with {pad} at the end"
