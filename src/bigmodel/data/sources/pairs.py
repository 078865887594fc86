"""Pairs of texts, the second to be predicted from the first: sentences and their translations.

    bigmodel-train data=pairs data.source=train.de data.target=train.en model=transformer
    bigmodel-train data=pairs data.path=pairs.csv data.source=de data.target=en model=transformer

They are the lines of two files, or two columns of a table. Both sides share one vocabulary. References
for evaluation are never cut, so that decoding their tokens restores each as it is in the file.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from pydantic import Field
from torch import Tensor

from bigmodel.data.base import PART_ORDER, SET_NAMES, Dataset, PartName, ValFraction
from bigmodel.data.custom_data import split_samples
from bigmodel.data.parts import TextPairs
from bigmodel.data.reader import NewSamples, reads, truncation_row
from bigmodel.data.tabular.table_file import as_strings, get_column, table_in_memory
from bigmodel.data.texts import pair_files
from bigmodel.data.texts.files import read_lines, vocabulary_of
from bigmodel.data.texts.pair_files import PairFilesConfig, Pairs
from bigmodel.data.texts.vocabulary import Encoded, Vocabulary, VocabularyReader
from bigmodel.errors import DataError
from bigmodel.registry import data
from bigmodel.spec import DataSpec, NextTokens, TokenPair


class PairsConfig(PairFilesConfig):
    """Where pairs of texts are, their tokens, and how translations are evaluated."""

    batch_size: int = Field(512, ge=1, description="most pairs in a batch")
    val_fraction: ValFraction = 0.1
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
    beams: int = Field(4, ge=1, description="beams of the search that translates the test set")


@reads("pairs")
class PairsReader(VocabularyReader):
    """Reads new pairs, or sources alone, with the vocabulary of training.

    Attributes:
        length: tokens that sources are cut to, the end token included.
        longest: the most tokens of a reference, the end token included.
        columns: source and target in a table; None: pairs are the lines of two files.
    """

    length: int
    longest: int
    columns: list[str] | None

    def read(self, path: Path, *, with_targets: bool, max_bad: int = 0) -> NewSamples:
        """See `Reader.read`.

        Args:
            path: a table if the run was trained on one; else a file of sources, one per line, or two
                files, `test.de,test.en`.
            with_targets: leave out pairs with an empty side; otherwise all sources are kept, so that
                each line gets a translation.
            max_bad: pairs that may be left out because their reference is longer than any in training.
        """
        return self._new_samples(
            path, self._read_pairs(path, with_targets, max_bad), with_targets, max_bad
        )

    def read_table(self, table: Any, *, with_targets: bool) -> NewSamples:
        """See `Reader.read_table`: the columns of training, whatever the order."""
        if self.columns is None:
            return super().read_table(table, with_targets=with_targets)
        rows = table_in_memory(table)
        sides = [
            as_strings(get_column(rows, name, "data.path")) for name in self.columns[: 1 + with_targets]
        ]
        texts = [[text or "" for text in side] for side in sides]
        return self.read_values(texts[0], texts[1] if with_targets else None)

    def read_values(self, values: Sequence[Any], targets: Sequence[Any] | None = None) -> NewSamples:
        """See `Reader.read_values`: sources, and their translations as targets."""
        where, sources = Path("the texts"), [str(value) for value in values]
        translations = [""] * len(sources) if targets is None else [str(target) for target in targets]
        if len(sources) != len(translations):
            raise DataError(
                f"{where}: there are {len(translations):,} translations for {len(sources):,} texts."
            )
        pairs = Pairs(sources, translations, pair_files.line_names(sources))
        return self._new_samples(where, pairs, targets is not None, 0)

    def _new_samples(self, path: Path, pairs: Pairs, with_targets: bool, max_bad: int) -> NewSamples:
        if with_targets:
            pairs = pair_files.drop_empty(pairs)
            pairs = self._drop_longer(path, pairs, max_bad)
        if not len(pairs):
            raise DataError(f"{path}: there are no {'pairs' if with_targets else 'texts'} in it.")
        columns: dict[str, Sequence[str]] = {"source": pairs.sources}
        if with_targets:
            columns["target"] = pairs.targets
        encoded, cut = _encode_pairs(self.vocabulary, pairs, self.length)
        header_rows = truncation_row(cut, "source", f"{self.length:,} tokens")
        return NewSamples(encoded, columns, pairs.left_out, header_rows)

    def _drop_longer(self, path: Path, pairs: Pairs, max_bad: int) -> Pairs:
        """The pairs whose references are at most as long as the longest in training."""
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

    def _read_pairs(self, path: Path, with_targets: bool, max_bad: int) -> Pairs:
        """The pairs at a path; targets are empty unless asked for."""
        if self.columns is not None:
            source, target = self.columns
            names = (source, target if with_targets else source)
            pairs = pair_files.read_pair_table(path, "path", names, max_bad, self.encoding)
            return pairs if with_targets else replace(pairs, targets=[""] * len(pairs))
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
    """The pairs of texts at the paths of `config`.

    Raises:
        ConfigError: the path of a side is missing.
        DataError: they cannot be read, do not match, or are all too long.
    """
    pair_files.check_paths(config)
    parts, val_rows = _read_parts(config)
    training = [*parts["train"].sources, *parts["train"].targets]
    before = config.learnt_reader(PairsReader)
    vocabulary = vocabulary_of(config, before, training, "bpe", ["pad", "start", "end"])
    if not vocabulary.exact:
        raise DataError(
            f"data.tokenizer={config.tokenizer}: its encoding is not reversible, so translations would "
            "be compared with other references than those of the files. Use a byte-level tokenizer, or "
            "leave data.tokenizer out to train one."
        )
    encoded, cut, left_out = dict[PartName, TextPairs](), 0, Counter[str]()
    for name, part in parts.items():
        max_tokens = None if name == "train" else config.length
        encoded[name], count = _encode_pairs(vocabulary, part, max_tokens)
        cut += count
        left_out.update(part.left_out)
    encoded["train"], dropped = _drop_long(encoded["train"], config.length)
    if dropped:
        left_out[f"training pairs longer than {config.length:,} tokens"] = dropped
    longest = max(config.length, *(int(part.sizes.max()) for part in encoded.values()))
    header_rows = [
        ("Pairs", f"{len(encoded['train']):,} for training"),
        ("Vocabulary", f"{vocabulary}; both sides share it"),
        *truncation_row(cut, "source", f"{config.length:,} tokens", purpose=" for evaluation"),
    ]
    spec = DataSpec(
        "pairs",
        TokenPair(longest, vocabulary.size, *_special_tokens(vocabulary)),
        NextTokens(vocabulary.size, characters=None, end=vocabulary.end),
        {name: len(part) for name, part in encoded.items()},
    )
    reader = PairsReader(
        vocabulary=vocabulary,
        encoding=config.encoding,
        length=config.length,
        longest=longest,
        columns=None if config.path is None else [str(config.source), str(config.target)],
    )
    return Dataset(
        spec,
        encoded["train"],
        encoded.get("val"),
        encoded.get("test"),
        reader=reader,
        header_rows=header_rows,
        left_out=dict(left_out),
        val_rows=val_rows,
    )


def _read_parts(config: PairsConfig) -> tuple[dict[PartName, Pairs], Tensor | None]:
    """All parts; those without a path of their own are held out of the training set. And which pairs are
    held out for validation, None if that has a path of its own.

    Pairs with the same source go to the same part, or the model would be evaluated on sources that it
    was trained on.
    """
    files = {name: pair_files.read_part(config, name) for name in PART_ORDER}
    parts = {name: part for name, part in files.items() if part is not None}
    empty = [name for name, part in parts.items() if not len(part)]
    if empty:
        raise DataError(f"data: the {SET_NAMES[empty[0]]} set has no pairs with a text on both sides.")
    whole = parts["train"]
    separate = {f"{name}_path": name for name in parts if name != "train"}
    index = split_samples(config.model_copy(update=separate), len(whole), groups=whole.sources)
    parts |= {name: whole.at(rows.tolist()) for name, rows in index.items()}
    parts["train"] = replace(parts["train"], left_out=whole.left_out)
    if not config.validation and "val" in parts:
        parts["train"] += parts.pop("val")
    return {name: parts[name] for name in PART_ORDER if name in parts}, index.get("val")


def _encode_pairs(vocabulary: Vocabulary, pairs: Pairs, max_tokens: int | None) -> tuple[TextPairs, int]:
    """Pairs as tokens, sources cut to `max_tokens`; and how many sources were cut."""
    pad, start, end = _special_tokens(vocabulary)
    uncut = vocabulary.encode_all(pairs.sources)
    source = _append_end(uncut, end, max_tokens)
    target = _append_end(vocabulary.encode_all(pairs.targets), end)
    encoded = TextPairs(
        torch.cat([source.tokens, target.tokens]),
        torch.stack([source.starts, target.starts + len(source.tokens)], dim=1),
        torch.stack([source.sizes, target.sizes], dim=1),
        pad,
        start,
    )
    return encoded, int((source.sizes <= uncut.sizes).sum())


def _special_tokens(vocabulary: Vocabulary) -> tuple[int, int, int]:
    """Pad, start and end."""
    assert vocabulary.pad is not None
    assert vocabulary.start is not None
    assert vocabulary.end is not None
    return vocabulary.pad, vocabulary.start, vocabulary.end


def _drop_long(pairs: TextPairs, length: int) -> tuple[TextPairs, int]:
    """The pairs of at most `length` tokens, and how many others there are."""
    short = pairs.lengths <= length
    if not bool(short.any()):
        raise DataError(
            f"data.length={length}: all {len(pairs):,} training pairs are longer; the shortest has"
            f" {int(pairs.lengths.min()):,} tokens. Raise it."
        )
    return pairs.select(short.nonzero().flatten()), int((~short).sum())


def _append_end(texts: Encoded, end: int, max_tokens: int | None = None) -> Encoded:
    """Texts with an `end` token after each, cut to `max_tokens` with it."""
    kept = texts.sizes if max_tokens is None else texts.sizes.clamp(max=max_tokens - 1)
    result = Encoded(torch.full((int(kept.sum()) + len(kept),), end, dtype=texts.tokens.dtype), kept + 1)
    within = torch.arange(int(kept.sum())) - (kept.cumsum(0) - kept).repeat_interleave(kept)
    source = texts.starts.repeat_interleave(kept) + within
    result.tokens[result.starts.repeat_interleave(kept) + within] = texts.tokens[source]
    return result
