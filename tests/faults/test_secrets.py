"""A secret's value is in no file that a run writes, and in nothing that it prints."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from bigmodel import registry
from tests.end_to_end import conftest
from tests.end_to_end.conftest import Command, Result
from tests.tracker_library import Library, library

__all__ = ["library"]

command = conftest.command
SECRET = "hf_Sesame0pen"
PLUGIN = """
from pathlib import Path

from pydantic import Field

from bigmodel import registry
from bigmodel.data.sources.synthetic import SyntheticConfig, synthetic


class VaultConfig(SyntheticConfig):
    api_key: str = Field(default="", max_length=20)


@registry.data.register("vault", VaultConfig)
def vault(config):
    with Path("got.txt").open("a") as file:  # what the source was given
        file.write(config.api_key + "\\n")
    return synthetic(config)
"""
YAML = "name: vault\napi_key: ''\ntarget: classes\noutputs: 3\n"
ARGUMENTS = (
    *("--config-dir", "mine", "plugins=[my_vault]", "data=vault"),
    *("debug=fast", "device=cpu"),
)


@pytest.fixture(autouse=True)
def _vault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(sys, "path", list(sys.path))
    for name in ("BIGMODEL_DATA_API_KEY", "MY_KEY"):
        monkeypatch.setenv(name, "")  # so that it is taken back
        monkeypatch.delenv(name)
    (tmp_path / "mine" / "data").mkdir(parents=True)
    (tmp_path / "mine" / "data" / "vault.yaml").write_text(YAML)
    (tmp_path / "my_vault.py").write_text(PLUGIN)
    yield
    registry.data._entries.pop("vault", None)
    sys.modules.pop("my_vault", None)


def given(tmp_path: Path) -> list[str]:
    return (tmp_path / "got.txt").read_text().splitlines()


def leaks(tmp_path: Path, *results: Result) -> list[str]:
    """Where the secret can be read; names of files and folders count."""
    files = [path for path in (tmp_path / "outputs").rglob("*") if path.is_file()]
    assert files
    found = [str(path) for path in files if SECRET.encode() in path.read_bytes() or SECRET in str(path)]
    return found + [text for result in results for text in (result.out, result.err) if SECRET in text]


def test_what_a_run_is_called_and_what_trackers_are_told(
    library: Library, command: Command, tmp_path: Path
) -> None:
    result = command(*ARGUMENTS, f"data.api_key={SECRET}", "seed=3", "logger=[trackio]")
    assert result.status == 0, result.err
    assert leaks(tmp_path, result) == []
    [[_, how]] = library.heard("began")
    assert SECRET not in str(library.heard("began") + library.heard("logged"))
    assert how["name"].startswith("fnn-vault,debug=fast,seed=3, ")


@pytest.mark.parametrize("form", ["data.api_key={}", "data.api_key='{}'", "++data.api_key={}"])
def test_typed(command: Command, tmp_path: Path, form: str) -> None:
    result = command(*ARGUMENTS, form.format(SECRET))
    assert result.status == 0, result.err
    assert given(tmp_path) == [SECRET]
    assert leaks(tmp_path, result) == []
    assert result.folder is not None
    written = (result.folder / ".hydra" / "config.yaml").read_text()
    assert "api_key: ${oc.env:BIGMODEL_DATA_API_KEY}" in written


def test_in_a_sweep(command: Command, tmp_path: Path) -> None:
    result = command("-m", *ARGUMENTS, f"data.api_key={SECRET}", "seed=1,2", "model=fnn,rnn")
    assert len(list(tmp_path.glob("outputs/multirun/*/*/multirun.yaml"))) == 1
    assert set(given(tmp_path)) == {SECRET}
    assert "failed" in result.out  # the recurrent ones: they cannot read features
    assert leaks(tmp_path, result) == []


def test_in_a_file_of_the_user_s_own(command: Command, tmp_path: Path) -> None:
    (tmp_path / "mine" / "data" / "vault.yaml").write_text(YAML.replace("''", SECRET))
    for more in ((), ("-m", "seed=1,2")):
        result = command(*more, *ARGUMENTS)
        assert result.status == 0, result.err
        assert leaks(tmp_path, result) == []
    assert given(tmp_path) == [SECRET] * 2  # the jobs of the sweep share theirs


def test_out_of_the_environment(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reference is stored as it was written, whatever its key is called."""
    monkeypatch.setenv("MY_KEY", SECRET)
    result = command(*ARGUMENTS, "data.api_key=${oc.env:MY_KEY}")
    assert result.status == 0, result.err
    assert given(tmp_path)[-1] == SECRET
    assert leaks(tmp_path, result) == []
    assert result.folder is not None
    assert "api_key: ${oc.env:MY_KEY}" in (result.folder / ".hydra" / "config.yaml").read_text()


def test_in_a_message(command: Command, tmp_path: Path) -> None:
    (tmp_path / "outputs").mkdir()
    (tmp_path / "outputs" / "some").touch()
    for words in ([f"data.api_key={SECRET * 3}"], [f"data.api_key='{SECRET}", "data.batch_size=0"]):
        result = command(*ARGUMENTS, *words)
        assert result.status == 1, words
        assert leaks(tmp_path, result) == []
    assert "data.api_key='***'" in command(*ARGUMENTS, f"data.api_key={SECRET * 3}").err


@pytest.mark.parametrize(
    "words", [("seed=1", "--token", SECRET), (f"--token={SECRET}",), (f"data.token:{SECRET}",)]
)
def test_in_a_mistake(command: Command, words: tuple[str, ...]) -> None:
    result = command(*words)
    assert result.status == 1
    assert SECRET not in result.out + result.err
    assert "***" in result.err


def test_a_run_of_the_first_version_held_it_openly(command: Command, tmp_path: Path) -> None:
    first = command(*ARGUMENTS, f"data.api_key={SECRET}")
    assert first.folder is not None
    path = first.folder / ".hydra" / "config.yaml"
    path.write_text(path.read_text().replace("${oc.env:BIGMODEL_DATA_API_KEY}", SECRET))
    resumed = command(f"resume={first.folder}", "plugins=[my_vault]", "trainer.epochs=2")
    assert resumed.status == 0, resumed.err
    assert given(tmp_path) == [SECRET] * 2
    assert leaks(tmp_path, resumed) == []


def test_on_resume_it_is_wanted_again(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = command(*ARGUMENTS, f"data.api_key={SECRET}")
    again = (f"resume={first.folder}", "plugins=[my_vault]", "trainer.epochs=2")
    monkeypatch.delenv("BIGMODEL_DATA_API_KEY")
    forgotten = command(*again)
    assert forgotten.status == 1
    assert "data.api_key: is a secret and is stored in no file" in forgotten.err
    assert "BIGMODEL_DATA_API_KEY" in forgotten.err
    resumed = command(*again, f"data.api_key={SECRET}")
    assert resumed.status == 0, resumed.err
    assert given(tmp_path) == [SECRET] * 2
    assert leaks(tmp_path, first, forgotten, resumed) == []
