"""Finds samples that are files: a folder for each class, labels in names, or a list of files.

    photos/cat/1.jpg          a folder for each class, with any folders within
    photos/train/cat/1.jpg    the same, in a folder for each set
    words/7_jackson_3.wav     labels in names, with data.label_pattern='^(\\d)_'
    photos.csv                a list, with columns `file` and `label`

Files are sorted by name, whatever order the file system gives. Hidden and system files are skipped; see
`ignored_files`.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from pathlib import Path, PurePath
from typing import NamedTuple

from bigmodel.data.files import name_patterns
from bigmodel.data.files.name_patterns import FilePatterns, Files, Labels
from bigmodel.data.ignored_files import first_system_name, is_ignored, is_system_file
from bigmodel.data.paths import check_inside
from bigmodel.errors import DataError, join_names, setting
from bigmodel.runtime.escaping import escape


def find_files(
    path: Path,
    suffixes: Collection[str],
    what: str,
    patterns: FilePatterns,
    where: str,
    *,
    labelled: bool = True,
    parts: bool = True,
    new: bool = False,
) -> Files:
    """The files in a folder, in a list, or the single file at a path.

    Args:
        path: folder, list or single file.
        suffixes, what: as in `samples.collect_files`.
        patterns: how labels, groups and sets are found.
        where: the option and its value, for messages.
        labelled: whether labels are needed.
        parts: whether folders with the name of a set, such as train, are sets.
        new: whether files are new data: those of a list may then be next to it instead of in `root`.

    Raises:
        DataError: see `samples.collect_files`.
    """
    search = _Search(suffixes, what, patterns, where)
    if path.is_dir():
        return _find_in_folder(path, search, labelled, parts)
    if path.suffix.lower() not in suffixes:
        return _read_list(path, search, labelled, new)
    _check_utf8_name(path.name, where)
    files = Files([path], [path.name])
    if not labelled:
        return files
    return _match_patterns(replace(files, labels=[path.absolute().parent.name]), search)


class _Search(NamedTuple):
    """What to look for; see `find_files`."""

    suffixes: Collection[str]
    what: str
    patterns: FilePatterns
    where: str


def _check_utf8_name(name: str, where: str) -> None:
    """Refuses a name that is not text: names become labels and columns of output files."""
    try:
        name.encode()
    except UnicodeEncodeError:
        raise DataError(
            f"{where}: the name {escape(name)} is not valid UTF-8. Rename it, or all of them with a "
            "program such as convmv."
        ) from None


def _find_in_folder(folder: Path, search: _Search, labelled: bool, parts: bool) -> Files:
    what, where = search.what, search.where
    paths, ignored, system_files = [], Counter[str](), set[str]()
    for path in _walk(folder, where, system_files):
        if path.suffix.lower() in search.suffixes:
            paths.append(path)
        else:
            ignored[path.suffix.lower() or "no suffix"] += 1
    if not paths:
        known = ", ".join(sorted(search.suffixes))
        others = f", but {name_patterns.kinds_of_files(ignored)}" if ignored else ": it is empty"
        raise DataError(f"{where}: holds no {what} ({known}){others}.")
    names = [path.relative_to(folder).as_posix() for path in paths]
    for name in names:
        _check_utf8_name(name, where)
    files = Files(paths, names, ignored=ignored, system_files=sorted(system_files))
    if not labelled:
        return files
    below, assigned_parts = _split_folders(names, where) if parts else (names, None)
    if search.patterns.label_pattern is None:
        labels = _top_folders(below, folder, what, where)
        empty = _empty_folders(folder, names, deeper=assigned_parts is not None)
        files = replace(files, labels=labels, empty=empty)
    return _match_patterns(replace(files, assigned_parts=assigned_parts), search)


def _match_patterns(files: Files, search: _Search) -> Files:
    """Files with the labels, groups and sets that patterns find in their paths."""
    patterns, names, where = search.patterns, files.names, search.where
    labels, groups, assigned_parts = files.labels, files.groups, files.assigned_parts
    if patterns.label_pattern is not None:
        labels = name_patterns.match_groups(patterns.label_pattern, names, "label_pattern", where)
    if patterns.group_pattern is not None and groups is None:
        groups = name_patterns.match_groups(patterns.group_pattern, names, "group_pattern", where)
    if (pattern := patterns.test_pattern) is not None:
        assigned_parts = name_patterns.mark_test_files(pattern, names, assigned_parts, where)
    return replace(files, labels=labels, groups=groups, assigned_parts=assigned_parts)


def _empty_folders(folder: Path, names: Sequence[str], *, deeper: bool) -> list[str]:
    """The folders that could name a class, but hold no file; see `Files.empty`.

    Args:
        names: of all files.
        deeper: whether the folders at the top are sets, and those in them classes.
    """
    split_names = [name.split("/") for name in names]
    known = {"/".join(folders[:depth]) for folders in split_names for depth in (1, 2)}
    tops = _subfolders(folder)
    below = [path for top in tops if top.name in known for path in _subfolders(top)] if deeper else []
    relative = (path.relative_to(folder).as_posix() for path in (*tops, *below))
    return sorted(name for name in relative if name not in known)


def _subfolders(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if path.is_dir() and not is_ignored(path.name)]


def _walk(folder: Path, where: str, system_files: set[str]) -> Iterator[Path]:
    """All data files below a folder, sorted by name; links must stay within it.

    Args:
        system_files: the names of system files that are not hidden are added to it.
    """

    def unreadable(error: OSError) -> None:
        raise DataError(f"{where}: {error.filename} cannot be read: {error.strerror}.") from error

    for top, folders, files in os.walk(folder, onerror=unreadable):
        system_files |= {name for name in (*folders, *files) if is_system_file(name) and name[0] != "."}
        folders[:] = sorted(name for name in folders if not is_ignored(name))
        for name in folders:
            if (path := Path(top, name)).is_symlink():
                check_inside(path, folder, "data.path")
                raise DataError(
                    f"{where}: {path} is a link to another folder of the same data, whose files would"
                    " count twice. Remove the link."
                )
        for name in sorted(name for name in files if not is_ignored(name)):
            if (path := Path(top, name)).is_symlink():
                check_inside(path, folder, "data.path")
            yield path


def _split_folders(names: list[str], where: str) -> tuple[list[str], list[str] | None]:
    """Paths within the folders of sets, and the set of each; unchanged and None without such folders."""
    tops = {name.split("/", 1)[0] for name in names if "/" in name}
    loose = {name for name in names if "/" not in name}
    known = {top for top in tops if top.lower() in name_patterns.PART_FOLDERS}
    if len(known) > 1 and (known != tops or loose):
        other = sorted((tops - known) or loose)
        raise DataError(
            f"{where}: its folders {', '.join(sorted(known))} are sets of the data, but {other[0]!r}"
            " next to them is not one. Move it away, or into one of them."
        )
    if not tops or known != tops or loose:
        return names, None
    split_up = [name.split("/", 1) for name in names]
    return [rest for _, rest in split_up], [top for top, _ in split_up]


def _top_folders(names: list[str], folder: Path, what: str, where: str) -> list[str]:
    """The class of each file: the first folder of its path."""
    loose = [name for name in names if "/" not in name]
    if len(loose) == len(names):
        pattern = setting("data.label_pattern", name_patterns.suggest_pattern(names))
        raise DataError(
            f"{where}: {len(names):,} {what}, such as {names[0]}, are in no class folder. Put those of "
            f"each class into a folder of its own; or set {pattern} if the names hold the label; or use "
            "a list of files with their labels."
        )
    if loose:
        raise DataError(
            f"{where}: {len(loose):,} {what} are outside the class folders:"
            f" {join_names(loose)}. Move them into the folder of their class, or away."
        )
    labels = [name.split("/", 1)[0] for name in names]
    within = {name.split("/")[1] for name in names if name.count("/") > 1}
    if len(set(labels)) == 1 and len(within) > 1:
        raise DataError(
            f"{where}: all {what} are in one folder, {labels[0]!r}. If the folders within it are the "
            f"classes, set data.path={folder / labels[0]}."
        )
    return labels


def _read_list(path: Path, search: _Search, labelled: bool, new: bool) -> Files:
    """The files that a table lists, in its order."""
    from bigmodel.data.tabular.table_file import get_column, read_table

    _, what, patterns, where = search
    table = read_table(path, "data.path", encoding=patterns.encoding)
    listed = get_column(table, patterns.file, "data.file").to_pylist()
    _check_filled(listed, patterns.file, where)
    system_names = [first_system_name(PurePath(str(name))) for name in listed]
    kept = [row for row, system_name in enumerate(system_names) if system_name is None]
    if not kept:
        raise DataError(f"{where}: lists no {what}.")
    names = [str(listed[row]) for row in kept]
    folder = path.absolute().parent
    if patterns.root is not None and not (new and (folder / names[0]).exists()):
        folder = Path(patterns.root).expanduser()
    paths = [folder / name for name in names]
    _check_listed(names, paths, folder, search, once=labelled)
    files = Files(paths, names, system_files=sorted(set(filter(None, system_names))))
    if not labelled:
        return files

    def values(key: str) -> list[object] | None:
        name = getattr(patterns, key)
        return None if name is None else get_column(table, name, f"data.{key}").take(kept).to_pylist()

    labels: Labels = []
    if patterns.label_pattern is None:
        labels = _list_labels(values("label") or [], patterns, where)
    groups, assigned_parts = (
        None if column is None else list(map(_as_text, column))
        for column in (values("group"), values("split"))
    )
    files = replace(files, labels=labels, groups=groups, assigned_parts=assigned_parts)
    return _match_patterns(files, search)


def _check_listed(
    names: Sequence[str], paths: Sequence[Path], folder: Path, search: _Search, *, once: bool
) -> None:
    """Raises DataError if a listed file is outside the folder, of another kind, or listed twice."""
    if once:
        _check_once(names, paths, search.what, search.where)
    for path in paths:
        check_inside(path, folder, "data.root")
    other = [name for name in names if Path(name).suffix.lower() not in search.suffixes]
    if other:
        raise DataError(
            f"{search.where}: lists {len(other):,} files that are not {search.what}, such as {other[0]}."
            f" Known are {', '.join(sorted(search.suffixes))}."
        )


def _check_once(names: Sequence[str], paths: Sequence[Path], what: str, where: str) -> None:
    plain = [*map(os.path.normpath, paths)]  # x/../a.png is a.png
    counted = Counter(plain)
    twice = [name for name, path in zip(names, plain, strict=True) if counted[path] > 1]
    if twice:
        raise DataError(
            f"{where}: lists {len(set(twice)):,} {what} more than once, such as {twice[0]}: the same "
            "file could be used for training and evaluation. List each file once."
        )


def _as_text(value: object) -> str:
    """A cell as text, empty if it is missing or NaN."""
    return "" if value is None or value != value else str(value)


def _check_filled(values: Sequence[object], name: str, where: str) -> None:
    empty = [row for row, value in enumerate(values) if not _as_text(value)]
    if empty:
        rows = join_names(list(map(str, empty)))
        raise DataError(
            f"{where}: column '{name}' is empty in {len(empty):,} of {len(values):,} rows: {rows}"
            " (counted from 0). Fill them in, or remove the rows."
        )


_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?")


def _list_labels(values: Sequence[object], patterns: FilePatterns, where: str) -> Labels:
    """Labels of a list: numbers if any has a fraction or the task says so, else names of classes."""
    _check_filled(values, patterns.label, where)
    words = [str(value) for value in values]
    if patterns.task == "values":
        return [name_patterns.parse_number(word, where) for word in words]
    if all(_NUMBER.fullmatch(word) for word in words):
        numbers = [float(word) for word in words]
        if patterns.task == "auto" and not all(value.is_integer() for value in numbers):
            return numbers
        if isinstance(values[0], float):  # a column with an empty cell has 1.0, 2.0 for 1, 2
            return [str(int(value)) if value.is_integer() else str(value) for value in numbers]
    return words
