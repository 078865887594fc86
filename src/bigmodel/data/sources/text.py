"""Long texts, for language models: the next token is predicted.

    bigmodel-train data=text data.path=shakespeare.txt model=transformer

A stream is split by position: the first part is for training, the last is held out. It is read a piece
at a time, into a cache of tokens on disk, which training maps: so memory does not grow with the text.
Whole documents are read into memory, split at random, and packed into rows or padded.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from bigmodel.data.base import PART_ORDER, SET_NAMES, Dataset, PartName
from bigmodel.data.custom_data import check_no_folds, separate_parts
from bigmodel.data.digest import DigestBuilder
from bigmodel.data.files.decode_cache import cache_folder, file_digests
from bigmodel.data.packing import Documents, PackedDocuments
from bigmodel.data.parts import Windows
from bigmodel.data.reader import NewSamples, reads
from bigmodel.data.texts import documents, token_cache
from bigmodel.data.texts import files as text_files
from bigmodel.data.texts.documents import Found, Layout, Packing
from bigmodel.data.texts.files import Passage, TextFilesConfig, UnitOption
from bigmodel.data.texts.token_cache import Create, TokenStreams
from bigmodel.data.texts.tokenizer_training import Special, distinct_characters
from bigmodel.data.texts.vocabulary import Ids, Vocabulary, VocabularyReader
from bigmodel.errors import ConfigError, DataError, counted
from bigmodel.registry import data
from bigmodel.runtime import progress_messages
from bigmodel.spec import DataSpec, NextTokens, Tokens

_TOKENS_DEPEND_ON = (
    *("encoding", "unit", "max_bad"),
    *("val_fraction", "test_fraction", "folds", "val_fold", "validation"),
)
"""Options, apart from those of a vocabulary that is learnt."""

_MIN_TOKENS = 8  # of a part that is evaluated on: fewer would be meaningless


class TextConfig(TextFilesConfig):
    """Where a text is, its tokens, and how many of them a model sees at once."""

    path: str | None = Field(
        None, description="path of the text: a file, a folder of .txt files, or a pattern of names"
    )
    val_fraction: float = Field(
        0.1,
        gt=0,
        lt=1,
        description="share held out for validation: a stream's last part, or documents at random",
    )
    split_seed: int = Field(
        0,
        ge=0,
        description="seed of the split of documents and of trainer.limit; a stream is split by position",
    )
    max_bad: int = Field(0, ge=0, description="unreadable files that may be skipped")
    unit: UnitOption = "character"
    context: int = Field(128, ge=1, description="tokens that a model sees at once")
    packing: Literal["stream", "documents", "padded"] = Field(
        "stream",
        description="stream: one text after another; documents: whole ones packed; padded: one in a row",
    )
    document: Literal["file", "line"] = Field(
        "file", description="what a document is, if they are packed or padded: a file or a line"
    )
    column: str | None = Field(
        None, description="column of a table whose cells are the documents; null: there is no table"
    )
    cache: str | None = Field(
        "auto", description="folder that stores tokens; auto: the user's cache folder; null: none"
    )


@reads("text")
class TextDataReader(VocabularyReader):
    """Reads new texts with the vocabulary of training.

    Attributes:
        context: tokens in a window.
    """

    context: int

    def encode(self, text: str) -> list[int]:
        """See `TextReader.encode`; begins as a text does."""
        return [*self.vocabulary.opening, *map(int, self.vocabulary.encode(text))]

    def read(self, path: Path, *, with_targets: bool, max_bad: int = 0) -> NewSamples:  # noqa: ARG002
        """See `Reader.read`. Targets are always read: they are the tokens of the text itself."""
        files = text_files.text_files_in(path, "path")
        passages, bad = text_files.measure_files(files, self.encoding, max_bad)
        if len(passages) > 1 and self.vocabulary.end is None:
            raise DataError(
                f"{path}: {len(passages):,} texts, but the run was trained on a single one and has no "
                "end-of-text token. Pass one file at a time."
            )
        stream = self._stream(passages)
        if len(stream) < 2:
            needed = "at least 2 are needed, one to ask the next of"
            raise DataError(f"{path}: {_token_count(stream)}: {needed}.")
        windows = Windows.side_by_side(stream, self.context, whole=True)
        left_out = {"files that cannot be read": bad} if bad else {}
        return NewSamples(windows, {"first_token": windows.starts[:].tolist()}, left_out)

    def _stream(self, passages: Sequence[Passage]) -> Tensor:
        """The tokens of all passages, (tokens,), with an end token between two of them."""
        pieces: list[Ids] = []
        for passage in passages:
            if passage is not passages[0]:
                pieces.append(np.array([self.vocabulary.end], pieces[0].dtype))
            where = str(passage.file)
            encoded = self.vocabulary.encode(passage, where, passage.first)
            pieces += [np.array(self.vocabulary.opening, encoded.dtype), encoded]
        return torch.from_numpy(np.concatenate(pieces))


@reads("documents")
class DocumentsReader(VocabularyReader):
    """Reads new documents with the vocabulary of training.

    Attributes:
        context: most tokens in a row.
        packing: how documents fill rows.
        layout: what a document is.
    """

    context: int
    packing: Packing
    layout: Layout

    def read(self, path: Path, *, with_targets: bool, max_bad: int = 0) -> NewSamples:  # noqa: ARG002
        """See `Reader.read`. Targets are always read: they are the documents' own tokens."""
        layout = self.layout.model_copy(update={"encoding": self.encoding})
        paths = [path] if layout.column is not None else text_files.text_files_in(path, "path")
        found = documents.read_documents(paths, "path", layout, max_bad)
        return self._new_samples(found.texts, found.left_out)

    def read_values(self, values: Sequence[Any], targets: Sequence[Any] | None = None) -> NewSamples:  # noqa: ARG002
        """See `Reader.read_values`: texts."""
        return self._new_samples(text_files.check_texts(values), {})

    def prompt(self, text: str) -> list[int]:
        """See `TextReader.prompt`: the beginning of a document."""
        return [*documents.before(self.vocabulary), *map(int, self.vocabulary.encode(text))]

    def arrange(self, texts: Sequence[str]) -> Documents | PackedDocuments:
        """Documents in rows, as a model reads them."""
        encoded, pad = documents.framed(texts, self.vocabulary), documents.pad_of(self.vocabulary)
        return documents.arrange(encoded, self.context, self.packing, pad)

    def _new_samples(self, texts: Sequence[str], left_out: dict[str, int]) -> NewSamples:
        part = self.arrange(texts)
        return NewSamples(part, {"first_token": documents.first_tokens(part)}, left_out)


