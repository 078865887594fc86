"""Texts that each have a label or a number: reviews with their stars, mails that are spam or not.

    bigmodel-train data=text_labels data.path=reviews.csv data.text=review data.target=stars model=rnn

They are two columns of a table, or text files in a folder for each class.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal, NamedTuple

import torch
from pydantic import Field
from torch import Tensor

from bigmodel.data import custom_data
from bigmodel.data.assemble import completed
from bigmodel.data.base import Dataset, PartName
from bigmodel.data.class_counts import describe_target
from bigmodel.data.custom_data import Words
from bigmodel.data.digest import DigestBuilder
from bigmodel.data.parts import SplitData, Texts
from bigmodel.data.reader import Found, reads, truncation_row
from bigmodel.data.spelling_variants import alias_summary
from bigmodel.data.targets import TargetEncoder, class_indices, class_names
from bigmodel.data.texts.files import TextFilesConfig, vocabulary_of
from bigmodel.data.texts.labelled_files import LabelledTexts, Layout, layout_kind, read_labelled_texts
from bigmodel.data.texts.tokenizer_training import Unit
from bigmodel.data.texts.vocabulary import Vocabulary, VocabularyReader
from bigmodel.errors import DataError
from bigmodel.registry import data
from bigmodel.spec import Classes, DataSpec, Tokens, Values

_MOST_CLASSES = 20  # labels of more kinds are likely something else


class TextLabelsConfig(TextFilesConfig):
    """Where texts and their labels lie, and what their tokens are."""

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
    group: str | None = Field(None, description="column whose equal values stay in one part; null: none")
    split: str | None = Field(None, description="column that says train, val or test; null: none")
    unit: Unit = Field(
        "bpe", description="what a token is: a character, a byte, or bpe: a subword, learnt"
    )
    length: int = Field(256, ge=1, description="most tokens of a text; longer ones are cut")


@reads("text_labels")
class TextLabelsReader(VocabularyReader):
    """Reads further texts in the tokens that were learnt.

    Attributes:
        length: tokens that texts are cut to.
        layout: how texts lie on disk.
        target_encoder: what labels there are.
    """

    length: int
    layout: Layout
    target_encoder: TargetEncoder

    def read(self, path: Path, *, with_targets: bool, max_bad: int = 0) -> Found:
        """See `Reader.read`."""
        layout = self.layout.model_copy(update={"group": None, "split": None})
        rows = read_labelled_texts(path, "path", layout, max_bad, labelled=with_targets)
        if with_targets:
            names = self.target_encoder.names if self.target_encoder.kind == "classes" else None
            targets = self.target_encoder.scored(_targets(rows, names, str(path)))
        else:
            targets = self.target_encoder.blank(len(rows.texts))
        tokens, cut = _encode_texts(self.vocabulary, rows.texts, self.length, targets)
        header_rows = [*rows.header_rows, *truncation_row(cut, "text", f"{self.length:,} tokens")]
        return Found(tokens, rows.columns, rows.left_out, header_rows)


@data.register("text_labels", TextLabelsConfig)
def text_labels(config: TextLabelsConfig) -> Dataset:
    """The texts and labels that `config` names.

    Raises:
        ConfigError: no path is given, or a part is told twice.
        DataError: texts or labels cannot be read, are missing, or there is nothing to tell apart.
    """
    chosen = config.model_dump(include=set(Layout.model_fields))
    layout = Layout(kind=layout_kind(custom_data.resolve_path(config)), **chosen)
    found = _read_parts(config, layout)
    before, training = config.learnt_reader(TextLabelsReader), found.parts["train"][0]
    vocabulary = vocabulary_of(config, before, training, config.unit, ["pad", "unknown"])
    digest = DigestBuilder()
    stored: dict[PartName, SplitData] = {}
    cut = 0
    for name, (texts, targets) in found.parts.items():
        stored[name], longer = _encode_texts(vocabulary, texts, config.length, targets)
        cut += longer
        digest.tensor(name, targets)
        for text in texts:
            digest.word(text)
    tokens = Tokens(config.length, vocabulary.size, vocabulary.pad)
    spec = DataSpec("text_labels", tokens, found.target)
    done = completed(spec, stored, config.learnt(tokens))
    all_targets = [targets for _, targets in found.parts.values()]
    classes, warnings = describe_target(found.target, all_targets)
    summary = f"{sum(map(len, all_targets)):,}"
    if isinstance(found.target, Classes):
        summary += f" of {found.target.count:,} classes: {classes}"
    else:
        summary += ", each with a value"
    header_rows = [
        ("Texts", summary),
        *found.header_rows,
        *warnings,
        ("Vocabulary", str(vocabulary)),
        *truncation_row(cut, "text", f"{config.length:,} tokens"),
    ]
    reader = TextLabelsReader(
        vocabulary=vocabulary,
        encoding=config.encoding,
        length=config.length,
        layout=layout,
        target_encoder=TargetEncoder.of(done.spec.target),
    )
    read = digest.read()
    return replace(done, reader=reader, header_rows=header_rows, left_out=found.left_out, read=read)


class _LabelledParts(NamedTuple):
    """All texts of a source; each part's with targets as `completed` takes them."""

    target: Classes | Values
    parts: dict[PartName, tuple[list[str], Tensor]]
    left_out: dict[str, int]
    header_rows: list[tuple[str, str]]


