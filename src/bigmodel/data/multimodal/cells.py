"""Cells of a column of texts or of paths, and the files that paths name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from bigmodel.data.files import decode_cache
from bigmodel.data.files.decode_cache import RowFormat, UnreadableFileError
from bigmodel.data.reader import HeaderRows
from bigmodel.data.tabular.columns import RowIndex
from bigmodel.data.tabular.numeric import text_values
from bigmodel.data.tabular.table_file import Table
from bigmodel.errors import DataError, counted


class Encoded(NamedTuple):
    """A column as a part of the inputs.

    Attributes:
        values: (samples, *shape); anything where it is missing.
        present: (samples,) bool.
        header_rows: about the column.
        digests: of the files that were read.
    """

    values: Tensor
    present: Tensor
    header_rows: HeaderRows
    digests: Sequence[str] = ()


@dataclass(frozen=True)
class Cells:
    """Cells of one column.

    Attributes:
        table: whose column it is.
        name: of the column.
        values: in the order of the samples; None: missing.
        rows: of each, in the table.
    """

    table: Table
    name: str
    values: list[str | None]
    rows: Sequence[int]

    @classmethod
    def of(cls, table: Table, name: str, column: Any, order: RowIndex | None = None) -> Cells:
        """The cells of a column in the order of `order`, indices of rows; None: all."""
        texts = text_values(column)
        rows = range(table.num_rows) if order is None else order.tolist()
        values = (texts if order is None else texts.take(order)).to_pylist()
        return cls(table, name, [cell if cell and cell.strip() else None for cell in values], rows)

    @property
    def where(self) -> str:
        """The table and the column, for messages."""
        return f"{self.table.path}: column '{self.name}'"

    @property
    def present(self) -> Tensor:
        """Which cells are filled, (cells,) bool."""
        return torch.tensor([value is not None for value in self.values])

    @property
    def filled(self) -> list[str]:
        """The cells that are filled."""
        return [value for value in self.values if value is not None]

    @property
    def different(self) -> list[str]:
        """The different cells that are filled, in order."""
        return list(dict.fromkeys(self.filled))

    def path(self, cell: str) -> Path:
        """The path that a cell holds, which is relative to the table's folder."""
        return self.table.folder / Path(cell.strip()).expanduser()

    @property
    def paths(self) -> list[Path]:
        """The paths of the different cells."""
        return [self.path(cell) for cell in self.different]

    @property
    def missing_words(self) -> str:
        """How many cells are empty, to be added to a summary."""
        count = self.values.count(None)
        return f"; {count:,} missing" if count else ""

    def decode(self, row: RowFormat, suffixes: Mapping[str, str], what: str, options: Any) -> Decoded:
        """The files that the cells name, each decoded once.

        Args:
            row: what each becomes.
            suffixes: of the files that can be read, with the name of each one's format.
            what: the files' name in messages: `pictures`.
            options: whatever a row depends on, as JSON values.

        Raises:
            DataError: more than `table.max_bad` cannot be read.
        """

        def decode(path: Path, into: Tensor) -> Any:
            if path.suffix.lower() not in suffixes:
                raise UnreadableFileError(f"its ending is none of {', '.join(suffixes)}")
            return row.decode(path, into)

        cells, paths, most = self.different, self.paths, self.table.max_bad
        cache = decode_cache.cache_folder(self.table.cache)
        digests = decode_cache.file_digests(paths)
        rows = decode_cache.decode_files(
            paths,
            row._replace(decode=decode),
            max_bad=most,
            cache=cache,
            digests=digests,
            options=options,
        )
        bad = {cells[index]: reason for index, reason in rows.bad}
        if len(bad) > most:
            raise self._unreadable(bad, suffixes, what)
        place = {cells[index]: at for at, index in enumerate(rows.kept)}
        index = torch.tensor([-1 if v is None else place.get(v, -1) for v in self.values])
        present = index >= 0
        if torch.equal(index, torch.arange(len(rows.rows))):
            values = rows.rows  # each file once, and none is missing: nothing is copied
        else:
            values = torch.zeros(len(index), *row.shape, dtype=row.dtype)
            values[present] = rows.rows[index[present]]
        warnings: HeaderRows = [("Cache", rows.trouble)] if rows.trouble else []
        if bad:
            cell, reason = next(iter(bad.items()))
            some = f"{counted(len(bad), what.removesuffix('s'))} that cannot be read"
            text = f"column '{self.name}': {some}, taken for missing: {cell} ({reason})"
            warnings.append(("Warning", text))
        return Decoded(values, present, rows.notes, warnings, [digests[index] for index in rows.kept])

    def _unreadable(self, bad: Mapping[str, str], suffixes: Mapping[str, str], what: str) -> DataError:
        cell, reason = next(iter(bad.items()))
        row = self.rows[self.values.index(cell)]
        more, others = len(bad) - 1, ""
        if more:
            are = "is 1 other" if more == 1 else f"are {more:,} others"
            others = f" So {are} of {len(self.different):,}."
        return DataError(
            f"{self.where}, row {row} (counted from 0): {cell} cannot be read: {reason}.{others} A"
            f" cell holds a path of {what} ({', '.join(suffixes)}), absolute or relative to"
            f" {self.table.folder}, or nothing if there is none. To take unreadable ones for missing:"
            f" data.max_bad={len(bad)}"
        )


class Decoded(NamedTuple):
    """The files of a column; see `Encoded`.

    Attributes:
        notes: a JSON value about each different file.
    """

    values: Tensor
    present: Tensor
    notes: list[Any]
    header_rows: HeaderRows
    digests: list[str]