@data.register("text", TextConfig)
def text(config: TextConfig) -> Dataset:
    """The text at `config.path`, in windows of `context` tokens.

    Raises:
        ConfigError: no path is given, or options of documents are set for a stream.
        DataError: it cannot be read, is too short, or has a character that training has not seen.
    """
    if config.packing != "stream":
        return _documents(config, config.packing)
    for key in ("document", "column"):
        if (value := getattr(config, key)) != TextConfig.model_fields[key].default:
            raise ConfigError(
                f"data.{key}={value}: data.packing=stream does not tell documents apart. Set"
                " data.packing=documents, or data.packing=padded."
            )
    keys = ["path", *(f"{name}_path" for name in separate_parts(config))]
    files = {key: text_files.text_files(config, key) for key in keys}
    folder = cache_folder(config.cache, "tokens")
    made = _load_or_make(config, files, folder)
    vocabulary = Vocabulary(**made.facts["vocabulary"])
    _check_sizes(config, made.streams)
    windows = {
        name: Windows.side_by_side(
            made.streams[name], config.context, whole=name != "train", mapped=made.mapped
        )
        for name in PART_ORDER
        if name in made.streams
    }
    spec = DataSpec(
        "text",
        Tokens(config.context, vocabulary.size),
        NextTokens(vocabulary.size, vocabulary.characters, vocabulary.end),
        {name: len(part) for name, part in windows.items()},
    )
    rows = [
        ("Text", made.facts["summary"]),
        ("Vocabulary", f"{vocabulary}; {_token_count(made.streams['train'])} for training"),
        *([("Cache", made.trouble)] if made.trouble else []),
    ]
    digest = DigestBuilder()
    for name, part in windows.items():
        digest.word(f"{name} {made.sums[name]} {part.length}")
    return Dataset(
        spec,
        windows["train"],
        windows.get("val"),
        windows.get("test"),
        reader=TextDataReader(vocabulary=vocabulary, encoding=config.encoding, context=config.context),
        header_rows=rows,
        left_out={"files that cannot be read": made.facts["bad"]} if made.facts["bad"] else {},
        read=digest.read(),
        # Within the block that is held out.
        val_rows=windows["val"].starts[:] if config.folds is not None else None,
    )


