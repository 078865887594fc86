"""Samples that are files of the user's: found, labelled, split and decoded."""

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
from bigmodel.data.base import PART_ORDER, PartName
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
    """Where a user's files are, how their names give labels, and how they are split."""


@dataclass(frozen=True)
class CollectedFiles:
    """All files of a source, with targets and sets.

    Attributes:
        files: those of `path`, then those of `val_path` and `test_path`.
        target: classes or values, before counts and statistics are known.
        targets: (files,) int64 for classes; (files, 1) float64 for values.
        parts: indices of the files in each set.
    """

    files: Files
    target: Target
    targets: Tensor
    parts: dict[PartName, Tensor]

    @cached_property
    def order(self) -> list[int]:
        """Indices of all files, set by set, so that each set is one slice of the decoded rows."""
        order: list[int] = torch.cat(list(self.parts.values())).tolist()
        return order

    @property
    def ordered_paths(self) -> list[Path]:
        """The paths in that order."""
        return [self.files.paths[index] for index in self.order]

    @property
    def training_paths(self) -> list[Path]:
        return self.ordered_paths[: len(self.parts["train"])]

    def check_classes(self, training: Tensor, what: str) -> None:
        """Raises DataError if a class is not among the `training` targets."""
        if isinstance(self.target, Classes):
            custom_data.check_trained_classes(self.target.names, training, "data", what)


def collect_files(config: FilesConfig, suffixes: Collection[str], what: str) -> CollectedFiles:
    """The files that a source is configured with, labelled and split.

    Args:
        suffixes: of the files that count, such as `.jpg`, in lower case.
        what: their name in messages: `pictures`.

    Raises:
        ConfigError: data.path is not given, or a set is given twice.
        DataError: there are no files, labels are missing, or there is only one class.
    """
    where = f"data.path={config.path}"
    files = find_files(custom_data.resolve_path(config), suffixes, what, config, where)
    target: Target
    if files.real:
        target, labels = Values((config.label,), mean=(), std=()), None
        targets = torch.tensor(files.labels, dtype=torch.float64)[:, None]
    else:
        reader = config.learnt_reader(FilesReader)
        words = [str(label) for label in files.labels]
        names, aliases = class_names(words, None if reader is None else reader.target_encoder)
        files = replace(files, aliases=aliases)
        custom_data.check_classes(names, where)
        target, targets = Classes(names, counts=()), class_indices(files.labels, names, where)
        labels = targets
    count, groups, marks = len(files.paths), files.groups, files.assigned_parts
    parts = custom_data.split_samples(
        config,
        count,
        labels=labels,
        groups=groups,
        assigned_parts=marks,
        class_names=target.names if isinstance(target, Classes) else (),
    )
    for part in custom_data.separate_parts(config, parts):
        more, where = _find_separate(config, part, files, suffixes, what)
        own = _label_targets(more.labels, target.names if isinstance(target, Classes) else None, where)
        parts[part] = torch.arange(len(files.paths), len(files.paths) + len(more.paths))
        files, targets = files.extended(more, getattr(config, f"{part}_path")), torch.cat([targets, own])
    if not config.validation and "val" in parts:
        parts["train"] = torch.cat([parts["train"], parts.pop("val")])
    parts = {name: parts[name] for name in PART_ORDER if name in parts}
    collected = CollectedFiles(files, target, targets, parts)
    collected.check_classes(targets[parts["train"]], what)
    return collected


def _find_separate(
    config: FilesConfig, part: str, files: Files, suffixes: Collection[str], what: str
) -> tuple[Files, str]:
    """The files of a set with a path of its own, none of which may be among `files`; and its option."""
    key = f"{part}_path"
    where = f"data.{key}={getattr(config, key)}"
    plain = config.model_copy(update=dict.fromkeys(("test_pattern", "split", "group", "group_pattern")))
    more = find_files(custom_data.resolve_path(config, key), suffixes, what, plain, where, parts=False)
    twice = {path.resolve() for path in files.paths} & {path.resolve() for path in more.paths}
    if twice:
        raise DataError(
            f"{where}: {len(twice):,} of its {what} are in another set too, such as {min(twice)}: an "
            "evaluation set must not overlap the training set. Use a separate folder."
        )
    return more, where


@dataclass(frozen=True)
class ReadSamples:
    """The decoded files of a source.

    Attributes:
        rows: of all sets, one after another.
        parts: slices of the rows, with targets.
        left_out: how many files cannot be read, for `Dataset.left_out`.
        digest: of the files' bytes and of the targets.
        val_rows, val_files: see `Dataset`.
    """

    rows: DecodedRows
    parts: dict[PartName, Part]
    left_out: dict[str, int]
    digest: DigestBuilder
    val_rows: Tensor | None
    val_files: list[str]


def read_samples(
    collected: CollectedFiles, row: RowFormat, what: str, max_bad: int, cache: str | None, options: Any
) -> ReadSamples:
    """Decodes the files of a source.

    Args:
        row: what each file becomes.
        max_bad: how many unreadable files may be left out.
        cache: see `cache_folder`.
        options: whatever else a row depends on, as JSON values.

    Raises:
        DataError: more than `max_bad` cannot be read, or a class has no readable training file.
    """
    paths = collected.ordered_paths
    digests = decode_cache.file_digests(paths)
    keep = {"cache": decode_cache.cache_folder(cache), "digests": digests, "options": options}
    rows = decode_cache.decode_files(paths, row, max_bad=max_bad, **keep)
    bad = sorted((collected.files.names[collected.order[place]], reason) for place, reason in rows.bad)
    left_out = check_unreadable(bad, len(paths), max_bad, what)
    parts = _split_rows(collected, rows)
    collected.check_classes(parts["train"].targets, what)
    digest = DigestBuilder()
    for place in rows.kept:
        digest.word(digests[place])
    for name, part in parts.items():
        digest.tensor(name, part.targets)
    first, count = len(parts["train"]), len(parts.get("val", ()))
    held_out = [collected.order[place] for place in rows.kept[first : first + count]]
    names = [collected.files.names[index] for index in held_out]
    val_rows = torch.tensor(held_out) if held_out else None
    return ReadSamples(rows, parts, left_out, digest, val_rows, names)


