"""Runs with low-rank updates: what they save, how they go on, and how they are used."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from bigmodel.build.new_run import build_run
from bigmodel.build.pretrained.start import as_started
from bigmodel.build.resumed_run import resume_run
from bigmodel.checkpointing import checkpoint
from bigmodel.cli.commands.loaded_run import load_run
from bigmodel.errors import CheckpointError, ConfigError
from bigmodel.models.layers.frozen import LoRALinear
from bigmodel.training.loop import fit
from bigmodel.training.run import Run
from tests.engine.steps import needs_compiler
from tests.small_runs import STEPS_PER_EPOCH, config

MODEL = {"name": "transformer", "dim": 128, "num_heads": 4, "depth": 2, "dropout": 0.1}


def new_run(folder: Path, tuning: dict[str, Any], **settings: Any) -> Run:
    return build_run(config({"model": MODEL | tuning} | settings), folder)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run to start from."""
    folder = tmp_path_factory.mktemp("base")
    fit(new_run(folder, {}, **{"trainer.epochs": 1}))
    return folder


def tuning(base: Path, precision: str = "fp32", **lora: Any) -> dict[str, Any]:
    lora = {"rank": 2, "dropout": 0.2, "train": ["head"]} | lora
    return {"pretrained": str(base), "frozen_precision": precision, "lora": lora}


def resumed(folder: Path, tuned: dict[str, Any], **settings: Any) -> Run:
    newest = checkpoint.load_newest(folder / "checkpoints")
    parsed = as_started(config({"model": MODEL | tuned} | settings), newest.facts, parsed_values(tuned))
    return resume_run(build_run(parsed, folder, goes_on=True), newest)


def parsed_values(tuned: dict[str, Any]) -> dict[str, Any]:
    return config({"model": MODEL | tuned}).values


def outputs(model: torch.nn.Module, run: Run) -> Tensor:
    assert run.val is not None
    batch = next(iter(run.val.epoch(0)))
    with torch.no_grad():
        result: Tensor = model.eval()(batch.inputs)
    return result


def test_it_begins_as_its_base(tmp_path: Path, base: Path) -> None:
    run = new_run(tmp_path, tuning(base))
    assert torch.equal(outputs(run.state.model, run), outputs(load(base), run))
    told = dict(run.info.rows)["LoRA"]
    assert told.startswith("rank 2 in 8 layers: blocks.0.attention.qkv, blocks.0.attention.output, ")
    assert told.endswith("; in full: head")
    assert dict(run.info.rows)["Model"].endswith("are trained (2.36%)")


def test_a_head_that_was_loaded_is_frozen_and_a_new_one_trained(tmp_path: Path, base: Path) -> None:
    """The head is a new one for other classes."""
    for name, data, beside in [("same", {}, ""), ("other", {"data.outputs": 4}, "; in full: head")]:
        run = new_run(tmp_path / name, tuning(base, train=[]), **data)
        assert dict(run.info.rows)["LoRA"].endswith(f"feed_forward.contract, …{beside}")
        fit(run)
        loaded = load(tmp_path / name)
        torch.testing.assert_close(outputs(loaded, run), outputs(run.state.model, run))


def test_the_header_names_the_updates_that_are_trained(tmp_path: Path, base: Path) -> None:
    for number, (options, told) in enumerate(
        [
            ({"freeze": ["blocks.0"]}, "rank 2 in 4 layers: blocks.1.attention.qkv, "),
            ({"freeze": ["head"]}, "rank 2 in 8 layers: "),
            ({"freeze": ["blocks"]}, "rank 2 in 0 layers; in full: head"),
        ]
    ):
        run = new_run(tmp_path / str(number), tuning(base) | options)
        row = dict(run.info.rows)["LoRA"]
        assert row.startswith(told)
        assert row.endswith("in full: head") == ("head" not in options["freeze"])


def test_updates_that_are_frozen_are_no_part_of_the_base(tmp_path: Path, base: Path) -> None:
    """They begin at random, so that no other process has the same."""
    run = new_run(tmp_path, tuning(base) | {"freeze": ["blocks.0"]}, **{"trainer.epochs": 1})
    fit(run)
    torch.manual_seed(99)
    torch.testing.assert_close(outputs(load(tmp_path), run), outputs(run.state.model, run))


