"""A user's samples that are files: all of them, with targets, parts and what cannot be read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bigmodel.data import custom_data
from bigmodel.data.base import PartName
from bigmodel.data.custom_data import CustomDataConfig
from bigmodel.data.digest import DigestBuilder
from bigmodel.data.files import decode_cache
from bigmodel.data.files.decode_cache import DecodedRows, RowFormat
from bigmodel.data.files.discovery import find_files
from bigmodel.data.files.name_patterns import FilePatterns, Files, Labels, kinds_of_files, parse_number
from bigmodel.data.parts import Part
from bigmodel.data.reader import NewSamples, Reader
from bigmodel.data.spelling_variants import alias_summary
from bigmodel.data.targets import TargetEncoder, class_indices, class_names
from bigmodel.errors import DataError, join_names
from bigmodel.spec import Classes, Target, Values


class FilesConfig(FilePatterns, CustomDataConfig):
    """Where a user's files lie, what they tell by their names, and how they are split."""


@dataclass(frozen=True)
class CollectedFiles:
    """All files of a source, whichever place they come from.

    Attributes:
        files: all of them; those of `path` come first.
        target: classes or values, with what is known before any file is read.
        targets: (files,) int64 for classes; (files, 1) float64 for values.
        parts: which files are in which part.
    """

    files: Files
    target: Target
    targets: Tensor
    parts: dict[PartName, Tensor]

    @cached_property
    def order(self) -> list[int]:
        """All files, part by part, so that each part is one stretch of the rows made of them."""
        order: list[int] = torch.cat(list(self.parts.values())).tolist()
        return order

    @property
    def ordered_paths(self) -> list[Path]:
        """The paths in that order."""
        return [self.files.paths[index] for index in self.order]

    @property
    def training_paths(self) -> list[Path]:
        """The paths of the training part."""
        return self.ordered_paths[: len(self.parts["train"])]


def collect_files(config: FilesConfig, suffixes: Collection[str], what: str) -> CollectedFiles:
    """The files that a source is configured with, with targets and parts.

    Args:
        suffixes: of the files that count, such as `.jpg`, in small letters.
        what: they are, for messages: `pictures`.

    Raises:
        ConfigError: data.path is not given, or a part is told twice.
        DataError: there are none, labels are missing, or there is nothing to tell apart.
    """
    where = f"data.path={config.path}"
    files = find_files(custom_data.resolve_path(config), suffixes, what, config, where)
    if files.real:
        target: Target = Values((config.label,), mean=(), std=())
        targets = torch.tensor(files.labels, dtype=torch.float64)[:, None]
        labels = None
    else:
        reader = config.learnt_reader(FilesReader)
        words = [str(label) for label in files.labels]
        names, aliases = class_names(words, None if reader is None else reader.target_encoder)
        files = replace(files, aliases=aliases)
        custom_data.check_classes(names, where)
        target, targets = Classes(names, counts=()), class_indices(files.labels, names, where)
        labels = targets
    count, groups, marks = len(files.paths), files.groups, files.assigned_parts
    parts = custom_data.split_samples(config, count, labels=labels, groups=groups, assigned_parts=marks)
    for part in custom_data.separate_parts(config, parts):
        files, targets, parts[part] = _add_part(config, part, files, targets, target, suffixes, what)
    every: tuple[PartName, ...] = ("train", "val", "test")
    ordered = {name: parts[name] for name in every if name in parts}
    found = CollectedFiles(files, target, targets, ordered)
    _check_training_part(found, parts["train"], what)
    return found


def _add_part(
    config: FilesConfig,
    part: str,
    files: Files,
    targets: Tensor,
    target: Target,
    suffixes: Collection[str],
    what: str,
) -> tuple[Files, Tensor, Tensor]:
    """Files and targets with those of a part that lies elsewhere, and which they are."""
    key = f"{part}_path"
    where = f"data.{key}={getattr(config, key)}"
    marks = ("test_pattern", "split", "group", "group_pattern")
    plain = config.model_copy(update=dict.fromkeys(marks))
    more = find_files(custom_data.resolve_path(config, key), suffixes, what, plain, where, parts=False)
    twice = {path.resolve() for path in files.paths} & {path.resolve() for path in more.paths}
    if twice:
        raise DataError(
            f"{where}: {len(twice):,} of its {what} are in another part too, such as {min(twice)}: an "
            "evaluation part must not overlap the training part. Use a separate folder."
        )
    own = _label_targets(more.labels, target.names if isinstance(target, Classes) else None, where)
    rows = torch.arange(len(files.paths), len(files.paths) + len(more.paths))
    joined = replace(
        files,
        paths=files.paths + more.paths,
        names=files.names + more.names,
        ignored=files.ignored + more.ignored,
        system_files=sorted({*files.system_files, *more.system_files}),
        empty=[*files.empty, *(f"{getattr(config, key)}/{name}" for name in more.empty)],
    )
    return joined, torch.cat([targets, own]), rows


def _check_training_part(found: CollectedFiles, training: Tensor, what: str) -> None:
    """Raises DataError if a class has no file among those that are learnt from, `training`."""
    if isinstance(found.target, Classes):
        custom_data.check_trained_classes(found.target.names, found.targets[training], "data", what)


@dataclass(frozen=True)
class ReadSamples:
    """What was read of the files of a source.

    Attributes:
        rows: of all parts, one part after another.
        parts: stretches of the rows, with targets.
        left_out: how many files cannot be read, for `Dataset.left_out`.
        digest: of the files' bytes and of the targets.
    """

    rows: DecodedRows
    parts: dict[PartName, Part]
    left_out: dict[str, int]
    digest: DigestBuilder