def _documents(config: TextConfig, packing: Packing) -> Dataset:
    """The documents at `config.path`, whole: packed, or each in a row."""
    if config.column is not None and config.document != "file":
        raise ConfigError(
            f"data.document={config.document}: with data.column, each cell is a document. Leave one out."
        )
    layout = Layout(document=config.document, column=config.column, encoding=config.encoding)
    read = {
        name: documents.read_documents(
            documents.paths_of(config, key, layout), f"data.{key}", layout, config.max_bad
        )
        for name, key in documents.separate_names(config).items()
    }
    _check_several(config, read)
    found, _, left_out = documents.split_read(config, read)
    texts = {name: some.texts for name, some in found.items()}
    before = config.learnt_reader(DocumentsReader)
    vocabulary = text_files.vocabulary_of(config, before, texts["train"], config.unit, ["end"])
    if vocabulary.end is None:
        raise DataError(
            f"data.packing={packing}: the tokenizer of model.pretrained has no token that ends a text."
            " Use data.packing=stream, and one file."
        )
    reader = DocumentsReader(
        vocabulary=vocabulary,
        encoding=config.encoding,
        context=config.context,
        packing=packing,
        layout=layout,
    )
    parts = {name: reader.arrange(some) for name, some in texts.items()}
    val = parts.get("val")
    return replace(
        documents.dataset_of("text", parts, vocabulary, config.context),
        reader=reader,
        header_rows=[
            documents.packing_row(parts["train"], len(texts["train"]), config.context),
            ("Vocabulary", str(vocabulary)),
        ],
        left_out=dict(left_out),
        val_rows=None if val is None else torch.tensor(documents.first_tokens(val)),
    )


def _check_several(config: TextConfig, read: Mapping[PartName, Found]) -> None:
    """Raises DataError if there is but one document, of which a part cannot be held out."""
    if list(read) == ["train"] and len(read["train"].texts) == 1 and config.validation:
        by_file = config.column is None and config.document == "file"
        by_line = " Set data.document=line if each line is one," if by_file else " Set"
        raise DataError(
            f"data.path={config.path}: there is a single document, and whole ones are held out for"
            f" validation.{by_line} data.val_path=<file>, or data.packing=stream."
        )


def _load_or_make(
    config: TextConfig, files: Mapping[str, list[Path]], folder: Path | None
) -> TokenStreams:
    """The tokens of all parts, from the cache if it has them."""
    everything = [file for some in files.values() for file in some]
    before = config.learnt_reader(TextDataReader)
    with token_cache.unchanged(everything):
        digests = {key: token_cache.text_digests(folder, some) for key, some in files.items()}
        name = token_cache.entry_name(options := _options(config, digests))
        if before is not None:
            learnt = before.vocabulary.model_dump()
            found = token_cache.load(folder, name)
            # A vocabulary with an end token, or without, may not suit the texts; see `_tokenize`.
            if found is not None and (
                found.facts["vocabulary"] == learnt
                or not _suits(before.vocabulary, found.facts["vocabulary"]["end"] is not None)
            ):
                return found
            name = token_cache.entry_name([options, learnt])
        return token_cache.load_or_make(folder, name, partial(_tokenize, config, files, before))


def _options(config: TextConfig, digests: Mapping[str, list[str]]) -> dict[str, Any]:
    """All that the tokens of a new run depend on, as JSON values."""
    options: dict[str, Any] = {"texts": dict(digests)}
    options |= {key: getattr(config, key) for key in _TOKENS_DEPEND_ON}
    if (pretrained := config.pretrained(Vocabulary)) is not None:
        options["pretrained"] = pretrained.model_dump()
    elif config.tokenizer is not None:
        options["tokenizer"] = file_digests([Path(config.tokenizer).expanduser()])  # "": not readable
    elif config.unit == "bpe":
        options |= {"vocab_size": config.vocab_size, "library": version("tokenizers")}
    return options


def _tokenize(
    config: TextConfig,
    files: Mapping[str, list[Path]],
    before: TextDataReader | None,
    create: Create,
) -> dict[str, Any]:
    """Writes the tokens of all parts, reading the text a piece at a time: once to count its characters,
    once to learn the vocabulary, once for the tokens.

    Args:
        before: the reader of a resumed run, whose vocabulary is used if it suits the texts.
        create: begins the stream of a part.

    Returns:
        `vocabulary`, `bad`: how many files were left out, and `summary`, for the header.
    """
    passages, bad = text_files.measure_files(files["path"], config.encoding, config.max_bad)
    parts = _split_by_position(config, passages)
    for name in separate_parts(config, parts):
        own = files[f"{name}_path"]
        parts[name], more = text_files.measure_files(own, config.encoding, config.max_bad)
        bad += more
    if not config.validation and "val" in parts:
        parts["train"] += parts["val"]
        passages = [*passages, *parts.pop("val")]
    several = len(passages) > 1 or any(len(part) > 1 for part in parts.values())
    special: list[Special] = ["end"] if several else []
    if before is not None and not _suits(before.vocabulary, several):
        before = None
    vocabulary = text_files.vocabulary_of(config, before, parts["train"], config.unit, special)
    if several and vocabulary.end is None:
        raise DataError(
            f"data.path={config.path}: {len(passages):,} texts, but the tokenizer of model.pretrained"
            " has no token that ends a text. Pass one file."
        )
    read, total = 0, sum(map(len, itertools.chain(*parts.values())))

    def counted_pieces(passage: Passage) -> Iterator[str]:
        nonlocal read
        for piece in passage:
            yield piece
            read += len(piece)

    work = "Tokenizing the text"
    with progress_messages.report_progress(lambda: f"{work}: {read:,} of {total:,} characters"):
        for name, part in parts.items():
            stream = create(name, vocabulary.size)
            for place, passage in enumerate(part):
                if place:
                    stream.write(np.array([vocabulary.end]))
                stream.write(np.array(vocabulary.opening, np.int64))
                pieces, where = counted_pieces(passage), str(passage.file)
                for ids in vocabulary.encode_pieces(pieces, where, passage.first):
                    stream.write(ids)
    return {
        "vocabulary": vocabulary.model_dump(),
        "bad": bad,
        "summary": _summary(passages, parts["train"], vocabulary if before is None else None),
    }


