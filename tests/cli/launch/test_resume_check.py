from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from bigmodel.cli.launch.resume_check import FIXED, check_plugins, check_same
from bigmodel.cli.launch.resume_config import flatten
from bigmodel.errors import ConfigError
from tests import small_runs
from tests.cli.launch.runs import NOTHING_NEW, VALUES, changed, composed, run_folder


@pytest.mark.parametrize(
    "keys",
    [
        {"trainer__epochs": 50},
        {"device__name": "cuda", "device__precision": "bf16"},
        {"output_dir": "elsewhere", "resume": "run"},
        {"hydra__run": "anything"},
    ],
    ids=str,
)
def test_what_does_not_make_it_another_run(tmp_path: Path, keys: dict[str, Any]) -> None:
    check_same(
        run_folder(tmp_path / "run", VALUES, "stopped"), composed(**keys), NOTHING_NEW, None, False
    )


@pytest.mark.parametrize(
    "keys",
    [
        {"model__dropout": 0.5},
        {"optimizer__lr": 0.2},
        {"seed": 1},
        {"model__more": 1},
        *({key.replace(".", "__"): 2} for key in FIXED),
    ],
    ids=str,
)
def test_what_makes_it_another_run(tmp_path: Path, keys: dict[str, Any]) -> None:
    ((key, value),) = keys.items()
    folder = run_folder(tmp_path / "run", VALUES, "stopped")
    dotted = key.replace("__", ".")
    old = flatten(VALUES).get(dotted)
    with pytest.raises(ConfigError) as caught:
        check_same(folder, composed(**keys), NOTHING_NEW, None, False)
    assert str(caught.value).startswith(f"resume={folder}: this would be a different run:")
    assert f"  {dotted}: was {old!r}, now {value!r}" in str(caught.value).splitlines()


def test_every_difference_is_named(tmp_path: Path) -> None:
    folder = run_folder(tmp_path / "run", VALUES, "stopped")
    with pytest.raises(ConfigError) as caught:
        check_same(
            folder,
            composed(seed=1, optimizer__lr=0.2, trainer__ema=0.9, trainer__epochs=1),
            NOTHING_NEW,
            None,
            False,
        )
    named = [line.split(":")[0].strip() for line in str(caught.value).splitlines()[1:-1]]
    assert named == ["optimizer.lr", "seed", "trainer.ema"]


def test_plugins_have_to_be_named_again(tmp_path: Path) -> None:
    folder = run_folder(tmp_path / "run", changed(plugins=["one", "two"]), "stopped")
    with pytest.raises(ConfigError, match=r"'plugins=\[two\]'$"):
        check_plugins(folder, composed(plugins=["one"]))
    check_plugins(folder, composed(plugins=["two", "one", "three"]))


def test_differences_may_be_wanted(tmp_path: Path) -> None:
    folder = run_folder(tmp_path / "run", VALUES, "stopped")
    config = composed(seed=1, trainer__epochs=9, data__workers=2, trainer__accumulate=4)
    assert check_same(folder, config, NOTHING_NEW, None, True) == ["seed", "trainer.accumulate"]
    assert check_same(folder, composed(), NOTHING_NEW, None, True) == []
    assert check_same(folder, composed(), NOTHING_NEW, None, False) is None
    assert check_same(folder, composed(data__cache="elsewhere"), NOTHING_NEW, None, False) is None


def test_a_setting_that_is_newer_than_the_run_was_at_its_default(tmp_path: Path) -> None:
    values = small_runs.values({"model.dropout": 0.25})
    typed = small_runs.config({"model.dropout": 0.25})
    del values["model"]["dropout"]  # 0.0 is the default
    folder = run_folder(tmp_path / "run", values | {"seed": 0}, "stopped")
    now = OmegaConf.create(small_runs.values({"model.dropout": 0.25}) | {"seed": 0})
    with pytest.raises(ConfigError, match=r"model\.dropout: was 0\.0, now 0\.25"):
        check_same(folder, now, typed, None, False)
    OmegaConf.update(now, "model.dropout", 0.0)
    assert check_same(folder, now, typed, None, False) is None


@pytest.mark.parametrize("key", ["model.freeze", "model.lora.rank", "optimizer.layer_decay"])
def test_so_was_one_that_every_entry_has(tmp_path: Path, key: str) -> None:
    """Such as those for fine-tuning, which are declared once for all models."""
    default: Any = {"model.freeze": [], "model.lora.rank": None, "optimizer.layer_decay": 1.0}[key]
    folder = run_folder(tmp_path / "run", small_runs.values() | {"seed": 0}, "stopped")
    now = OmegaConf.create(small_runs.values({key: default}) | {"seed": 0})
    assert check_same(folder, now, small_runs.config(), None, False) is None
