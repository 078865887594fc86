import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bigmodel.checkpointing import exact_json

KEYS = st.none() | st.booleans() | st.integers() | st.text(max_size=5)
PLAIN = KEYS | st.floats(allow_nan=False)
VALUES = st.recursive(
    PLAIN,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.lists(inner, max_size=4).map(tuple)
        | st.dictionaries(KEYS, inner, max_size=4)
    ),
    max_leaves=20,
)


def same(one: Any, other: Any) -> bool:
    """Equal in value and in type, at every depth."""
    if type(one) is not type(other):
        return False
    if isinstance(one, dict):
        pairs = zip(one.items(), other.items(), strict=True)
        return len(one) == len(other) and all(same(a, c) and same(b, d) for (a, b), (c, d) in pairs)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, float) and math.copysign(1, one) != math.copysign(1, other):
        return False
    return bool(one == other)


@given(VALUES)
def test_what_went_in_comes_back(value: Any) -> None:
    text = exact_json.dumps(value)
    assert same(exact_json.loads(text), value)
    json.loads(text, parse_constant=lambda word: pytest.fail(f"{word} is no JSON"))
    assert "\n" not in text


def test_what_plain_json_loses() -> None:
    milestones = {10: 0.1, 20: (0.01, math.inf), "x": {"!dict": 1}, None: [-math.inf, ()]}
    assert same(exact_json.loads(exact_json.dumps(milestones)), milestones)
    assert math.isnan(exact_json.loads(exact_json.dumps([math.nan]))[0])


def test_numbers_of_other_libraries_become_plain_ones() -> None:
    import numpy as np

    assert exact_json.dumps({"a": np.float64(0.5)}) == '{"a":0.5}'


@pytest.mark.parametrize("value", [{1, 2}, b"bytes", object(), {"deep": [1, {"here": 1j}]}])
def test_what_cannot_be_kept_is_said(value: Any) -> None:
    with pytest.raises(TypeError, match="cannot be stored as JSON"):
        exact_json.dumps(value)
    with pytest.raises(TypeError, match=r"state\.deep\[1\]\.here: a complex"):
        exact_json.dumps({"deep": [1, {"here": 1j}]})


def test_plain_json_is_read_as_it_is() -> None:
    assert exact_json.loads('{"a": [1, 2.5, null, {"b": "c"}]}') == {"a": [1, 2.5, None, {"b": "c"}]}


@pytest.mark.parametrize("text", ["{", '{"!code": "rm"}', '{"!float": "1e999"}', '{"!tuple": 3}'])
def test_what_was_never_written_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        exact_json.loads(text)