def read_samples(
    found: CollectedFiles, row: RowFormat, what: str, max_bad: int, cache: str | None, options: Any
) -> ReadSamples:
    """Decodes the files of a source.

    Args:
        row: what each file becomes.
        max_bad: how many may be left out because they cannot be read.
        cache: see `cache_folder`.
        options: whatever else a row depends on, as JSON can hold it.

    Raises:
        DataError: more than `max_bad` cannot be read, or a class has nothing left to learn from.
    """
    paths = found.ordered_paths
    digests = decode_cache.file_digests(paths)
    keep = {"cache": decode_cache.cache_folder(cache), "digests": digests, "options": options}
    rows = decode_cache.decode_files(paths, row, max_bad=max_bad, **keep)
    bad = sorted((found.files.names[found.order[place]], reason) for place, reason in rows.bad)
    left_out = check_unreadable(bad, len(paths), max_bad, what)
    parts = _split_rows(found, rows, what)
    digest = DigestBuilder()
    for place in rows.kept:
        digest.word(digests[place])
    for name, part in parts.items():
        digest.tensor(name, part.targets)
    return ReadSamples(rows, parts, left_out, digest)


def _split_rows(found: CollectedFiles, rows: DecodedRows, what: str) -> dict[PartName, Part]:
    """The parts as stretches of the rows; nothing is copied."""
    readable, first = torch.tensor(rows.kept, dtype=torch.int64), 0
    parts: dict[PartName, Part] = {}
    files = torch.tensor(found.order, dtype=torch.int64)[readable]
    for name, index in found.parts.items():
        bounds = torch.tensor([first, first + len(index)])
        start, stop = torch.searchsorted(readable, bounds).tolist()
        parts[name] = Part(rows.rows[start:stop], found.targets[files[start:stop]])
        if name == "train":
            _check_training_part(found, files[start:stop], what)
        first += len(index)
    return parts


def format_summary(kinds: Iterable[str]) -> str:
    """The formats of files, the most frequent first."""
    counts = Counter(kinds)
    return "/".join(sorted(counts, key=lambda kind: (-counts[kind], kind)))


def file_messages(files: Files, trouble: str = "") -> list[tuple[str, str]]:
    """Lines about files that are no samples, and about the cache."""
    header_rows = []
    if files.ignored:
        header_rows.append(("Ignored", kinds_of_files(files.ignored)))
    if files.system_files:
        left_behind = ", ".join(files.system_files)
        header_rows.append(("Passed over", f"system files: {left_behind}"))
    if told_apart := alias_summary(files.aliases):
        header_rows.append(("Spellings", told_apart))
    if files.empty:
        header_rows.append(("Empty folders", join_names(files.empty)))
    if trouble:
        header_rows.append(("Cache", trouble))
    return header_rows


class FilesReader(Reader):
    """Base of the readers of files, each of which is a sample.

    Attributes:
        patterns: how files tell their labels.
        target_encoder: the labels of training.
    """

    patterns: FilePatterns
    target_encoder: TargetEncoder

    def read_files(
        self,
        path: Path,
        suffixes: Collection[str],
        what: str,
        row: RowFormat,
        with_targets: bool,
        max_bad: int,
    ) -> tuple[NewSamples, DecodedRows]:
        """What the files at a path hold, those left out that cannot be read.

        Args:
            suffixes, what: see `collect_files`.
            row: what each file becomes.
            with_targets, max_bad: see `Reader.read`.

        Raises:
            DataError: more than `max_bad` cannot be read, or all; or training had no such label.
        """
        where, encoder = str(path), self.target_encoder
        files = find_files(path, suffixes, what, self.patterns, where, labelled=with_targets, new=True)
        rows = decode_cache.decode_files(files.paths, row)
        bad = [(files.names[index], reason) for index, reason in rows.bad]
        left_out = check_unreadable(bad, len(files.paths), max_bad, what)
        if not rows.kept:
            name, reason = bad[0]
            raise DataError(f"{path}: none of its {what} can be read, such as {name}: {reason}.")
        targets = encoder.blank(len(rows.kept))
        if with_targets:
            classes = None if encoder.kind == "values" else encoder.names
            own = _label_targets(files.labels, classes, where)
            targets = encoder.scored(own)[torch.tensor(rows.kept)]
        names = [files.names[index] for index in rows.kept]
        found = NewSamples(Part(rows.rows, targets), {"file": names}, left_out, file_messages(files))
        return found, rows


def check_unreadable(bad: list[tuple[str, str]], files: int, max_bad: int, what: str) -> dict[str, int]:
    """How many were left out because they cannot be read, for `Dataset.left_out`.

    Args:
        bad: name and reason of each.
        files: how many there are in all.
        max_bad: how many may be left out.

    Raises:
        DataError: there are more of them.
    """
    if len(bad) > max_bad:
        faults = join_names([f"{name} ({reason})" for name, reason in bad])
        some = f", or set data.max_bad={len(bad)} to skip them" if len(bad) < files else ""
        raise DataError(
            f"data: {len(bad):,} of {files:,} {what} cannot be read: {faults}. Fix or remove them{some}."
        )
    return {f"{what} that cannot be read": len(bad)} if bad else {}


def _label_targets(labels: Labels, classes: Sequence[str] | None, where: str) -> Tensor:
    """Class indices, (files,) int64, or values in their own unit, (files, 1) float64, if `classes` is
    None.

    Raises:
        DataError: a label is not one of the training data's.
    """
    if classes is not None:
        return class_indices(labels, classes, where)
    return torch.tensor([parse_number(label, where) for label in labels]).double()[:, None]
