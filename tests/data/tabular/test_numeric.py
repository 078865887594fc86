"""Columns as numbers and as words, whatever file they came from."""

import numpy as np
import pyarrow as pa
import pytest

from bigmodel.data.tabular.numeric import (
    all_whole,
    is_row_index,
    leading_zeros,
    missing_words_in,
    parse_numbers,
    parse_plain_numbers,
    text_values,
    text_without,
)


def column(*values, kind=None):
    return pa.chunked_array([pa.array(values, kind)])


def test_numbers_are_read_with_their_gaps():
    def values(*cells, kind=None):
        return parse_numbers(column(*cells, kind=kind)).values

    np.testing.assert_array_equal(values(" 1", "NA", None, "2.5"), [1, np.nan, np.nan, 2.5])
    np.testing.assert_array_equal(values(1, None), [1, np.nan])
    np.testing.assert_array_equal(values(True, False), [1, 0])
    large = 2**60 + 1  # no float64 is exactly this
    np.testing.assert_array_equal(values(large, None), [2.0**60, np.nan])
    np.testing.assert_array_equal(values(2**64 - 1, kind=pa.uint64()), [2.0**64])
    values(1.0, 2.0)[0] = 3  # may be changed in place


@pytest.mark.parametrize(
    "cells", [("1", "x", None, "-inf", "NA"), (1.0, float("inf"), None, float("-inf"))]
)
def test_cells_that_are_no_finite_numbers_are_odd(cells):
    found = parse_numbers(column(*cells))
    np.testing.assert_array_equal(found.values, [1.0] + [np.nan] * (len(cells) - 1))
    assert np.flatnonzero(found.invalid).tolist() == [1, 3]
    assert found.infinite[3]
    assert found.filled == 3


def test_whole_numbers_are_told_from_broken_ones():
    assert all_whole(column("1", " 2", "NA"))
    assert not all_whole(column("1.0", "2.0"))
    assert all_whole(column(1, None))
    assert not all_whole(column(1.0))


def test_words_are_alike_whatever_file_they_came_from():
    assert text_values(column(" a", "", None, "b ")).to_pylist() == ["a", None, None, "b"]
    assert text_values(column(1.0, float("nan"), 2.5)).to_pylist() == ["1", None, "2.5"]
    assert text_values(column(1, None)).to_pylist() == ["1", None]
    assert text_values(column(True)).to_pylist() == ["true"]


@pytest.mark.parametrize(
    ("name", "place", "cells", "counts"),
    [
        ("Unnamed: 0", 0, ["0", "1", "2"], True),
        ("Unnamed: 0", 4, ["7", "2", "11"], True),  # of rows that were drawn
        ("Unnamed: 0.1", 1, ["2", "3", "5"], True),
        ("__index_level_0__", 3, [2, 3, 9], True),
        ("__index_level_0__", 3, [2, 3, 3], False),
        ("__index_level_0__", 3, [2.5, 3, 9], False),
        ("Unnamed: 0", 0, ["7", None, "11"], False),
        ("column 1", 0, ["2", "3", "9"], True),
        ("column 1", 0, ["2", "3", "3"], False),
        ("column 2", 1, ["2", "3", "9"], False),
        ("column 2", 1, ["2", "3", "4"], True),
        ("index", 0, ["2", "3", "9"], True),
        ("id", 0, [5, 6, 7], True),
        ("id", 0, [5, 7, 6], False),
        ("year", 0, [2001, 2002, 2003], False),
    ],
)
def test_what_only_counts_the_rows(name, place, cells, counts):
    assert is_row_index(name, column(*cells), place) == counts


def test_words_for_a_missing_value():
    values = column("yes", " NA ", "?", None, "None", "-", "NA")
    assert missing_words_in(values, words_too=True) == ["?", "NA"]
    assert missing_words_in(column("1", "-"), words_too=False) == ["-"]
    assert missing_words_in(column(1.0, None), words_too=False) == []
    assert text_without(values, ["NA"]).to_pylist() == ["yes", None, "?", None, "None", "-", None]


def test_leading_zeros_and_missing_words_are_found_the_same_once_numbers_are_read():
    values = column("007", "0.5", "0", None, "00", "10", "1e3", " 1", "nan", "0" + "9" * 400)
    cells = parse_plain_numbers(values)
    assert np.flatnonzero(leading_zeros(values)).tolist() == [0, 4, 9]
    assert np.flatnonzero(leading_zeros(values, cells)).tolist() == [0, 4, 9]
    assert missing_words_in(values, words_too=False, cells=cells) == ["nan"]
    filled = values.filter([cell != "nan" for cell in values.to_pylist()])
    assert missing_words_in(filled, words_too=False, cells=parse_plain_numbers(filled)) == []
