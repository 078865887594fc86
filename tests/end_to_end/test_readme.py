"""The README's commands are ones that the program takes, and its printed samples are what it prints."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir

from bigmodel.cli import train
from bigmodel.cli.commands.arguments import parse as parse_verb
from bigmodel.cli.launch import flags
from bigmodel.cli.launch.config_index import read_index
from bigmodel.cli.launch.run_folder import register_resolver
from bigmodel.config import parse, to_plain
from tests.end_to_end.conftest import Command

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
CONFIGS = ROOT / "configs"
HOUSES = "area,rooms,city,built,garden,price\n" + "".join(
    f"{60 + n},{n % 5},Trier,19{50 + n % 50}-02-01,{n % 7}.5,{250_000 + 1000 * n}\n" for n in range(40)
)


def commands(program: str) -> list[str]:
    """The lines of code blocks, and what is quoted in a sentence, that call a program with arguments."""
    return list(dict.fromkeys(_commands(program)))


def _commands(program: str) -> Iterator[str]:
    for block in re.findall(r"^```\w*\n(.*?)^```$", README, re.MULTILINE | re.DOTALL):
        for line in block.replace("\\\n", " ").splitlines():
            if line.removeprefix("$ ").startswith(f"{program} "):
                yield line.removeprefix("$ ")
    for quoted in re.findall(r"`([^`]+)`", README):
        if quoted.startswith(f"{program} ") and "…" not in quoted and "VERB" not in quoted:
            yield quoted.replace("\n", " ")


def words_of(line: str) -> list[str]:
    return shlex.split(line, comments=True)[1:]


def needs_more(line: str) -> bool:
    """Whether a command needs a run or a module that is there; those are tried elsewhere."""
    return any(word.startswith(("resume=", "plugins=", "optimizer.lrr=")) for word in words_of(line))


TRAINING = [line for line in commands("bigmodel-train") if not needs_more(line)]


def test_there_are_commands_to_try() -> None:
    assert len(TRAINING) > 20
    assert len(commands("bigmodel")) > 5


@pytest.mark.parametrize("line", TRAINING)
def test_a_training_command_is_taken(line: str) -> None:
    """Composed and checked, as far as a run comes before it reads its data or finds its device."""
    words = words_of(line)
    if (page := train._page(words)) is not None:
        assert page
        return
    added = flags.adding(flags.indexed(words), read_index([CONFIGS]).open_paths())
    arguments = flags.parse_flags(added, CONFIGS)
    sweep = [word.partition(",")[0] if arguments.multirun else word for word in arguments.overrides]
    register_resolver()
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        parse(to_plain(compose("train", overrides=sweep)))


@pytest.mark.parametrize("line", [line for line in commands("bigmodel") if "--help" not in line])
def test_a_command_on_runs_is_taken(line: str) -> None:
    assert parse_verb(words_of(line)).verb in ("eval", "predict", "export")


@pytest.mark.parametrize(
    "sample",
    [
        sample
        for sample in re.findall(r"^\$ (bigmodel-train .*\nbigmodel-train: .*)$", README, re.MULTILINE)
        if "resume=" not in sample
    ],
)
def test_a_complaint_is_the_one_that_is_shown(command: Command, tmp_path: Path, sample: str) -> None:
    typed, told = sample.split("\n")
    (tmp_path / "houses.csv").write_text(HOUSES)
    result = command(*words_of(typed))
    assert result.status == 1
    assert result.err.rstrip("\n") == told


def test_the_counts_are_those_of_the_configurations() -> None:
    counts = {
        name: len({choice.keys[0].value for choice in group.choices.values() if choice.keys} - {"auto"})
        for name, group in read_index([CONFIGS]).groups.items()
    }
    told = (
        f"There are {counts['model']} models, {counts['data']} data sources, {counts['loss']} losses,"
        f" {counts['optimizer']} optimizers and {counts['scheduler']} schedules."
    )
    assert told in README.replace("\n", " ")
