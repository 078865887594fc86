"""Numbers of tokens, as numbers of words."""

import pytest

from bigmodel.explain.words import word_sums, words_of

WHOLE = [("don't", 3.0), ("be", 5.0), ("be", 6.0)]


@pytest.mark.parametrize(
    ("pieces", "values", "sums"),
    [
        (["don't", " be", " be", "!"], [3.0, 5.0, 6.0, 9.0], WHOLE),
        (["do", "n't", " ", "be", " b", "e", "!"], [1.0, 2.0, 9.0, 5.0, 2.0, 4.0, 9.0], WHOLE),
        (list("a bc"), [1.0, 9.0, 2.0, 3.0], [("a", 1.0), ("bc", 5.0)]),
        (["naï", "ve 日本"], [1.0, 2.0], [("naïve", 3.0), ("日本", 0.0)]),
        ([], [], []),
    ],
)
def test_a_word_has_the_sum_of_its_pieces(
    pieces: list[str], values: list[float], sums: list[tuple[str, float]]
) -> None:
    assert word_sums(pieces, values) == sums


def test_blanks_and_marks_belong_to_no_word() -> None:
    assert words_of(["Oh", ",", " ", "no", " !"]) == (["Oh", "no"], [0, -1, -1, 1, -1])
