"""Each attack is a way of having Hydra run code, and each is let loose without the guard as well."""

import contextlib
import sys
from pathlib import Path

import hydra
import hydra._internal.hydra as hydra_internals
import pytest
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from omegaconf import DictConfig

from bigmodel.cli.launch.flags import flags_first
from bigmodel.cli.launch.hydra_patches import guard
from bigmodel.cli.launch.safe_loader import check_overrides
from bigmodel.errors import ConfigError

FIRED: list[str] = []
FIRE = f"{__name__}.fire"
CODE = f"_target_: {FIRE}"

CONFIGS = Path(__file__).parents[3] / "configs"


def fire(*args: object, **kwargs: object) -> object:
    FIRED.append(repr((args, kwargs)))
    return object()


@pytest.fixture
def launch(configs: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """Runs Hydra on a command line, guarded or not, and returns the configurations of the jobs run."""
    monkeypatch.setattr(hydra_internals, "ConfigLoaderImpl", ConfigLoaderImpl)
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    monkeypatch.chdir(tmp_path)
    FIRED.clear()

    def run(argv: list[str], guarded: bool = True) -> list[DictConfig]:
        jobs: list[DictConfig] = []

        def job(config: DictConfig) -> None:
            jobs.append(config)

        monkeypatch.setattr(sys, "argv", ["bigmodel-train", *argv])
        if guarded:
            guard(configs, argv)
        hydra.main(config_path=str(configs), config_name="train", version_base="1.3")(job)()
        return jobs

    return run


def experiment(text: str) -> dict[str, str]:
    return {"experiment/evil.yaml": f"# @package _global_\n{text}"}


EVIL = ["experiment=evil"]
CALLBACK = f"hydra:\n  callbacks:\n    x:\n      {CODE}\n"
LOGGING = f"""\
hydra:
  job_logging:
    version: 1
    handlers: {{x: {{(): {FIRE}}}}}
    root: {{handlers: [x]}}
"""
SHADOWED = "{hydra_logging: default}, {job_logging: default}"
# What a stranger's folder holds, and what the user types in good faith. Each fires where nothing guards.
LOADED = {
    "callback": (experiment(CALLBACK), EVIL),
    "log handler": (experiment(LOGGING), EVIL),
    "by package": ({"model/evil.yaml": f"# @package hydra.callbacks.x\n{CODE}\n"}, ["model=evil"]),
    "by package in brackets": (
        {"model/evil.yaml": f"# @package hydra[callbacks][x]\n{CODE}\n"},
        ["model=evil"],
    ),
    "by defaults": (
        {"box/x.yaml": CODE, **experiment("defaults:\n  - /box@hydra.callbacks.x: x\n")},
        EVIL,
    ),
    "group of hydra's": (
        {
            "hydra/callbacks/x.yaml": f"x:\n  {CODE}\n",
            **experiment("defaults:\n  - override /hydra/callbacks: x\n"),
        },
        EVIL,
    ),
    "anchor": (experiment(f"box: &a\n  {CODE}\nhydra:\n  callbacks:\n    x:\n      <<: *a\n"), EVIL),
    "interpolation": (
        experiment(f"box:\n  x:\n    {CODE}\nhydra:\n  callbacks: ${{box}}\n"),
        EVIL,
    ),
    "resolver": (
        experiment(f"box: '${{oc.create:{{x:{{_target_:{FIRE}}}}}}}'\nhydra:\n  callbacks: ${{box}}\n"),
        EVIL,
    ),
    "way out": ({"../evil.yaml": f"# @package hydra.callbacks.x\n{CODE}\n"}, ["model=../../evil"]),
    "swept": (experiment(LOGGING), ["-m", "experiment=tiny_cnn,evil"]),
    "swept by file": (
        {
            **experiment("hydra:\n  sweeper:\n    params:\n      model: cnn,worse\n"),
            "model/worse.yaml": f"# @package _global_\n{LOGGING}",
        },
        ["-m", *EVIL],
    ),
    "primary": (
        {"mine.yaml": f"defaults:\n  - train\n  - _self_\n{CALLBACK}"},
        ["--config-name=mine"],
    ),
}
FILE_LOGGING = {
    "hydra/job_logging/file.yaml": "version: 1\nhandlers: {x: {class: logging.FileHandler}}\n"
}
# Ways that fail in Hydra or are harmless by themselves, but are nobody's business either.
REFUSED = {
    "target in a group": ({"model/evil.yaml": f"name: cnn\n{CODE}\n"}, ["model=evil"]),
    "target deep down": ({"model/evil.yaml": f"a: [1, {{b: {{{CODE}}}}}]\n"}, ["model=evil"]),
    "environment": (experiment("hydra: {job: {env_set: {PATH: /evil}}}\n"), EVIL),
    "all of hydra": (experiment("box: {}\nhydra: ${box}\n"), EVIL),
    "shadow of hydra's own": (
        {"hydra/config.yaml": f"defaults: [{SHADOWED}]\ncallbacks:\n  x:\n    {CODE}\n"},
        [],
    ),
    "launcher": ({"hydra/launcher/basic.yaml": CODE}, ["-m", "seed=1,2"]),
    "log file": (
        experiment(
            "hydra: {job_logging: {version: 1, root: {handlers: [x]}, handlers:"
            " {x: {class: logging.FileHandler, mode: w, filename: precious}}}}\n"
        ),
        EVIL,
    ),
    "choice of logging": (
        {
            **FILE_LOGGING,
            "mine.yaml": "defaults:\n  - train\n  - override hydra/job_logging: file\n  - _self_\n",
        },
        ["--config-name=mine"],
    ),
    "sweeper": (experiment(f"hydra: {{sweeper: {{{CODE}}}}}\n"), ["-m", *EVIL, "seed=1,2"]),
    "search path of a choice": (experiment("hydra: {searchpath: [pkg://antigravity]}\n"), EVIL),
    "search path": ({"mine.yaml": "hydra: {searchpath: [pkg://antigravity]}\n"}, ["--config-name=mine"]),
    "plugin": (experiment("plugins: [evil]\n"), EVIL),
    "swept plugin": (experiment("hydra: {sweeper: {params: {plugins: '[evil]'}}}\n"), ["-m", *EVIL]),
    "swept callback": (
        experiment(f"hydra: {{sweeper: {{params: {{+hydra.callbacks.x._target_: {FIRE}}}}}}}\n"),
        ["-m", *EVIL],
    ),
    "swept environment": (
        experiment("hydra: {sweeper: {params: {+hydra.job.env_set.PATH: /evil}}}\n"),
        ["-m", *EVIL],
    ),
}


# These are seen in what a file's text turns into, so that only the key can be named.
BY_KEY_ALONE = ("plugin", "swept plugin", "swept callback", "swept environment")


@pytest.mark.parametrize("attack", LOADED)
def test_attack_fires_without_the_guard(attack, launch, own):
    files, argv = LOADED[attack]
    folder = own(files)
    with contextlib.suppress(Exception):  # what `fire` returns is of no use, which comes too late
        launch([f"--config-dir={folder}", *argv], guarded=False)
    assert FIRED


@pytest.mark.parametrize("attack", [*LOADED, *REFUSED])
def test_attack_is_refused(attack, launch, own):
    files, argv = {**LOADED, **REFUSED}[attack]
    folder = own(files)
    with pytest.raises(ConfigError, match=r"plugins=\[") as caught:
        launch([f"--config-dir={folder}", *argv])
    assert not FIRED
    assert ".yaml: " in str(caught.value) or attack in BY_KEY_ALONE


def test_an_experiment_cannot_choose_another_logging(launch, own, tmp_path):
    """What ships says `none`, and stands above what it includes."""
    chosen = experiment("defaults:\n  - override /hydra/job_logging: file\n")
    folder = own({**FILE_LOGGING, **chosen})
    assert len(launch([f"--config-dir={folder}", *EVIL])) == 1
    assert not list(tmp_path.rglob("*.log"))


def test_config_path_is_no_way_around(launch, own):
    folder = own({"train.yaml": CALLBACK})
    with pytest.raises(ConfigError, match=r"train\.yaml: hydra\.callbacks\.x\._target_"):
        launch([f"--config-path={folder}"])
    assert not FIRED


@pytest.mark.parametrize(
    "override",
    [
        f"+hydra.callbacks.x._target_={FIRE}",
        f"+hydra={{callbacks:{{x:{{_target_:{FIRE}}}}}}}",
        f"hydra.launcher._target_={FIRE}",
        f"+model.x={{a:[{{_target_:{FIRE}}}]}}",
        "hydra.callbacks={x:1}",
        "hydra/callbacks=x",
        "+model@hydra.callbacks.x=cnn",
        "+model@_global_.hydra=cnn",
        "+hydra.job_logging.handlers.x={class:logging.FileHandler,filename:x}",
        "hydra.searchpath=[pkg://antigravity]",
        r"hydra.searchpath=[pkg\://antigravity]",
        "--config-path=pkg://antigravity",
        "++hydra.runtime={}",
    ],
)
def test_override_is_refused(override, launch):
    with pytest.raises(ConfigError, match=r"plugins=|a package is code"):
        launch([override])
    assert not FIRED


def test_pickle_is_refused(configs):
    with pytest.raises(ConfigError, match="pickle"):
        guard(configs, ["--experimental-rerun", "job.pickle"])


@pytest.mark.parametrize(
    "override",
    [
        "hydra.run.dir=outputs/${token}",
        "hydra.run.dir=outputs/${oc.env:HF_TOKEN}",
        "hydra.sweep.subdir=${model.api_key}",
    ],
)
def test_a_secret_is_no_part_of_a_folder_s_name(override, launch):
    with pytest.raises(ConfigError, match="a secret cannot be part of a folder's name"):
        launch(["+token=abcdef", override])


@pytest.mark.parametrize(
    ("argv", "jobs"),
    [
        ([], 1),
        (["model=cnn", "seed=3", "hydra.run.dir=elsewhere", "hydra.job.chdir=true"], 1),
        (["hydra.verbose=true", "hydra.output_subdir=null", "hydra/job_logging=disabled"], 1),
        (["+hydra.job.env_set.BIGMODEL_TEST=x", "hydra/launcher=basic"], 1),
        (["-m", "model=fnn,cnn", "seed=1,2", "hydra.sweep.subdir=${hydra.job.num}"], 4),
        (["plugins=[my_models]"], 1),
        (["-m", "plugins=[my_models],[my_models,other.mine]"], 2),
    ],
)
def test_what_the_user_types_is_let_through(argv, jobs, launch):
    assert len(launch(argv)) == jobs


def test_what_a_file_may_set_is_let_through(launch, own, tmp_path):
    text = "hydra: {run: {dir: mine}, sweep: {dir: mine}, sweeper: {params: {seed: '1,2,3'}}}\nseed: 5\n"
    folder = own(experiment(text))
    assert launch([f"--config-dir={folder}", *EVIL])[0].seed == 5
    assert (tmp_path / "mine").is_dir()
    assert [job.seed for job in launch(["-m", f"--config-dir={folder}", *EVIL])] == [1, 2, 3]


@pytest.mark.parametrize(
    ("argv", "jobs"),
    [
        (["hydra.mode=MULTIRUN", "seed=1,2"], 2),
        (["hydra.mode=RUN", "seed=1"], 1),
        ([*EVIL, "seed=1,2,3"], 3),
        (["seed=1"], 1),
    ],
)
def test_whether_to_sweep_is_read_wherever_it_is_said(argv, jobs, launch, own):
    folder = own(experiment("hydra: {mode: MULTIRUN}\n"))
    assert len(launch([f"--config-dir={folder}", *argv] if argv[0] in EVIL else argv)) == jobs


def test_a_run_is_composed_once(launch, monkeypatch):
    composed = []
    whole = ConfigLoaderImpl.load_configuration
    monkeypatch.setattr(
        ConfigLoaderImpl,
        "load_configuration",
        lambda self, *args, **options: composed.append(1) or whole(self, *args, **options),
    )
    assert len(launch(["seed=3"])) == 1
    assert len(composed) == 1


def test_plugin_of_a_file_is_let_in_by_the_user(launch, own):
    folder = own(experiment("plugins: [my_models]\n"))
    argv = [f"--config-dir={folder}", *EVIL]
    with pytest.raises(ConfigError, match=r"plugins=\[my_models\]"):
        launch(argv)
    assert launch([*argv, "plugins=[my_models]"])[0].plugins == ["my_models"]


def test_sweeps_may_set_less_than_the_user():
    check_overrides(["hydra.job.env_set.A=1"])
    with pytest.raises(ConfigError, match=r"Allowed: hydra\.run\.dir"):
        check_overrides(["hydra.job.env_set.A=1"], typed=False)


def test_flags_go_in_any_place():
    expected = ["--multirun", "--config-dir", "mine", "model=cnn", "seed=1,2"]
    assert flags_first(["model=cnn", "-m", "seed=1,2", "-cd", "mine"], CONFIGS) == expected
    assert flags_first(["--config-dir=mine", "model=cnn", "--multirun", "seed=1,2"], CONFIGS) == expected
    assert flags_first(["seed=1", "--cfg", "job", "a=2"], CONFIGS) == ["--cfg", "job", "seed=1", "a=2"]
    assert flags_first(["x", "-cd", "x"], CONFIGS) == ["--config-dir", "x", "x"]


@pytest.mark.parametrize("argv", [["--epochs=3"], ["--cfg"], ["-x"]])
def test_unknown_flag_is_refused(argv, configs):
    with pytest.raises(
        ConfigError, match=r"without dashes(, as in trainer\.epochs=3|\. Did you mean trainer\.epochs=3)"
    ):
        guard(configs, argv)
