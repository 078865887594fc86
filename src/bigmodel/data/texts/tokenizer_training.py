"""The vocabulary of a training set: learnt from it, or the user's own tokenizer."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import numpy as np

from bigmodel.data.libraries import tokenizers
from bigmodel.data.texts.vocabulary import (
    CHUNK,
    LongText,
    Vocabulary,
    chunks,
    code_points,
    split_long_text,
)
from bigmodel.errors import DataError
from bigmodel.runtime import signals, standard_streams
from bigmodel.runtime.progress_messages import report_progress

Unit = Literal["character", "byte", "bpe"]
Special = Literal["pad", "start", "end", "unknown"]

MIN_VOCAB_SIZE = 260
"""A vocabulary of subwords contains at least all bytes and the special tokens."""

MAX_WORD = 1024
"""Characters of a word, or of a run of blanks, that subwords are learnt from: training time grows with
the square of a word's length."""

_RUN = re.compile(rf"\S{{{MAX_WORD}}}|\s{{{MAX_WORD}}}")
_TRIAL_CHARACTERS = 1 << 18  # characters of the training set that the user's own tokenizer is tried on


def build_vocabulary(
    texts: Sequence[LongText],
    unit: Unit,
    vocab_size: int,
    tokenizer: Path | None = None,
    special: Sequence[Special] = (),
) -> Vocabulary:
    """The vocabulary of a training set.

    Args:
        texts: the training set.
        unit: what a token is.
        vocab_size: of `bpe`: the most tokens, special ones included.
        tokenizer: a tokenizer.json to use instead; None: none.
        special: special tokens to add.

    Raises:
        DataError: the tokenizer cannot be read.
    """
    if tokenizer is not None:
        plain = _load_tokenizer(tokenizer, texts)
    elif unit == "bpe":
        plain = Vocabulary(unit="bpe", tokenizer=_train_bpe(texts, vocab_size - len(special)))
    elif unit == "character":
        plain = Vocabulary(unit="character", letters=distinct_characters(texts))
    else:
        plain = Vocabulary(unit="byte")
    values: dict[str, Any] = plain.model_dump()  # a copy would keep the cached size
    values.update({name: plain.base_size + place for place, name in enumerate(special)})
    return Vocabulary(**values)


def distinct_characters(texts: Iterable[LongText]) -> str:
    """The distinct characters of texts, sorted."""
    seen = np.zeros(0x110000, bool)
    for text in texts:
        for piece in chunks(text):
            seen[code_points(piece)] = True
    return "".join(map(chr, np.flatnonzero(seen).tolist()))


def _train_bpe(texts: Sequence[LongText], size: int) -> str:
    """A byte-level tokenizer of at most `size` subwords."""
    engine = tokenizers.Tokenizer(tokenizers.models.BPE())
    engine.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    engine.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=size,
        min_frequency=2,  # what occurs once does not generalise
        show_progress=False,
        initial_alphabet=sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet()),
    )
    size, read = sum(map(len, texts)), 0

    def cut() -> Iterator[str]:
        nonlocal read
        for piece in (piece for text in texts for piece in split_long_text(text)):
            yield from _split_long_words(piece)
            read += len(piece)

    work = f"Learning subwords from {size:,} characters"
    with report_progress(lambda: work if read == size else f"{work}, {read:,} of them read"):
        signals.interruptible(lambda: engine.train_from_iterator(cut(), trainer))
    return str(engine.to_str())


def _split_long_words(text: str) -> Iterator[str]:
    """A text, split where a word is longer than `MAX_WORD`."""
    begin = 0
    for run in _RUN.finditer(text):
        yield text[begin : run.end()]
        begin = run.end()
    if begin < len(text):
        yield text[begin:]


def _load_tokenizer(path: Path, texts: Sequence[LongText]) -> Vocabulary:
    """The tokenizer in a file, tried on the beginning of the training set."""
    where = f"data.tokenizer={path}"
    try:
        written = path.read_text(encoding="utf-8")
        with standard_streams.errors_held_back():
            vocabulary = Vocabulary(unit="tokenizer", tokenizer=written)
            empty = vocabulary.base_size == 0
    except Exception as error:  # the library has no exception class of its own
        raise DataError(
            f"{where}: cannot be read as a tokenizer.json of the tokenizers library:"
            f" {str(error) or type(error).__name__}."
        ) from error
    if empty:
        raise DataError(f"{where}: its vocabulary is empty. It has not been trained. Use another.")
    pieces = (piece for text in texts for piece in split_long_text(text))
    tried = list(islice(pieces, _TRIAL_CHARACTERS // CHUNK))
    try:
        encoded = [vocabulary.encode(piece).tolist() for piece in tried]
        exact = [vocabulary.decode(tokens) for tokens in encoded] == tried
    except DataError as error:
        raise DataError(str(error).replace("data.tokenizer", where, 1)) from error
    if not any(encoded) and any(text.strip() for text in tried):
        raise DataError(
            f"{where}: it produces no tokens for the training set. Is it made for another language,"
            " without a token for unknown text? Use another."
        )
    return Vocabulary(**{**vocabulary.model_dump(), "exact": exact})
