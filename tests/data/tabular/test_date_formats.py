"""The language of dates."""

import pytest

from bigmodel.data.tabular.date_formats import pattern_of


@pytest.mark.parametrize(
    ("written", "why"),
    [("%d/%m", "neither a year"), ("%q", "%q is none of"), ("%Y-%d", "a day, but no month"),
     ("%d.%d.%Y", "says the day twice"), ("%I:%M", "%I and %p"), ("", "neither a year"),
     ("%", "% is none of")],
)  # fmt: skip
def test_formats_that_are_none(written, why):
    with pytest.raises(ValueError, match=why):
        pattern_of(written)
