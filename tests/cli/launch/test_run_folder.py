import multiprocessing
import os
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest
import yaml
from omegaconf import OmegaConf

from bigmodel.cli.launch import run_folder
from bigmodel.cli.launch.run_folder import (
    check_free,
    claim,
    discard,
    discard_refused_sweep,
    record_start,
)
from bigmodel.errors import CheckpointError, ConfigError
from tests.faults.durability import Order

# Spawned, not forked: torch, which this process may have loaded, has threads.
POOLS = {
    "threads": partial(ThreadPoolExecutor, 16),
    "processes": partial(ProcessPoolExecutor, 3, multiprocessing.get_context("spawn")),
}


@pytest.fixture(autouse=True)
def _no_claims(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_folder, "_created_parents", {})


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
    run_folder.register_resolver()
    config = OmegaConf.create({"dir": f"${{new_folder:{tmp_path}/run}}", "again": "${dir}"})
    assert config.dir == config.again == config.dir == str(tmp_path / "run")
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
    other = OmegaConf.create({"dir": f"${{new_folder:{tmp_path}/run}}"})
    assert other.dir == str(tmp_path / "run_1")


@pytest.mark.parametrize("below", ["run", "2026-01-31/10-15-02"])
def test_where_none_can_be_made_it_says_so(tmp_path: Path, below: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=r"output_dir: .*cannot be created or written: \w+") as caught:
        claim(str(tmp_path / "file" / below))
    assert str(tmp_path / "file" / below) in str(caught.value)


def test_a_folder_with_a_run_in_it_is_not_free(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").touch()
    check_free(tmp_path, "hydra.run.dir")
    (tmp_path / "summary.json").touch()
    with pytest.raises(
        ConfigError, match=f"hydra.run.dir: {tmp_path} already holds a run.*resume={tmp_path}"
    ):
        check_free(tmp_path, "hydra.run.dir")
    (tmp_path / "summary.json").unlink()
    (tmp_path / ".hydra").mkdir()
    with pytest.raises(ConfigError, match="already holds a run"):
        check_free(tmp_path, "hydra.run.dir")


def test_a_folder_that_cannot_be_written_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: not (path == tmp_path and mode == os.W_OK))
    with pytest.raises(ConfigError, match="cannot be created or written: no permission"):
        check_free(tmp_path, "hydra.run.dir")


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


@pytest.mark.parametrize(
    "name", ["checkpoints", "metrics.jsonl", "profile", "tensorboard", "trackers", "train.log"]
)
@pytest.mark.parametrize("key", ["hydra.run.dir", "hydra.sweep.dir"])
def test_what_a_run_would_write_over_is_not_free(tmp_path: Path, name: str, key: str) -> None:
    (tmp_path / name).symlink_to("nowhere")
    with pytest.raises(
        ConfigError, match=f"{key}: {tmp_path} holds {name} already, which a run would overwrite"
    ):
        check_free(tmp_path, key)


CONFIG = OmegaConf.create({"seed": 3, "resume": None})
HYDRA = OmegaConf.create({"overrides": {"task": ["seed=3"]}})


def test_the_record_is_there_whole_or_not_at_all_and_on_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    order, run = Order(), tmp_path / "outputs" / "day" / "time"
    with order.watching():
        claim("outputs/day/time")
        record_start(Path("outputs/day/time"), CONFIG, HYDRA)
        order.check_synced("the record", run)
        renames = order.renames
        run_folder.write_config(run, CONFIG)
        assert order.renames == renames, "what is equal is not written again"
        run_folder.write_config(run, OmegaConf.create({"seed": 4, "resume": None}))
        order.check_synced("another configuration", run)
    assert order.faults == []
    assert [path.name for path in run.iterdir()] == [".hydra"]


@pytest.mark.parametrize("after", range(7))
def test_a_record_that_does_not_fit_leaves_the_folder_free(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    real, syncs = os.fsync, 0

    def full(handle: int) -> None:
        nonlocal syncs
        syncs += 1
        if syncs > after:
            raise OSError(28, "No space left on device")
        real(handle)

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(CheckpointError, match=r"\.hydra: cannot be written: No space left on device"):
        record_start(tmp_path, CONFIG, HYDRA)
    left = list(tmp_path.iterdir())
    assert left in ([], [tmp_path / ".hydra"])
    if left:  # all of it is there, though it may not outlast a power cut
        assert {path.name for path in left[0].iterdir()} == {
            "config.yaml",
            "hydra.yaml",
            "overrides.yaml",
        }
    else:
        check_free(tmp_path, "hydra.run.dir")


def test_what_was_being_written_when_a_process_was_killed_goes(tmp_path: Path) -> None:
    ours = [
        ".hydra.12.tmp/config.yaml",
        ".hydra.13.tmp/.hydra.yaml.13.tmp",
        ".summary.json.12.tmp",
        ".hydra/.config.yaml.12.tmp",
        "checkpoints/..kept.json.12.tmp",
        "tensorboard/.events.out.tfevents.1.host.1.12.tmp",
    ]
    others = [
        ".hydra.12.tmp.old/config.yaml",
        ".hydra.14.tmp/mine",
        ".notes.12.tmp",
        ".hydra.tmp/config.yaml",
    ]
    for name in (*ours, *others):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("text")
    run_folder.remove_leftovers(tmp_path)
    left = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    assert left == set(others)


def test_a_configuration_is_written_whole_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".hydra").mkdir()
    path = tmp_path / ".hydra" / "config.yaml"
    path.write_text("seed: 3\n")

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(CheckpointError, match="No space left"):
        run_folder.write_config(tmp_path, OmegaConf.create({"seed": 4}))
    assert path.read_text() == "seed: 3\n"
    assert [inner.name for inner in path.parent.iterdir()] == ["config.yaml"]


def test_a_new_folder_of_a_sweep_that_cannot_be_written_to_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: Path) -> None:
        raise CheckpointError("no space left")

    monkeypatch.setattr(run_folder.lock, "locked", full)
    (tmp_path / "old").mkdir()
    for name in ("old", "new"):
        with pytest.raises(CheckpointError), run_folder.claimed_sweep(tmp_path / name):
            pass
    assert [path.name for path in tmp_path.iterdir()] == ["old"]
