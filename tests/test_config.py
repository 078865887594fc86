import sys
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from bigmodel import registry
from bigmodel.config import RunConfig, parse, to_plain
from bigmodel.data.base import Dataset
from bigmodel.errors import ConfigError
from bigmodel.registry import EntryConfig
from tests.small_runs import values


def complaints(settings: dict[str, Any]) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        parse(values(settings))
    return str(caught.value).splitlines()


def test_plain_values_become_typed_objects() -> None:
    given = values({"optimizer.lr": 1, "trainer.epochs": 7, "seed": 3, "loss": "cross_entropy"})
    config = parse(given)
    assert isinstance(config, RunConfig)
    assert (config.optimizer.lr, type(config.optimizer.lr)) == (1.0, float)  # type: ignore[attr-defined]
    assert (config.trainer.epochs, config.top.seed, config.loss.name) == (7, 3, "cross_entropy")
    assert config.data.batch_size == 12
    assert config.values == given


def test_every_mistake_of_every_group_is_told_at_once() -> None:
    told = complaints(
        {
            "model.hidden_sizes": 8,
            "optimizer.lr": -1.0,
            "optimizer.momentun": 0.9,
            "trainer.epochs": "ten",
            "trainer.checkpoint": {"kepe": 2},
            "device.precision": "fp8",
            "device.parallel": "shard",
            "seed": -1,
        }
    )
    for start in (
        "model.hidden_sizes=8: ",
        "optimizer.lr=-1.0: ",
        "optimizer.momentun: no such setting.",
        "trainer.epochs='ten': ",
        "trainer.checkpoint.kepe: no such setting. Did you mean 'keep'?",
        "device.precision='fp8': ",
        "device.parallel='shard': is a group of settings: device.parallel.replicate, device.parallel.",
        "seed=-1: ",
    ):
        assert sum(line.startswith(start) for line in told) == 1, start
    assert len(told) == 8


@pytest.mark.parametrize(
    ("key", "near"), [("sede", "seed"), ("modle", "model"), ("trainner", "trainer"), ("zzz", None)]
)
def test_an_unknown_key_at_the_top(key: str, near: str | None) -> None:
    (told,) = complaints({key: 1})
    assert told.startswith(f"{key}: no such setting or group.")
    assert (f"Did you mean '{near}'?" in told) if near else ("Did you mean" not in told)


def test_an_unknown_key_does_not_hide_the_others() -> None:
    assert len(complaints({"sede": 1, "output_dir": "", "loss.name": "mes"})) == 3


@pytest.mark.parametrize("group", ["model", "data", "loss", "device", "trainer"])
@pytest.mark.parametrize("value", ["cnn", None, ["cnn"]])
def test_a_group_that_holds_no_settings(group: str, value: Any) -> None:
    given = values() | {group: value}
    with pytest.raises(ConfigError, match=f"^{group}: expected settings, got .*{group}=<name>"):
        parse(given)


def test_interpolations_are_resolved() -> None:
    config = OmegaConf.create({"seed": 4, "data": {"split_seed": "${seed}"}})
    assert to_plain(config) == {"seed": 4, "data": {"split_seed": 4}}


@pytest.mark.parametrize("text", ["${sede}", "???", "${no_such_resolver:1}"])
def test_an_interpolation_that_leads_nowhere_names_its_key(text: str) -> None:
    config = OmegaConf.create({"seed": 4, "data": {"split_seed": text}})
    with pytest.raises(ConfigError, match=r"^data\.split_seed: ") as caught:
        to_plain(config)
    assert len(str(caught.value).splitlines()) == 1


def test_a_plugin_brings_the_schema_that_its_values_are_checked_by(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "plugin_with_a_loss.py").write_text(
        "from pydantic import Field\n"
        "from bigmodel.registry import EntryConfig, losses\n"
        "class MineConfig(EntryConfig):\n"
        "    power: int = Field(default=2, ge=1, description='exponent')\n"
        "@losses.register('mine', MineConfig)\n"
        "def mine(config, spec):\n"
        "    return None\n"
    )
    named = {"plugins": ["plugin_with_a_loss"], "loss.name": "mine"}
    try:
        assert complaints({"loss.name": "mine"})[0].startswith("loss.name='mine': no such loss.")
        assert parse(values(named | {"loss.power": 3})).loss.power == 3  # type: ignore[attr-defined]
        (told,) = complaints(named | {"loss.power": 0})
        assert told.startswith("loss.power=0: ")
    finally:
        registry.losses._entries.pop("mine", None)
        sys.modules.pop("plugin_with_a_loss", None)


def test_a_plugin_that_is_not_there_is_told_with_the_other_mistakes() -> None:
    told = complaints({"plugins": ["no_such_plugin"], "trainer.epochs": 0})
    assert len(told) == 2
    assert "no module 'no_such_plugin'" in told[0]


def test_a_data_source_has_to_bring_what_all_have_in_common() -> None:
    @registry.data.register("bare_source", EntryConfig)
    def bare_source(_: EntryConfig) -> Dataset:
        raise AssertionError("never built")

    try:
        (told,) = complaints({"data": "bare_source"})
    finally:
        registry.data._entries.pop("bare_source")
    assert told.startswith("data.name=bare_source: ")
    assert "DataConfig" in told


def test_a_run_is_called_what_its_user_types() -> None:
    top = parse(values({"run": {"name": 3, "tags": ["a", 1.5], "notes": None}})).top
    assert top.run.model_dump() == {"name": "3", "tags": ["a", "1.5"], "notes": None}


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"run.nmae": "x"}, "run.nmae: no such setting. Did you mean 'name'? Known here: name, tags, "),
        ({"run.name": ""}, "run.name='': String should have at least 1 character."),
        ({"run.name": "x" * 201}, "run.name='xxx"),
        ({"run.tags": "x"}, "run.tags='x': should be a valid list. A list is written 'run.tags=[x]'."),
        ({"run.tags": ["x", True]}, "run.tags.1=True: should be a valid string."),
        ({"run": "x"}, "run='x': is a group of settings: run.name, run.tags, run.notes."),
    ],
)
def test_what_a_run_cannot_be_called(settings: dict[str, Any], told: str) -> None:
    assert [line[: len(told)] for line in complaints(settings)] == [told]
