import subprocess
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from pydantic import Field

from bigmodel.errors import ConfigError, did_you_mean
from bigmodel.registry import Config, EntryConfig, Registry, load_plugins, validate


class Inner(Config):
    depth: int = Field(default=2, ge=1, description="layers")


class ThingConfig(EntryConfig):
    lr: float = Field(default=0.1, gt=0, description="learning rate")
    sizes: list[int] = Field(default=[1], description="widths")
    kind: Literal["a", "b"] = Field(default="a", description="which")
    inner: Inner = Field(default=Inner(), description="nested")
    jobs: Annotated[int, Field(ge=1)] | Literal["auto"] = Field("auto", description="at a time")
    gpus: list[Annotated[int, Field(ge=0)]] | Literal["auto"] = Field("auto", description="which")


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
        ({"name": "first", "lrr": 1.0}, ["thing.lrr: no such setting", "Did you mean 'lr'?", "inner"]),
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


@pytest.mark.parametrize(
    ("values", "line"),
    [
        ({"jobs": 0}, "jobs=0: should be greater than or equal to 1 or 'auto'."),
        ({"gpus": [-1]}, "gpus.0=-1: should be greater than or equal to 0."),
    ],
)
def test_a_value_that_no_branch_of_a_union_takes_has_one_line(
    things: Registry, values: dict[str, Any], line: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        things.parse({"name": "first"} | values)
    assert str(caught.value) == f"thing.{line}"


def test_a_name_is_taken_once(things: Registry) -> None:
    with pytest.raises(ConfigError, match="registered twice"):
        things.register("first", ThingConfig)(dict)


def test_validated_gives_typed_values() -> None:
    assert validate(Inner, {"depth": 3}, "inner").depth == 3


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


def test_a_plugin_of_the_current_folder_comes_last_on_the_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "beside.py").write_text("VALUE = 3\n")
    (tmp_path / "local_plugin.py").write_text(
        "def later():\n    from beside import VALUE\n    return VALUE\n"
    )
    load_plugins(["local_plugin"])
    assert sys.path[-1] == str(tmp_path)
    assert sys.modules["local_plugin"].later() == 3
    load_plugins(["local_plugin"])
    assert sys.path.count(str(tmp_path)) == 1


def test_an_installed_plugin_has_nothing_of_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed, here = tmp_path / "installed", tmp_path / "here"
    for folder in (installed / "trusted", here / "trusted"):
        folder.mkdir(parents=True)
        (folder / "__init__.py").write_text("")
    (installed / "trusted" / "plugin.py").write_text(
        "import colorsys\ntry:\n    import optional\nexcept ImportError:\n    pass\n"
    )
    for name in ("trusted/plugin", "trusted/other", "colorsys", "optional"):
        (here / f"{name}.py").write_text("raise SystemExit('a stranger has run')\n")
    monkeypatch.chdir(here)
    monkeypatch.setattr(sys, "path", [*sys.path, str(installed)])
    monkeypatch.delitem(sys.modules, "colorsys", raising=False)
    before = list(sys.path)
    load_plugins(["trusted.plugin"])
    with pytest.raises(ConfigError, match=r"no module 'trusted\.other'"):
        load_plugins(["trusted.other"])
    with pytest.raises(ConfigError, match="no module 'nowhere'"):
        load_plugins(["nowhere"])
    assert sys.path == before


SPAWNED = """
import multiprocessing
from bigmodel.cli.imports import isolate
from bigmodel.registry import load_plugins

if __name__ == "__main__":
    isolate()
    load_plugins(["local_plugin"])
    import local_plugin

    process = multiprocessing.get_context("spawn").Process(target=local_plugin.work)
    process.start()
    process.join()
    raise SystemExit(process.exitcode)
"""


def test_workers_that_are_spawned_find_it(tmp_path: Path) -> None:
    here = tmp_path / "here"
    here.mkdir()
    (tmp_path / "start.py").write_text(SPAWNED)
    (here / "local_plugin.py").write_text(
        "from pathlib import Path\n\ndef work():\n    Path('worked').touch()\n"
    )
    (here / "struct.py").write_text("raise SystemExit('a stranger has run')\n")
    subprocess.run([sys.executable, "../start.py"], cwd=here, check=True)
    assert (here / "worked").is_file()


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


class Everywhere(Config):
    seed: int = Field(default=0, ge=0, description="of all entries")
    lr: float | None = Field(default=None, description="an entry's own setting replaces this one")


def test_settings_that_every_entry_has_are_parsed_apart() -> None:
    registry = Registry("thing", "bigmodel.errors", shared=f"{__name__}:Everywhere")
    registry.register("first", ThingConfig)(lambda config: config)
    values = {"name": "first", "lr": 0.5, "seed": 3}
    assert registry.parse(values).model_dump()["lr"] == 0.5
    assert registry.parse(values | {"lr": None}).model_dump()["lr"] == 0.1
    assert registry.parse_shared(values) == Everywhere(seed=3)
    with pytest.raises(ConfigError, match=r"thing\.seed=-1: should be greater than or equal to 0"):
        registry.parse_shared({"name": "first", "seed": -1})
    with pytest.raises(ConfigError, match=r"thing\.sede: no such setting"):
        registry.parse({"name": "first", "sede": 1})
