"""Jobs are composed as by Hydra itself, from parts that were composed before."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path
from typing import Any

import pytest
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.utils import create_config_search_path
from hydra.core.utils import setup_globals
from hydra.errors import ConfigCompositionException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import ConfigAttributeError

from bigmodel.cli.launch.sweep_loader import SweepLoader

CONFIGS = Path(__file__).parents[3] / "configs"

JOBS = [
    ["seed=1"],
    ["model=cnn", "seed=2"],
    ["seed=3", "model=cnn"],  # the same files in another order
    ["model=cnn", "model.dropout=0.5", "optimizer=sgd", "optimizer.lr=0.25"],
    ["model.dropout=0.5", "model=cnn"],  # a value typed before its group
    ["optimizer.lr=1", "optimizer.lr=2"],
    ["experiment=seed_cnn", "trainer.epochs=2"],
    ["trainer.epochs=${seed}", "seed=7"],
    ["data=table", "data.path=a b.csv", "+data.columns.a=number"],
    ["model={name: fnn, dropout: 0.25}"],
    ["+model.more=1"],
    ["++trainer.epochs=4"],
    ["~trainer.early_stopping.mode"],
    ["~scheduler"],
    ["hydra.sweep.subdir=${seed}", "seed=5"],
]
REFUSED = [
    ["optimizer.no_such=1"],
    ["model=no_such"],
    ["nonsense=1"],
    ["~no_such"],
    ["model@here=cnn"],
    ["trainer.epochs.deeper=1"],
]


def made(kind: type[ConfigLoaderImpl]) -> tuple[Any, DictConfig]:
    setup_globals()
    loader = kind(create_config_search_path(str(CONFIGS)))
    hydra_words = ["hydra.job.config.override_dirname.exclude_keys=[seed]"]
    words = [*hydra_words, "model=fnn,cnn", "trainer.epochs=1"]
    return loader, loader.load_configuration("train", words, RunMode.MULTIRUN)


def plain(config: DictConfig) -> Any:
    return OmegaConf.to_container(config, resolve=False)


@pytest.fixture(scope="module")
def hydras() -> tuple[ConfigLoaderImpl, DictConfig]:
    return made(ConfigLoaderImpl)


@pytest.fixture(scope="module")
def ours() -> tuple[SweepLoader, DictConfig]:
    return made(SweepLoader)


@pytest.mark.parametrize("words", JOBS, ids=" ".join)
def test_a_job_is_composed_as_hydra_does(words: list[str], hydras: Any, ours: Any) -> None:
    expected = hydras[0].load_sweep_config(hydras[1], words)
    for _ in range(2):  # composed, and taken from what was composed
        config = ours[0].load_sweep_config(ours[1], words)
        assert plain(config) == plain(expected)
        assert OmegaConf.is_struct(config) == OmegaConf.is_struct(expected)
        assert OmegaConf.is_readonly(config.hydra) == OmegaConf.is_readonly(expected.hydra)
        with pytest.raises(ConfigAttributeError):
            config.trainer.no_such = 1


@pytest.mark.parametrize("words", REFUSED, ids=" ".join)
def test_what_hydra_refuses_is_refused_in_the_same_words(
    words: list[str], hydras: Any, ours: Any
) -> None:
    messages = []
    for loader, master in (hydras, ours, ours):
        with pytest.raises((ConfigCompositionException, AssertionError)) as caught:
            loader.load_sweep_config(master, words)
        messages.append(str(caught.value))
    assert messages[1:] == messages[:1] * 2


def test_jobs_that_choose_the_same_files_read_them_once(monkeypatch: pytest.MonkeyPatch) -> None:
    loader, master = made(SweepLoader)
    composed = []
    monkeypatch.setattr(
        ConfigLoaderImpl, "_compose_config_from_defaults_list",
        lambda *args, own=ConfigLoaderImpl._compose_config_from_defaults_list, **named: (
            composed.append(0) or own(*args, **named)
        ),
    )  # fmt: skip
    for seed in range(3):
        for model in ("fnn", "cnn"):
            config = loader.load_sweep_config(master, [f"model={model}", f"seed={seed}"])
            assert (config.seed, config.model.name) == (seed, model)
    assert len(composed) == 2

    other, master = made(SweepLoader)  # in another process
    other.composed = pickle.loads(pickle.dumps(loader.composed))
    del composed[:]
    assert other.load_sweep_config(master, ["model=cnn", "seed=9"]).seed == 9
    assert not composed


def test_a_changed_configuration_changes_no_other_job(ours: Any) -> None:
    loader, master = ours
    first = loader.load_sweep_config(master, ["seed=1"])
    before = copy.deepcopy(plain(first))
    first.trainer.epochs = 99
    assert plain(loader.load_sweep_config(master, ["seed=1"])) == before


def test_groups_in_a_folder_of_the_users_own_are_found(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "one.yaml").write_text("# @package _global_\nseed: 11\n")
    setup_globals()
    loader = SweepLoader(create_config_search_path(str(CONFIGS)))
    words = [f"hydra.searchpath=[{tmp_path}]", "trainer.epochs=1"]
    master = loader.load_configuration("train", words, RunMode.MULTIRUN)
    assert loader.load_sweep_config(master, ["+mine=one"]).seed == 11
