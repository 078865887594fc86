import os
from pathlib import Path
from typing import Any

import pytest
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from bigmodel.errors import CheckpointError, ConfigError
from bigmodel.launch.resume import in_grammar, newest_unfinished, settle

from .conftest import write
from .runs import VALUES, changed, run_folder

# ----- the command line -----


@pytest.mark.parametrize("argv", [[], ["model=cnn"], ["model=cnn", "resume=null"], ["resume="]])
def test_without_it_nothing_changes(argv: list[str]) -> None:
    assert settle(argv, Path("configs")) == (argv, None, False)


@pytest.mark.parametrize("flag", ["-m", "--multirun"])
def test_a_sweep_does_not_resume(flag: str) -> None:
    with pytest.raises(ConfigError, match="goes with one run, not with a sweep"):
        settle([flag, "resume=auto", "seed=1,2"], Path("configs"))


@pytest.mark.parametrize(
    "name",
    [
        "run",
        "my run",
        "a=b",
        "it's",
        'the "best" one',
        "1,2",
        "(x)",
        "{y}",
        "$HOME",
        "ä-é",
        "back\\slash",
    ],
)
def test_hydra_gets_the_run_s_own_configuration_and_folder(tmp_path: Path, name: str) -> None:
    folder = run_folder(tmp_path / name, VALUES, "stopped")
    argv, found, _ = settle(["trainer.epochs=50", f"resume={folder}", "--cfg", "job"], Path("configs"))
    assert found == folder
    assert f"--config-path={folder}/.hydra" in argv
    assert "--config-name=config" in argv
    assert not any(word.startswith("resume=auto") for word in argv)
    words = [word for word in argv if "=" in word and not word.startswith("--")]
    overrides = OverridesParser.create().parse_overrides(words)
    chosen = {override.key_or_group: override.value() for override in overrides}
    assert str(chosen["hydra.run.dir"]) == str(folder)
    assert str(chosen["resume"]) == str(folder)
    assert chosen["trainer.epochs"] == 50
    assert chosen["hydra.output_subdir"] is None  # Hydra would write over the run's own files


def test_a_relative_folder_quotes_and_the_last_word(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    run_folder(tmp_path / "my run", VALUES, "stopped")
    argv, found, _ = settle(["resume=other", "resume='my run/'"], Path("configs"))
    assert found == Path("my run")
    assert f"++resume='{tmp_path}/my run'" in argv


def test_a_device_is_chosen_by_name_since_no_groups_are_left(tmp_path: Path) -> None:
    folder = run_folder(tmp_path / "run", VALUES, "stopped")
    argv, *_ = settle([f"resume={folder}", "device=cpu", "device.threads=1"], Path("configs"))
    assert argv[-2:] == ["device.name=cpu", "++device.threads=1"]


def test_plugins_are_never_taken_from_the_run(tmp_path: Path) -> None:
    folder = run_folder(tmp_path / "run", changed(plugins=["evil"]), "stopped")
    argv, *_ = settle([f"resume={folder}"], Path("configs"))
    assert "++plugins=[]" in argv
    named, *_ = settle([f"resume={folder}", "plugins=[mine]"], Path("configs"))
    assert named.index("++plugins=[]") < named.index("++plugins=[mine]")  # the later one counts


def test_what_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        CheckpointError, match=f"resume={tmp_path}/no: there is no such folder.*resume=auto"
    ):
        settle([f"resume={tmp_path}/no"], Path("configs"))
    run = run_folder(tmp_path / "run", VALUES, "stopped")
    with pytest.raises(CheckpointError, match=r"no run's folder: it has no \.hydra/config\.yaml"):
        settle([f"resume={run}/checkpoints/last"], Path("configs"))


@pytest.mark.parametrize(
    ("word", "words"),
    [
        ("hydra.run.dir=x", "hydra.run.dir=x: the run goes on in its own folder"),
        ("+experiment=x", "a preset cannot be put onto a run that has begun"),
        ("+optimizer=adam", "the run in .* has optimizer=sgd"),
    ],
)
def test_what_goes_with_no_run_that_has_begun(tmp_path: Path, word: str, words: str) -> None:
    folder = run_folder(tmp_path / "run", VALUES, "stopped")
    with pytest.raises(ConfigError, match=words):
        settle([f"resume={folder}", word], Path("configs"))


@pytest.mark.parametrize("plus", ["", "+", "++"])
def test_changes_are_wanted_with_or_without_a_plus(tmp_path: Path, plus: str) -> None:
    folder = run_folder(tmp_path / "run", VALUES, "stopped")
    argv, _, may_change = settle([f"resume={folder}", f"{plus}resume_changed=true"], Path("configs"))
    assert may_change
    assert not any("resume_changed" in word for word in argv)


@pytest.mark.parametrize(
    "value", [{"name": "sgd", "lr": 0.1, "betas": [0.9, 0.99], "nothing": None, "nesterov": True},
              {"text": "it's, \\ {odd}: [x] \"y\"", "empty": "", "number": "1", "deep": {"a": {}}}]
)  # fmt: skip
def test_settings_in_hydra_s_grammar_come_back(value: dict[str, Any]) -> None:
    (override,) = OverridesParser.create().parse_overrides([f"+a={in_grammar(value)}"])
    assert OmegaConf.to_container(OmegaConf.create({"a": override.value()})) == {"a": value}