def test_the_header_tells_what_is_stored_in_fewer_bits(tmp_path: Path, base: Path) -> None:
    """Of eight layers the two of 128 × 128 numbers are large enough as well."""
    row = dict(new_run(tmp_path / "int8", tuning(base, "int8")).info.rows)["Frozen"]
    assert row == "8 layers in int8; what else is frozen is small or shared, and in fp32"
    assert "Frozen" not in dict(new_run(tmp_path / "fp32", tuning(base)).info.rows)


def test_the_header_warns_of_new_parts_that_are_frozen(tmp_path: Path, base: Path) -> None:
    options = {"pretrained": str(base), "freeze": ["head"]}
    run = new_run(tmp_path / "new", options, **{"data.outputs": 4})
    assert dict(run.info.rows)["Warning"] == (
        "model.freeze: head.weight, head.bias were not loaded, and stay as they began, at random"
    )
    assert "Warning" not in dict(new_run(tmp_path / "loaded", options).info.rows)


def test_options_of_updates_need_a_rank(tmp_path: Path, base: Path) -> None:
    options = {"pretrained": str(base), "lora": {"targets": ["*.qkv"], "alpha": 32}}
    with pytest.raises(ConfigError, match=r"^model.lora.alpha=32.0 'model.lora.targets=.*: without"):
        new_run(tmp_path, options)


def load(folder: Path) -> torch.nn.Module:
    """With the best weights, which a run has in its model when it is over."""
    return load_run(str(folder), "best", "cpu", [], lambda _: None).model


@pytest.mark.parametrize("precision", ["fp32", "bf16", "int8"])
def test_a_checkpoint_holds_updates_and_the_head_alone(
    tmp_path: Path, base: Path, precision: str
) -> None:
    run = new_run(tmp_path, tuning(base, precision), **{"trainer.ema": 0.5})
    fit(run)
    groups, facts = checkpoint.load(tmp_path / "checkpoints" / "last")
    for group in ("model", "averaged"):
        ends = {name.rpartition(".")[2] for name in groups[group] if not name.startswith("head.")}
        assert ends == {"lora_a", "lora_b"}
    assert facts["base"]["path"] == str(base)
    assert len(facts["base"]["digest"]) == 64


@pytest.mark.parametrize("precision", ["fp32", "bf16", "int8"])
def test_a_trained_run_is_a_usual_model_with_the_same_outputs(
    tmp_path: Path, base: Path, precision: str
) -> None:
    run = new_run(tmp_path, tuning(base, precision), **{"optimizer.lr": 0.05})
    fit(run)
    used = load(tmp_path)
    torch.testing.assert_close(outputs(used, run), outputs(run.state.model, run), atol=1e-4, rtol=1e-4)
    assert not any(isinstance(layer, LoRALinear) for layer in used.modules())
    assert used.state_dict().keys() == load(base).state_dict().keys()
    assert not torch.allclose(outputs(used, run), outputs(load(base), run), atol=1e-2)


@pytest.mark.parametrize(
    ("precision", "engine"),
    [
        ("fp32", "eager"),
        ("int8", "eager"),
        pytest.param("fp32", "compiled", marks=[needs_compiler, pytest.mark.slow]),
    ],
)
def test_a_run_with_updates_is_resumed_to_the_bit(
    tmp_path: Path, base: Path, precision: str, engine: str
) -> None:
    settings: dict[str, Any] = {"device.engine": engine, "trainer.ema": 0.9, "trainer.epochs": 2}
    whole = new_run(tmp_path / "whole", tuning(base, precision), **settings)
    fit(whole)
    half = {"trainer.max_steps": STEPS_PER_EPOCH + 2}
    fit(new_run(tmp_path / "half", tuning(base, precision), **settings | half))
    again = resumed(tmp_path / "half", tuning(base, precision), **settings)
    assert again.state.progress.step == STEPS_PER_EPOCH + 2
    fit(again)
    ours, theirs = (each.state.save()[0] for each in (again, whole))
    for group in ("model", "averaged", "optimizer"):
        assert all(torch.equal(value, theirs[group][name]) for name, value in ours[group].items())


