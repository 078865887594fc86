"""Dates, times of day and durations in a table: inferred, reported, and read the same way later."""

import datetime
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from bigmodel.data.reader import from_plain, to_plain
from bigmodel.errors import ConfigError, DataError
from tests.data.sources.test_table import built, written

ROWS = 60


def table_of(path, cells):
    """A file with a column of some cells, over and over, and a target."""
    rows = [{"when": cells[i % len(cells)], "y": f"{i}.5"} for i in range(ROWS)]
    return written(path, rows, quoted=True)


def again(dataset):
    """The reader as a checkpoint brings it back."""
    return from_plain(json.loads(json.dumps(to_plain(dataset.reader))))


def test_dates_that_could_be_read_otherwise_are_listed_with_what_to_type(tmp_path):
    cells = [f"{1 + i % 11:02d}/{1 + i % 12:02d}/2020" for i in range(ROWS)]
    path = table_of(tmp_path / "a.csv", cells)
    dataset = built(path, "y", normalize=False)
    assert ("Dates", "when (%m/%d/%Y)") in dataset.header_rows
    assert (
        "Warning",
        "column 'when': it is read as dates (%m/%d/%Y), and would do as dates (%d/%m/%Y): then set 'data"
        '.columns.when={date: "%d/%m/%Y"}\' (currently: \'data.columns.when={date: "%m/%d/%Y"}\')',
    ) in dataset.header_rows
    explicit = built(path, "y", normalize=False, columns={"when": {"date": "%d/%m/%Y"}})
    assert ("Dates", "when (%d/%m/%Y)") in explicit.header_rows
    assert not [line for label, line in explicit.header_rows if label == "Warning"]
    late = table_of(tmp_path / "late.csv", ["31/01/2020"])
    month = explicit.spec.input.names.index("when (month)")
    assert (again(explicit).read(late, with_targets=False).part.inputs[:, month] == 1).all()
    with pytest.raises(
        DataError, match=r"row 0 .* holds '31/01/2020'.*'data.columns.when=\{date: \"%d/%m/%Y"
    ):
        again(dataset).read(late, with_targets=False)


@pytest.mark.parametrize(
    ("kind", "name"),
    [({"date": "%d/%m/%Y"}, "when"), ("{when: {date: '%d/%m/%Y'}}", "when"),
     ('{when: {date: "%d/%m/%Y"}}', "when"), ("when: {date: %d/%m/%Y}", "when")],
)  # fmt: skip
def test_a_format_may_come_in_a_text(tmp_path, kind, name):
    path = table_of(tmp_path / "a.csv", ["01/02/2020", "02/03/2020", "03/02/2020"])
    columns = {name: kind} if isinstance(kind, dict) else kind
    assert built(path, "y", columns=columns).reader.columns[0].time_format == "%d/%m/%Y"


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"whn": {"date": "%d/%m/%Y"}}, "data.columns=whn: .* Did you mean 'when'"),
        (
            {"when": {"date": "%d/%m"}},
            "data.columns=.*'%d/%m' is not a date format, such as %d/%m/%Y",
        ),
        ({"when": {"date": "%d/%K/%Y"}}, "%K is none of %Y %y %m"),
        ({"when": {"time": "%H"}}, "data.columns.when"),
        ({"when": {}}, "when has 0 kinds"),
        (
            {"when": {"date": "%m/%d/%Y"}},
            r"column 'when' is one of dates \(%m/%d/%Y\), but row 1 .* holds '31/01/2020'; 30 of 60",
        ),
        ({"when": "duration"}, "column 'when' is one of durations, but row 0 .* '01/02/2020'; 60 of 60"),
        ({"y": {"date": "%Y"}}, "a target is a number or a category"),
    ],
)
def test_what_is_wrong_with_a_format_is_reported(tmp_path, columns, message):
    path = table_of(tmp_path / "a.csv", ["01/02/2020", "31/01/2020"])
    with pytest.raises((ConfigError, DataError), match=message):
        built(path, "y", columns=columns)


def test_one_odd_date_is_missing_and_reported(tmp_path):
    cells = [f"2022-{1 + i % 12:02d}-01" for i in range(ROWS - 1)] + ["2022-13-01"]
    dataset = built(table_of(tmp_path / "a.csv", cells), "y", normalize=False, val_fraction=0.5)
    assert (
        "Warning",
        "column 'when': 1 of 60 cells is not a date and taken for missing, the first in row 59 (counted"
        " from 0): '2022-13-01'. If they are words: data.columns.when=category",
    ) in dataset.header_rows
    found = again(dataset).read(
        table_of(tmp_path / "b.csv", ["2022-13-01", *cells[:20]]), with_targets=False
    )
    assert found.columns["when"][0].as_py() == "2022-13-01"
    assert any("cells are not dates and taken for missing" in line for _, line in found.header_rows)


