"""Long texts, for language models: the next token is predicted.

    bigmodel-train data=text data.path=shakespeare.txt model=transformer

The text is split by position: the first part is for training, the last is held out. Reading takes about
four bytes of memory per character, or a dozen if it is not Latin or with unit=bpe; after that, one, two
or four bytes per token.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from bigmodel.data.base import SET_NAMES, Dataset, PartName
from bigmodel.data.custom_data import check_no_folds, separate_parts
from bigmodel.data.parts import Windows
from bigmodel.data.reader import NewSamples, reads
from bigmodel.data.texts import files as text_files
from bigmodel.data.texts.files import Passage, TextFilesConfig, UnitOption
from bigmodel.data.texts.tokenizer_training import Special, distinct_characters
from bigmodel.data.texts.vocabulary import Ids, Vocabulary, VocabularyReader
from bigmodel.errors import DataError, counted
from bigmodel.registry import data
from bigmodel.runtime import progress_messages
from bigmodel.spec import DataSpec, NextTokens, Tokens

_MIN_TOKENS = 8  # of a part that is evaluated on: fewer would be meaningless


class TextConfig(TextFilesConfig):
    """Where a text is, its tokens, and how many of them a model sees at once."""

    path: str | None = Field(
        None, description="path of the text: a file, a folder of .txt files, or a pattern of names"
    )
    val_fraction: float = Field(
        0.1, gt=0, lt=1, description="share of the text held out for validation: its last part"
    )
    split_seed: int = Field(
        0, ge=0, description="seed of the choice of trainer.limit; the text itself is split by position"
    )
    max_bad: int = Field(0, ge=0, description="unreadable files that may be skipped")
    unit: UnitOption = "character"
    context: int = Field(128, ge=1, description="tokens that a model sees at once")


@reads("text")
class TextDataReader(VocabularyReader):
    """Reads new texts with the vocabulary of training.

    Attributes:
        context: tokens in a window.
    """

    context: int

    def read(self, path: Path, *, with_targets: bool, max_bad: int = 0) -> NewSamples:  # noqa: ARG002
        """See `Reader.read`. Targets are always read: they are the tokens of the text itself."""
        files = text_files.text_files_in(path, "path")
        passages, bad = text_files.read_files(files, self.encoding, max_bad)
        if len(passages) > 1 and self.vocabulary.end is None:
            raise DataError(
                f"{path}: {len(passages):,} texts, but the run was trained on a single one and has no "
                "end-of-text token. Pass one file at a time."
            )
        stream = _token_stream(self.vocabulary, passages)
        if len(stream) < 2:
            needed = "at least 2 are needed, one to ask the next of"
            raise DataError(f"{path}: {_token_count(stream)}: {needed}.")
        windows = Windows.side_by_side(stream, self.context, whole=True)
        left_out = {"files that cannot be read": bad} if bad else {}
        return NewSamples(windows, {"first_token": windows.starts.tolist()}, left_out)


@data.register("text", TextConfig)
def text(config: TextConfig) -> Dataset:
    """The text at `config.path`, in windows of `context` tokens.

    Raises:
        ConfigError: no path is given.
        DataError: it cannot be read, is too short, or has a character that training has not seen.
    """
    passages, bad = text_files.read_texts(config)
    parts = _split_by_position(config, passages)
    for name in separate_parts(config, parts):
        parts[name], more = text_files.read_texts(config, f"{name}_path")
        bad += more
    if not config.validation and "val" in parts:
        parts["train"] += parts["val"]
        passages = [*passages, *parts.pop("val")]
    several = len(passages) > 1 or any(len(part) > 1 for part in parts.values())
    training = [passage.text for passage in parts["train"]]
    special: list[Special] = ["end"] if several else []
    before = config.learnt_reader(TextDataReader)
    if before is not None and several != (before.vocabulary.end is not None):
        before = None
    vocabulary = text_files.vocabulary_of(config, before, training, config.unit, special)
    with progress_messages.report_progress("Tokenizing the text"):
        streams = {name: _token_stream(vocabulary, part) for name, part in parts.items()}
    _check_sizes(config, streams)
    windows = {
        name: Windows.side_by_side(stream, config.context, whole=name != "train")
        for name, stream in streams.items()
    }
    spec = DataSpec(
        "text",
        Tokens(config.context, vocabulary.size),
        NextTokens(vocabulary.size, vocabulary.characters, vocabulary.end),
        {name: len(part) for name, part in windows.items()},
    )
    tokens = f"{vocabulary}; {_token_count(streams['train'])} for training"
    return Dataset(
        spec,
        windows["train"],
        windows.get("val"),
        windows.get("test"),
        reader=TextDataReader(vocabulary=vocabulary, encoding=config.encoding, context=config.context),
        header_rows=[("Text", _summary(passages, training)), ("Vocabulary", tokens)],
        left_out={"files that cannot be read": bad} if bad else {},
        # Within the block that is held out.
        val_rows=windows["val"].starts if "val" in windows else None,
    )


def _split_by_position(config: TextConfig, passages: Sequence[Passage]) -> dict[PartName, list[Passage]]:
    """The parts without a path of their own, in the order of the text: train, val, test."""
    total = sum(len(passage.text) for passage in passages)
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
    for file, position, content in passages:
        low, high = max(first - begin, 0), min(last - begin, len(content))
        if low < high:
            sliced.append(Passage(file, position + low, content[low:high]))
        begin += len(content)
    return sliced


def _token_stream(vocabulary: Vocabulary, passages: Sequence[Passage]) -> Tensor:
    """The tokens of all passages, (tokens,), with an end token between two of them."""
    pieces: list[Ids] = []
    for file, first, content in passages:
        if pieces:
            pieces.append(np.array([vocabulary.end], pieces[0].dtype))
        pieces.append(vocabulary.encode(content, str(file), first))
    return torch.from_numpy(np.concatenate(pieces)) if pieces else torch.empty(0, dtype=torch.uint8)


def _check_sizes(config: TextConfig, streams: dict[PartName, Tensor]) -> None:
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


def _summary(passages: Sequence[Passage], training: Sequence[str]) -> str:
    total = sum(len(passage.text) for passage in passages)
    share = sum(map(len, training)) / total
    files = counted(len(passages), "file")
    part = "all" if share == 1 else f"first {100 * share:.3g} %"
    different = len(distinct_characters(training))
    return f"{total:,} characters in {files}, {different:,} different; {part} for training"
