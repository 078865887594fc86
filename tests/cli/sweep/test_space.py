"""Hydra's grammar as a space to search."""

from __future__ import annotations

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from bigmodel.cli.sweep.space import search_space
from bigmodel.errors import ConfigError
from bigmodel.sweeps.search_space import Choices, Range


def space(*words: str) -> tuple[list[str], dict[str, Choices | Range]]:
    return search_space(OverridesParser.create().parse_overrides(list(words)))


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("fnn,cnn", Choices(("fnn", "cnn"))),
        ("choice(1,2,2)", Choices(("1", "2"))),
        ("[4],[8,8]", Choices(("[4]", "[8,8]"))),
        ("true,null", Choices(("True", "null"))),
        ("interval(0.1,1)", Range(0.1, 1.0)),
        ("interval(1,3)", Range(1.0, 3.0)),
        ("int(interval(1,3))", Range(1, 3)),
        ("tag(log,interval(1e-4,1))", Range(1e-4, 1.0, log=True)),
        ("tag(log,int(interval(4,64)))", Range(4, 64, log=True)),
        ("range(1,5)", Range(1, 4, step=1)),
        ("range(0,7,3)", Range(0, 6, step=3)),
        ("range(0.1,0.4,0.1)", Range(0.1, 0.3, step=0.1)),
        ("range(5,1,-2)", Choices(("5", "3"))),
        ("shuffle(range(1,3))", Choices(("1", "2"))),
    ],
)
def test_values(value: str, expected: Choices | Range) -> None:
    fixed, found = space("a=1", f"key={value}", "sweep.trials=3", "sweep=optuna")
    assert fixed == ["a=1"]
    if "shuffle" in value:
        assert isinstance(found["key"], Choices)
        found = {"key": Choices(tuple(sorted(found["key"].values)))}
    assert found == {"key": expected}
    assert isinstance(expected, Choices) or found["key"].whole == expected.whole  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("tag(log,interval(0,1))", "both bounds have to be above 0"),
        ("tag(log,interval(-1,1))", "both bounds have to be above 0"),
        ("interval(1,0.1)", r"Write interval\(0.1,1.0\)"),
        ("interval(0,inf)", "finite bounds"),
        ("interval(nan,1)", "finite bounds"),
        ("tag(lgo,interval(0,1))", "no such tag: lgo. There is one: log"),
        ("range(3,3)", "no value to choose from"),
        ("range(0,inf)", "finite"),
    ],
)
def test_values_that_cannot_be_searched(words: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        space(f"key={words}")


def test_a_key_is_given_once() -> None:
    with pytest.raises(ConfigError, match="key: is given more than once"):
        space("key=1,2", "key=interval(0,1)")
