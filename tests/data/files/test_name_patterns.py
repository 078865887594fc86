"""Patterns of the user's own, and of whoever made a checkpoint, take bounded time."""

import pytest

from bigmodel.data.files import name_patterns
from bigmodel.data.files.name_patterns import (
    FilePatterns,
    mark_test_files,
    match_groups,
    suggest_pattern,
)
from bigmodel.errors import ConfigError, DataError
from bigmodel.registry import validate

COUNTLESS = "^(.*?,){25}P"
NAMES = ["1," * 30]


def test_a_pattern_that_tries_countless_ways_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(name_patterns, "_SECONDS", 0.2)
    with pytest.raises(DataError, match=r"data\.label_pattern=.* for more than 0\.2 seconds\. A repet"):
        match_groups(COUNTLESS, NAMES, "label_pattern", "here")
    with pytest.raises(DataError, match=r"data\.test_pattern=.* for more than 0\.2 seconds"):
        mark_test_files(COUNTLESS, NAMES, None, "here")


@pytest.mark.parametrize(
    "pattern", [r"^([a-z]+)_", r"(?P<class>[a-z]+)_\d", r"(?<=/)(\w+?)_", r"(?i)([A-Z]+)_"]
)
def test_patterns_find_what_they_found(pattern: str) -> None:
    names = ["cat_1/cat_2.png", "dog_1/dog_7.png"]
    assert match_groups(pattern, names, "label_pattern", "here") == ["cat", "dog"]


def test_a_pattern_nested_deep_is_no_pattern() -> None:
    with pytest.raises(ConfigError, match="it is not a regular expression"):
        validate(FilePatterns, {"label_pattern": "(" * 20_000 + "a" + ")" * 20_000}, "data")


@pytest.mark.parametrize(
    ("names", "labels"),
    [
        (["7_jackson_32.wav", "7_theo_1.wav", "0_theo_1.wav", "0_ann_2.wav"], "7700"),
        (["a-1.png", "b-2.png", "a-2.png", "b-3.png"], "abab"),
        (["1_a.png", "2_b.png", "3_a.png", "4_b.png"], "abab"),
        (["cat12.png", "dog3.png", "cat1.png", "dog.7.png"], ["cat", "dog", "cat", "dog."]),
    ],
)
def test_a_pattern_is_suggested_that_fits_the_names(names, labels):
    if "dog." in labels:
        assert suggest_pattern(names) == "^([^_]+)_"  # no class of one file
    else:
        assert match_groups(suggest_pattern(names), names, "label_pattern", "here") == list(labels)
