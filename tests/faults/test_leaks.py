"""What a secret's key holds is nowhere: in no file of any run, and in nothing that is printed."""

import json
import logging
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from bigmodel import redaction, registry
from tests.end_to_end import conftest
from tests.end_to_end.conftest import Command, Result

command = conftest.command

SECRET = "hunter2-Zx81qQ"
PLUGIN = """
from pathlib import Path

import torch
from pydantic import Field
from bigmodel.data.assemble import assemble
from bigmodel.data.base import RealConfig
from bigmodel.data.parts import Part
from bigmodel.errors import DataError
from bigmodel.registry import data
from bigmodel.spec import Classes, DataSpec, Features

class VaultConfig(RealConfig):
    api_key: str = Field(default="", max_length=40)
    note: str = ""
    auth: dict[str, str] = {}
    passwords: list[str] = []
    mistake: str = "none"

@data.register("vault", VaultConfig)
def vault(config):
    with Path("seen.jsonl").open("a") as file:  # jobs of a sweep run in processes of their own
        file.write(config.model_dump_json() + "\\n")
    if config.mistake == "refused":
        raise DataError(f"the server refuses {config.api_key!r}")
    if config.mistake == "crash":
        raise ValueError(f"the server does not know {config.api_key}")
    samples = Part(torch.randn(60, 3), torch.arange(60) % 2)
    spec = DataSpec("vault", Features(3), Classes(names=("a", "b"), counts=()))
    return assemble(config, spec, samples)
"""
ARGV = ("--config-dir", "mine", "plugins=[my_vault]", "data=vault", "device=cpu", "trainer.epochs=1")
ENTRY = "name: vault\nbatch_size: 16\n"

Call = Callable[..., Result]


