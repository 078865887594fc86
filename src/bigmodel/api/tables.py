"""Tables that a program holds, as Arrow tables: DataFrames, dicts of columns, lists of dicts."""

from __future__ import annotations

import datetime
import decimal
from collections.abc import Iterable, Mapping, Sequence
from importlib.util import find_spec
from typing import Any

import numpy as np
from torch import Tensor

from bigmodel.data.tabular.column_storage import check_names, plain
from bigmodel.data.tabular.table_file import IN_MEMORY, name_list
from bigmodel.errors import DataError

_CELLS = (str, int, float, np.number, np.bool_, decimal.Decimal, datetime.date, datetime.time)
"""What may stand together in a column of several kinds, as text."""


def as_frame(table: Any) -> Any:
    """An Arrow table as a DataFrame if pandas is installed, else as a list of dicts."""
    return table.to_pylist() if find_spec("pandas") is None else table.to_pandas()


def like(given: Any, table: Any) -> Any:
    """An Arrow table as a DataFrame of polars if one was given, else as it is."""
    if type(given).__module__.partition(".")[0] != "polars":
        return table
    import polars

    return polars.from_arrow(table)


def of_frame(frame: Any) -> Any:
    """A DataFrame of pandas; its index is not data. Levels of column names are joined by `_`."""
    import pyarrow as pa

    names = _checked(map(_flat, frame.columns))
    columns = (_series(series) for _, series in frame.items())
    # `Table.from_pandas` takes ten times as long for a row, and knows fewer types.
    return pa.table({name: column(name, each) for name, each in zip(names, columns, strict=True)})


def of_columns(columns: Mapping[Any, Any]) -> Any:
    """A dict of columns of equal length."""
    import pyarrow as pa

    names = _checked(map(str, columns))
    made = [column(name, values) for name, values in zip(names, columns.values(), strict=True)]
    if len({len(one) for one in made}) > 1:
        lengths = name_list(f"{name}: {len(one):,}" for name, one in zip(names, made, strict=True))
        raise DataError(f"{IN_MEMORY}: its columns have different lengths ({lengths}).")
    return pa.table(dict(zip(names, made, strict=True)))


def of_rows(rows: Sequence[Mapping[Any, Any]]) -> Any:
    """A list of dicts; a value that one of them lacks is missing."""
    import pyarrow as pa

    try:
        named = [{str(name): value for name, value in row.items()} for row in rows]
    except AttributeError as error:
        kind = next(type(row).__name__ for row in rows if not isinstance(row, Mapping))
        raise DataError(f"{IN_MEMORY}: a list of dicts has an item of another kind ({kind}).") from error
    try:
        return pa.Table.from_struct_array(pa.array(named, from_pandas=True))
    except (pa.ArrowException, TypeError, OverflowError):  # a column of several kinds
        names = dict.fromkeys(name for row in named for name in row)
        return of_columns({name: [row.get(name) for row in named] for name in names})


def of_arrow(table: Any) -> Any:
    """An Arrow table, or what gives one: a DataFrame of polars, a record batch."""
    import pyarrow as pa

    try:
        made = table if isinstance(table, pa.Table) else pa.table(table)
    except (pa.ArrowException, TypeError) as error:
        raise DataError(f"{IN_MEMORY}: cannot be read: {error}.") from error
    for place, field in enumerate(made.schema):
        if pa.types.is_dictionary(field.type):  # those of views, as polars has them, are not Parquet's
            made = made.set_column(place, field.name, plain(made.column(place)))
    return made


def column(name: str, values: Any) -> Any:
    """An Arrow column; missing values of pandas and NumPy become null, values of several kinds text.

    Args:
        name: for messages.

    Raises:
        DataError: it holds what is no cell of a table.
    """
    import pyarrow as pa

    if isinstance(values, pa.Array | pa.ChunkedArray):
        return values
    if isinstance(values, Tensor):
        values = values.detach().cpu().numpy()
    if isinstance(values, np.ndarray):
        values = np.ascontiguousarray(values)
    try:
        return pa.array(values, from_pandas=True)
    except (pa.ArrowException, TypeError, OverflowError) as error:
        cells = list(values) if isinstance(values, Iterable) else [values]
        if isinstance(values, str) or not isinstance(values, Iterable):
            raise DataError(
                f"{IN_MEMORY}: '{name}' is {values!r}. A column is a list or an array of values."
            ) from error
        return pa.array([_text(name, cell) for cell in cells], pa.string())


def _text(name: str, cell: Any) -> str | None:
    if cell is None or _is_missing(cell):
        return None
    if isinstance(cell, _CELLS):
        return str(cell)
    raise DataError(
        f"{IN_MEMORY}: column '{name}' holds values such as {cell!r} of type"
        f" {type(cell).__name__}. Give it numbers, texts, dates or booleans."
    )


def _is_missing(cell: Any) -> bool:
    return type(cell).__name__ in ("NAType", "NaTType") or (isinstance(cell, float) and cell != cell)


def _series(series: Any) -> Any:
    """A column of a DataFrame in a form that Arrow's functions know."""
    kind = series.dtype
    if type(kind).__name__ == "PeriodDtype":
        return series.dt.to_timestamp()
    if type(kind).__name__ == "SparseDtype":
        return series.sparse.to_dense()
    bins = kind.categories.dtype if type(kind).__name__ == "CategoricalDtype" else kind
    if type(bins).__name__ == "IntervalDtype":
        return series.astype(object).map(str, na_action="ignore")
    return series


def _flat(name: Any) -> str:
    return "_".join(str(part) for part in name if part != "") if isinstance(name, tuple) else str(name)


def _checked(names: Iterable[str]) -> list[str]:
    listed = list(names)
    check_names(IN_MEMORY, listed)
    return listed