def _suits(vocabulary: Vocabulary, several: bool) -> bool:
    """Whether a vocabulary has an end token if there are several texts, and only then, unless it is a
    pretrained model's."""
    return vocabulary.unit == "pretrained" or several == (vocabulary.end is not None)


def _split_by_position(config: TextConfig, passages: Sequence[Passage]) -> dict[PartName, list[Passage]]:
    """The parts without a path of their own, in the order of the text: train, val, test."""
    total = sum(map(len, passages))
    if total == 0:
        raise DataError(f"data.path={config.path}: there is no text in it.")
    test = 0 if config.test_path is not None else round(total * config.test_fraction)
    by_fraction = config.validation and config.val_path is None
    val = round((total - test) * config.val_fraction) if by_fraction else 0
    cut = total - test - val
    if config.val_path is not None:
        check_no_folds(config)
    elif config.cross_validation is not None:
        folds, fold = config.cross_validation
        first, last = ((total - test) * i // folds for i in (fold, fold + 1))
        around = ((0, first), (last, total - test))
        blocks: dict[PartName, list[Passage]] = {
            "train": [p for low, high in around for p in _slice_passages(passages, low, high)],
            "val": _slice_passages(passages, first, last),
        }
        if test:
            blocks["test"] = _slice_passages(passages, total - test, total)
        return blocks
    parts: dict[PartName, list[Passage]] = {"train": _slice_passages(passages, 0, cut)}
    if by_fraction:
        parts["val"] = _slice_passages(passages, cut, cut + val)
    if config.test_path is None and config.test_fraction > 0:
        parts["test"] = _slice_passages(passages, cut + val, total)
    return parts


def _slice_passages(passages: Sequence[Passage], first: int, last: int) -> list[Passage]:
    """The characters from `first` to `last`, counted through all texts."""
    sliced, begin = [], 0
    for passage in passages:
        low, high = max(first - begin, 0), min(last - begin, len(passage))
        if low < high:
            sliced.append(replace(passage, first=passage.first + low, last=passage.first + high))
        begin += len(passage)
    return sliced


def _check_sizes(config: TextConfig, streams: Mapping[str, Tensor]) -> None:
    """Raises DataError if a part is too short."""
    count = len(streams["train"])
    if count <= config.context:
        most = f"Lower it to at most {count - 1:,}, or provide" if count > 1 else "Provide"
        raise DataError(
            f"data.context={config.context}: the training set has {_token_count(streams['train'])}, but"
            f" a window of {config.context:,} and the token after it are needed. {most} more text."
        )
    for name, stream in streams.items():
        if len(stream) < _MIN_TOKENS:
            path = getattr(config, f"{name}_path", None)
            fraction = f"data.{name}_fraction={getattr(config, f'{name}_fraction', 0):g}"
            if name == "val" and config.folds is not None:
                fraction = f"data.folds={config.folds}"
            where = fraction if path is None else f"data.{name}_path={path}"
            raise DataError(
                f"{where}: the {SET_NAMES[name]} set has {_token_count(stream)}, too few to evaluate on:"
                f" at least {_MIN_TOKENS} are needed. Provide more text, or a larger share of it."
            )


def _token_count(stream: Tensor) -> str:
    return counted(len(stream), "token")


def _summary(passages: Sequence[Passage], training: Sequence[Passage], learnt: Vocabulary | None) -> str:
    """What the header says of the text.

    Args:
        learnt: the vocabulary, if it is that of the training set.
    """
    total = sum(map(len, passages))
    share = sum(map(len, training)) / total
    files = counted(len(passages), "file")
    part = "all" if share == 1 else f"first {100 * share:.3g} %"
    if learnt is not None and learnt.unit == "character":
        different = learnt.base_size
    else:
        different = len(distinct_characters(training))
    return f"{total:,} characters in {files}, {different:,} different; {part} for training"
