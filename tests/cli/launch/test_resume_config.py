"""A run's own configuration, read back: whole, damaged, or of an earlier version."""

from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from bigmodel.cli.launch.resume_config import SECTIONS, flatten, is_same_run, read_config
from bigmodel.errors import CheckpointError
from tests.cli.launch.conftest import write

WHOLE: dict[str, Any] = {
    **{section: {"name": f"any {section}"} for section in SECTIONS},
    "model": {"name": "fnn", "hidden_sizes": [128, 64], "dropout": 0.0},
    "optimizer": {"name": "sgd", "lr": 0.1, "momentum": 0.9},
    "seed": 0,
    "plugins": [],
}


def less(key: str) -> dict[str, Any]:
    """The settings as an earlier version wrote them, which did not know one of them."""
    config = OmegaConf.create(WHOLE)
    section, _, last = key.rpartition(".")
    del (OmegaConf.select(config, section) if section else config)[last]
    plain: Any = OmegaConf.to_container(config)
    return plain


def stored(folder: Path, text: str | bytes) -> Path:
    (folder / ".hydra").mkdir()
    (folder / ".hydra" / "config.yaml").write_bytes(text.encode() if isinstance(text, str) else text)
    return folder


def yaml_of(values: dict[str, Any]) -> str:
    return OmegaConf.to_yaml(OmegaConf.create(values))


def test_a_whole_one_comes_back_unresolved(tmp_path: Path) -> None:
    values = WHOLE | {"seed": "${oc.env:NOT_SET}", "loss": "${data}"}
    assert read_config(stored(tmp_path, yaml_of(values))) == values


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "lacks the settings of model, data, loss"),
        ("a: [", "while parsing"),
        (b"\xff\xfe", "damaged"),
        (b"model: \x00", "damaged"),
        ("[1, 2]", "it holds no settings"),
        ("a: &a [*a]", "damaged"),
        ("just words", "damaged"),
        (yaml_of(WHOLE)[:40], "it lacks the settings of data, loss"),
        *((yaml_of(less(section)), f"it lacks the settings of {section}.") for section in SECTIONS),
        (yaml_of(WHOLE | {"model": 3}), "it lacks the settings of model."),
        (yaml_of(WHOLE | {"plugins": 3}), "plugins: expected a list of names"),
        (yaml_of(WHOLE | {"plugins": [1]}), "plugins: expected a list of names"),
        (yaml_of(WHOLE | {"hydra": {"mode": "MULTIRUN"}}), "`hydra` is not among a run's own"),
        (yaml_of(WHOLE | {"defaults": ["x"]}), "`defaults` is not among a run's own"),
    ],
)
def test_a_damaged_one_is_one_message_with_its_name(
    tmp_path: Path, text: str | bytes, words: str
) -> None:
    with pytest.raises(CheckpointError, match=r"config\.yaml: the run's own configuration") as caught:
        read_config(stored(tmp_path, text))
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("key", ["optimizer.momentum", "model.dropout", "seed"])
def test_a_setting_newer_than_the_run_was_at_what_is_now_its_default(configs: Path, key: str) -> None:
    assert is_same_run(WHOLE, WHOLE, configs)
    assert is_same_run(less(key), WHOLE, configs)
    config = OmegaConf.create(WHOLE)
    OmegaConf.update(config, key, 0.5)
    now: Any = OmegaConf.to_container(config)
    assert not is_same_run(less(key), now, configs)
    assert not is_same_run(now, less(key), configs), "and one that is gone made a difference"


def test_a_setting_that_our_files_do_not_know_makes_a_difference(configs: Path) -> None:
    now = WHOLE | {"optimizer": WHOLE["optimizer"] | {"more": 1}}
    assert not is_same_run(WHOLE, now, configs)
    write(configs, {"optimizer/sgd.yaml": "name: sgd\nmore: 1\n"})
    assert is_same_run(WHOLE, now, configs)


def test_nested_settings_by_dotted_key() -> None:
    assert flatten({"a": {"b": {"c": 1}, "d": [1, {"e": 2}]}, "f": None}) == {
        "a.b.c": 1,
        "a.d": [1, {"e": 2}],
        "f": None,
    }
