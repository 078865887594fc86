"""What a compiled step is known by, and what becomes of libraries that are damaged, foreign or many."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch

from bigmodel.build.new_run import build_run
from bigmodel.data.base import Batch
from bigmodel.engine import cache, candidates
from bigmodel.engine.cache import MAX_LIBRARIES, CacheEntry
from bigmodel.engine.functional_step import FunctionalStep, StepInputs
from bigmodel.engine.native import compiler
from bigmodel.engine.step import Step
from bigmodel.optim.schedulers import apply
from bigmodel.runtime import caches
from bigmodel.training.loop import fit
from tests.engine.steps import begun, make_batch, needs_compiler, small_step
from tests.engine.test_compiled import SETTINGS, run_of
from tests.models.cases import spec
from tests.small_runs import config

FEATURES = spec("features")


@pytest.fixture(autouse=True)
def folder(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """That of compiled steps; what another test has left in this process is not there."""
    monkeypatch.setenv("BIGMODEL_CACHE", str(tmp_path / "cache"))
    temporary = tmp_path_factory.mktemp("temporary")
    monkeypatch.setattr(caches, "_temporary", lambda: temporary)
    monkeypatch.setattr(caches, "_refused", {})
    return tmp_path / "cache" / "steps"


def entry_of_run(tmp_path: Path, settings: dict[str, Any] | None = None, factor: float = 1.0) -> Path:
    """Where the step of a run lies, after its first step."""
    run = build_run(config(settings), tmp_path)
    run.state.model.train()
    batch = next(iter(run.train.epoch(0)))
    apply(run.step.optimizer, factor)
    run.step(batch)
    facts = vars(run.engine)["_facts"]
    place = cache.find_entry(
        run.step, FunctionalStep(run.step), candidates.step_inputs(batch, run.step), facts, compiler.NAME
    )
    assert place is not None
    return place.library


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"optimizer.lr": 0.3},  # a decay that goes by the rate would be another in the code
        {"scheduler": "one_cycle"},
        {"trainer.epochs": 7, "data.samples": 200, "data.seed": 5},
    ],
    ids=str,
)
def test_a_step_is_known_again_whatever_its_code_does_not_follow_from(
    tmp_path: Path, settings: dict[str, Any]
) -> None:
    decay = {"optimizer.weight_decay": 0.01}
    assert entry_of_run(tmp_path, settings | decay, factor=0.5) == entry_of_run(tmp_path, decay)


def test_nor_does_the_seed_matter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = entry_of_run(tmp_path)
    monkeypatch.setattr(torch, "manual_seed", lambda _: None)
    torch.rand(1)
    assert entry_of_run(tmp_path) == before


@pytest.mark.parametrize(
    "settings",
    [
        {"model.hidden_sizes": [9]},
        {"model.dropout": 0.1},
        {"model.activation": "gelu"},
        {"optimizer.weight_decay": 0.1},
        {"optimizer.betas": [0.8, 0.99]},
        {"optimizer": "sgd"},
        {"data.batch_size": 16},
        {"data.outputs": 4},
        {"loss": {"name": "cross_entropy", "label_smoothing": 0.1}},
        {"trainer.clip_norm": 1.0},
        {"trainer.ema": 0.9},
        {"device.precision": "bf16"},
    ],
    ids=str,
)
def test_everything_else_makes_it_another(tmp_path: Path, settings: dict[str, Any]) -> None:
    assert entry_of_run(tmp_path, settings) != entry_of_run(tmp_path)


def entry_or_none(step: Step) -> CacheEntry | None:
    batch = make_batch(FEATURES)
    return cache.find_entry(
        step, FunctionalStep(step), candidates.step_inputs(batch, step), {}, compiler.NAME
    )


def entry_of(step: Step) -> CacheEntry:
    found = entry_or_none(step)
    assert found is not None
    return found


def test_frozen_weights_make_it_another() -> None:
    places = set()
    for frozen in (False, True):
        step = begun(small_step(), FEATURES)
        next(step.model.parameters()).requires_grad_(not frozen)
        places.add(entry_of(step).library)
    assert len(places) == 2


def test_so_does_which_weights_have_which_rate(tmp_path: Path) -> None:
    """Two groups of one parameter each that have changed places look alike otherwise."""
    model = {"model.hidden_sizes": [8, 8, 8]}
    places = {
        entry_of_run(tmp_path, model | {"optimizer.rates": {f"layers.{layer}": 0.1}}) for layer in (1, 2)
    }
    assert len(places) == 2


def test_sources_and_machine_and_threads_make_it_another(monkeypatch: pytest.MonkeyPatch) -> None:
    step = begun(small_step(), FEATURES)
    places = {entry_of(step).library}
    for name, value in (("_sources", "others"), ("_machine", ["another"])):
        with monkeypatch.context() as patch:
            patch.setattr(cache, name, lambda value=value: value)
            places.add(entry_of(step).library)
    torch.set_num_threads(2)
    try:
        places.add(entry_of(step).library)
    finally:
        torch.set_num_threads(1)
    assert len(places) == 4


def test_bounded_instructions_make_it_another() -> None:
    """The compiler writes for the instructions that $ATEN_CPU_CAPABILITY allows, once for a process."""
    known = "from bigmodel.engine import cache; print(cache._machine())"
    environments = (os.environ, os.environ | {"ATEN_CPU_CAPABILITY": "default"})
    results = [
        subprocess.run([sys.executable, "-c", known], env=e, capture_output=True, text=True, check=True)
        for e in environments
    ]
    if os.environ.get("ATEN_CPU_CAPABILITY") == "default":
        assert results[0].stdout == results[1].stdout
    else:
        assert results[0].stdout != results[1].stdout


def test_a_users_own_model_is_not_kept() -> None:
    """Its sources are not followed, so that it could not be told from what it was before."""
    assert entry_or_none(begun(small_step(), FEATURES)) is not None
    whole = begun(small_step(), FEATURES)
    part = begun(small_step(), FEATURES)
    for module in (whole.model, next(part.model.children())):
        module.__class__ = type("Own", (type(module),), {"__module__": "my_package.my_models"})
    assert entry_or_none(whole) is None
    assert entry_or_none(part) is None


def test_the_folder_is_the_users_own_unless_told(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert cache.folder() == Path(os.environ["BIGMODEL_CACHE"]) / "steps"
    monkeypatch.delenv("BIGMODEL_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache.folder() == tmp_path / "xdg" / "bigmodel" / "steps"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache.folder() == tmp_path / ".cache" / "bigmodel" / "steps"


def library(folder: Path, name: str, used: float) -> CacheEntry:
    folder.mkdir(parents=True, exist_ok=True)
    kept = CacheEntry(folder / f"{name}.so")
    kept.library.write_bytes(name.encode())
    os.utime(kept.library, (used, used))
    return kept


def test_what_was_used_longest_ago_goes(folder: Path) -> None:
    places = [library(folder, f"{number:03d}", 1000.0 + number) for number in range(MAX_LIBRARIES + 2)]
    places[0].touch()
    places[1].seal()
    places[-1].seal()
    names = {path.name for path in folder.iterdir()}
    assert len([name for name in names if name.endswith(".so")]) == MAX_LIBRARIES
    assert {"000.so", "003.so"} <= names, "one of them was used again"
    assert not {name for name in names if name.startswith(("001", "002"))}
    assert places[-1].is_complete
    assert not places[5].is_complete, "never sealed"


def test_what_is_damaged_does_not_count(folder: Path) -> None:
    kept = library(folder, "one", 1000.0)
    kept.seal()
    assert kept.is_complete
    kept.library.write_bytes(b"onE")
    assert not kept.is_complete
    kept.library.unlink()
    assert not kept.is_complete


def test_what_is_no_gain_leaves_a_note(folder: Path) -> None:
    kept = library(folder, "one", 1000.0)
    kept.seal()
    kept.note_slow("2 ms per step, not faster than 1 ms")
    assert (kept.is_complete, kept.slow) == (False, "2 ms per step, not faster than 1 ms")
    assert [path.name for path in folder.iterdir()] == ["one.slow"]


def test_a_folder_that_can_only_be_read_is_read(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = library(folder, "one", 1000.0)
    kept.seal()

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError

    monkeypatch.setattr(Path, "touch", refuse)
    kept.touch()
    assert kept.is_complete


# With real code.


class Trained(NamedTuple):
    """The step of a run, and a batch like all of its own."""

    step: Step
    like: Batch


@pytest.fixture
def trained(tmp_path: Path) -> Trained:
    """The step whose code is `real`, begun."""
    run, _ = run_of(tmp_path / "run", "eager")
    run.state.model.train()
    batch = next(iter(run.train.epoch(0)))
    apply(run.step.optimizer, 1.0)
    run.step(batch)
    run.step.drain()
    return Trained(run.step, batch)


def is_found(trained: Trained, messages: list[str]) -> bool:
    candidate = candidates.CompileCandidate(*trained, 1.0, 10**6, True, {})
    return candidates.select_engine(candidate, "compiled", messages.append, nullcontext) is not None


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A library, compiled once for all tests here and in `test_compiled`."""
    run, _ = run_of(tmp_path_factory.mktemp("real"), "compiled", **{"trainer.epochs": 1})
    fit(run)
    library = entry_of_run(tmp_path_factory.mktemp("like"), SETTINGS)
    assert library.is_file()
    return library


