"""What a mistake on the command line or in a file is answered with: the words are the feature."""

import sys
from pathlib import Path

import hydra
import hydra._internal.hydra as hydra_internals
import pytest
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.errors import HydraException, OverrideParseException
from omegaconf import DictConfig, OmegaConf

from bigmodel import registry
from bigmodel.cli.launch.error_messages import explain
from bigmodel.cli.launch.flags import flags_first
from bigmodel.cli.launch.hydra_patches import guard, limit_input
from bigmodel.errors import DataError


def resolve(config: DictConfig) -> None:
    OmegaConf.to_container(config, resolve=True, throw_on_missing=True)


@pytest.fixture
def complaint(configs: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """The message that a command line leads to, with `job` as the run; None where there is none."""
    monkeypatch.setattr(hydra_internals, "ConfigLoaderImpl", ConfigLoaderImpl)
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    monkeypatch.chdir(tmp_path)

    def run(argv: list[str], job=resolve) -> str | None:
        try:
            limit_input()
            arguments = flags_first(argv, configs)
            guard(configs, arguments)
            monkeypatch.setattr(sys, "argv", ["bigmodel-train", *arguments])
            hydra.main(config_path=str(configs), config_name="train", version_base="1.3")(job)()
        except Exception as error:
            return explain(error, configs, argv)
        raise AssertionError("nothing was complained about")

    return run


@pytest.mark.parametrize(
    ("override", "message"),
    [
        # keys
        ("optimizer.lrr=0.1", "optimizer.lrr: no such setting. Did you mean 'optimizer.lr'?"),
        ("optimizer.lrr=0.1", "Known for optimizer=sgd: name, lr, momentum."),
        ("lr=0.1", "lr: no such setting. Did you mean optimizer.lr=0.1?"),
        ("momentun=0.1", "Did you mean 'optimizer.momentum'?"),
        ("optimiser.lr=0.1", "Did you mean optimizer.lr=0.1?"),
        ("sed=1", "Did you mean 'seed'?"),
        ("patience=1", "Did you mean 'early.patience'?"),
        ("early.patence=1", "Did you mean 'early.patience'?"),
        ("optimizer.betas=[1]", "optimizer=sgd has no such setting; it is one of optimizer=adam."),
        ("model.hidden_size=[1]", "Did you mean 'model.hidden_sizes'?"),
        ("run.dir=x", "Did you mean 'hydra.run.dir'?"),
        ("seed.x=1", "seed.x: no such setting or group. Did you mean 'seed'?"),
        ("quite_different=1", "bigmodel-train --help lists all."),
        ("+seed=1", "seed: already exists. Leave out the plus: seed=…"),
        ("~sed", "~sed: there is nothing of that name to remove. Did you mean 'seed'?"),
        # choices
        ("model=cnnn", "model=cnnn: no such model. Did you mean 'cnn'? Choices: cnn, fnn."),
        ("model=xyz", "model=xyz: no such model. Choices: cnn, fnn."),
        ("model=", "model=: a name is missing. Choices: cnn, fnn."),
        ("model=3", "model=3: no such model. Choices: cnn, fnn."),
        ("modle=cnn", "modle: no such setting or group. Did you mean 'model'?"),
        ("hydra/launcher=zz", "hydra/launcher=zz: no such hydra/launcher. Choices: basic, joblib"),
        # grammar
        ("cnn", "cnn: expected key=value. Did you mean 'model=cnn'?"),
        ("model", "model: expected key=value. Choose with model=<cnn|fnn>."),
        ("seed:3", "seed:3: expected key=value. Did you mean 'seed=3'?"),
        ("whatever", "whatever: expected key=value. As in optimizer.lr=0.1."),
        ("a=[1,2", "a=[1,2: the value cannot be read. A closing ']' is missing."),
        ("seed='1", "seed='1: the value cannot be read. A closing quotation mark is missing."),
        ("seed =1", "seed =1: the value cannot be read. No blanks are allowed before '='."),
        (
            "seed=a=b]",
            "seed=a=b]: the value cannot be read. Put it in quotation marks: 'seed=\"a=b]\"'",
        ),
        (
            "seed=1,2",
            "seed=1,2: several values need -m, for one run each: -m seed=1,2. One list is 'seed=[1,2]'.",
        ),
        (
            "seed=range(1,3)",
            "seed=range(1,3): several values need -m, for one run each: -m 'seed=range(1,3)'.",
        ),
        # values
        ("seed=${sed}", "seed: refers to ${sed}, which does not exist. Did you mean 'seed'?"),
        ("seed=${oc.env:NOT_SET}", "seed: \"Environment variable 'NOT_SET' not found\"."),
        (
            "early.patience=???",
            "early.patience: is required and was not set (epochs without improvement",
        ),
        ("hydra.run.dir=[1]", "hydra.run.dir: Cannot convert 'list' to string: '[1]'."),
        # flags
        (
            "--confg",
            "unrecognized arguments: --confg. Did you mean '--cfg'? bigmodel-train --help lists",
        ),
        (
            "--sede",
            "unrecognized arguments: --sede. Settings are written without dashes. Did you mean 'seed'?",
        ),
        ("--epochs=3", "unrecognized arguments: --epochs=3. Settings are written without dashes"),
        (
            "--config-dir=nowhere",
            "--config-dir nowhere: there is no such folder. Relative paths start at /",
        ),
        ("--config-path=/nowhere", "--config-path /nowhere: there is no such folder."),
        ("--config-name=nothing", "--config-name nothing: there is no nothing.yaml"),
        ("--resolve", "The --resolve flag can only be used"),
    ],
)
def test_command_line(override, message, complaint):
    found = complaint([override])
    assert message in found.replace(str(Path.cwd()) + "/", "")
    assert "\n" not in found
    assert "https:" not in found
    assert "use +" not in found


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("model=fnn,cnnn", "model=cnnn: no such model. Did you mean 'cnn'?"),
        ("optimizer.lrr=1,2", "optimizer.lrr: no such setting. Did you mean 'optimizer.lr'?"),
        ("seed=interval(1,2)", "BasicSweeper does not support sweep type : INTERVAL_SWEEP."),
    ],
)
def test_sweep(override, message, complaint):
    assert message in complaint(["-m", override])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name: x\n sizes: [1\n", "model/mine.yaml, line 2, column 7: this is not valid YAML"),
        (
            "a: 1\na: 2\n",
            "model/mine.yaml, line 2, column 1: this is not valid YAML: found duplicate key a.",
        ),
        ("a:\n\t- b\n", "line 2, column 1: this is not valid YAML: found character '\\t'"),
        (
            "a: !!python/object/apply:os.system [ls]\n",
            "line 1, column 4: this is not valid YAML: could not",
        ),
        ("a: &x [*x]\n", "mine.yaml: line 1: it contains itself: the alias *x is inside its anchor"),
        ("defaults: x\n", "Invalid defaults list in 'model/mine'"),
        ("defaults:\n  - cn\n", "model/mine.yaml: model=cn: no such model. Did you mean 'cnn'?"),
        (
            "defaults:\n  - override /modle: x\n",
            "model/mine.yaml: modle@model.modle: no such setting or",
        ),
        ("width: ${nope}\n", "model.width: refers to ${nope}, which does not exist."),
        (
            "width: ???  # how wide\n",
            "model.width: is required and was not set (how wide). Set model.width=",
        ),
        ("width: '${oc.env:A'\n", "width: missing BRACE_CLOSE"),
        ("# @package\nwidth: 1\n", "Expected header format: KEY VALUE, got '@package'."),
    ],
)
def test_own_file(text, message, complaint, own):
    found = complaint([f"--config-dir={own({'model/mine.yaml': text})}", "model=mine"])
    assert message in found


