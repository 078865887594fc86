import os
from pathlib import Path
from typing import Any

import pytest
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from bigmodel.checkpointing import exact_json, manifest
from bigmodel.cli.launch import lock
from bigmodel.cli.launch.resume import expand_resume, hydra_value
from bigmodel.cli.launch.unfinished_runs import newest_unfinished
from bigmodel.errors import CheckpointError, ConfigError
from tests.cli.launch.conftest import write
from tests.cli.launch.runs import VALUES, changed, run_folder

# ----- the command line -----


@pytest.mark.parametrize("argv", [[], ["model=cnn"], ["model=cnn", "resume=null"], ["resume="]])
def test_without_it_nothing_changes(argv: list[str]) -> None:
    assert expand_resume(argv, Path("configs")) == (argv, None, False)


@pytest.mark.parametrize("flag", ["-m", "--multirun"])
def test_a_sweep_does_not_resume(flag: str) -> None:
    with pytest.raises(ConfigError, match="goes with one run, not with a sweep"):
        expand_resume([flag, "resume=auto", "seed=1,2"], Path("configs"))


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
    argv, found, _ = expand_resume(
        ["trainer.epochs=50", f"resume={folder}", "--cfg", "job"], Path("configs")
    )
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
    argv, found, _ = expand_resume(["resume=other", "resume='my run/'"], Path("configs"))
    assert found == Path("my run")
    assert f"++resume='{tmp_path}/my run'" in argv


def test_a_device_is_chosen_by_name_since_no_groups_are_left(tmp_path: Path) -> None:
    folder = run_folder(tmp_path / "run", VALUES, "stopped")
    argv, *_ = expand_resume([f"resume={folder}", "device=cpu", "device.threads=1"], Path("configs"))
    assert argv[-2:] == ["device.name=cpu", "++device.threads=1"]


def test_plugins_are_never_taken_from_the_run(tmp_path: Path) -> None:
    folder = run_folder(tmp_path / "run", changed(plugins=["evil"]), "stopped")
    argv, *_ = expand_resume([f"resume={folder}"], Path("configs"))
    assert "++plugins=[]" in argv
    named, *_ = expand_resume([f"resume={folder}", "plugins=[mine]"], Path("configs"))
    assert named.index("++plugins=[]") < named.index("++plugins=[mine]")  # the later one counts


