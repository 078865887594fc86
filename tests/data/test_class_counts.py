"""The summary of classes with their counts, and warnings about them."""

import pytest

from bigmodel.data.class_counts import class_summary, class_warnings


@pytest.mark.parametrize(
    ("names", "counts", "summary"),
    [
        (("no", "yes"), (1200, 1), "no 1,200, yes 1"),
        (("1", "2"), (3, 4), "1 (3), 2 (4)"),
        ("abcdefghij", (1, 9, *[5] * 8), "b 9, c 5, d 5, e 5, f 5, g 5, h 5, i 5, … (10 in all)"),
    ],
)
def test_classes_are_listed_with_their_counts_the_largest_where_they_are_many(names, counts, summary):
    assert class_summary(names, counts) == summary


def test_what_is_odd_about_classes_is_reported():
    assert class_warnings(("a", "b"), (3, 2)) == []
    assert class_warnings(("a", "A", "b", "c"), (3, 2, 1, 1)) == [
        ("Warning", "2 classes have a single sample each, which is too few to evaluate: b, c"),
        ("Warning", "classes that differ only in case are distinguished: a, A"),
    ]
    assert class_warnings(("a", "b"), (3, 1)) == [
        ("Warning", "1 class has a single sample, which is too few to evaluate: b")
    ]
