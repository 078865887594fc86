"""Documents of a language model that are kept whole: files, lines, or the cells of a table's column."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol, Self, TypeVar

import torch
from torch import Tensor

from bigmodel.data.base import PART_ORDER, Dataset, PartName
from bigmodel.data.custom_data import CustomDataConfig, resolve_path, separate_parts, split_samples
from bigmodel.data.packing import Documents, PackedDocuments, pieces
from bigmodel.data.tabular.table_file import as_strings, get_column, read_table
from bigmodel.data.texts import files as text_files
from bigmodel.data.texts.files import TextFilesConfig, read_lines, read_text
from bigmodel.data.texts.vocabulary import Encoded, Vocabulary
from bigmodel.errors import DataError, counted
from bigmodel.registry import Config
from bigmodel.spec import DataSpec, NextTokens, PackedTokens, Tokens

Packing = Literal["documents", "padded"]
"""How documents fill rows: several whole ones packed into each, or one in each."""


class Records(Protocol):
    """What was read of a file or folder, in order; `left_out` says how many were left out, by reason."""

    @property
    def left_out(self) -> Mapping[str, int]: ...
    def __len__(self) -> int: ...
    def __add__(self, more: Self) -> Self: ...
    def at(self, index: Sequence[int]) -> Self:
        """Those at some indices."""


RecordsT = TypeVar("RecordsT", bound=Records)

_EMPTY = "documents without text"


class Layout(Config):
    """What a document is.

    Attributes:
        document: a file or a line; of no importance if there is a column.
        column: the column of a table that holds the documents.
        encoding: of text files.
    """

    document: Literal["file", "line"] = "file"
    column: str | None = None
    encoding: str = "utf-8"


@dataclass(frozen=True)
class Found:
    """Documents as they were read, in order.

    Attributes:
        texts: none is blank.
        left_out: how many were left out, by reason.
    """

    texts: list[str]
    left_out: dict[str, int] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.texts)

    def __add__(self, more: Self) -> Self:
        return type(self)(self.texts + more.texts)

    def at(self, index: Sequence[int]) -> Self:
        """The documents at some indices."""
        return type(self)([self.texts[row] for row in index])


def read_documents(paths: Sequence[Path], key: str, layout: Layout, max_bad: int) -> Found:
    """All documents of some files, blank ones left out.

    Args:
        paths: text files; with a column, a table or a folder of tables.
        key: the option that names them, such as `data.path`, for messages.
        layout: what a document is.
        max_bad: files or rows that may be left out because they are unreadable.

    Raises:
        DataError: they cannot be read, or all are blank.
    """
    if layout.column is not None:
        table = read_table(paths[0], key, max_bad, layout.encoding)
        left_out = dict(table.left_out)
        texts = [cell or "" for cell in as_strings(get_column(table, layout.column, "data.column"))]
    else:

        def read(file: Path) -> list[str]:
            by_line = layout.document == "line"
            return read_lines(file, layout.encoding) if by_line else [read_text(file, layout.encoding)]

        each, bad = text_files.read_each(paths, read, max_bad)
        texts = [text for some in each for text in some]
        left_out = {"files that cannot be read": bad} if bad else {}
    kept = [text for text in texts if text.strip()]
    if not kept:
        raise DataError(f"{key}={paths[0]}: there is no text in it.")
    if len(kept) < len(texts):
        left_out[_EMPTY] = len(texts) - len(kept)
    return Found(kept, left_out)


def paths_of(config: TextFilesConfig, key: str, layout: Layout) -> list[Path]:
    """The files at the path of an option: see `read_documents`.

    Raises:
        ConfigError: it is not set.
        DataError: there are none.
    """
    return text_files.text_files(config, key) if layout.column is None else [resolve_path(config, key)]


def split_read(
    config: CustomDataConfig, read: Mapping[PartName, RecordsT]
) -> tuple[dict[PartName, RecordsT], Tensor | None, Counter[str]]:
    """What was read for each part, where one without a path of its own is held out at random; which are
    for validation, None if that has a path of its own; and how many were left out, by reason.

    Args:
        read: what was read at `path`, and at the paths of parts that have one.
    """
    whole, left_out = read["train"], Counter[str]()
    for found in read.values():
        left_out.update(found.left_out)
    index = split_samples(config, len(whole))
    parts = {**read, **{name: whole.at(rows.tolist()) for name, rows in index.items()}}
    if not config.validation and "val" in parts:
        parts["train"] = parts["train"] + parts.pop("val")
    kept = {name: parts[name] for name in PART_ORDER if name in parts}
    return kept, index.get("val"), left_out


def separate_names(config: CustomDataConfig) -> dict[PartName, str]:
    """The parts that have a path of their own, the training set among them, and the options' names."""
    return {"train": "path", **{name: f"{name}_path" for name in separate_parts(config)}}


