"""Out-of-fold predictions of a sweep: those of all folds and settings in one file."""

from __future__ import annotations

import csv
import heapq
import io
import itertools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from bigmodel.cli.launch.run_folder import OUT_OF_FOLD
from bigmodel.errors import counted
from bigmodel.reporting.formatting import shown_path
from bigmodel.runtime import disk, progress_messages
from bigmodel.sweeps.jobs import FOLD
from bigmodel.sweeps.leaderboard import JobResult, changed_keys

_OVER = ("finished", "failed", "pruned")


def write(folder: Path, results: Sequence[JobResult]) -> list[str]:
    """Puts the predictions of all folds into one file in the sweep's folder, once all jobs are over.

    It has a column for each key in which jobs differ, then those of the folds' own files. Settings come
    in the order of their jobs, and the samples of each in the order of the data. Rows are copied one by
    one: no more of them is in memory.

    Args:
        folder: the sweep's.
        results: of its jobs.

    Returns:
        What is said of it: nothing if this is no cross-validation, or not over.

    Raises:
        CheckpointError: the file cannot be written.
    """
    folds = [result for result in results if FOLD in result.changed and result.folder]
    finished = [result for result in folds if result.status == "finished"]
    if not finished or any(result.status not in _OVER for result in results):
        return []
    files = {r.job: path for r in finished if (path := Path(r.folder) / OUT_OF_FOLD).is_file()}
    if not files:
        return ["No out-of-fold predictions: there are none of texts that are written token by token."]
    settings: dict[tuple[tuple[str, str], ...], list[Path]] = {}
    for result in finished:
        if result.job in files:
            own = tuple((key, value) for key, value in result.changed.items() if key != FOLD)
            settings.setdefault(own, []).append(files[result.job])
    keys = [key for key in changed_keys(results) if key != FOLD]
    path = folder / OUT_OF_FOLD
    try:
        with progress_messages.report_progress("Writing out-of-fold predictions"):
            rows = _write(path, keys, settings)
    except OSError as error:
        needed = sum(file.stat().st_size for file in files.values() if file.is_file())
        raise disk.write_error(path, error, needed) from error
    missing = len([result for result in results if FOLD in result.changed]) - len(files)
    without = f", without {counted(missing, 'fold')} that left none" if missing else ""
    return [f"Out-of-fold predictions ({counted(rows, 'row')}{without}): {shown_path(path)}"]


def _write(
    path: Path, keys: Sequence[str], settings: Mapping[tuple[tuple[str, str], ...], Sequence[Path]]
) -> int:
    """Writes the file and returns its rows."""
    heads = [_columns_of(file) for files in settings.values() for file in files]
    columns = list(dict.fromkeys(itertools.chain(*heads)))
    count = 0
    with disk.atomic_write(path) as file:
        text = io.TextIOWrapper(file, encoding="utf-8", newline="")
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow([*keys, *columns])
        for own, files in settings.items():
            values = dict(own)
            changes = [values.get(key, "") for key in keys]
            of_files = (_rows_of(file, columns) for file in files)  # each in the order of the data
            for row in heapq.merge(*of_files, key=lambda row: int(row[0])):
                writer.writerow([*changes, *row])
                count += 1
        text.detach()
    return count


def _columns_of(file: Path) -> list[str]:
    with file.open(encoding="utf-8", newline="") as text:
        return next(csv.reader(text))


def _rows_of(file: Path, columns: Sequence[str]) -> Iterator[list[str]]:
    """The cells of a file by column, `row` first; empty if it lacks the column."""
    with file.open(encoding="utf-8", newline="") as text:
        rows = csv.reader(text)
        own = {name: place for place, name in enumerate(next(rows))}
        if list(own) == list(columns):
            yield from rows
            return
        places = [own.get(name) for name in columns]
        for row in rows:
            yield ["" if place is None else row[place] for place in places]
