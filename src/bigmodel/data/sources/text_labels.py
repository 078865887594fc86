"""Texts, each with a label or a number: reviews with their stars, mails that are spam or not.

    bigmodel-train data=text_labels data.path=reviews.csv data.text=review data.target=stars model=rnn

They are two columns of a table, or text files in a folder for each class.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor

from bigmodel.data import custom_data
from bigmodel.data.assemble import completed
from bigmodel.data.base import PART_ORDER, Dataset, PartName
from bigmodel.data.class_counts import describe_target
from bigmodel.data.custom_data import Words
from bigmodel.data.digest import DigestBuilder
from bigmodel.data.parts import Texts
from bigmodel.data.reader import NewSamples, reads, truncation_row
from bigmodel.data.spelling_variants import alias_summary
from bigmodel.data.tabular.table_file import table_in_memory
from bigmodel.data.targets import TargetEncoder, class_names
from bigmodel.data.texts.encoding import as_samples, encode_texts
from bigmodel.data.texts.files import TextFilesConfig, UnitOption, check_texts, vocabulary_of
from bigmodel.data.texts.labelled_files import (
    LabelledTexts,
    Layout,
    layout_kind,
    read_labelled_texts,
    texts_of_table,
)
from bigmodel.data.texts.vocabulary import LengthLimit, VocabularyReader
from bigmodel.errors import DataError
from bigmodel.registry import data
from bigmodel.spec import Classes, DataSpec, Tokens, Values

_MAX_CLASSES = 20  # more different labels than that are probably not classes
_COVERED = 0.99  # share of the training texts that the automatic length leaves whole, if it may
_AUTO_LENGTHS = (64, 1024)  # least and most; attention takes time by the square of it


class TextLabelsConfig(TextFilesConfig):
    """Where texts and their labels are, and what their tokens are."""

    path: str | None = Field(
        None, description="path of the data: a table, or a folder with one for each class"
    )
    max_bad: int = Field(
        0, ge=0, description="texts that may be skipped: empty, without label, or unreadable"
    )
    text: str = Field("text", description="column of the table that holds the texts")
    target: str = Field("label", description="column of the table that holds the labels")
    task: Literal["auto", "classes", "values"] = Field(
        "auto", description="what labels are: classes, values, or auto: by what they look like"
    )
    missing: Words = Field([], description="words for a missing label, besides an empty cell and nan")
    group: str | None = Field(None, description="column whose equal values stay in one set; null: none")
    split: str | None = Field(None, description="column that says train, val or test; null: none")
    unit: UnitOption = "bpe"
    length: Annotated[int, Field(ge=1)] | Literal["auto"] = Field(
        "auto",
        description="most tokens of a text; longer ones are cut; auto: as 99 % of the training texts"
        " need, from 64 to 1,024",
    )


@reads("text_labels")
class TextLabelsReader(VocabularyReader):
    """Reads new texts with the vocabulary of training.

    Attributes:
        length: tokens that texts are cut to.
        layout: how texts and labels are stored.
        target_encoder: the labels of training.
    """

    length: int
    layout: Layout
    target_encoder: TargetEncoder

    def read(self, path: Path, *, with_targets: bool, max_bad: int = 0) -> NewSamples:
        """See `Reader.read`."""
        layout = self.layout.ungrouped()
        labelled = read_labelled_texts(path, "path", layout, max_bad, labelled=with_targets)
        return self._new_samples(labelled, str(path), with_targets)

    def read_table(self, table: Any, *, with_targets: bool) -> NewSamples:
        """See `Reader.read_table`."""
        layout, rows = self.layout.ungrouped(), table_in_memory(table)
        labelled = texts_of_table(rows, "data.text", layout, 0, with_targets)
        return self._new_samples(labelled, str(rows.path), with_targets)

    def read_values(self, values: Sequence[Any], targets: Sequence[Any] | None = None) -> NewSamples:
        """See `Reader.read_values`: texts."""
        texts = check_texts(values)
        encoded = self.target_encoder.read(targets, len(texts), "the texts")
        return self._encoded(LabelledTexts(texts, [], []), encoded)

    def _new_samples(self, labelled: LabelledTexts, where: str, with_targets: bool) -> NewSamples:
        encoder = self.target_encoder
        targets = encoder.placeholders(len(labelled.texts))
        if with_targets:
            targets = encoder.scale(_parse_labels(labelled, encoder, where))
        return self._encoded(labelled, targets)

    def _encoded(self, labelled: LabelledTexts, targets: Tensor) -> NewSamples:
        encoded, cut = encode_texts(self.vocabulary, labelled.texts, self.length, targets)
        header_rows = [*labelled.header_rows, *truncation_row(cut, "text", f"{self.length:,} tokens")]
        return NewSamples(encoded, labelled.columns, labelled.left_out, header_rows)


@data.register("text_labels", TextLabelsConfig)
def text_labels(config: TextLabelsConfig) -> Dataset:
    """The texts and labels at the paths of `config`.

    Raises:
        ConfigError: no path is given, or a part is given twice.
        DataError: texts or labels cannot be read, are missing, or are all the same.
    """
    path = custom_data.resolve_path(config)
    layout = Layout(kind=layout_kind(path), **config.model_dump(include=set(Layout.model_fields)))
    labelled = read_labelled_texts(path, "data.path", layout, config.max_bad)
    before = config.learnt_reader(TextLabelsReader)
    target, aliases = _infer_target(config, labelled.labels, before)
    parts, left_out, held_out = _read_parts(config, layout, labelled, target)
    vocabulary = vocabulary_of(config, before, parts["train"][0], config.unit, ["pad", "unknown"])
    tokens = {name: vocabulary.encode_all(texts) for name, (texts, _) in parts.items()}
    length = _choose_length(config, before, tokens["train"].sizes)
    digest, encoded, cut = DigestBuilder(), dict[PartName, Texts](), 0
    for name, (texts, targets) in parts.items():
        encoded[name], count = as_samples(vocabulary, tokens[name], length, targets)
        cut += count
        digest.tensor(name, targets)
        for text in texts:
            digest.word(text)
    inputs = Tokens(length, vocabulary.size, vocabulary.pad)
    dataset = completed(DataSpec("text_labels", inputs, target), encoded, config.learnt(inputs))
    classes, warnings = describe_target(target, (part.targets for part in encoded.values()))
    labels = ", each with a value"
    if isinstance(target, Classes):
        labels = f" of {target.count:,} classes: {classes}"
    header_rows = [
        ("Texts", f"{sum(map(len, encoded.values())):,}{labels}"),
        *labelled.header_rows,
        *([("Spellings", alias_summary(aliases))] if aliases else []),
        *warnings,
        ("Vocabulary", str(vocabulary)),
        *truncation_row(cut, "text", f"{length:,} tokens"),
    ]
    reader = TextLabelsReader(
        vocabulary=vocabulary,
        encoding=config.encoding,
        length=length,
        layout=layout,
        target_encoder=TargetEncoder.of(dataset.spec.target),
    )
    files = layout.kind == "folders"
    return replace(
        dataset,
        reader=reader,
        header_rows=header_rows,
        left_out=left_out,
        read=digest.read(),
        val_rows=None if held_out is None else torch.tensor(labelled.rows)[held_out],
        val_files=[labelled.names[place] for place in held_out or ()] if files else (),
    )


def _infer_target(
    config: TextLabelsConfig, labels: Sequence[str], before: TextLabelsReader | None
) -> tuple[Classes | Values, dict[str, str]]:
    """The target, and the class of each label that is spelt in another way."""
    if config.task == "values" or (config.task == "auto" and _are_real_values(labels)):
        return Values((config.target,), mean=(), std=()), {}
    where = f"data.path={config.path}"
    names, aliases = class_names(labels, None if before is None else before.target_encoder)
    custom_data.check_classes(names, where)
    if len(names) > max(_MAX_CLASSES, len(labels) / 2):
        raise DataError(
            f"{where}: there are {len(names):,} different labels for {len(labels):,} texts, such as"
            f" {names[0]!r} and {names[1]!r}, too many for classes. Is data.target={config.target} the"
            " right column? For real values, set data.task=values."
        )
    return Classes(names, counts=()), aliases


def _read_parts(
    config: TextLabelsConfig, layout: Layout, labelled: LabelledTexts, target: Classes | Values
) -> tuple[dict[PartName, tuple[list[str], Tensor]], dict[str, int], list[int] | None]:
    """The texts and targets of each part; how many texts were left out, by reason; and which of
    `labelled` are for validation, None if that has a path of its own."""
    where, encoder = f"data.path={config.path}", TargetEncoder.of(target)
    targets = _parse_labels(labelled, encoder, where)
    index = custom_data.split_samples(
        config,
        len(labelled.texts),
        labels=targets if isinstance(target, Classes) else None,
        groups=labelled.groups,
        assigned_parts=labelled.assigned_parts,
        named=labelled.names.__getitem__,
        class_names=target.names if isinstance(target, Classes) else (),
    )
    texts = labelled.texts
    parts = {
        name: ([texts[row] for row in rows.tolist()], targets[rows]) for name, rows in index.items()
    }
    left_out = Counter(labelled.left_out)
    for name in custom_data.separate_parts(config, parts):
        key = f"{name}_path"
        path = custom_data.resolve_path(config, key)
        more = read_labelled_texts(path, f"data.{key}", layout.ungrouped(), config.max_bad)
        parts[name] = (more.texts, _parse_labels(more, encoder, f"data.{key}={getattr(config, key)}"))
        left_out.update(more.left_out)
    if not config.validation and "val" in parts:
        (own, values), (more_texts, more_values) = parts["train"], parts.pop("val")
        parts["train"] = (own + more_texts, torch.cat([values, more_values]))
    if isinstance(target, Classes):
        custom_data.check_trained_classes(target.names, parts["train"][1], where, "texts")
    held_out = index["val"].tolist() if "val" in index else None
    return {name: parts[name] for name in PART_ORDER if name in parts}, dict(left_out), held_out


def _are_real_values(labels: Sequence[str]) -> bool:
    """Whether labels are numbers, and not just a few different whole ones."""
    if any(_parse_number(label) is None for label in labels):
        return False
    whole = all(label.strip().removeprefix("-").isdigit() for label in labels)
    return not whole or len(set(labels)) > _MAX_CLASSES


def _parse_number(label: str) -> float | None:
    try:
        number = float(label)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _parse_labels(labelled: LabelledTexts, encoder: TargetEncoder, where: str) -> Tensor:
    """Class indices, (texts,) int64, or values in their own unit, (texts, 1) float64.

    Raises:
        DataError: a label is not one of the encoder's classes, or not a number.
    """
    if encoder.kind == "classes":
        return encoder.indices(labelled.labels, where)
    numbers = [_parse_number(label) for label in labelled.labels]
    if None in numbers:
        first = numbers.index(None)
        raise DataError(
            f"{where}: {numbers.count(None):,} of {len(numbers):,} labels are not numbers, the first"
            f" {labelled.labels[first]!r} in {labelled.names[first]}. Correct or remove them, or set"
            " data.task=classes."
        )
    return torch.tensor(numbers, dtype=torch.float64)[:, None]


def _choose_length(config: TextLabelsConfig, before: TextLabelsReader | None, sizes: Tensor) -> int:
    """The most tokens of a text, for training texts of these sizes."""
    if config.length != "auto":
        return config.length
    if before is not None:
        return before.length
    least, most = _AUTO_LENGTHS
    needed = int(sizes.sort().values[math.ceil(_COVERED * len(sizes)) - 1])
    limit = config.pretrained(LengthLimit)
    return min(max(needed, least), most if limit is None else min(most, limit.tokens))
