"""`find=` and `optimizer.lr=auto` as a user types them."""

import json
from pathlib import Path
from typing import Any

import pytest

from bigmodel.cli.commands.reports.single import _what_was_run
from bigmodel.cli.commands.run_files import RunFiles
from bigmodel.reporting.report.content import Facts
from tests.end_to_end.conftest import Command
from tests.end_to_end.test_resume import StoppedError, final_state, stop_after

SMALL = ("data=iris", "model.hidden_sizes=[8]", "device=cpu", "device.threads=1")
RUN = (*SMALL, "trainer.epochs=3", "trainer.tensorboard=false", "device.engine=eager")


def record(folder: Path) -> dict[str, Any]:
    (path,) = folder.rglob("find.json")
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def test_a_learning_rate_is_found_and_the_line_that_is_printed_trains_with_it(
    command: Command, tmp_path: Path
) -> None:
    result = command("find=lr", *SMALL, "optimizer.lr=0.5", "seed=3")
    assert result.status == 0, result.err
    found = record(tmp_path)
    rate = found["suggested"]["optimizer.lr"]
    line = next(line for line in result.out.splitlines() if line.startswith("Train with: "))
    assert line.endswith(
        f"{' '.join(SMALL).replace(SMALL[1], repr(SMALL[1]))} seed=3 optimizer.lr={rate}"
    )
    assert found["command"] == line.removeprefix("Train with: ")
    assert len(found["rates"]) == len(found["losses"]) == len(found["smoothed"])
    assert "▲" in result.out
    folder = next(tmp_path.rglob("find.json")).parent
    assert sorted(path.name for path in folder.iterdir()) == ["find.json", "find.png"]
    assert (folder / "find.png").read_bytes().startswith(b"\x89PNG")
    trained = command(*RUN, f"optimizer.lr={rate}")
    assert trained.status == 0
    assert trained.folder != folder


def test_a_batch_size_is_found(command: Command, tmp_path: Path) -> None:
    result = command("find=batch_size", *SMALL)
    assert result.status == 0, result.err
    found = record(tmp_path)
    assert [trial["size"] for trial in found["trials"]] == [1, 2, 4, 8, 16, 32, 64, 120]
    assert found["end"] == "the whole training set is one batch"
    assert "Largest: 120" in result.out
    assert found["suggested"]["data.batch_size"] in {trial["size"] for trial in found["trials"]}


def test_what_was_found_is_no_run(command: Command, tmp_path: Path) -> None:
    assert command("find=lr", *SMALL).status == 0
    resumed = command("resume=auto", *RUN)
    assert "no unfinished run of this configuration" in resumed.out
    folder = next(tmp_path.rglob("find.json")).parent
    again = command("find=lr", *SMALL, f"hydra.run.dir={folder}")
    assert again.status == 1
    assert "holds find.json and find.png already" in again.err
    assert resumed.folder is not None
    other = command("find=lr", *SMALL, f"hydra.run.dir={resumed.folder}")
    assert other.status == 1
    assert "already holds a run" in other.err


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["find=momentum"], "find='momentum': should be 'lr' or 'batch_size'"),
        (["find=lr", "resume=auto"], "find=lr: goes with a new run, not with resume"),
        (["-m", "find=lr", "seed=0,1"], "find=lr: is for one run, not for a sweep. Leave -m out"),
        (["optimizer.lr=aut"], "optimizer.lr='aut': should be a number above 0, or auto."),
        (["optimizer.lr=-1"], "optimizer.lr=-1: should be greater than 0."),
        (["optimizer.lr=fast"], "optimizer.lr='fast': should be a valid number."),
    ],
)
def test_mistakes_are_told_and_leave_nothing(
    command: Command, tmp_path: Path, words: list[str], told: str
) -> None:
    result = command(*SMALL, *words)
    assert result.status == 1
    assert told in result.err
    assert list(tmp_path.iterdir()) == []