def test_pluses_that_resume_has_put_there_are_not_shown(configs):
    error = OverrideParseException(override="++seed=[1", message="")
    assert explain(error, configs, ["resume=run", "seed=[1"]).startswith("seed=[1: the value cannot")
    assert explain(error, configs, ["++seed=[1"]).startswith("++seed=[1: the value cannot")
    several = HydraException("Sweep parameters '++seed=1,2' requires --multirun")
    found = explain(several, configs, ["resume=run", "seed=1,2"])
    assert found == "seed=1,2: a resumed run takes one value. One list is 'seed=[1,2]'."


def test_own_file_in_another_encoding(complaint, own):
    folder = own({"model/fine.yaml": "name: fine"})
    (folder / "model" / "mine.yaml").write_bytes("# größer\n".encode("latin-1"))
    found = complaint(["model=mine", "--config-dir", str(folder)])
    assert (
        found
        == f"{folder}/model/mine.yaml: this is not valid UTF-8 (invalid start byte). Save it as UTF-8."
    )


def test_own_group_needs_a_plus(complaint, own):
    folder = own({"tokenizer/words.yaml": "lower: true"})
    found = complaint(["tokenizer=words", f"--config-dir={folder}"])
    assert found == "tokenizer: nothing is chosen there yet. Add it with a plus: +tokenizer=words."


def test_required_choice(complaint, own):
    own_train = own({"mine.yaml": "defaults:\n  - model: ???\n"})
    found = complaint([f"--config-dir={own_train}", "--config-name=mine"])
    assert found == "model: a choice is required. Choices: cnn, fnn."


def test_output_folder_that_cannot_be_made(complaint, tmp_path):
    (tmp_path / "out").write_text("a file where a folder should be")
    found = complaint([])
    assert found == (
        "out/run: not a directory. The output folder must be writable; choose another with"
        " hydra.run.dir=<folder>."
    )
    assert "hydra.sweep.dir=<folder>" in complaint(["-m", "seed=1,2"])


def test_our_own_errors_speak_for_themselves(configs, complaint):
    assert explain(DataError("digits: broken"), configs, []) == "digits: broken"

    def refuse() -> str:
        raise DataError("no room")

    OmegaConf.register_new_resolver("refuse", refuse, replace=True)
    try:
        assert complaint(["hydra.run.dir=${refuse:}"]) == "no room"
        assert complaint(["seed=${refuse:}"]) == "no room"
    finally:
        OmegaConf.clear_resolver("refuse")


def test_faults_of_the_program_keep_their_traceback(complaint, configs):
    def job(config: DictConfig) -> None:
        registry.data.build(config)

    assert complaint([], job) is None
    assert explain(ZeroDivisionError(), configs, []) is None
    assert explain(FileNotFoundError(2, "No such file", "data.csv"), configs, []) is None
    assert explain(ValueError("Only one of these"), configs, []) is None
