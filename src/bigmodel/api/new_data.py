"""What a user passes for new data, read as the run's training data was; and what goes back."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from torch import Tensor

from bigmodel.api import tables
from bigmodel.cli.commands.loaded_run import LoadedRun
from bigmodel.data.arrays.reader import ArraysReader
from bigmodel.data.reader import NewSamples
from bigmodel.data.tabular.reader import TableReader
from bigmodel.errors import BigModelError, DataError, require
from bigmodel.spec import Features

Kind = Literal["path", "frame", "series", "table", "columns", "rows", "array", "list"]


@dataclass(frozen=True)
class GivenData:
    """New data, as it was given.

    Attributes:
        kind: a path; a DataFrame or a Series of pandas; an Arrow table, or what converts itself to one;
            a dict of columns; a list of dicts; an array; or a list of anything else.
        data: the data.
    """

    kind: Kind
    data: Any

    @classmethod
    def of(cls, data: Any) -> GivenData:
        """Recognises what was given.

        Raises:
            DataError: it is nothing that can be read.
        """
        if isinstance(data, str | os.PathLike):
            return cls("path", Path(data).expanduser())
        if _module(data) == "pandas" and hasattr(data, "to_frame" if data.ndim == 1 else "columns"):
            return cls("series" if data.ndim == 1 else "frame", data)
        if hasattr(data, "__arrow_c_stream__") or _module(data) == "pyarrow":
            return cls("table", data)
        if isinstance(data, Mapping):
            return cls("columns", data)
        if isinstance(data, Tensor):
            return cls("array", data.detach().cpu().numpy())
        if hasattr(data, "__array__") and not hasattr(data, "getexif"):
            return cls("array", np.asarray(data))
        if isinstance(data, Sequence):
            items = list(data)
            return cls("rows" if items and isinstance(items[0], Mapping) else "list", items)
        raise DataError(
            f"The data: {type(data).__name__} cannot be read. Pass a table (a DataFrame, an Arrow table,"
            " a dict of columns, a list of dicts), an array, a list of pictures, recordings or texts, or"
            " a path."
        )

    def samples(
        self, loaded: LoadedRun, targets: Any = None, *, with_targets: bool = False
    ) -> NewSamples:
        """The data as samples of a run.

        Args:
            targets: for evaluation, if they are not in the data.
            with_targets: whether there are targets, in the data or in `targets`.

        Raises:
            DataError: it is not of the kind that the run was trained on.
        """
        reader = loaded.reader
        try:
            if self.kind == "path":
                return reader.read(self.data, with_targets=with_targets)
            values = _values(self, loaded)
            if isinstance(values, list | np.ndarray):
                if with_targets and targets is None:
                    raise DataError("targets: are needed to evaluate on values that hold none.")
                if len(values) == 0:
                    raise DataError("The data: it is empty.")
                return reader.read_values(values, targets)  # type: ignore[arg-type]
            if targets is not None:
                values = _with_targets(values, targets, loaded)
            return reader.read_table(values, with_targets=with_targets)
        except BigModelError as error:
            raise type(error)(f"{loaded.name}: {error}") from error

    def like(self, columns: Mapping[str, Any]) -> Any:
        """Columns of predictions, of equal length, in the form of the data; see `TrainedRun.predict`."""
        if self.kind == "frame":
            import pandas

            return pandas.DataFrame({k: _array(v) for k, v in columns.items()}, index=self.data.index)
        if self.kind == "series":
            import pandas

            found = pandas.DataFrame({k: _array(v) for k, v in columns.items()}, index=self.data.index)
            return found.squeeze(axis=1)
        if self.kind in ("table", "path"):
            import pyarrow as pa

            table = pa.table(dict(columns))
            return tables.as_frame(table) if self.kind == "path" else tables.like(self.data, table)
        if self.kind == "columns":
            first = next(iter(self.data.values()), None)
            return {
                k: _array(v) if isinstance(first, np.ndarray) else _list(v) for k, v in columns.items()
            }
        lists = {name: _list(values) for name, values in columns.items()}
        if self.kind == "rows":
            return [dict(zip(lists, row, strict=True)) for row in zip(*lists.values(), strict=True)]
        if len(columns) == 1:
            only = next(iter(columns.values()))
            return _array(only) if self.kind == "array" else _list(only)
        if self.kind == "array":
            return np.stack([_array(values) for values in columns.values()], axis=1)
        return [dict(zip(lists, row, strict=True)) for row in zip(*lists.values(), strict=True)]


def to_arrow(given: GivenData) -> Any:
    """A table of any form as a `pyarrow.Table`.

    Raises:
        DataError: its columns differ in length, two have the same name, or one holds what is no cell of
            a table.
    """
    require("pyarrow", "a table")
    match given.kind:
        case "frame":
            return tables.of_frame(given.data)
        case "columns":
            return tables.of_columns(given.data)
        case "rows":
            return tables.of_rows(given.data)
    return tables.of_arrow(given.data)


def _values(given: GivenData, loaded: LoadedRun) -> Any:
    """A `pyarrow.Table`, or a sequence of samples: whichever the run's reader reads."""
    reader = loaded.reader
    if given.kind == "series":
        if not isinstance(reader, TableReader):
            return list(given.data)
        given = _one_column(given.data, [column.name for column in reader.columns])
    tabular = given.kind in ("frame", "table", "columns", "rows")
    if given.kind == "rows" and "array" in given.data[0]:  # recordings, as `datasets` has them
        return given.data
    if isinstance(reader, TableReader) and given.kind == "array":
        return _named_columns(given.data, [column.name for column in reader.columns])
    if not tabular:
        return given.data
    table = to_arrow(given)
    if not isinstance(reader, ArraysReader):
        return table
    kind = loaded.preprocessing.spec.input
    names = list(kind.names) if isinstance(kind, Features) else []
    known = set(names) <= set(table.column_names) and bool(names)
    columns = [table.column(name) for name in (names if known else table.column_names)]
    return np.stack([column.to_numpy() for column in columns], axis=1)


