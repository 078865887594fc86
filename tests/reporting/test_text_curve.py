"""A curve of blocks."""

from bigmodel.reporting.text_curve import is_drawable, text_curve


def test_high_values_are_high_and_the_mark_is_below_its_column() -> None:
    assert text_curve([1.0, 0.5, 0.0, 0.5], "1e-06", "10", marked=2, rows=2) == [
        "       1 │█▁ ▁",
        "       0 │██▁█",
        "         └──▲─",
        "          1e-06 10",
    ]


def test_a_flat_curve_and_a_single_value() -> None:
    assert text_curve([1.0] * 5, "a", "b", marked=0)[-2] == "         └▲────"
    assert text_curve([3.0], "a", "b", marked=0)[-2].endswith("└▲")


def test_only_some_encodings_have_blocks() -> None:
    assert is_drawable("utf-8")
    assert not is_drawable("ascii")
    assert not is_drawable("latin-1")
    assert not is_drawable(None)
    assert not is_drawable("no such encoding")
