"""What the command line understands, and what it says to the rest."""

import subprocess
import sys
from pathlib import Path

import pytest

from bigmodel.cli.commands.arguments import parse
from bigmodel.errors import ConfigError
from tests.cli.commands.cli import Bigmodel


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (
            ["evl", "run"],
            "evl: no such verb. Did you mean 'eval'? There are train, eval, predict, chat, explain,"
            " export, report, track, compare.",
        ),
        (
            ["eval", "run", "--dta", "x"],
            "--dta: bigmodel eval has no such option. Did you mean '--data'?",
        ),
        (["eval", "run", "more"], "more: bigmodel eval has no such argument."),
        (["eval"], "the following arguments are required: RUN"),
        (["eval", "run", "--weights", "bst"], "--weights: invalid choice: 'bst'"),
        (["predict", "run", "--samples", "0"], "--samples: 0: must be a whole number, 1 or more"),
        (["predict", "run", "--top-k", "x"], "--top-k: invalid whole number value: 'x'"),
        (["predict", "run", "--temperature", "warm"], "--temperature: invalid float value: 'warm'"),
        (["export", "run", "--format", "onx"], "--format: invalid choice: 'onx'"),
    ],
)
def test_wrong_arguments_give_one_line(words: list[str], told: str) -> None:
    with pytest.raises(ConfigError) as refused:
        parse(words)
    assert str(refused.value).startswith(told)
    assert "\n" not in str(refused.value)


def test_a_prompt_may_begin_with_anything() -> None:
    assert parse(["predict", "run", "--prompt=--x"]).prompt == "--x"
    assert parse(["predict", "run", "--prompt", "a b"]).prompt == "a b"


def test_errors_end_with_status_1_and_no_traceback(bigmodel: Bigmodel) -> None:
    said = bigmodel("evl")
    assert said.status == 1
    assert said.err.startswith("bigmodel: evl: no such verb.")
    assert "Traceback" not in said.err


def test_help_needs_no_torch() -> None:
    code = (
        "import sys; sys.argv = ['bigmodel', 'predict', '--help']\n"
        "from bigmodel.cli.commands.main import main\n"
        "try: main()\n"
        "except SystemExit as end: print('torch' in sys.modules, end.code)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "--temperature" in done.stdout
    assert done.stdout.splitlines()[-1] == "False 0"


def test_no_words_at_all_show_the_help(bigmodel: Bigmodel) -> None:
    said = bigmodel()
    assert said.status == 0
    assert "predict" in said.out


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ([], "predict needs one of --input FILE, for new data, and --prompt TEXT."),
        (["--input", "x", "--prompt", "y"], "predict needs one of --input FILE"),
        (["--input", "x", "--samples", "2"], "--samples: goes with --prompt."),
        (["--prompt", "x", "--output", "o.txt"], "--output: goes with --input."),
        (["--input", "x", "--output", "no/o.csv"], "--output no/o.csv: there is no folder"),
        (["--input", "x", "--output", "folder.csv"], "--output folder.csv: is a folder."),
        (["--input", "x", "--output", "there.csv"], "--output there.csv: already exists. Add --force"),
    ],
)
def test_options_that_do_not_go_together(
    bigmodel: Bigmodel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], told: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there.csv").touch()
    (tmp_path / "folder.csv").mkdir()
    said = bigmodel("predict", "run", *words)
    assert said.status == 1
    assert said.err.startswith(f"bigmodel: {told}")


def run_program(*argv: str) -> subprocess.CompletedProcess[str]:
    code = "from bigmodel.cli.entry import bigmodel; bigmodel()"
    return subprocess.run([sys.executable, "-c", code, *argv], capture_output=True, text=True)


@pytest.mark.parametrize(
    "words", [["--version"], ["modle=cnn"], ["model=cnn", "--cfg", "job"]], ids=" ".join
)
def test_the_verb_train_is_bigmodel_train(words: list[str]) -> None:
    verb = run_program("train", *words)
    module = subprocess.run([sys.executable, "-m", "bigmodel", *words], capture_output=True, text=True)
    assert (verb.returncode, verb.stdout, verb.stderr) == (
        module.returncode,
        module.stdout,
        module.stderr,
    )
    assert verb.returncode == (1 if "modle=cnn" in words else 0)


def test_help_lists_all_verbs() -> None:
    listed = run_program("--help")
    assert listed.returncode == 0
    assert [
        verb
        for verb in ("train", "eval", "predict", "export", "compare")
        if f"\n    {verb} " not in listed.stdout
    ] == []