def before(vocabulary: Vocabulary) -> list[int]:
    """The tokens that stand before each document: what a pretrained model expects there or, as in GPT-2,
    the end of the one before."""
    assert vocabulary.end is not None
    return vocabulary.opening or [vocabulary.end]


def pad_of(vocabulary: Vocabulary) -> int:
    """The token that fills rows up; which one makes no difference."""
    pad = vocabulary.end if vocabulary.pad is None else vocabulary.pad
    assert pad is not None
    return pad


def framed(texts: Sequence[str], vocabulary: Vocabulary) -> Encoded:
    """Documents as tokens, between those that stand before each and the end."""
    assert vocabulary.end is not None
    encoded, opening = vocabulary.encode_all(texts, special=False), before(vocabulary)
    sizes = encoded.sizes + len(opening) + 1
    ends = sizes.cumsum(0)
    tokens = torch.empty(int(sizes.sum()), dtype=encoded.tokens.dtype)
    for place, token in enumerate(opening):
        tokens[ends - sizes + place] = token
    tokens[ends - 1] = vocabulary.end
    shift = ends - 1 - encoded.sizes.cumsum(0)
    tokens[torch.arange(len(encoded.tokens)) + shift.repeat_interleave(encoded.sizes)] = encoded.tokens
    return Encoded(tokens, sizes)


def arrange(encoded: Encoded, context: int, packing: Packing, pad: int) -> Documents | PackedDocuments:
    """Documents in rows of at most `context` tokens; longer ones are cut into pieces.

    Args:
        encoded: with the tokens before and after each.
        packing: see `Packing`.
        pad: a token that fills rows up.
    """
    documents = Documents(encoded.tokens, *pieces(encoded.sizes, context), pad)
    return PackedDocuments.packed(documents, context) if packing == "documents" else documents


def first_tokens(part: Documents | PackedDocuments) -> list[int]:
    """The place of each row's first token among all."""
    starts = part.starts[part.firsts] if isinstance(part, PackedDocuments) else part.starts
    return [int(start) for start in starts]


def dataset_of(
    name: str,
    parts: Mapping[PartName, Documents | PackedDocuments],
    vocabulary: Vocabulary,
    context: int,
    end: int | None = None,
) -> Dataset:
    """The data set of parts whose documents are arranged in one way.

    Args:
        end: the token that ends what a model writes; None: that which ends a document.
    """
    train = parts["train"]
    kind = PackedTokens if isinstance(train, PackedDocuments) else Tokens
    spec = DataSpec(
        name,
        kind(context, vocabulary.size, train.pad),
        NextTokens(vocabulary.size, vocabulary.characters, vocabulary.end if end is None else end),
        {name: len(part) for name, part in parts.items()},
    )
    return Dataset(spec, train, parts.get("val"), parts.get("test"))


def packing_row(
    part: Documents | PackedDocuments, documents: int, context: int, one: str = "document"
) -> tuple[str, str]:
    """A row of the header: how documents, called `one`, fill the rows of the training set."""
    number = counted(documents, one)
    cut = len(part.sizes) - documents
    longer = f"; longer ones are cut, into {counted(cut, 'further piece')}" if cut else ""
    if isinstance(part, Documents):
        return "Padding", f"{number}, each in a row of up to {counted(context, 'token')}{longer}"
    full = 100 * part.asked / context
    windows = f"{counted(len(part), 'window')} of {counted(context, 'token')}"
    return "Packing", f"{number} in {windows}, {full:.1f} % full{longer}"