@pytest.fixture
def call(command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Call]:
    """The command, with a look at all that it leaves behind."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(redaction, "_known", set())
    (tmp_path / "mine" / "data").mkdir(parents=True)
    (tmp_path / "mine" / "data" / "vault.yaml").write_text(ENTRY + "api_key: ''\nmistake: none\n")
    (tmp_path / "my_vault.py").write_text(PLUGIN)
    before, handlers = dict(os.environ), list(logging.root.handlers)
    level = logging.root.level

    def searched(*argv: str) -> Result:
        result = command(*argv)
        assert SECRET not in result.out + result.err
        for path in tmp_path.rglob("*"):
            assert SECRET not in str(path.relative_to(tmp_path))
            if path.is_file() and path.relative_to(tmp_path).parts[0] in {"outputs", "elsewhere"}:
                assert SECRET.encode() not in path.read_bytes(), path
        return result

    yield searched
    logging.root.handlers[:] = handlers  # --info adds one
    logging.root.setLevel(level)
    os.environ.clear()
    os.environ.update(before)
    registry.data._entries.pop("vault", None)
    sys.modules.pop("my_vault", None)


def seen() -> list[SimpleNamespace]:
    """The settings with which data was read, in order. Jobs that share theirs read it once."""
    return [SimpleNamespace(**json.loads(line)) for line in Path("seen.jsonl").read_text().splitlines()]


@pytest.mark.parametrize(
    "typed",
    [
        f"data.api_key={SECRET}",
        f"++data.api_key='{SECRET}'",
        f"+data.auth={{user:me,api_key:{SECRET}}}",
    ],
)
def test_a_run_gets_it_and_keeps_it_nowhere(call: Call, typed: str) -> None:
    result = call(*ARGV, typed)
    assert result.status == 0, result.err
    got = seen()[-1]
    assert SECRET in (got.api_key, got.auth.get("api_key"))
    assert result.folder is not None
    assert "${oc.env:BIGMODEL_DATA_" in (result.folder / ".hydra" / "config.yaml").read_text()
    assert "${oc.env:BIGMODEL_DATA_" in (result.folder / ".hydra" / "overrides.yaml").read_text()


def test_characters_of_all_kinds_arrive_as_they_were_typed(call: Call) -> None:
    for typed, meant in [
        ("'it\\'s 100%, {or} more'", "it's 100%, {or} more"),
        ("a=b==", "a=b=="),
        ("0123", "0123"),
        ("1e5", "1e5"),
        ("a\\,b", "a,b"),
        ("one,two", "one,two"),
    ]:
        result = call(*ARGV, "trainer.tensorboard=false", f"data.api_key={typed}")
        assert result.status == 0, result.err
        assert seen()[-1].api_key == meant


def test_a_list_and_what_refers_to_it(call: Call) -> None:
    result = call(*ARGV, f"+data.password_list=['{SECRET}']")
    assert result.status == 1
    assert "no such setting" in result.err
    words = (
        f"data.api_key={SECRET}",
        "+data.note=${data.api_key}",
        f"+data.auth={{password:'{SECRET}'}}",
    )
    result = call(*ARGV, *words)
    assert result.status == 0, result.err
    assert seen()[-1].note == SECRET


def test_a_sweep_keeps_it_nowhere(call: Call, tmp_path: Path) -> None:
    words = ("seed=1,2", "hydra.sweep.dir=elsewhere", "hydra.sweep.subdir=${hydra.job.override_dirname}")
    result = call("-m", *ARGV, f"data.api_key={SECRET}", *words)
    assert result.status == 0, result.err
    assert [config.api_key for config in seen()] == [SECRET]
    assert "BIGMODEL_DATA_API_KEY" in (tmp_path / "elsewhere" / "multirun.yaml").read_text()


@pytest.mark.parametrize("mistake", ["refused", "crash"])
def test_a_sweep_that_fails_keeps_it_nowhere(call: Call, tmp_path: Path, mistake: str) -> None:
    keys = f"{SECRET},x{SECRET}"
    argv = ("hydra.sweep.dir=elsewhere", f"data.mistake=none,{mistake}", "trainer.tensorboard=false")
    result = call("-m", *ARGV, f"data.api_key={keys}", *argv)
    assert result.status == 1
    assert {config.api_key for config in seen()} == {keys}
    assert "***" in result.out
    assert "***" in (tmp_path / "elsewhere" / "leaderboard.csv").read_text()


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("data.mistake=refused", "refuses '***'"),
        ("data.mistake=crash", "does not know ***"),
        (f"data.api_key={SECRET * 4}", "data.api_key='***'"),
        (f"data.api_key=[{SECRET}]", "data.api_key=['***']"),
        (f"data.api_kye.token={SECRET}", ""),
        (f"--data.api_key={SECRET}", "***"),
        (f"data.api_key:{SECRET}", "***"),
        (f"data.api_key='{SECRET}", "data.api_key=***: the value cannot be read"),
        (f"data.api key={SECRET}", ""),
        (f"my_secret={SECRET}", "my_secret"),
        (f"+data.auth={{a:{{api_key:{SECRET}}}}}", "data.auth.a={'api_key': '***'}"),
        (f"data.batch_size={{api_key:{SECRET}}}", "data.batch_size={'api_key': '***'}"),
        (f"+data.passwords=[{SECRET},3]", ""),
        ("+model.api_key=${data.api_key}", ""),
        (f"model={{api_key:{SECRET}}}", ""),
    ],
)
def test_no_message_quotes_it(call: Call, word: str, said: str) -> None:
    result = call(*ARGV, f"data.api_key={SECRET}", word)
    assert result.status != 0
    assert said in result.err


def test_a_secret_in_a_file(call: Call, tmp_path: Path) -> None:
    entry = f"{ENTRY}api_key: {SECRET}\nauth: {{passphrase: '{SECRET}'}}\npasswords: []\n"
    (tmp_path / "mine" / "data" / "vault.yaml").write_text(entry)
    result = call(*ARGV, "hydra.run.dir=elsewhere/a")
    assert result.status == 0, result.err
    assert seen()[-1].api_key == seen()[-1].auth["passphrase"] == SECRET
    assert call("-m", *ARGV, "seed=1,2").status == 0
    for flags in (["--cfg", "job"], ["--cfg", "all", "--resolve"], ["--info", "all"], ["--help"]):
        call(*ARGV, f"data.api_key={SECRET}", f"+hydra.job.env_set.HF_TOKEN={SECRET}", *flags)


def test_a_file_that_sweeps_over_secrets(call: Call, tmp_path: Path) -> None:
    (tmp_path / "mine" / "experiment").mkdir()
    swept = (
        f"# @package _global_\nhydra: {{sweeper: {{params: {{data.api_key: '{SECRET}', seed: '1,2'}}}}}}"
    )
    (tmp_path / "mine" / "experiment" / "swept.yaml").write_text(swept)
    result = call("-m", *ARGV, "experiment=swept")
    assert result.status == 0, result.err
    assert [config.api_key for config in seen()] == [SECRET]


def test_a_resume_asks_for_it_again(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    first = call(*ARGV, f"data.api_key={SECRET}")
    again = (f"resume={first.folder}", "plugins=[my_vault]", "trainer.epochs=2")
    del os.environ["BIGMODEL_DATA_API_KEY"]
    forgotten = call(*again)
    assert forgotten.status == 1
    assert (
        "bigmodel-train: data.api_key: is a secret and is stored in no file. Pass it again ("
        "data.api_key=…), or set the environment variable BIGMODEL_DATA_API_KEY."
    ) in forgotten.err
    assert call(*again, f"data.api_key={SECRET}").status == 0
    monkeypatch.setenv("HF_TOKEN", SECRET)
    renewed = call(*again[:2], "trainer.epochs=3", "data.api_key=${oc.env:HF_TOKEN}")
    assert renewed.status == 0, renewed.err
    assert seen()[-1].api_key == SECRET


def test_auto_finds_the_run_whose_secret_stands_in_a_file(call: Call, tmp_path: Path) -> None:
    (tmp_path / "mine" / "data" / "vault.yaml").write_text(f"{ENTRY}api_key: {SECRET}\n")
    first = call(*ARGV)
    assert first.folder is not None
    summary = first.folder / "summary.json"
    summary.write_text(summary.read_text().replace("finished", "stopped"))
    del os.environ["BIGMODEL_DATA_API_KEY"]
    result = call(*ARGV, "resume=auto")
    assert result.status == 0, result.err
    assert f"resuming {first.folder.relative_to(tmp_path)}" in result.out


def test_a_sweep_over_groups_of_settings_with_secrets_is_refused(call: Call) -> None:
    result = call("-m", *ARGV, f"+data.auth={{token:{SECRET}}},{{token:other}}")
    assert result.status == 1
    assert "Pass the secret by itself" in result.err


def test_a_number_keeps_its_kind_where_it_counts_tokens(call: Call) -> None:
    result = call(*ARGV, "+data.token_dim=64")
    assert "data.token_dim: no such setting" in result.err
    assert "BIGMODEL_DATA_TOKEN_DIM" not in os.environ