# ----- resume=auto -----

TRAIN = """\
defaults:
  - optimizer: sgd
  - _self_
model: {name: fnn}
data: {name: digits}
loss: {name: auto}
scheduler: {name: constant}
device: {name: auto}
trainer: {epochs: 30}
seed: 0
output_dir: outputs
resume: null
"""
OURS = {
    "model": {"name": "fnn"},
    "data": {"name": "digits"},
    "loss": {"name": "auto"},
    "scheduler": {"name": "constant"},
    "device": {"name": "auto"},
    "trainer": {"epochs": 30},
    "optimizer": {"name": "sgd", "lr": 0.1},
    "seed": 0,
    "output_dir": "outputs",
    "resume": None,
}


@pytest.fixture
def house(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    GlobalHydra.instance().clear()
    files = {"train.yaml": TRAIN, "optimizer/sgd.yaml": "name: sgd\nlr: 0.1\n"}
    return write(tmp_path / "configs", files | {"optimizer/adam.yaml": "name: adam\nlr: 0.1\n"})


def runs(tmp_path: Path, *kinds: dict[str, Any]) -> list[Path]:
    """Runs in the order in which they were started."""
    found = []
    for number, kind in enumerate(kinds):
        facts = {"values": OURS, "status": "stopped", "checkpoint": "last"} | kind
        folder = run_folder(tmp_path / "outputs" / "2026-01-31" / f"10-00-0{9 - number}", **facts)
        os.utime(folder / ".hydra" / "config.yaml", (1000.0 + number, 1000.0 + number))
        found.append(folder.relative_to(tmp_path))
    return found


@pytest.mark.parametrize("status", ["stopped", "failed", "running", None])
def test_auto_takes_the_newest_that_is_not_finished(
    tmp_path: Path, house: Path, status: str | None
) -> None:
    old, chosen, *_ = runs(
        tmp_path,
        {"status": status},
        {"status": status},
        {"status": "finished"},
        {"status": status, "checkpoint": ""},  # ended before its first save
        {"status": status, "values": OURS | {"seed": 1}},
    )
    assert newest_unfinished([], house) == chosen
    (chosen / "summary.json").write_text('{"status": "finished"}')
    assert newest_unfinished([], house) == old


def test_auto_goes_by_the_whole_configuration(tmp_path: Path, house: Path) -> None:
    adam = OURS | {"optimizer": {"name": "adam", "lr": 0.2}}
    ours, theirs = runs(tmp_path, {}, {"values": adam})
    assert newest_unfinished(["optimizer=adam", "optimizer.lr=0.2"], house) == theirs
    assert newest_unfinished([], house) == ours
    assert newest_unfinished(["seed=2"], house) is None


def test_auto_looks_where_runs_are_put(tmp_path: Path, house: Path) -> None:
    (run,) = runs(tmp_path, {"values": OURS | {"output_dir": "elsewhere"}})
    (tmp_path / "outputs").rename(tmp_path / "elsewhere")
    moved = Path("elsewhere") / run.relative_to("outputs")
    assert newest_unfinished(["output_dir=elsewhere"], house) == moved
    assert newest_unfinished([], house) is None


def test_auto_takes_a_run_of_an_earlier_version(tmp_path: Path, house: Path) -> None:
    (run,) = runs(tmp_path, {"values": {key: value for key, value in OURS.items() if key != "seed"}})
    assert newest_unfinished([], house) == run
    assert newest_unfinished(["seed=1"], house) is None


def test_auto_leaves_packages_alone_and_numbers_to_be_refused(house: Path) -> None:
    with pytest.raises(ConfigError, match="a package is code"):
        newest_unfinished(["hydra.searchpath=[pkg://antigravity]"], house)
    assert newest_unfinished(["output_dir=3"], house) is None


def test_auto_knows_the_user_s_own_choices(tmp_path: Path, house: Path) -> None:
    write(tmp_path / "my (2), x", {"optimizer/lion.yaml": "name: lion\nlr: 0.01\n"})
    (run,) = runs(tmp_path, {"values": OURS | {"optimizer": {"name": "lion", "lr": 0.01}}})
    mine = "my (2), x"
    for flag in (["--config-dir", mine], [f"--config-dir={mine}"], ["-cd", mine]):
        GlobalHydra.instance().clear()
        assert newest_unfinished([*flag, "optimizer=lion"], house) == run


def test_auto_says_what_it_does(tmp_path: Path, house: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert settle(["resume=auto", "seed=0"], house) == (["seed=0"], None, False)
    assert "a new one starts" in capsys.readouterr().out
    (run,) = runs(tmp_path, {"values": OURS | {"plugins": ["mine"]}})
    (run / ".hydra" / "config.yaml").write_text(OmegaConf.to_yaml(OmegaConf.create(OURS)))
    argv, found, _ = settle(["resume=auto", "seed=0"], house)
    assert (found, f"going on with {run}" in capsys.readouterr().out) == (run, True)
    assert f"--config-path={tmp_path / run}/.hydra" in argv