@pytest.fixture
def compiled(real: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The libraries that had to be compiled."""
    libraries: list[Path] = []

    def compile_step(
        _whole: FunctionalStep, _given: StepInputs, path: Path, _begin: Any, _interruptible: Any
    ) -> None:
        libraries.append(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(real, path.with_suffix(".made"))
        path.with_suffix(".made").replace(path)  # what is in use is never written to

    monkeypatch.setattr(compiler, "compile_step", compile_step)
    return libraries


@needs_compiler
def test_a_damaged_library_is_compiled_anew(
    compiled: list[Path], folder: Path, trained: Trained
) -> None:
    messages: list[str] = []
    assert is_found(trained, messages), messages
    assert is_found(trained, messages), messages
    assert len(compiled) == 1
    # As a crash of the machine may leave it; a file that is in use is never written to.
    compiled[0].with_suffix(".sha256").write_text("")
    assert is_found(trained, messages), messages
    assert len(compiled) == 2
    assert sorted(path.suffix for path in folder.iterdir()) == [".sha256", ".so"], "nothing is left over"
    assert CacheEntry(compiled[0]).is_complete


@needs_compiler
def test_a_users_own_model_is_compiled_each_time(
    compiled: list[Path], folder: Path, trained: Trained
) -> None:
    model = trained.step.model
    model.__class__ = type("Own", (type(model),), {"__module__": "my_package"})
    messages: list[str] = []
    assert is_found(trained, messages), messages
    assert len(compiled) == 1
    assert not compiled[0].exists()
    assert not folder.exists()


@needs_compiler
def test_without_a_place_to_keep_it_the_run_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, compiled: list[Path], trained: Trained
) -> None:
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("BIGMODEL_CACHE", str(tmp_path / "file"))
    messages: list[str] = []
    assert is_found(trained, messages)
    assert f"{tmp_path / 'file'}: is not a folder" in messages[0]
    assert not compiled[0].is_relative_to(tmp_path)


@needs_compiler
def test_a_library_that_others_could_have_put_there_is_not_loaded(
    folder: Path, compiled: list[Path], trained: Trained
) -> None:
    messages: list[str] = []
    assert is_found(trained, messages), messages
    folder.chmod(0o777)
    planted = compiled[0]
    planted.unlink()  # it is in use, and such a file is never written to
    planted.write_bytes(b"a stranger's")
    CacheEntry(planted).seal()
    assert is_found(trained, messages), messages
    assert any(f"{folder}: can be written by others" in line for line in messages), messages
    assert len(compiled) == 2
    assert not compiled[1].is_relative_to(folder)


@pytest.mark.parametrize("name", ["/nonexistent", "false"])
def test_without_a_compiler_the_run_goes_on(
    folder: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    def tracing(*_: object) -> None:
        pytest.fail("it is known before anything is traced")

    monkeypatch.setattr(compiler, "write_step", tracing)
    monkeypatch.setenv("CXX", name)
    trained, messages = Trained(begun(small_step(), FEATURES), make_batch(FEATURES)), list[str]()
    assert not is_found(trained, messages)
    assert len(messages) == 1
    assert messages[0].startswith(
        f"Steps run eagerly: compiling needs a C++ compiler, and {name} cannot be started. Install "
    )
    assert "Error" not in messages[0]
    assert list(folder.iterdir()) == [], "nothing half done"
    assert trained.step(trained.like)
