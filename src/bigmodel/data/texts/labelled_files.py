"""Reads labelled texts: two columns of a table, or files in one folder for each class."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from bigmodel.data.files.discovery import find_files
from bigmodel.data.files.name_patterns import FilePatterns
from bigmodel.data.files.samples import check_unreadable, file_messages
from bigmodel.data.ignored_files import is_ignored
from bigmodel.data.tabular.table_file import Table, as_strings, get_column, read_table
from bigmodel.data.texts.files import SUFFIXES, read_lines, read_text
from bigmodel.errors import DataError
from bigmodel.registry import Config

_WHAT = "texts"
_HEADER_LINES = 20  # lines that may contain the header: titles and comments may come before it


class Layout(Config):
    """How labelled texts are stored.

    Attributes:
        kind: a table, or a folder for each class.
        text, target: columns of the table with the texts and their labels.
        missing: words for a missing label.
        group, split: columns with the group and the part of each text; None: there are none.
        encoding: of text files.
    """

    kind: Literal["table", "folders"]
    text: str
    target: str
    missing: list[str] = Field([])
    group: str | None = None
    split: str | None = None
    encoding: str = "utf-8"

    def ungrouped(self) -> Layout:
        """The layout of a single part, whose texts need no groups."""
        return self.model_copy(update={"group": None, "split": None})


@dataclass(frozen=True)
class LabelledTexts:
    """Texts as they were read, in order.

    Attributes:
        texts: none is empty.
        labels: of each text; empty if they were not asked for.
        names: of each text in messages, such as `row 5`.
        rows: where each text is among all that were read, from 0; empty without labels.
        groups, assigned_parts: of each text; None if unknown.
        columns: see `NewSamples.columns`.
        left_out: how many texts were left out, by reason.
        header_rows: label and text of further rows of the header.
    """

    texts: list[str]
    labels: list[str]
    names: list[str]
    rows: Sequence[int] = ()
    groups: list[str] | None = None
    assigned_parts: list[str] | None = None
    columns: dict[str, Sequence[Any]] = field(default_factory=dict)
    left_out: dict[str, int] = field(default_factory=dict)
    header_rows: list[tuple[str, str]] = field(default_factory=list)


def layout_kind(path: Path) -> Literal["table", "folders"]:
    """Whether a path is a folder of texts, or a table or folder of tables."""
    if not path.is_dir():
        return "table"
    inside = [entry for entry in path.iterdir() if not is_ignored(entry.name)]
    texts_alone = all(entry.name.lower().endswith(SUFFIXES) for entry in inside)
    return "folders" if texts_alone or any(entry.is_dir() for entry in inside) else "table"


def read_labelled_texts(
    path: Path, key: str, layout: Layout, max_bad: int, *, labelled: bool = True
) -> LabelledTexts:
    """All texts at a path.

    Args:
        path: of the file or folder.
        key: the option with this path, such as `data.path`, for messages.
        layout: how the texts are stored.
        max_bad: texts that may be left out because they are empty, unlabelled or unreadable.
        labelled: read labels, groups and parts too.

    Raises:
        DataError: there are no texts, or more than `max_bad` cannot be used.
    """
    single = path.name.lower().endswith(SUFFIXES) or not path.exists()
    if layout.kind == "table" and path.is_file() and single and not labelled:
        lines = read_lines(path, layout.encoding)
        if not _is_table(lines, layout.text):
            return _read_lines(lines, path, layout, max_bad)
    kind = layout.kind if single else layout_kind(path)  # may differ from the training data's
    read = _read_table if kind == "table" else _read_folders
    return read(path, key, layout, max_bad, labelled)


def _is_table(lines: Sequence[str], column: str) -> bool:
    """Whether one of the first lines is a header with the column of texts."""
    heads = (re.split(r"[\t,;|]", line) for line in lines[:_HEADER_LINES])
    return any(column in (cell.strip(" \"'") for cell in cells) for cells in heads)


def _read_lines(lines: Sequence[str], path: Path, layout: Layout, max_bad: int) -> LabelledTexts:
    if not lines:
        raise DataError(f"{path}: the file is empty.")
    named = {f"line {number}": line for number, line in enumerate(lines, 1)}
    bad = [(name, "no text") for name, line in named.items() if not line.strip()]
    left_out = _check_left_out({}, bad, len(lines), max_bad, path)
    kept = {name: line for name, line in named.items() if line.strip()}
    texts, names = list(kept.values()), list(kept)
    row = ("Texts", f"{path.name} has no column {layout.text!r}: each of its lines is a text")
    return LabelledTexts(
        texts, [], names, columns={layout.text: texts}, left_out=left_out, header_rows=[row]
    )


def _read_table(path: Path, key: str, layout: Layout, max_bad: int, labelled: bool) -> LabelledTexts:
    table = read_table(path, key, max_bad, layout.encoding)
    return texts_of_table(table, "data.text", layout, max_bad, labelled)


def texts_of_table(
    table: Table, key: str, layout: Layout, max_bad: int, labelled: bool
) -> LabelledTexts:
    """The texts in a table; see `read_labelled_texts`.

    Args:
        key: the option that names their column, for messages.
    """
    path = table.path

    def cells(name: str | None, option: str) -> list[str | None] | None:
        return None if name is None else as_strings(get_column(table, name, option))

    texts = cells(layout.text, key) or []
    labels = (cells(layout.target, "data.target") or []) if labelled else []
    bad, kept = [], []
    for row, text in enumerate(texts):
        if text is None or not text.strip():
            bad.append((f"row {row}", "no text"))
        elif labelled and _is_missing(labels[row], layout.missing):
            bad.append((f"row {row}", "no label"))
        else:
            kept.append(row)
    left_out = _check_left_out(table.left_out, bad, table.num_rows, max_bad, path)

    def chosen(values: list[str | None] | None) -> list[str]:
        return [values[row] or "" for row in kept] if values else []

    names = [] if labelled else table.column_names
    groups = cells(layout.group, "data.group") if labelled else None
    marks = cells(layout.split, "data.split") if labelled else None
    return LabelledTexts(
        chosen(texts),
        chosen(labels),
        [f"row {row}" for row in kept],
        kept,
        groups=None if groups is None else chosen(groups),
        assigned_parts=None if marks is None else chosen(marks),
        columns={name: table.raw_column(name).take(kept) for name in names},
        left_out=left_out,
        header_rows=table.header_rows,
    )


def _read_folders(path: Path, key: str, layout: Layout, max_bad: int, labelled: bool) -> LabelledTexts:
    search = (path, {".txt", ".gz"}, _WHAT, FilePatterns(), f"{key}={path}")
    files = find_files(*search, labelled=labelled, parts=labelled and key == "data.path")
    texts: dict[int, str] = {}
    bad = []
    for row, (file, name) in enumerate(zip(files.paths, files.names, strict=True)):
        try:
            text = read_text(file, layout.encoding)
        except DataError as error:
            bad.append((name, str(error)))
        else:
            if text.strip():
                texts[row] = text
            else:
                bad.append((name, "no text"))
    left_out = _check_left_out({}, bad, len(files.paths), max_bad, path)

    def chosen(values: Sequence[Any] | None) -> list[str]:
        return [str(values[row]) for row in texts] if values else []

    names = chosen(files.names)
    assigned_parts = None if files.assigned_parts is None else chosen(files.assigned_parts)
    return LabelledTexts(
        list(texts.values()),
        chosen(files.labels),
        names,
        list(texts),
        assigned_parts=assigned_parts,
        columns={"file": names},
        left_out=left_out,
        header_rows=file_messages(files),
    )


def _is_missing(label: str | None, words: Collection[str]) -> bool:
    """Whether there is no label; columns of numbers have `nan` instead."""
    return label is None or label.strip().lower() in {"", "nan"} or label.strip() in words


def _check_left_out(
    before: dict[str, int], bad: list[tuple[str, str]], count: int, max_bad: int, path: Path
) -> dict[str, int]:
    left_out = before | check_unreadable(bad, count, max_bad - sum(before.values()), _WHAT)
    if len(bad) == count:
        raise DataError(f"{path}: none of its {count:,} {_WHAT} can be used; {bad[0][0]}: {bad[0][1]}.")
    return left_out