def _one_column(series: Any, names: list[str]) -> GivenData:
    if str(series.name) not in names:
        raise DataError(
            "The data: a Series is one column, and the run reads a table. Pass a DataFrame, of one row"
            " if need be: frame.iloc[[0]]."
        )
    return GivenData("frame", series.to_frame())


def _named_columns(array: Any, names: list[str]) -> Any:
    """A matrix as a table whose columns are the run's."""
    if array.ndim != 2 or array.shape[1] != len(names):
        raise DataError(
            f"The array: has shape {array.shape}, but the run reads {len(names)} columns:"
            f" (rows, {len(names)})."
        )
    return to_arrow(GivenData("columns", dict(zip(names, array.T, strict=True))))


def _with_targets(table: Any, targets: Any, loaded: LoadedRun) -> Any:
    reader = loaded.reader
    name = reader.target.name if isinstance(reader, TableReader) else "label"
    if hasattr(reader, "layout"):
        name = reader.layout.target
    column = tables.column("targets", targets)
    if len(column) != table.num_rows:
        raise DataError(f"targets: there are {len(column):,} for {table.num_rows:,} rows.")
    if name in table.column_names:
        table = table.drop_columns([name])
    return table.append_column(name, column)


def _array(values: Any) -> Any:
    """A column as a NumPy array: NaN or, among words and lists, None where nothing is predicted."""
    import pyarrow as pa

    if isinstance(values, np.ndarray):
        return values
    if not pa.types.is_list(values.type):
        return values.to_numpy(zero_copy_only=False)
    lists = np.empty(len(values), dtype=object)
    for place, names in enumerate(values.to_pylist()):  # NumPy would spread lists of one length
        lists[place] = names
    return lists


def _list(values: Any) -> list[Any]:
    import pyarrow as pa

    if isinstance(values, np.ndarray):
        values = pa.array(values, from_pandas=True)
    return list(values.to_pylist())


def _module(data: Any) -> str:
    """The package of a type: pandas is known without importing it."""
    return type(data).__module__.partition(".")[0]
