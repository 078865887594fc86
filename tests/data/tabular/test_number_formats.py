"""How numbers are written: found out from all of a column, and read so ever after."""

import numpy as np
import pyarrow as pa
import pytest

from bigmodel.data.tabular.number_formats import (
    PLAIN,
    FormatChoice,
    NumberFormat,
    check_plain_format,
    find_number_format,
)
from bigmodel.data.tabular.type_inference import infer_type

APART = NumberFormat(decimal=",", thousands=".")


def text(*cells):
    return pa.chunked_array([pa.array(cells, pa.string())])


@pytest.mark.parametrize(
    ("cells", "number_format", "values"),
    [
        (["1", "-2.5", "+.5", "5.", "1e5", "x"], PLAIN, [1, -2.5, 0.5, 5, 1e5, np.nan]),
        (["1", "2,5"], NumberFormat(decimal=","), [1, 2.5]),
        (["1.234,5", "2.000,0"], NumberFormat(decimal=",", thousands="."), [1234.5, 2000]),
        (["$1,200.50", "$3"], NumberFormat(thousands=",", before="$"), [1200.5, 3]),
        (["US$5", "-US$ 6"], NumberFormat(before="US$"), [5, -6]),
        (["5,00 €", "17 €"], NumberFormat(decimal=",", after="€"), [5, 17]),
        (
            ["1 200,5", "3,5", "1\u202f000"],
            NumberFormat(decimal=",", thousands=" "),
            [1200.5, 3.5, 1000],
        ),
        (["1'200.5", "1\u2019000"], NumberFormat(thousands="'"), [1200.5, 1000]),
        (["12,34,567", "99"], NumberFormat(thousands=","), [1234567, 99]),
        (["(5.5)", "\u22127"], NumberFormat(brackets=True), [-5.5, -7]),
        (
            ["$(5.5)", "$7", "$ (1,200)"],
            NumberFormat(thousands=",", before="$", brackets=True),
            [-5.5, 7, -1200],
        ),
        (["(5)%", "7 %"], NumberFormat(after="%", brackets=True), [-5, 7]),
        (["87-", "5.5", "1,200.50-"], NumberFormat(thousands=","), [-87, 5.5, -1200.5]),
        (
            ["\u20b9 1,68,98,002/-", "\u20b9 900/-"],
            NumberFormat(thousands=",", before="\u20b9"),
            [16898002, 900],
        ),
        (["3 W/m2", "4 W/m2"], NumberFormat(after="W/m2"), [3, 4]),
        (["3 km/h", "4km/h", "4 kg"], NumberFormat(after="km/h"), [3, 4, np.nan]),
        (["3 in", "inf", "x"], NumberFormat(after="in"), [3, np.inf, np.nan]),
        (["1,5E+03", "2,5"], NumberFormat(decimal=","), [1500, 2.5]),
        (
            ["Rs. 1,800", "Rs. 944", "Rs. 2,149,000"],
            NumberFormat(thousands=",", before="Rs."),
            [1800, 944, 2149000],
        ),
        (
            ["Rs. 45,48,964.50", "Rs. 123.45"],
            NumberFormat(thousands=",", before="Rs."),
            [4548964.5, 123.45],
        ),
        (["12.50 kr.", "3 kr."], NumberFormat(after="kr."), [12.5, 3]),
        (["Fr. 1'200.5", "Fr. 3"], NumberFormat(thousands="'", before="Fr."), [1200.5, 3]),
    ],
)
def test_the_way_that_fits_most_cells_is_found_and_read(cells, number_format, values):
    found = find_number_format(text(*cells))
    assert found.best == number_format
    np.testing.assert_array_equal(found.best.read(text(*cells)), values)


@pytest.mark.parametrize(
    "cells",
    [["a", "b"], ["31.01.2020"], ["10:30"], ["1,2,3", "1;2"], ["2020-01-02"], ["h0001", "h0002"],
     ["Rome, Italy", "Oslo"], ["A12", "A13"], [None], ["192.168.0.1"],
     ["221.236.191.177", "133.234.227.218"], ["10h15", "11h15"], ["5--"], ["Model (5)"], ["1-5-"]],
)  # fmt: skip
def test_other_things_are_no_numbers(cells):
    assert find_number_format(text(*cells)) is None


def test_all_cells_decide_and_where_they_do_not_both_ways_are_told():
    assert find_number_format(text("1.200", "950", "1.200.000")).best == NumberFormat(
        decimal=",", thousands="."
    )
    assert find_number_format(text("0,123", "1,200")) == FormatChoice(NumberFormat(decimal=","))
    assert find_number_format(text("1,200", "2,300")) == FormatChoice(
        NumberFormat(thousands=","), NumberFormat(decimal=",")
    )
    assert check_plain_format(text("1.200", "2.300", "5")) == FormatChoice(PLAIN, APART)
    assert check_plain_format(text("1.200", "0.300")) == FormatChoice(PLAIN)
    assert check_plain_format(text("1", "2")) == FormatChoice(PLAIN)
    assert check_plain_format(text("1.200", None)) == FormatChoice(PLAIN, APART)
    assert find_number_format(text("Rs. 1,200", "Rs. 944")).other == NumberFormat(
        decimal=",", before="Rs."
    )


def test_a_few_cells_do_not_silence_that_all_others_could_be_read_otherwise():
    few = find_number_format(text(*["56.656"] * 199, "1.234,5"))
    assert few == FormatChoice(APART, PLAIN, "1.234,5")
    few = find_number_format(text(*["3,877"] * 199, "12,5"))
    assert few == FormatChoice(NumberFormat(decimal=","), NumberFormat(thousands=","), "12,5")
    assert check_plain_format(text(*["1.200"] * 199, "0.5", "7")) == FormatChoice(PLAIN, APART, "0.5")
    assert check_plain_format(text(*["7"] * 199, "0.5", "1.200")) == FormatChoice(PLAIN)
    assert find_number_format(text(*["3,877"] * 90, *["12,5"] * 10)).other is None


def test_an_apostrophe_has_its_article():
    assert str(NumberFormat(thousands="'")) == "thousands set apart by an apostrophe"
    assert str(NumberFormat(thousands=" ")) == "thousands set apart by a blank"


@pytest.mark.parametrize("example", ["Rs. 1,200.5", "1'200.5 Fr.", "1.200,5 kr."])
def test_an_example_may_have_a_unit_with_a_dot(example):
    assert NumberFormat.of_example(example).read(text(example)).tolist() == [1200.5]


def test_a_long_column_of_words_is_known_by_a_sample():
    cells = text(*["a", "b", "c"] * 1000, "1")
    assert find_number_format(cells) is None
    assert infer_type(cells).kind == "text"
    assert not infer_type(cells).mostly_measured


def test_a_long_column_is_decided_by_all_of_its_cells():
    cells = ["k.A."] * 1100 + ["1,5"] * 50_000 + ["1.234,5"]
    assert find_number_format(text(*cells)).best == NumberFormat(decimal=",", thousands=".")
