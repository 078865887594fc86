"""Numbers of things, in words."""

import pytest

from bigmodel.errors import counted


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (0, "0 epochs"),
        (1, "1 epoch"),
        (1.0, "1 epoch"),
        (2.33, "2.33 epochs"),
        (12_000, "12,000 epochs"),
    ],
)
def test_one_of_a_thing_is_singular(number: float, words: str) -> None:
    assert counted(number, "epoch") == words


def test_a_plural_of_its_own() -> None:
    assert [counted(n, "class", "classes") for n in (1, 2)] == ["1 class", "2 classes"]
