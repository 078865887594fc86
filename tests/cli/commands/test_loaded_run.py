"""A run brought back from its checkpoint alone."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from bigmodel.checkpointing import checkpoint
from bigmodel.cli.commands.loaded_run import LoadedRun, load_run, resolve_environment
from bigmodel.errors import BigModelError, CheckpointError, ConfigError, DamagedError, DeviceError
from tests.cli.commands.cli import Bigmodel
from tests.cli.commands.conftest import Run


def loaded(run: Path, weights: str = "best", device: str = "cpu", *plugins: str) -> LoadedRun:
    return load_run(str(run), weights, device, plugins, lambda _: None)


@pytest.fixture
def copied(made: Run, tmp_path: Path) -> Path:
    """A run that may be spoilt."""
    return Path(shutil.copytree(made("classes"), tmp_path / "copied"))


def rewrite(run: Path, change: Any) -> None:
    """Writes the run's checkpoint anew, with facts as `change` leaves them."""
    groups, facts = checkpoint.load(run / "checkpoints" / "last")
    change(facts)
    shutil.rmtree(run / "checkpoints")
    (run / "checkpoints").mkdir()
    checkpoint.save(run / "checkpoints" / "last", groups, facts)


def test_the_averaged_weights_are_taken_where_there_are_some(made: Run) -> None:
    run = made("ema")
    groups, _ = checkpoint.load(run / "checkpoints" / "last")
    found = loaded(run, "last").model.state_dict()
    assert all(torch.equal(found[name], value) for name, value in groups["averaged"].items())
    assert not loaded(run).model.training


def test_a_checkpoint_by_itself(made: Run) -> None:
    best, last = (loaded(made("classes") / "checkpoints" / name).step for name in ("best", "last"))
    assert best <= last


def test_without_a_best_the_newest_is_taken_and_told(copied: Path) -> None:
    shutil.rmtree(copied / "checkpoints" / "best")
    told: list[str] = []
    assert load_run(str(copied), "best", "cpu", [], told.append).step == loaded(copied, "last").step
    assert told == ["The run has no best checkpoint. The newest weights are used."]


def test_a_damaged_best_is_refused_with_the_way_out(copied: Path) -> None:
    (copied / "checkpoints" / "best" / "model.safetensors").write_bytes(b"")
    with pytest.raises(DamagedError, match=r"model.safetensors has changed.* --weights last takes"):
        loaded(copied)


def test_a_run_that_names_plugins_needs_them_typed(
    copied: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rewrite(copied, lambda facts: facts["settings"].update(plugins=["my_own_models"]))
    (copied / "my_own_models.py").write_text("raise RuntimeError('code has run')\n")
    monkeypatch.chdir(copied)
    with pytest.raises(ConfigError, match="add --plugins my_own_models"):
        loaded(copied)
    with pytest.raises(ConfigError, match="code has run"):
        loaded(copied, "best", "cpu", "my_own_models")


def test_a_secret_that_is_not_there_does_not_matter(copied: Path) -> None:
    rewrite(copied, lambda facts: facts["settings"]["data"].update(api_key="${oc.env:BIGMODEL_NONE}"))
    assert loaded(copied).step > 0


def test_what_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BIGMODEL_DATA_API_KEY", "abcdef")
    monkeypatch.delenv("BIGMODEL_NONE", raising=False)
    values = {
        "data": {"api_key": "${oc.env:BIGMODEL_DATA_API_KEY}", "other": "${oc.env:BIGMODEL_NONE}"},
        "list": ["${new_folder:x}", 3, None],
        "number": "${oc.decode:${oc.env:BIGMODEL_NONE,3}}",
    }
    assert resolve_environment(values) == {
        "data": {"api_key": "abcdef", "other": "${oc.env:BIGMODEL_NONE}"},
        "list": ["${new_folder:x}", 3, None],
        "number": 3,
    }


@pytest.mark.parametrize(
    ("change", "kind", "told"),
    [
        (lambda f: f.update(prepared=None), CheckpointError, "was made by an earlier version"),
        (lambda f: f["settings"].pop("model"), CheckpointError, "holds no run settings"),
        (lambda f: f["settings"]["model"].update(name="fn"), ConfigError, "no such model. Did you mean"),
        (lambda f: f["settings"]["model"].update(x=1), ConfigError, "cannot be used here: model.x"),
        (lambda f: f["settings"]["model"].update(hidden_sizes=[3]), CheckpointError, "do not fit"),
        (lambda f: f["prepared"]["reader"].update(name="x"), BigModelError, "which is not installed"),
        (lambda f: f["prepared"]["spec"].update(kind="X"), CheckpointError, "cannot be interpreted"),
    ],
)
def test_what_is_not_known_here_is_told(copied: Path, change: Any, kind: type, told: str) -> None:
    rewrite(copied, change)
    with pytest.raises(kind) as refused:
        loaded(copied)
    assert told in str(refused.value)
    assert "copied: " in str(refused.value)


def test_a_checkpoint_of_the_first_version_is_told(tmp_path: Path) -> None:
    old = Path(__file__).parents[2] / "faults" / "schemas" / "1"
    run = shutil.copytree(old, tmp_path / "old")
    with pytest.raises(CheckpointError, match="was made by an earlier version"):
        loaded(run, "last")


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without CUDA")
def test_a_device_that_is_not_there(made: Run) -> None:
    with pytest.raises(DeviceError, match="--device cuda: this machine has no cuda device"):
        loaded(made("classes"), "best", "cuda")


def test_where_the_last_is_damaged_the_one_before_is_taken_and_told(copied: Path) -> None:
    (copied / "checkpoints" / "last" / "model.safetensors").write_bytes(b"")
    told: list[str] = []
    load_run(str(copied), "last", "cpu", [], told.append)
    assert "model.safetensors has changed" in told[0]
    assert told[0].endswith("Using the previous one, previous.")


def test_a_device_is_one_of_several_by_its_index(made: Run, bigmodel: Bigmodel) -> None:
    run = made("classes")
    assert bigmodel("eval", run, "--device", "cpu:0").status == 0
    for name, words in (
        ("cpu:7", "--device cpu:7: there is no such device. There is: cpu:0"),
        ("gpu", "--device: no such device: 'gpu'. Allowed: auto, cpu, cuda or mps"),
    ):
        said = bigmodel("eval", run, "--device", name)
        assert said.status == 1
        assert words in said.err
