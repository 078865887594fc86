"""Readers: what a source has learnt from its training set, to read new files as samples.

A reader is plain data: categories, statistics, vocabularies, labels. It is stored in each checkpoint, so
that new files can be evaluated with only the run's folder.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Self, TypeVar

from bigmodel import registry
from bigmodel.data.fitted_state import FittedState
from bigmodel.data.former_names import former_name
from bigmodel.data.parts import SplitData
from bigmodel.errors import DataError, counted, did_you_mean
from bigmodel.registry import Config

HeaderRows = list[tuple[str, str]]
"""Label and text of each row of a run's header."""


@former_name("told", "header_rows")
@dataclass
class NewSamples:
    """Samples that a reader found in new files.

    Attributes:
        part: the samples; without `with_targets` their targets are placeholders.
        columns: identify the samples, such as `file`, or are the table's own Arrow columns; predictions
            are written next to them.
        left_out: how many samples were left out, by reason.
        header_rows: label and text of further rows of the header.
    """

    part: SplitData
    columns: dict[str, Sequence[Any]] = field(default_factory=dict)
    left_out: dict[str, int] = field(default_factory=dict)
    header_rows: HeaderRows = field(default_factory=list)


Found = NewSamples  # former name, which plugins may import


def truncation_row(count: int, one: str, most: str, *, purpose: str = "") -> HeaderRows:
    """A row of the header with the number of truncated samples; empty if there are none."""
    return [("Cut", f"{counted(count, one)}{purpose}, to {most}")] if count else []


class Reader(FittedState):
    """Base of all readers. The fields are fitted state, as JSON values."""

    def __init_subclass__(cls, **named: Any) -> None:
        super().__init_subclass__(**named)
        if "answers" in inspect.signature(cls.read).parameters:  # former name of `with_targets`
            read: Any = cls.read

            def read_by_former_name(
                self: Any, path: Path, *, with_targets: bool, max_bad: int = 0
            ) -> NewSamples:
                samples: NewSamples = read(self, path, answers=with_targets, max_bad=max_bad)
                return samples

            cls.read = read_by_former_name  # type: ignore[method-assign]

    def encoded(self, encoding: str) -> Self:
        """The same reader, for files in another encoding.

        Raises:
            DataError: it reads no text.
        """
        changed = _encoded(self, encoding)
        if changed is self:
            raise DataError("--encoding: the run was not trained on text files. Leave it out.")
        return changed

    def read(self, path: Path, *, with_targets: bool, max_bad: int = 0) -> NewSamples:
        """The samples of new files, in their order.

        Args:
            path: a file or folder of the same kind as the training data.
            with_targets: read the targets too, for evaluation; otherwise the file need not have any.
            max_bad: unreadable samples that may be left out.

        Raises:
            DataError: it cannot be read, or is not of the same kind as the training data.
        """
        raise NotImplementedError

    def read_table(self, table: Any, *, with_targets: bool) -> NewSamples:
        """The rows of a table in memory, all of them, in their order.

        Args:
            table: a `pyarrow.Table`.
            with_targets: see `read`.

        Raises:
            DataError: its rows are no samples of the same kind as the training data.
        """
        del table, with_targets
        raise DataError("A table: the run was not trained on one. Pass the path of a file or folder.")

    def read_values(self, values: Sequence[Any], targets: Sequence[Any] | None = None) -> NewSamples:
        """Samples in memory: arrays, pictures, recordings or texts, all of them, in their order.

        Args:
            values: one for each sample.
            targets: for evaluation, one for each sample: labels or numbers; None: there are none.

        Raises:
            DataError: they are not of the same kind as the training data.
        """
        del values, targets
        raise DataError("Values in memory: the run's data source cannot read them. Pass a path.")


ConfigT = TypeVar("ConfigT", bound=Config)


def _encoded(config: ConfigT, encoding: str) -> ConfigT:
    """A configuration with another encoding, also in nested ones; itself if it has none."""
    update: dict[str, Any] = {}
    for name in type(config).model_fields:
        value = getattr(config, name)
        if name == "encoding":
            update[name] = encoding
        elif isinstance(value, Config) and (changed := _encoded(value, encoding)) is not value:
            update[name] = changed
    return config.model_copy(update=update) if update else config


class TextReader(Reader):
    """Base of the readers of texts: text to tokens and back.

    Attributes:
        continues: what a model writes goes on where a prompt ends; False: it is an answer to it.
    """

    continues: ClassVar[bool] = True

    def encode(self, text: str) -> list[int]:
        """The tokens of a text, without start and end tokens.

        Raises:
            DataError: a character is not in the vocabulary.
        """
        raise NotImplementedError

    def decode(self, tokens: Sequence[int]) -> str:
        """The text of tokens, without special ones."""
        raise NotImplementedError

    def prompt(self, text: str) -> list[int]:
        """The tokens of a text that the model is to continue.

        Raises:
            DataError: see `encode`.
        """
        return self.encode(text)


ReaderT = TypeVar("ReaderT", bound=type[Reader])

_READERS: dict[str, type[Reader]] = {}


def reads(name: str) -> Callable[[ReaderT], ReaderT]:
    """Decorator of a reader: its name in checkpoints."""

    def add(reader: ReaderT) -> ReaderT:
        _READERS[name] = reader
        return reader

    return add


def to_plain(reader: Reader) -> dict[str, Any]:
    """A reader as plain values."""
    name = next(name for name, known in _READERS.items() if known is type(reader))
    return {"name": name, "learnt": reader.model_dump()}


def from_plain(plain: dict[str, Any]) -> Reader:
    """The inverse of `to_plain`.

    Raises:
        DataError: no loaded module has a reader of this name.
    """
    if plain["name"] not in _READERS:
        registry.data.names()  # imports all sources
    if plain["name"] not in _READERS:
        raise DataError(
            f"The run's data was read by '{plain['name']}', which is not installed."
            f"{did_you_mean(plain['name'], _READERS)} If it is a plugin's, add --plugins module."
        )
    return _READERS[plain["name"]].model_validate(plain["learnt"])