def _read_parts(config: TextLabelsConfig, layout: Layout) -> _LabelledParts:
    """The texts of all places that `config` names, in parts."""
    where = f"data.path={config.path}"
    rows = read_labelled_texts(custom_data.resolve_path(config), "data.path", layout, config.max_bad)
    if config.task == "values" or (config.task == "auto" and _are_real_values(rows.labels)):
        target: Classes | Values = Values((config.target,), mean=(), std=())
        names = None
    else:
        reader = config.learnt_reader(TextLabelsReader)
        names, aliases = class_names(rows.labels, None if reader is None else reader.target_encoder)
        if header_rows := alias_summary(aliases):
            rows.header_rows.append(("Spellings", header_rows))
        custom_data.check_classes(names, where)
        if len(names) > max(_MOST_CLASSES, len(rows.labels) / 2):
            raise DataError(
                f"{where}: there are {len(names):,} different labels for {len(rows.labels):,} texts,"
                f" such as {names[0]!r} and {names[1]!r}, too many for classes. Is"
                f" data.target={config.target} the right column? For real values, set data.task=values."
            )
        target = Classes(names, counts=())
    targets = _targets(rows, names, where)
    labels = None if names is None else targets
    index = custom_data.split_samples(
        config,
        len(rows.texts),
        labels=labels,
        groups=rows.groups,
        assigned_parts=rows.assigned_parts,
        named=rows.names.__getitem__,
    )
    parts: dict[PartName, tuple[list[str], Tensor]] = {}
    for name, chosen in index.items():
        parts[name] = ([rows.texts[row] for row in chosen.tolist()], targets[chosen])
    left_out = Counter(rows.left_out)
    plain = layout.model_copy(update={"group": None, "split": None})
    for name in custom_data.separate_parts(config, parts):
        key = f"{name}_path"
        path = custom_data.resolve_path(config, key)
        more = read_labelled_texts(path, f"data.{key}", plain, config.max_bad)
        parts[name] = (more.texts, _targets(more, names, f"data.{key}={getattr(config, key)}"))
        left_out.update(more.left_out)
    if isinstance(target, Classes):
        custom_data.check_trained_classes(target.names, parts["train"][1], where, "texts")
    in_turn: tuple[PartName, ...] = ("train", "val", "test")
    parts = {name: parts[name] for name in in_turn if name in parts}
    return _LabelledParts(target, parts, dict(left_out), rows.header_rows)


def _are_real_values(labels: Sequence[str]) -> bool:
    """Whether labels are numbers, and not all whole ones of few kinds."""
    if any(_parse_number(label) is None for label in labels):
        return False
    whole = all(label.strip().removeprefix("-").isdigit() for label in labels)
    return not whole or len(set(labels)) > _MOST_CLASSES


def _parse_number(label: str) -> float | None:
    try:
        number = float(label)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _targets(rows: LabelledTexts, names: Sequence[str] | None, where: str) -> Tensor:
    """Class indices, (texts,) int64, or values in their own unit, (texts, 1) float64.

    Args:
        names: of the classes; None: labels are values.

    Raises:
        DataError: a label is not one of the classes, or no number.
    """
    if names is not None:
        return class_indices(rows.labels, names, where)
    numbers = [_parse_number(label) for label in rows.labels]
    if None in numbers:
        first = numbers.index(None)
        raise DataError(
            f"{where}: {numbers.count(None):,} of {len(numbers):,} labels are not numbers, the first"
            f" {rows.labels[first]!r} in {rows.names[first]}. Correct or remove them, or set"
            " data.task=classes."
        )
    return torch.tensor(numbers, dtype=torch.float64)[:, None]


def _encode_texts(
    vocabulary: Vocabulary, texts: Sequence[str], length: int, targets: Tensor
) -> tuple[Texts, int]:
    """Texts as tokens, and how many of them were cut to `length`."""
    assert vocabulary.pad is not None
    assert vocabulary.unknown is not None
    found = vocabulary.encode_all(texts)
    sizes = found.sizes.clamp(min=1, max=length)
    # A tokenizer that was given may make nothing of a text: one unknown token stands for it.
    tokens = torch.cat([found.tokens, found.tokens.new_tensor([vocabulary.unknown])])
    starts = found.starts.masked_fill(found.sizes == 0, len(found.tokens))
    return Texts(tokens, starts, sizes, targets, vocabulary.pad), int((found.sizes > length).sum())
