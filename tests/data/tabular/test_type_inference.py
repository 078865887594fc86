"""The kind of a column, inferred from all of its cells: numbers, dates, words or none of these."""

import pyarrow as pa
import pytest

from bigmodel.data.tabular.type_inference import infer_type


def column(*values, kind=None):
    return pa.chunked_array([pa.array(values, kind)])


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        ("number", ["1", "2.5", "-3e4", None, "+.5"]),
        ("number", [" 1 ", "NA", "n/a", "NaN", "-", "?"]),
        ("number", ["0", "0.5", "10"]),
        ("text", ["007", "008", "9"]),
        ("text", ["1", "2", "three"]),
        ("number", ["1,5", "2,5"]),
        ("text", ["yes", "no"]),
        ("date", ["2020-01-31", None, "2021-12-01"]),
        ("date", ["31.01.2020", "01.02.2020"]),
        ("text", ["31.01.2020", "soon"]),
        ("text", ["31.13.2020"]),
        ("empty", [None, None]),
        ("number", [1, 2]),
        ("number", [1.5, None]),
        ("text", [True, False]),
        ("other", [[1], [2]]),
    ],
)
def test_kinds(kind, values):
    typed = pa.string() if any(isinstance(value, str) for value in values) else None
    assert infer_type(column(*values, kind=typed)).kind == kind


def test_a_few_invalid_cells_do_not_decide():
    assert infer_type(column(*["1"] * 19, "x", None)).kind == "number"
    assert infer_type(column(*["1"] * 18, "x", None)).kind == "text"
    assert infer_type(column(*["1"] * 18, "x", None)).invalid.value == "x"
    assert infer_type(column("x", *["1,5"] * 30, "1.5")).invalid.count == 2
    assert infer_type(column("NA", None, "-")).kind == "empty"


@pytest.mark.parametrize(
    ("cells", "invalid"),
    [
        (["2022-01-31"] * 39 + ["2022-13-01"], "2022-13-01"),
        (["2022-01-31"] * 39 + ["2022-02-30"], "2022-02-30"),
        (["31.01.2022"] * 39 + ["30.02.2022"], "30.02.2022"),
        (["31.01.2022 10:00"] * 39 + ["31.01.2022 24:00"], "31.01.2022 24:00"),
        (["soon"] + ["10:30"] * 39, "soon"),
        (["2022-01-31 10:00:00 UTC"] * 39 + ["x"], "x"),
    ],
)
def test_a_few_cells_that_are_not_dates_do_not_decide(cells, invalid):
    inferred = infer_type(column(*cells))
    assert inferred.kind in ("date", "time")
    assert (inferred.invalid.count, inferred.invalid.value, inferred.invalid.row) == (
        1,
        invalid,
        cells.index(invalid),
    )
    assert infer_type(column(*cells[17:23], invalid)).kind == "text"
