"""Which spellings are one value: what is merged, what never is, and what it is called."""

import unicodedata

import pytest

from bigmodel.data.spelling_variants import ValueIndex, alias_summary, canonical_names

NFC, NFD = unicodedata.normalize("NFC", "Köln"), unicodedata.normalize("NFD", "Köln")


@pytest.mark.parametrize(
    ("counts", "names"),
    [
        ({"True": 5, "true": 3, "TRUE": 1, "False": 4}, {"true": "True", "TRUE": "True"}),
        ({"True": 5, "1": 9, "0": 1, "false": 2, "1.0": 1}, {"1": "True", "1.0": "True", "0": "false"}),
        ({"yes": 2, "Yes": 2, "NO": 1, "maybe": 3}, {"yes": "Yes"}),
        ({NFD: 7, NFC: 1, "Bonn": 1}, {NFD: NFC}),
        ({NFD: 7, "Bonn": 1}, {NFD: NFC}),
        ({"1.0": 5, "1": 2, "2.00": 1}, {"1.0": "1", "2.00": "2"}),
        ({"1.0": 5, "1": 2, "two": 1}, {"1": "1.0"}),
        ({"007": 3, "7": 3, "7.0": 1}, {"7.0": "7"}),
        ({"1.10": 3, "1.1": 3, "1.0.0": 1, "1.": 1}, {}),
        ({"a": 50, "A": 40}, {}),
        ({"Köln": 300, "köln": 3}, {}),
        ({"true": 3, "false": 2, "1": 4, "2": 4}, {}),
        ({}, {}),
    ],
)
def test_what_is_one_value_and_what_it_is_called(counts: dict[str, int], names: dict[str, str]) -> None:
    assert canonical_names(counts) == {word: names.get(word, word) for word in counts}


@pytest.mark.parametrize(
    ("names", "words", "meant"),
    [
        (["False", "True"], ["True", "true", "TRUE", "1", "1.0", "0"], [1, 1, 1, 1, 1, 0]),
        (["0", "1"], ["true", "False", "1.0", "0"], [1, 0, 1, 0]),
        (["true", "false"], ["yes", "T", "2", ""], [None] * 4),
        (["No", "Yes"], ["yes", "NO", "True"], [1, 0, None]),
        (["1", "2"], ["1.0", "2.00", "01", "+1", "true"], [0, 1, None, None, None]),
        (["1.0", "two"], ["1", "1.00"], [0, 0]),
        ([NFC, "Bonn"], [NFD, "BONN", "köln"], [0, 1, 0]),
        ([NFD], [NFC, NFD], [0, 0]),
        (["a", "A"], ["a", "A"], [0, 1]),
        (["Aa", "AA"], ["aa", "aA"], [None, None]),  # which of the two nobody knows
        (["yes", "Yes", "no"], ["Yes", "yes", "YES"], [1, 0, 0]),  # an earlier version kept both
        (["7", "007"], ["007", "7", "07"], [1, 0, None]),
        ([None, "x"], ["X", "none"], [1, None]),
    ],
)
def test_which_known_value_a_word_means(
    names: list[str | None], words: list[str], meant: list[int | None]
) -> None:
    assert [ValueIndex(names).place(word) for word in words] == meant


def test_what_is_told_shows_letters_that_look_alike_apart() -> None:
    names = canonical_names({"True": 5, "true": 3, "TRUE": 1, NFD: 7, NFC: 9, "x": 1})
    assert alias_summary(names) == "Ko\\u0308ln = Köln; TRUE, true = True"
    assert alias_summary({"x": "x"}) == ""