def _split_rows(collected: CollectedFiles, rows: DecodedRows) -> dict[PartName, Part]:
    """Each set as a slice of the rows; nothing is copied."""
    kept = torch.tensor(rows.kept, dtype=torch.int64)
    ends = torch.tensor([len(index) for index in collected.parts.values()]).cumsum(0)
    sizes = torch.searchsorted(kept, ends).diff(prepend=ends.new_zeros(1)).tolist()
    targets = collected.targets[torch.tensor(collected.order)[kept]]
    slices = zip(torch.split(rows.rows, sizes), torch.split(targets, sizes), strict=True)
    return {name: Part(*pair) for name, pair in zip(collected.parts, slices, strict=True)}


def format_summary(kinds: Iterable[str]) -> str:
    """The formats of files, the most frequent first."""
    counts = Counter(kinds)
    return "/".join(sorted(counts, key=lambda kind: (-counts[kind], kind)))


def file_messages(files: Files, trouble: str = "") -> list[tuple[str, str]]:
    """Header rows about files that are not samples, and about trouble with the cache."""
    system_files = f"system files: {', '.join(files.system_files)}" if files.system_files else ""
    rows = [
        ("Ignored", kinds_of_files(files.ignored) if files.ignored else ""),
        ("Skipped", system_files),
        ("Spellings", alias_summary(files.aliases)),
        ("Empty folders", join_names(files.empty)),
        ("Cache", trouble),
    ]
    return [(label, text) for label, text in rows if text]


class FilesReader(Reader):
    """Base of readers whose samples are files.

    Attributes:
        patterns: how labels are found in paths.
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
        """The samples at a path, without files that cannot be read.

        Args:
            suffixes, what: see `collect_files`.
            row: what each file becomes.
            with_targets, max_bad: see `Reader.read`.

        Raises:
            DataError: more than `max_bad` cannot be read, or all; or a label is unknown to training.
        """
        where, encoder = str(path), self.target_encoder
        files = find_files(path, suffixes, what, self.patterns, where, labelled=with_targets, new=True)
        rows = decode_cache.decode_files(files.paths, row)
        bad = [(files.names[index], reason) for index, reason in rows.bad]
        left_out = check_unreadable(bad, len(files.paths), max_bad, what)
        if not rows.kept:
            name, reason = bad[0]
            raise DataError(f"{path}: none of its {what} can be read, such as {name}: {reason}.")
        targets = encoder.placeholders(len(rows.kept))
        if with_targets:
            classes = None if encoder.kind == "values" else encoder.names
            own = _label_targets(files.labels, classes, where)
            targets = encoder.scale(own)[torch.tensor(rows.kept)]
        names = [files.names[index] for index in rows.kept]
        samples = Part(rows.rows, targets)
        return NewSamples(samples, {"file": names}, left_out, file_messages(files)), rows

    def decode_values(
        self,
        values: Sequence[Any],
        targets: Sequence[Any] | None,
        row: RowFormat,
        file_row: RowFormat,
        what: str,
    ) -> tuple[NewSamples, DecodedRows]:
        """Samples in memory, or files by their paths.

        Args:
            values, targets: see `Reader.read_values`.
            row, file_row: what a value becomes, and what a file becomes.
            what: see `collect_files`.

        Raises:
            DataError: one cannot be read, or a label is unknown to training.
        """

        def decode(value: Any, into: Tensor) -> Any:
            if isinstance(value, str | Path):
                return file_row.decode(Path(value), into)
            return row.decode(value, into)

        rows = decode_cache.decode_files(values, row._replace(decode=decode))
        check_unreadable([(f"number {index}", why) for index, why in rows.bad], len(values), 0, what)
        encoded = self.target_encoder.read(targets, len(values), f"the {what}")
        return NewSamples(Part(rows.rows, encoded)), rows


def check_unreadable(bad: list[tuple[str, str]], files: int, max_bad: int, what: str) -> dict[str, int]:
    """How many unreadable files are left out, for `Dataset.left_out`.

    Args:
        bad: name and reason of each.
        files: how many there are in all.
        max_bad: how many may be left out.

    Raises:
        DataError: there are more.
    """
    if len(bad) > max_bad:
        faults = join_names([f"{name} ({reason})" for name, reason in bad])
        some = f", or set data.max_bad={len(bad)} to skip them" if len(bad) < files else ""
        raise DataError(
            f"data: {len(bad):,} of {files:,} {what} cannot be read: {faults}. Fix or remove them{some}."
        )
    return {f"{what} that cannot be read": len(bad)} if bad else {}


def _label_targets(labels: Labels, classes: Sequence[str] | None, where: str) -> Tensor:
    """Class indices, (files,) int64; without `classes`, values in their own unit, (files, 1) float64."""
    if classes is not None:
        return class_indices(labels, classes, where)
    return torch.tensor([parse_number(label, where) for label in labels]).double()[:, None]
