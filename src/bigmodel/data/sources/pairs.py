"""Pairs of texts, the second to be told from the first: sentences and their translations.

    bigmodel-train data=pairs data.source=train.de data.target=train.en model=transformer
    bigmodel-train data=pairs data.path=pairs.csv data.source=de data.target=en model=transformer

They are the lines of two files, or two columns of a table. Both sides share one vocabulary. What a model
is judged by is never cut, so that decoding gives back each reference as it stands in the file.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from pydantic import Field

from bigmodel.data.base import Dataset, PartName
from bigmodel.data.custom_data import split_samples
from bigmodel.data.parts import TextPairs
from bigmodel.data.reader import Found, reads, truncation_row
from bigmodel.data.texts import pair_files
from bigmodel.data.texts.files import read_lines, vocabulary_of
from bigmodel.data.texts.pair_files import PairFilesConfig, Pairs
from bigmodel.data.texts.vocabulary import Encoded, Vocabulary, VocabularyReader
from bigmodel.errors import DataError
from bigmodel.registry import data
from bigmodel.spec import DataSpec, NextTokens, TokenPair

_PART_ORDER: tuple[PartName, ...] = ("train", "val", "test")


class PairsConfig(PairFilesConfig):
    """Where pairs of texts lie, what their tokens are, and how translations are judged."""

    batch_size: int = Field(512, ge=1, description="most pairs in a batch")
    val_fraction: float = Field(
        0.1, gt=0, lt=1, description="share of the training part held out for validation, 0 to 1"
    )
    batch_tokens: int = Field(4096, ge=1, description="most tokens in a batch, padding included")
    length: int = Field(
        128,
        ge=2,
        description="most tokens of a text, its end included; longer pairs are not trained on",
    )
    bleu_pairs: int = Field(
        1000,
        ge=0,
        description="validation pairs that are translated at each evaluation to give BLEU; 0: none",
    )
    beams: int = Field(4, ge=1, description="beams of the search that translates the test part")


@reads("pairs")
class PairsReader(VocabularyReader):
    """Reads further pairs, or sources alone, in the tokens that were learnt.

    Attributes:
        length: tokens that sources are cut to, their end included.
        longest: the most tokens of a reference, its end included.
        columns: of a table, source and target; None: the lines of two files.
    """

    length: int
    longest: int
    columns: list[str] | None

    def read(self, path: Path, *, with_targets: bool, max_bad: int = 0) -> Found:
        """See `Reader.read`.

        Args:
            path: a table where the run has learnt from one; else a file of sources, a line each, or two
                files, `test.de,test.en`.
            with_targets: leave out pairs with an empty side; without, all sources are kept, so that
                there is a translation for each line.
            max_bad: pairs that may be left out because their reference is longer than any in training.
        """
        pairs = self._pairs(path, with_targets, max_bad)
        if with_targets:
            pairs = pair_files.drop_empty(pairs)
            pairs = self._not_longer(path, pairs, max_bad)
        if not len(pairs):
            raise DataError(f"{path}: there are no {'pairs' if with_targets else 'texts'} in it.")
        columns: dict[str, Sequence[str]] = {"source": pairs.sources}
        if with_targets:
            columns["target"] = pairs.targets
        stored, cut = _encode_pairs(self.vocabulary, pairs, self.length)
        header_rows = truncation_row(cut, "source", f"{self.length:,} tokens")
        return Found(stored, columns, pairs.left_out, header_rows)

    def _not_longer(self, path: Path, pairs: Pairs, max_bad: int) -> Pairs:
        """The pairs whose references are no longer than any that the run has seen."""
        sizes = (self.vocabulary.encode_all(pairs.targets).sizes + 1).tolist()
        longer = [row for row, size in enumerate(sizes) if size > self.longest]
        if len(longer) > max_bad:
            raise DataError(
                f"{path}: {len(longer):,} of {len(pairs):,} references are longer than the"
                f" {self.longest:,} tokens that the model was built for, the first in"
                f" {pairs.places[longer[0]]} with {sizes[longer[0]]:,}. Shorten or remove them, "
                f"or set data.max_bad={len(longer)} to skip them."
            )
        kept = [row for row, size in enumerate(sizes) if size <= self.longest]
        return pair_files.keep_rows(pairs, kept, f"references longer than {self.longest:,} tokens")

    def _pairs(self, path: Path, with_targets: bool, max_bad: int) -> Pairs:
        """The pairs of a place; targets are empty where no answers are asked for."""
        if self.columns is not None:
            source, target = self.columns
            names = (source, target if with_targets else source)
            found = pair_files.read_pair_table(path, "path", names, max_bad, self.encoding)
            return found if with_targets else replace(found, targets=[""] * len(found))
        files = [path] if path.exists() else [Path(name) for name in str(path).split(",")]
        if with_targets and len(files) == 2:
            return pair_files.read_pair_files(files[0], files[1], self.encoding)
        if with_targets or len(files) > 2:
            raise DataError(
                f"{path}: evaluation needs a file of sources and one of their translations, separated "
                "by a comma, such as test.de,test.en."
            )
        sources = read_lines(files[0], self.encoding)
        return Pairs(sources, [""] * len(sources), pair_files.line_names(sources))


@data.register("pairs", PairsConfig)
def pairs(config: PairsConfig) -> Dataset:
    """The pairs of texts that `config` names.

    Raises:
        ConfigError: it is not said where both sides lie.
        DataError: they cannot be read, do not fit each other, or all are too long.
    """
    pair_files.check_paths(config)
    parts = _read_parts(config)
    training = [*parts["train"].sources, *parts["train"].targets]
    before = config.learnt_reader(PairsReader)
    vocabulary = vocabulary_of(config, before, training, "bpe", ["pad", "start", "end"])
    if not vocabulary.exact:
        raise DataError(
            f"data.tokenizer={config.tokenizer}: its encoding is not reversible, so translations would "
            "be compared with other references than those of the files. Use a byte-level tokenizer, or "
            "leave data.tokenizer out to train one."
        )
    stored: dict[PartName, TextPairs] = {}
    cut = 0
    for name, part in parts.items():
        most = None if name == "train" else config.length
        stored[name], longer = _encode_pairs(vocabulary, part, most)
        cut += longer
    stored["train"], long = _drop_long(stored["train"], config.length)
    left_out = Counter[str]()
    for part in parts.values():
        left_out.update(part.left_out)
    if long:
        left_out[f"training pairs longer than {config.length:,} tokens"] = long
    longest = max(config.length, *(int(part.sizes.max()) for part in stored.values()))
    header_rows = [
        ("Pairs", f"{len(stored['train']):,} for training"),
        ("Vocabulary", f"{vocabulary}; both sides share it"),
        *truncation_row(cut, "source", f"{config.length:,} tokens", purpose=" for evaluation"),
    ]
    spec = DataSpec(
        "pairs",
        TokenPair(longest, vocabulary.size, *_special_tokens(vocabulary)),
        NextTokens(vocabulary.size, characters=None, end=vocabulary.end),
        {name: len(part) for name, part in stored.items()},
    )
    reader = PairsReader(
        vocabulary=vocabulary,
        encoding=config.encoding,
        length=config.length,
        longest=longest,
        columns=None if config.path is None else [str(config.source), str(config.target)],
    )
    dataset = Dataset(spec, stored["train"], stored["val"], stored.get("test"), reader=reader)
    return replace(dataset, header_rows=header_rows, left_out=dict(left_out))


def _read_parts(config: PairsConfig) -> dict[PartName, Pairs]:
    """All parts; what has no place of its own is held out of the training part.

    Pairs of the same source go to the same part, or what is judged by would have been learnt.
    """
    read = {name: pair_files.read_part(config, name) for name in _PART_ORDER}
    found = {name: part for name, part in read.items() if part is not None}
    empty = [name for name, part in found.items() if not len(part)]
    if empty:
        raise DataError(f"data: the {empty[0]} part has no pairs with a text on both sides.")
    whole = found["train"]
    elsewhere = {f"{name}_path": name for name in ("val", "test") if name in found}
    index = split_samples(config.model_copy(update=elsewhere), len(whole), groups=whole.sources)
    found |= {name: whole.at(rows.tolist()) for name, rows in index.items()}
    found["train"] = replace(found["train"], left_out=whole.left_out)
    return {name: found[name] for name in _PART_ORDER if name in found}


def _encode_pairs(vocabulary: Vocabulary, pairs: Pairs, most: int | None) -> tuple[TextPairs, int]:
    """Pairs as tokens; sources are cut to `most` tokens, targets are not. How many were cut."""
    pad, start, end = _special_tokens(vocabulary)
    encoded = vocabulary.encode_all(pairs.sources)
    source = _append_end(encoded, end, most)
    target = _append_end(vocabulary.encode_all(pairs.targets), end)
    stored = TextPairs(
        torch.cat([source.tokens, target.tokens]),
        torch.stack([source.starts, target.starts + len(source.tokens)], dim=1),
        torch.stack([source.sizes, target.sizes], dim=1),
        pad,
        start,
    )
    return stored, int((source.sizes <= encoded.sizes).sum())


def _special_tokens(vocabulary: Vocabulary) -> tuple[int, int, int]:
    """Pad, start and end."""
    assert vocabulary.pad is not None
    assert vocabulary.start is not None
    assert vocabulary.end is not None
    return vocabulary.pad, vocabulary.start, vocabulary.end


def _drop_long(stored: TextPairs, length: int) -> tuple[TextPairs, int]:
    """The pairs of at most `length` tokens, and how many others there are.

    Raises:
        DataError: there are none.
    """
    short = stored.lengths <= length
    if not bool(short.any()):
        raise DataError(
            f"data.length={length}: all {len(stored):,} training pairs are longer; the shortest has"
            f" {int(stored.lengths.min()):,} tokens. Raise it."
        )
    return stored.select(short.nonzero().flatten()), int((~short).sum())


def _append_end(found: Encoded, end: int, most: int | None = None) -> Encoded:
    """Texts that each end with `end`, cut to `most` tokens with it."""
    kept = found.sizes if most is None else found.sizes.clamp(max=most - 1)
    sizes = kept + 1
    starts = sizes.cumsum(0) - sizes
    # Where each token that is kept stood, and where it comes to stand.
    within = torch.arange(int(kept.sum())) - (kept.cumsum(0) - kept).repeat_interleave(kept)
    tokens = torch.full((int(sizes.sum()),), end, dtype=found.tokens.dtype)
    before = found.starts.repeat_interleave(kept) + within
    tokens[starts.repeat_interleave(kept) + within] = found.tokens[before]
    return Encoded(tokens, sizes)
