"""Sizes that do not fit are refused with the nearest ones that do."""

import pytest

from bigmodel.models.checks import check_divides


@pytest.mark.parametrize(
    ("number", "whole", "advice"),
    [(5, 64, "4 or 8"), (3, 64, "2 or 4"), (100, 64, "64"), (6, 7, "1 or 7"), (4, 30, "3 or 5")],
)
def test_advice_names_the_nearest_divisors(number: int, whole: int, advice: str) -> None:
    with pytest.raises(ValueError, match=f"does not divide dim={whole}; try {advice}$"):
        check_divides(number, "dim", whole)
    assert check_divides(1, "dim", whole) == 1