def test_a_resumed_run_goes_on_with_the_rate_that_was_found(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = (*RUN, "optimizer.lr=auto")
    whole = command(*options)
    assert whole.status == 0, whole.err
    with monkeypatch.context() as patch:
        stop_after(patch, 4)
        with pytest.raises(StoppedError):
            command(*options, "trainer.checkpoint.every_steps=2")
    resumed = command("resume=auto", *options, "trainer.checkpoint.every_steps=2")
    assert resumed.status == 0, resumed.err
    assert resumed.out.count("by a range test") == 1  # of the command that was stopped
    assert resumed.folder != whole.folder
    assert resumed.summary()["found"] == whole.summary()["found"]
    (groups, _), (wanted, _) = final_state(resumed), final_state(whole)
    assert all((groups["model"][name] == value).all() for name, value in wanted["model"].items())


def test_a_found_rate_outlives_other_changes_and_a_typed_one_replaces_it(command: Command) -> None:
    first = command(*RUN, "optimizer.lr=auto", "scheduler=constant")
    found = first.summary()["found"]["optimizer.lr"]
    more = ("resume_changed=true", "trainer.epochs=4")
    changed = command(f"resume={first.folder}", *more, "optimizer.weight_decay=0.1")
    assert changed.status == 0, changed.err
    assert changed.records()[-1]["lr"] == found
    assert changed.folder is not None
    (facts, *_) = _what_was_run(RunFiles.read(changed.folder), None)
    assert isinstance(facts, Facts)
    assert ("Found by trying", f"optimizer.lr={found:g}") in facts.rows
    more = ("resume_changed=true", "trainer.epochs=5")
    typed = command(f"resume={first.folder}", *more, "optimizer.lr=0.125")
    assert typed.records()[-1]["lr"] == 0.125
    assert typed.summary()["found"] == {}
    more = ("resume_changed=true", "trainer.epochs=6")
    late = command(f"resume={first.folder}", *more, "optimizer.lr=auto")
    assert late.status == 1
    assert "optimizer.lr=auto is found at the start of a run, and this one has done" in late.err


def test_the_jobs_of_a_sweep_find_their_own(command: Command, tmp_path: Path) -> None:
    result = command("-m", *RUN, "optimizer.lr=auto", "optimizer=adamw,sgd")
    assert result.status == 0, result.err
    found = [json.loads(path.read_text())["found"] for path in tmp_path.rglob("summary.json")]
    assert len({each["optimizer.lr"] for each in found}) == 2


def test_a_plugin_s_optimizer_has_it_too(command: Command, tmp_path: Path) -> None:
    (tmp_path / "found_by_trying.py").write_text(
        "import torch\n"
        "from pydantic import Field\n"
        "from bigmodel.registry import EntryConfig, optimizers\n"
        "class C(EntryConfig):\n"
        "    lr: float = Field(gt=0, description='its rate')\n"
        "@optimizers.register('layered', C)\n"
        "def build(config, model):\n"
        "    groups = [{'params': [p], 'lr': config.lr / (i + 1)} for i, p in"
        " enumerate(model.parameters())]\n"
        "    return torch.optim.SGD(groups, lr=config.lr)\n"
        "class N(EntryConfig):\n"
        "    rate: float = Field(0.1, gt=0, description='its rate')\n"
        "@optimizers.register('other', N)\n"
        "def other(config, model):\n"
        "    return torch.optim.SGD(model.parameters(), lr=config.rate)\n"
    )
    plugin = ("plugins=[found_by_trying]", "~optimizer")
    layered = command(*RUN, *plugin, "+optimizer={name: layered, lr: auto}")
    assert layered.status == 0, layered.err
    assert layered.records()[0]["lr"] > 0
    refused = command(*RUN, *plugin, "+optimizer={name: other, lr: auto}")
    assert refused.status == 1
    assert "optimizer.lr: no such setting." in refused.err
