import multiprocessing
import os
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest
import yaml
from omegaconf import OmegaConf

from bigmodel.errors import ConfigError
from bigmodel.launch import folders
from bigmodel.launch.folders import check_free, claim, discard, discard_refused_sweep, record_start

# Spawned, not forked: torch, which this process may have loaded, has threads.
POOLS = {
    "threads": partial(ThreadPoolExecutor, 16),
    "processes": partial(ProcessPoolExecutor, 3, multiprocessing.get_context("spawn")),
}


@pytest.fixture(autouse=True)
def _no_claims(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folders, "_made_on_the_way", {})


@pytest.mark.parametrize("kind", POOLS)
def test_a_folder_is_claimed_once(tmp_path: Path, kind: str) -> None:
    wanted = str(tmp_path / "outputs" / "2026-01-31" / "10-15-02")
    pool: Executor = POOLS[kind]()
    with pool:
        claimed = list(pool.map(claim, [wanted] * 60))
    assert len(set(claimed)) == 60
    assert set(claimed) == {wanted, *(f"{wanted}_{attempt}" for attempt in range(1, 60))}
    assert all(Path(folder).is_dir() for folder in claimed)


def test_a_file_takes_a_name_as_well(tmp_path: Path) -> None:
    (tmp_path / "run").touch()
    assert claim(str(tmp_path / "run")) == str(tmp_path / "run_1")


def test_one_configuration_has_one_folder(tmp_path: Path) -> None:
    folders.register_resolver()
    config = OmegaConf.create({"dir": f"${{new_folder:{tmp_path}/run}}", "again": "${dir}"})
    assert config.dir == config.again == config.dir == str(tmp_path / "run")
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
    other = OmegaConf.create({"dir": f"${{new_folder:{tmp_path}/run}}"})
    assert other.dir == str(tmp_path / "run_1")


@pytest.mark.parametrize("below", ["run", "2026-01-31/10-15-02"])
def test_where_none_can_be_made_it_says_so(tmp_path: Path, below: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=r"output_dir: .*cannot be made or written to: \w+") as caught:
        claim(str(tmp_path / "file" / below))
    assert str(tmp_path / "file" / below) in str(caught.value)


def test_a_folder_with_a_run_in_it_is_not_free(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").touch()
    check_free(tmp_path)
    (tmp_path / "summary.json").touch()
    with pytest.raises(
        ConfigError, match=f"hydra.run.dir: there is a run in {tmp_path} .*resume={tmp_path}"
    ):
        check_free(tmp_path)
    (tmp_path / "summary.json").unlink()
    (tmp_path / ".hydra").mkdir()
    with pytest.raises(ConfigError, match="there is a run in"):
        check_free(tmp_path)


def test_a_folder_that_cannot_be_written_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: not (path == tmp_path and mode == os.W_OK))
    with pytest.raises(ConfigError, match="cannot be made or written to: no permission"):
        check_free(tmp_path)


def test_what_was_made_for_nothing_goes_again(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    folder = Path(claim(str(tmp_path / "mine" / "outputs" / "2026-01-31" / "10-15-02")))
    discard(folder)
    assert list(tmp_path.rglob("*")) == [tmp_path / "mine"]


def test_only_what_was_made_for_this_run_goes(tmp_path: Path) -> None:
    (tmp_path / "outputs").mkdir()
    discard(Path(claim(str(tmp_path / "outputs" / "run"))))
    assert list(tmp_path.iterdir()) == [tmp_path / "outputs"]  # it was there before, though empty


def test_a_folder_that_holds_something_stays(tmp_path: Path) -> None:
    folder = Path(claim(str(tmp_path / "outputs" / "run")))
    (folder / "train.log").touch()
    discard(folder)
    assert (folder / "train.log").exists()


def test_a_neighbour_s_run_stays(tmp_path: Path) -> None:
    first = Path(claim(str(tmp_path / "outputs" / "day" / "run")))
    second = Path(claim(str(tmp_path / "outputs" / "day" / "run")))
    discard(first)
    assert second.is_dir()
    assert not first.exists()
    discard(second)  # which made none of the folders above it
    assert (tmp_path / "outputs" / "day").is_dir()


def test_a_folder_is_found_again_by_another_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    claim("outputs/run")
    discard(tmp_path / "outputs" / "run")
    assert list(tmp_path.iterdir()) == []


def test_a_sweep_without_a_job_leaves_nothing(tmp_path: Path) -> None:
    sweep = Path(claim(str(tmp_path / "outputs" / "multirun" / "sweep")))
    (sweep / "multirun.yaml").touch()
    discard_refused_sweep()
    assert list(tmp_path.iterdir()) == []


def test_a_sweep_with_a_job_stays_whole(tmp_path: Path) -> None:
    sweep = Path(claim(str(tmp_path / "outputs" / "multirun" / "sweep")))
    (sweep / "multirun.yaml").touch()
    (sweep / "0" / ".hydra").mkdir(parents=True)
    discard_refused_sweep()
    assert (sweep / "multirun.yaml").exists()
    assert (sweep / "0" / ".hydra").is_dir()


def test_a_run_s_folder_tells_what_it_was_started_with(tmp_path: Path) -> None:
    config = OmegaConf.create({"seed": 3, "data": {"split_seed": "${seed}"}, "resume": "somewhere"})
    hydra = OmegaConf.create({"overrides": {"task": ["seed=3"]}, "job": {"num": 0}})
    record_start(tmp_path, config, hydra)
    content = {path.name: yaml.safe_load(path.read_text()) for path in (tmp_path / ".hydra").iterdir()}
    assert content == {
        "config.yaml": {"seed": 3, "data": {"split_seed": "${seed}"}, "resume": None},
        "hydra.yaml": {"hydra": {"overrides": {"task": ["seed=3"]}, "job": {"num": 0}}},
        "overrides.yaml": ["seed=3"],
    }
    assert config.resume == "somewhere"  # the caller's own is left alone


def test_a_configuration_is_written_whole_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".hydra").mkdir()
    path = tmp_path / ".hydra" / "config.yaml"
    path.write_text("seed: 3\n")

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(OSError, match="No space left"):
        folders.write_config(tmp_path, OmegaConf.create({"seed": 4}))
    assert path.read_text() == "seed: 3\n"