@pytest.mark.parametrize(
    ("cells", "summary", "names"),
    [
        (["2020-01-31 10:00:00.123456789", "2021-02-01 11:00:00.000000001"], "1 date (when)",
         ["year", "month", "day", "weekday", "hour"]),
        (["2020-01-31 10:00:00", "2020-01-31 10:59:59"], "1 date (when)", ["second"]),
        (["08:15", "23:00"], "1 time (when)", ["hour", "sine", "cosine"]),
        (["1 days 02:03:04", "0 days 00:00:01"], "1 duration (when)", ["seconds"]),
    ],
)  # fmt: skip
def test_what_a_model_reads_of_each_kind(tmp_path, cells, summary, names):
    dataset = built(table_of(tmp_path / "a.csv", cells), "y")
    assert dataset.header_rows[0] == ("Columns", summary)
    assert list(dataset.spec.input.names) == [f"when ({name})" for name in names]
    assert torch.isfinite(dataset.part("train").inputs).all()


def test_words_that_are_mostly_dates_are_reported(tmp_path):
    cells = ["unknown", "2020-01-31", "2020-02-29", "2021-03-05"]
    path = table_of(tmp_path / "a.csv", cells)
    assert (
        "Warning",
        "column 'when' is read as words: 15 of 60 cells are not dates (ISO), the first in row 0 (counted"
        " from 0): 'unknown'. To read it as dates, these missing: data.columns.when=date (currently:"
        " data.columns.when=category)",
    ) in built(path, "y").header_rows
    assert ("Columns", "1 date (when)") in built(path, "y", columns={"when": "date"}).header_rows
    assert built(path, "when").header_rows[-1][0] != "Warning"  # dates are no values to learn


NINE = np.array([1_580_466_600_123_456_789 + i * 86_400 * 10**9 * 31 for i in range(ROWS)])
TYPED = {
    "ns": pa.array(NINE, pa.timestamp("ns")),
    "ns, Tokyo": pa.array(NINE, pa.timestamp("ns", tz="Asia/Tokyo")),
    "s": pa.array(NINE // 10**9, pa.timestamp("s")),
    "date32": pa.array(NINE // (86_400 * 10**9), pa.int64()).cast(pa.int32()).cast(pa.date32()),
    "far": pa.array(np.arange(ROWS) + 3_000_000, pa.int32()).cast(pa.date32()),
    "time32": pa.array([datetime.time(i % 24, i) for i in range(ROWS)], pa.time32("s")),
    "time64": pa.array([datetime.time(i % 24, i) for i in range(ROWS)], pa.time64("ns")),
    "duration": pa.array(NINE, pa.duration("ns")),
}


@pytest.mark.parametrize("name", TYPED)
def test_types_for_times_of_parquet_are_learnt_from(tmp_path, name):
    values = pa.concat_arrays([TYPED[name].slice(0, ROWS - 1), pa.nulls(1, TYPED[name].type)])
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"when": values, "y": np.arange(ROWS) + 0.5}), path)
    dataset = built(path, "y", val_fraction=0.5)
    assert [column.name for column in dataset.reader.columns] == ["when"]
    found = again(dataset).read(path, with_targets=True)
    assert torch.isfinite(found.part.inputs).all()
    assert len(found.part.inputs.unique(dim=0)) > ROWS // 4


@pytest.mark.parametrize(
    ("cells", "kind"),
    [
        (pa.array([[i % 5] for i in range(ROWS)]), None),
        (pa.array([{"a": i % 5} for i in range(ROWS)]), None),
        (pa.array([bytes([255, i % 5]) for i in range(ROWS)]), None),
        (pa.array([i % 5 for i in range(ROWS)], pa.duration("ns")), "category"),
    ],
    ids=["list", "object", "bytes", "duration"],
)
def test_columns_of_any_type_are_compared(tmp_path, cells, kind):
    """As a group, which any column may be, and as categories, where they are learnt from."""
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"c": cells, "x": np.arange(ROWS) % 7, "y": np.arange(ROWS) + 0.5}), path)
    dataset = built(path, "y", group="c", columns={"c": kind} if kind else {})
    assert len(dataset.part("train")) % (ROWS // 5) == 0
    if kind:
        assert dataset.reader.columns[0].values[0] == "0 days 00:00:00"


def test_a_file_of_another_kind_is_read_as_that_of_training(tmp_path):
    days = ["2020-01-31", "2021-02-01", "2022-03-05", "2023-07-09"]
    text = table_of(tmp_path / "a.csv", days)
    dates = [datetime.date.fromisoformat(day) for day in days] * (ROWS // 4)
    pq.write_table(pa.table({"when": dates, "y": np.arange(ROWS) + 0.5}), tmp_path / "a.parquet")
    for one in (text, tmp_path / "a.parquet"):
        reader = built(one, "y").reader
        read = [
            reader.read(path, with_targets=True).part.inputs for path in (text, tmp_path / "a.parquet")
        ]
        assert torch.equal(*read)
    times = [datetime.time(8)] * ROWS
    pq.write_table(pa.table({"when": times, "y": np.arange(ROWS) + 0.5}), tmp_path / "b.parquet")
    with pytest.raises(DataError, match=r"is one of dates \(ISO\), but row 0 .* holds '08:00:00"):
        built(text, "y").reader.read(tmp_path / "b.parquet", with_targets=True)
