import subprocess
import sys
from typing import Any, Literal

import pytest
from pydantic import Field

from bigmodel.errors import ConfigError, did_you_mean
from bigmodel.registry import Config, EntryConfig, Registry, load_plugins, validated


class Inner(Config):
    depth: int = Field(default=2, ge=1, description="layers")


class ThingConfig(EntryConfig):
    lr: float = Field(default=0.1, gt=0, description="learning rate")
    sizes: list[int] = Field(default=[1], description="widths")
    kind: Literal["a", "b"] = Field(default="a", description="which")
    inner: Inner = Field(default=Inner(), description="nested")


@pytest.fixture
def things() -> Registry:
    registry = Registry("thing", "bigmodel.errors")

    @registry.register("first", ThingConfig)
    class First:
        def __init__(self, config: ThingConfig, extra: int) -> None:
            self.config, self.extra = config, extra

    return registry


def test_builds_what_the_config_names(things: Registry) -> None:
    config = things.parse({"name": "first", "lr": 1})
    built = things.build(config, 7)
    assert (built.config.lr, built.extra, things.names()) == (1.0, 7, ["first"])


@pytest.mark.parametrize(
    ("values", "parts"),
    [
        ({"name": "frist"}, ["thing.name='frist'", "Did you mean 'first'?", "Known: first"]),
        ({"name": "first", "lrr": 1.0}, ["thing.lrr: no such key", "Did you mean 'lr'?", "inner"]),
        ({"name": "first", "lr": "ten"}, ["thing.lr='ten'", "number"]),
        ({"name": "first", "lr": "0.1"}, ["thing.lr='0.1'", "number"]),
        ({"name": "first", "lr": -1.0}, ["thing.lr=-1.0", "greater than 0"]),
        ({"name": "first", "lr": float("nan")}, ["thing.lr=nan", "finite"]),
        ({"name": "first", "lr": float("inf")}, ["thing.lr=inf", "finite"]),
        ({"name": "first", "sizes": [1, 2.5]}, ["thing.sizes.1=2.5", "integer"]),
        ({"name": "first", "sizes": 3}, ["thing.sizes=3", "list"]),
        ({"name": "first", "kind": "c"}, ["thing.kind='c'", "'a' or 'b'"]),
        (
            {"name": "first", "inner": {"depth": 0}},
            ["thing.inner.depth=0", "greater than or equal to 1"],
        ),
        ({"name": "first", "inner": {"deph": 1}}, ["thing.inner.deph", "Did you mean 'depth'?"]),
        ({"name": "first", "lr": True}, ["thing.lr=True", "number"]),
        ({"lr": 1.0}, ["thing", "expected settings with a `name`"]),
    ],
)
def test_a_mistake_is_named_with_the_way_out(
    things: Registry, values: dict[str, Any], parts: list[str]
) -> None:
    with pytest.raises(ConfigError) as caught:
        things.parse(values)
    for part in parts:
        assert part in str(caught.value)


def test_all_mistakes_are_told_at_once(things: Registry) -> None:
    with pytest.raises(ConfigError) as caught:
        things.parse({"name": "first", "lr": -1.0, "kind": "c"})
    assert len(str(caught.value).splitlines()) == 2


def test_a_name_is_taken_once(things: Registry) -> None:
    with pytest.raises(ConfigError, match="registered twice"):
        things.register("first", ThingConfig)(dict)


def test_validated_gives_typed_values() -> None:
    assert validated(Inner, {"depth": 3}, "inner").depth == 3


def test_plugins(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [p for p in sys.path if p])
    (tmp_path / "good_plugin.py").write_text("LOADED = True\n")
    (tmp_path / "bad_plugin.py").write_text("1 / 0\n")
    (tmp_path / "needy_plugin.py").write_text("import no_such_package\n")
    load_plugins(["good_plugin"])
    assert sys.modules["good_plugin"].LOADED
    for name, words in [
        ("missing_plugin", "no module 'missing_plugin'"),
        ("bad_plugin", "ZeroDivisionError"),
        ("needy_plugin", "'needy_plugin' needs 'no_such_package'"),
    ]:
        with pytest.raises(ConfigError, match=words):
            load_plugins([name])


def test_did_you_mean_finds_the_last_part_of_a_key() -> None:
    assert did_you_mean("lr", ["optimizer.lr", "seed"]) == " Did you mean 'optimizer.lr'?"
    assert did_you_mean("zzz", ["optimizer.lr"]) == ""


LAZY = """
import sys
from bigmodel.errors import ConfigError
from bigmodel.registry import EntryConfig, losses

losses.entry("huber")
assert "bigmodel.losses.regression" in sys.modules
assert "bigmodel.losses.cross_entropy" not in sys.modules

@losses.register("mine", EntryConfig)
def mine(config): ...

@losses.register("cross_entropy", EntryConfig)
def cross_entropy(config): ...

try:
    losses.entry("huber")
except ConfigError as error:
    print(error)
"""


def test_what_is_not_asked_for_is_not_imported_but_still_has_its_name() -> None:
    done = subprocess.run([sys.executable, "-c", LAZY], capture_output=True, text=True, check=True)
    assert "loss 'cross_entropy' is registered twice" in done.stdout