def test_only_the_folder_that_it_started_from_has_to_stay(tmp_path: Path, base: Path) -> None:
    """Wherever the process is, and with a message if it is gone or another."""
    start = tmp_path / "start"
    shutil.copytree(base, start)
    fit(new_run(tmp_path / "run", tuning(start), **{"trainer.epochs": 1}))
    shutil.move(start, tmp_path / "moved")
    with pytest.raises(CheckpointError) as raised:
        load(tmp_path / "run")
    assert str(raised.value) == (
        f"{tmp_path / 'run'}: its checkpoints hold updates of the weights in {start}, and these cannot"
        f" be read: model.pretrained={start}: there is no such file or folder. If they have moved, name"
        " their place: model.pretrained=PATH for resume=, --base PATH for other commands."
    )
    with pytest.raises(CheckpointError, match="If they have moved, name their place"):
        resumed(tmp_path / "run", tuning(start), **{"trainer.epochs": 2})
    start.symlink_to(tmp_path / "moved")
    load(tmp_path / "run")
    start.unlink()
    fit(new_run(start, {}, **{"trainer.epochs": 1, "seed": 1}))
    with pytest.raises(CheckpointError, match=f"updates of other weights than those in {start}, which"):
        load(tmp_path / "run")
    with pytest.raises(CheckpointError, match="updates of other weights"):
        resumed(tmp_path / "run", tuning(start), **{"trainer.epochs": 2})


def test_the_base_may_be_elsewhere(tmp_path: Path, base: Path) -> None:
    """Where it is named, it is read from there, and it must be the same."""
    start, moved, run = tmp_path / "start", tmp_path / "moved", tmp_path / "run"
    shutil.copytree(base, start)
    fit(new_run(run, tuning(start), **{"trainer.epochs": 1}))
    before = load(run)
    shutil.move(start, moved)
    after = load_run(str(run), "best", "cpu", [], print, base=str(moved)).model
    assert all(torch.equal(v, before.state_dict()[k]) for k, v in after.state_dict().items())
    fit(new_run(tmp_path / "other", {}, **{"trainer.epochs": 1, "seed": 1}))
    with pytest.raises(CheckpointError, match="updates of other weights"):
        load_run(str(run), "best", "cpu", [], print, base=str(tmp_path / "other"))
    with pytest.raises(ConfigError, match="--base there: the checkpoint holds all of its weights"):
        load_run(str(base), "best", "cpu", [], print, base="there")


@pytest.mark.parametrize("tuned", ["lora", "frozen"])
def test_another_run_can_start_from_it(tmp_path: Path, base: Path, tuned: str) -> None:
    options = tuning(base, "int8")
    if tuned == "frozen":
        options = {"pretrained": str(base), "frozen_precision": "int8", "freeze": ["blocks"]}
    fit(new_run(tmp_path / "first", options, **{"trainer.epochs": 1}))
    run = new_run(tmp_path / "second", {"pretrained": str(tmp_path / "first")})
    assert torch.equal(outputs(run.state.model, run), outputs(load(tmp_path / "first"), run))


def test_frozen_parts_in_int8_are_saved_and_go_on(tmp_path: Path) -> None:
    options = {"freeze": ["blocks"], "frozen_precision": "int8"}
    settings = {"trainer.epochs": 1}
    run = new_run(tmp_path, options, **settings)
    fit(run)
    assert run.state.model.get_parameter("blocks.0.attention.qkv.weight").dtype == torch.int8
    torch.testing.assert_close(outputs(load(tmp_path), run), outputs(run.state.model, run))
    again = resumed(tmp_path, options, **settings | {"trainer.epochs": 2})
    assert torch.equal(outputs(again.state.model, run), outputs(run.state.model, run))
    fit(again)


def test_updates_need_weights_that_were_trained(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"model.lora.rank=2: low-rank updates change weights"):
        new_run(tmp_path, {"lora": {"rank": 2}})


def test_blocks_are_unfrozen_one_by_one_with_their_updates(tmp_path: Path, base: Path) -> None:
    run = new_run(tmp_path, tuning(base) | {"unfreeze_every": 1}, **{"trainer.epochs": 1})
    fit(run)
    named = run.state.model.named_parameters()
    assert {name for name, parameter in named if parameter.requires_grad} == {"head.weight", "head.bias"}