def test_what_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        CheckpointError, match=f"resume={tmp_path}/no: there is no such folder.*resume=auto"
    ):
        expand_resume([f"resume={tmp_path}/no"], Path("configs"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(CheckpointError, match=r"not a run's folder: it has no \.hydra/config\.yaml"):
        expand_resume([f"resume={tmp_path}/empty"], Path("configs"))


@pytest.mark.parametrize(
    ("cwd", "path"),
    [
        ("", "{run}/"),
        ("", "{run}/checkpoints"),
        ("", "{run}/checkpoints/"),
        ("", "{run}/checkpoints/last"),
        ("", "{run}/checkpoints/last/"),
        ("", "run"),
        ("", "run/checkpoints/last"),
        ("", "./run/../run/checkpoints/last"),
        ("run", "."),
        ("run", "checkpoints"),
        ("run", "checkpoints/last/"),
        ("run/checkpoints", "."),
        ("run/checkpoints", ".."),
        ("run/checkpoints", "last"),
        ("run/checkpoints/last", "."),
    ],
)
def test_what_leads_to_the_newest_checkpoint_is_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cwd: str, path: str
) -> None:
    run = run_folder(tmp_path / "run", VALUES, "stopped")
    monkeypatch.chdir(tmp_path / cwd)
    argv, found, _ = expand_resume([f"resume={path.format(run=run)}"], Path("configs"))
    assert found is not None
    assert found.resolve() == run
    assert f"++resume='{run}'" in argv


@pytest.mark.parametrize("name", ["best", "best-2", "previous", "nowhere"])
def test_another_checkpoint_is_none_to_go_on_from(tmp_path: Path, name: str) -> None:
    run = run_folder(tmp_path / "run", VALUES, "stopped")
    (run / "checkpoints" / name).mkdir()
    with pytest.raises(
        CheckpointError, match=rf"resumes only from its newest checkpoint.*resume={run}$"
    ):
        expand_resume([f"resume={run}/checkpoints/{name}"], Path("configs"))
    (run / "checkpoints" / "last").rmdir()
    if name == "previous":  # what is left, and what the run has printed
        assert expand_resume([f"resume={run}/checkpoints/{name}"], Path("configs")).folder == run


def test_the_run_s_own_folder_may_be_named_as_well(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    run_folder(tmp_path / "my run", VALUES, "stopped")
    for word in (
        "hydra.run.dir='my run'",
        f"hydra.run.dir={tmp_path}/my run/",
        "++hydra.run.dir=my run",
    ):
        argv, *_ = expand_resume(["resume=my run", word], Path("configs"))
        assert [w for w in argv if "hydra.run.dir" in w] == [f"hydra.run.dir='{tmp_path}/my run'"]


@pytest.mark.parametrize(
    ("word", "words"),
    [
        ("hydra.run.dir=x", "hydra.run.dir=x: the run resumes in its own folder"),
        ("+experiment=x", "a preset cannot be applied to a run that has started"),
        ("+optimizer=adam", "the run in .* has optimizer=sgd"),
    ],
)
def test_what_goes_with_no_run_that_has_begun(tmp_path: Path, word: str, words: str) -> None:
    folder = run_folder(tmp_path / "run", VALUES, "stopped")
    with pytest.raises(ConfigError, match=words):
        expand_resume([f"resume={folder}", word], Path("configs"))


@pytest.mark.parametrize("plus", ["", "+", "++"])
def test_changes_are_wanted_with_or_without_a_plus(tmp_path: Path, plus: str) -> None:
    folder = run_folder(tmp_path / "run", VALUES, "stopped")
    argv, _, may_change = expand_resume(
        [f"resume={folder}", f"{plus}resume_changed=true"], Path("configs")
    )
    assert may_change
    assert not any("resume_changed" in word for word in argv)


@pytest.mark.parametrize(
    "value", [{"name": "sgd", "lr": 0.1, "betas": [0.9, 0.99], "nothing": None, "nesterov": True},
              {"text": "it's, \\ {odd}: [x] \"y\"", "empty": "", "number": "1", "deep": {"a": {}}}]
)  # fmt: skip
def test_settings_in_hydra_s_grammar_come_back(value: dict[str, Any]) -> None:
    (override,) = OverridesParser.create().parse_overrides([f"+a={hydra_value(value)}"])
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
    assert expand_resume(["resume=auto", "seed=0"], house) == (["seed=0"], None, False)
    assert "a new one starts" in capsys.readouterr().out
    (run,) = runs(tmp_path, {"values": OURS | {"plugins": ["mine"]}})
    (run / ".hydra" / "config.yaml").write_text(OmegaConf.to_yaml(OmegaConf.create(OURS)))
    argv, found, _ = expand_resume(["resume=auto", "seed=0"], house)
    assert (found, f"resuming {run}" in capsys.readouterr().out) == (run, True)
    assert f"--config-path={tmp_path / run}/.hydra" in argv


def test_auto_looks_where_one_folder_is_named(
    tmp_path: Path, house: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = {"values": OURS, "checkpoint": "last"}
    (ours,) = runs(tmp_path, {})
    fixed = run_folder(tmp_path / "my (1) run", status="stopped", **values)
    word = f"hydra.run.dir='{fixed}'"
    assert newest_unfinished([word], house) == fixed
    (fixed / "summary.json").write_text('{"status": "finished"}')
    assert newest_unfinished([word], house) == fixed, "there is nothing to do, which is no error"
    assert newest_unfinished([word, "seed=1"], house) is None
    assert newest_unfinished([f"hydra.run.dir={tmp_path}/nowhere"], house) is None
    assert newest_unfinished([], house) == ours
    monkeypatch.setattr(lock, "holder", lambda _: "process 1")
    with pytest.raises(CheckpointError, match="is already running, in process 1"):
        newest_unfinished([word], house)


def test_auto_looks_where_the_time_makes_the_name(tmp_path: Path, house: Path) -> None:
    names = ("exp-2026-01-31", "exp-2026-02-01", "exp", "other-2026-01-31")
    for number, name in enumerate(names):
        folder = run_folder(tmp_path / "mine" / name, OURS, "stopped")
        os.utime(folder / ".hydra" / "config.yaml", (1000.0 + number, 1000.0 + number))
    word = "hydra.run.dir=mine/exp-${now:%Y-%m-%d}"
    assert newest_unfinished([word], house) == Path("mine/exp-2026-02-01")
    before = sorted(tmp_path.rglob("*"))
    word = "hydra.run.dir='${new_folder:mine/exp-${now:%Y}}'"
    assert newest_unfinished([word], house) == Path("mine/exp-2026-02-01")
    assert sorted(tmp_path.rglob("*")) == before, "looking makes no folder"


def test_auto_begins_anew_what_ended_before_its_first_save(tmp_path: Path, house: Path) -> None:
    older, newer = runs(tmp_path, {"status": "running"}, {"status": None, "checkpoint": ""})
    assert newest_unfinished([], house) == older, "what has a checkpoint comes first"
    (older / "summary.json").write_text('{"status": "finished"}')
    assert newest_unfinished([], house) == newer
    (newer / "checkpoints").mkdir()
    (newer / "checkpoints" / ".kept.json").write_text('{"saved": true, "kept": {}}')
    assert newest_unfinished([], house) is None, "its checkpoints were taken away"


def test_auto_names_what_it_cannot_read(
    tmp_path: Path, house: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    empty, torn, missing, whole = runs(tmp_path, {}, {}, {}, {"values": OURS | {"seed": 1}})
    (empty / ".hydra" / "config.yaml").write_text("")
    (torn / ".hydra" / "config.yaml").write_text("model: {name: fn")
    (missing / ".hydra" / "config.yaml").unlink()
    assert newest_unfinished([], house) is None
    printed = capsys.readouterr().out
    for run in (empty, torn, missing):
        assert (
            f"resume=auto: {run}/.hydra/config.yaml: the run's own configuration is damaged" in printed
        )
    assert str(whole) not in printed


def saved_state(folder: Path, settings: dict[str, Any]) -> None:
    """A checkpoint without tensors, whole by its manifest."""
    last = folder / "checkpoints" / "last"
    last.mkdir(parents=True, exist_ok=True)
    (last / "state.json").write_text(exact_json.dumps({"settings": settings}))
    (last / "manifest.json").write_text(manifest.build_manifest(last))


@pytest.mark.parametrize("damage", ["", "model: {name: fn", "model: 3\n", None])
@pytest.mark.parametrize("how", ["auto", "folder"])
def test_a_damaged_configuration_is_restored_from_the_checkpoint(
    tmp_path: Path, house: Path, capsys: pytest.CaptureFixture[str], damage: str | None, how: str
) -> None:
    settings = {key: value for key, value in OURS.items() if key != "resume"}
    text = {"note": "a ${b} c", "auth": "${oc.env:BIGMODEL_DATA_AUTH}"}
    (run,) = runs(tmp_path, {})
    (other,) = (run_folder(tmp_path / "outputs" / "day" / "other", OURS, "stopped"),)
    settings["data"] = {"name": "digits", **(text if how == "folder" else {})}
    saved_state(run, settings)
    saved_state(other, settings | {"seed": 5})
    for folder in (run, other):
        path = folder / ".hydra" / "config.yaml"
        path.unlink() if damage is None else path.write_text(damage)
    _, found, _ = expand_resume([f"resume={run if how == 'folder' else 'auto'}"], house)
    assert found == run
    assert "it is restored from the newest checkpoint." in capsys.readouterr().out
    restored = OmegaConf.load(run / ".hydra" / "config.yaml")
    if how == "folder":
        assert restored.data.note == "a ${b} c"
        assert OmegaConf.to_container(restored)["data"]["auth"] == text["auth"]
    assert newest_unfinished([], house) == (run if how == "auto" else None)
    kept_aside = run / ".hydra" / "config.yaml.damaged"
    assert (kept_aside.read_text() if kept_aside.exists() else "") == (damage or "")


def test_without_settings_in_a_checkpoint_the_damage_is_told(tmp_path: Path) -> None:
    run = run_folder(tmp_path / "run", VALUES, "stopped")
    (run / ".hydra" / "config.yaml").write_text("")
    with pytest.raises(CheckpointError, match="the run's own configuration is damaged"):
        expand_resume([f"resume={run}"], Path("configs"))
    assert (run / ".hydra" / "config.yaml").read_text() == ""
