"""What a source has learnt from its training part, and how new files become samples with it.

A reader is plain data: categories, statistics, vocabularies, labels. It is stored in each checkpoint, so
that new files can be evaluated with nothing but the run's folder.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self, TypeVar

from bigmodel.data.fitted_state import FittedState
from bigmodel.data.former_names import former_name
from bigmodel.data.parts import SplitData
from bigmodel.errors import DataError, counted, did_you_mean
from bigmodel.registry import Config

HeaderRows = list[tuple[str, str]]
"""Label and text of each row of a run's header."""


@former_name("told", "header_rows")
@dataclass
class Found:
    """Samples that a reader found in new files.

    Attributes:
        part: the samples; their targets are meaningless if none were asked for.
        columns: what identifies the samples, such as `file`, or the columns of the table itself, which
            are Arrow's; predictions are written beside them.
        left_out: how many samples were left out, by reason.
        header_rows: what else the user should know of them, label and text of each row.
    """

    part: SplitData
    columns: dict[str, Sequence[Any]] = field(default_factory=dict)
    left_out: dict[str, int] = field(default_factory=dict)
    header_rows: HeaderRows = field(default_factory=list)


def truncation_row(count: int, one: str, most: str, *, purpose: str = "") -> HeaderRows:
    """A row of the header that says how many samples were truncated; empty if none was."""
    return [("Cut", f"{counted(count, one)}{purpose}, to {most}")] if count else []


class Reader(FittedState):
    """Base of all readers. Its fields are what was learnt, as JSON values."""

    def encoded(self, encoding: str) -> Self:
        """The same reader, for files in another encoding.

        Raises:
            DataError: it reads no text.
        """
        changed = _encoded(self, encoding)
        if changed is self:
            raise DataError("--encoding: the run was not trained on text files. Leave it out.")
        return changed

    def read(self, path: Path, *, with_targets: bool, max_bad: int = 0) -> Found:
        """The samples of new files, in their order.

        Args:
            path: a file or folder of the same kind as the source was learnt from.
            with_targets: read the targets too, for evaluation; otherwise a file need not have any.
            max_bad: unreadable samples that may be left out.

        Raises:
            DataError: it cannot be read, or is not of the kind that the source was learnt from.
        """
        raise NotImplementedError


ConfigT = TypeVar("ConfigT", bound=Config)


def _encoded(config: ConfigT, encoding: str) -> ConfigT:
    """A configuration with another encoding, in nested ones too; itself if it has none."""
    update: dict[str, Any] = {}
    for name in type(config).model_fields:
        value = getattr(config, name)
        if name == "encoding":
            update[name] = encoding
        elif isinstance(value, Config) and (changed := _encoded(value, encoding)) is not value:
            update[name] = changed
    return config.model_copy(update=update) if update else config


class TextReader(Reader):
    """Base of the readers of texts: words to tokens and back."""

    def encode(self, text: str) -> list[int]:
        """The tokens of a text, without start and end tokens.

        Raises:
            DataError: a character is not in the vocabulary.
        """
        raise NotImplementedError

    def decode(self, tokens: Sequence[int]) -> str:
        """The text of tokens, without special ones."""
        raise NotImplementedError


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
        raise DataError(
            f"The run's data was read by '{plain['name']}', which is not installed."
            f"{did_you_mean(plain['name'], _READERS)} If it is a plugin's, add --plugins module."
        )
    return _READERS[plain["name"]].model_validate(plain["learnt"])
