"""How numbers are written: found out from all of a column, and read so ever after."""

import numpy as np
import pyarrow as pa
import pytest

from bigmodel.data.tabular.deciding import decide
from bigmodel.data.tabular.notation import PLAIN, Notation, Ways, plain_ways, ways_to_read

APART = Notation(decimal=",", thousands=".")


def text(*cells):
    return pa.chunked_array([pa.array(cells, pa.string())])


@pytest.mark.parametrize(
    ("cells", "notation", "values"),
    [
        (["1", "-2.5", "+.5", "5.", "1e5", "x"], PLAIN, [1, -2.5, 0.5, 5, 1e5, np.nan]),
        (["1", "2,5"], Notation(decimal=","), [1, 2.5]),
        (["1.234,5", "2.000,0"], Notation(decimal=",", thousands="."), [1234.5, 2000]),
        (["$1,200.50", "$3"], Notation(thousands=",", before="$"), [1200.5, 3]),
        (["US$5", "-US$ 6"], Notation(before="US$"), [5, -6]),
        (["5,00 €", "17 €"], Notation(decimal=",", after="€"), [5, 17]),
        (["1 200,5", "3,5", "1\u202f000"], Notation(decimal=",", thousands=" "), [1200.5, 3.5, 1000]),
        (["1'200.5", "1\u2019000"], Notation(thousands="'"), [1200.5, 1000]),
        (["12,34,567", "99"], Notation(thousands=","), [1234567, 99]),
        (["(5.5)", "\u22127"], Notation(brackets=True), [-5.5, -7]),
        (
            ["$(5.5)", "$7", "$ (1,200)"],
            Notation(thousands=",", before="$", brackets=True),
            [-5.5, 7, -1200],
        ),
        (["(5)%", "7 %"], Notation(after="%", brackets=True), [-5, 7]),
        (["87-", "5.5", "1,200.50-"], Notation(thousands=","), [-87, 5.5, -1200.5]),
        (
            ["\u20b9 1,68,98,002/-", "\u20b9 900/-"],
            Notation(thousands=",", before="\u20b9"),
            [16898002, 900],
        ),
        (["3 W/m2", "4 W/m2"], Notation(after="W/m2"), [3, 4]),
        (["3 km/h", "4km/h", "4 kg"], Notation(after="km/h"), [3, 4, np.nan]),
        (["3 in", "inf", "x"], Notation(after="in"), [3, np.inf, np.nan]),
        (["1,5E+03", "2,5"], Notation(decimal=","), [1500, 2.5]),
        (
            ["Rs. 1,800", "Rs. 944", "Rs. 2,149,000"],
            Notation(thousands=",", before="Rs."),
            [1800, 944, 2149000],
        ),
        (["Rs. 45,48,964.50", "Rs. 123.45"], Notation(thousands=",", before="Rs."), [4548964.5, 123.45]),
        (["12.50 kr.", "3 kr."], Notation(after="kr."), [12.5, 3]),
        (["Fr. 1'200.5", "Fr. 3"], Notation(thousands="'", before="Fr."), [1200.5, 3]),
    ],
)
def test_the_way_that_fits_most_cells_is_found_and_read(cells, notation, values):
    found = ways_to_read(text(*cells))
    assert found.best == notation
    np.testing.assert_array_equal(found.best.read(text(*cells)), values)


@pytest.mark.parametrize(
    "cells",
    [["a", "b"], ["31.01.2020"], ["10:30"], ["1,2,3", "1;2"], ["2020-01-02"], ["h0001", "h0002"],
     ["Rome, Italy", "Oslo"], ["A12", "A13"], [None], ["192.168.0.1"],
     ["221.236.191.177", "133.234.227.218"], ["10h15", "11h15"], ["5--"], ["Model (5)"], ["1-5-"]],
)  # fmt: skip
def test_other_things_are_no_numbers(cells):
    assert ways_to_read(text(*cells)) is None


def test_all_cells_decide_and_where_they_do_not_both_ways_are_told():
    assert ways_to_read(text("1.200", "950", "1.200.000")).best == Notation(decimal=",", thousands=".")
    assert ways_to_read(text("0,123", "1,200")) == Ways(Notation(decimal=","))
    assert ways_to_read(text("1,200", "2,300")) == Ways(Notation(thousands=","), Notation(decimal=","))
    assert plain_ways(text("1.200", "2.300", "5")) == Ways(PLAIN, APART)
    assert plain_ways(text("1.200", "0.300")) == Ways(PLAIN)
    assert plain_ways(text("1", "2")) == Ways(PLAIN)
    assert plain_ways(text("1.200", None)) == Ways(PLAIN, APART)
    assert ways_to_read(text("Rs. 1,200", "Rs. 944")).other == Notation(decimal=",", before="Rs.")


def test_a_few_cells_do_not_silence_that_all_others_could_be_read_otherwise():
    few = ways_to_read(text(*["56.656"] * 199, "1.234,5"))
    assert few == Ways(APART, PLAIN, "1.234,5")
    few = ways_to_read(text(*["3,877"] * 199, "12,5"))
    assert few == Ways(Notation(decimal=","), Notation(thousands=","), "12,5")
    assert plain_ways(text(*["1.200"] * 199, "0.5", "7")) == Ways(PLAIN, APART, "0.5")
    assert plain_ways(text(*["7"] * 199, "0.5", "1.200")) == Ways(PLAIN)
    assert ways_to_read(text(*["3,877"] * 90, *["12,5"] * 10)).other is None


def test_an_apostrophe_has_its_article():
    assert str(Notation(thousands="'")) == "thousands set apart by an apostrophe"
    assert str(Notation(thousands=" ")) == "thousands set apart by a blank"


@pytest.mark.parametrize("example", ["Rs. 1,200.5", "1'200.5 Fr.", "1.200,5 kr."])
def test_an_example_may_have_a_unit_with_a_dot(example):
    assert Notation.of_example(example).read(text(example)).tolist() == [1200.5]


def test_a_long_column_of_words_is_known_by_a_sample():
    cells = text(*["a", "b", "c"] * 1000, "1")
    assert ways_to_read(cells) is None
    assert decide(cells).kind == "text"
    assert not decide(cells).nearly


def test_a_long_column_is_decided_by_all_of_its_cells():
    cells = ["k.A."] * 1100 + ["1,5"] * 50_000 + ["1.234,5"]
    assert ways_to_read(text(*cells)).best == Notation(decimal=",", thousands=".")
