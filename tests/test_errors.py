"""Errors that a user can cause; and what they advise to type, through real shells and Hydra's parser."""

import importlib
import inspect
import json
import pickle
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from bigmodel import errors
from bigmodel.cli.launch.flags import add_pluses
from bigmodel.data.tabular.column_options import column_option, parse_entries
from bigmodel.errors import (
    BigModelError,
    CheckpointError,
    ConfigError,
    DataError,
    DeviceError,
    NonFiniteError,
    SpecError,
    counted,
    did_you_mean,
    hydra_value,
    is_out_of_memory,
    may_pass,
    program,
    reason,
    setting,
    shell_quoted,
)


def test_whatever_a_user_can_cause_is_caught_by_one_name() -> None:
    kinds = [kind for _, kind in inspect.getmembers(errors, inspect.isclass)]
    found = [kind for kind in kinds if kind.__module__ == errors.__name__]
    assert len(found) >= 7
    assert all(issubclass(kind, BigModelError) for kind in found)
    assert not issubclass(BigModelError, ValueError | RuntimeError)  # torch's own are no user's mistake


@pytest.mark.parametrize("kind", [SpecError, DeviceError])
def test_parts_that_do_not_fit_are_a_mistake_in_the_configuration(kind: type[Exception]) -> None:
    assert issubclass(kind, ConfigError)


@pytest.mark.parametrize(
    ("name", "choices", "expected"),
    [
        ("transfomer", ["fnn", "transformer", "trainer"], "transformer"),
        ("epoch", ["model.depth", "trainer.epochs"], "trainer.epochs"),  # near its last part
        ("xyz", ["model.depth", "trainer.epochs"], None),
        ("epochs", ["model.depth", "trainer.epochs"], "trainer.epochs"),
        ("model.lr", ["optimizer.lr", "seed"], "optimizer.lr"),
        ("dropout", ["model.dropout", "model.embed.dropout"], "model.dropout"),
        ("", ["fnn"], None),
        ("fnn", [], None),
    ],
)
def test_the_nearest_choice_is_named(name: str, choices: list[str], expected: str | None) -> None:
    assert did_you_mean(name, choices) == (f" Did you mean '{expected}'?" if expected else "")


def test_choices_need_not_be_words() -> None:
    assert did_you_mean("100", [10, 1000, 7]) == " Did you mean '1000'?"


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (0, "0 epochs"),
        (1, "1 epoch"),
        (1.0, "1 epoch"),
        (2.33, "2.33 epochs"),
        (12_000, "12,000 epochs"),
    ],
)
def test_one_of_a_thing_is_singular(number: float, words: str) -> None:
    assert counted(number, "epoch") == words


def test_a_plural_of_its_own() -> None:
    assert [counted(n, "class", "classes") for n in (1, 2)] == ["1 class", "2 classes"]


SHELLS = {"bash": ["bash", "--norc", "--noediting", "-i"], "zsh": ["zsh", "-f", "-i"]}
ODD = (
    *(
        "a=b",
        "[x]",
        "a,b",
        "a b",
        " a",
        "it's",
        'say "x"',
        'it\'s "x"',
        "$HOME",
        "${oc.env:HOME}",
        "`id`",
    ),
    *(
        "a\\",
        "\\'",
        "#1",
        "!x",
        "a!b",
        "~",
        "~x",
        "=x",
        "*",
        "a?b",
        "{a: b}",
        "(x)",
        "a;b",
        "a&b",
        "a|b",
    ),
    *(
        "<a>",
        "null",
        "True",
        "1",
        "1e3",
        "-1",
        ".5",
        "größe",
        "",
        "a:b",
        "%h",
        "@x",
        "x\ty",
        "^x",
        "a\nb",
    ),
)
PARSER = OverridesParser.create()


def read_by_hydra(word: str) -> Any:
    """The value of an override, as a run gets it."""
    override = PARSER.parse_override(word)
    assert not override.is_sweep_override()
    config = OmegaConf.create({})
    OmegaConf.update(config, "key", override.value())
    plain: Any = OmegaConf.to_container(config, resolve=True)
    return plain["key"]


def arrived(words: list[str], shell: str, folder: Path) -> list[str]:
    """What a program gets when all of `words` are shell_quoted into a shell that somebody sits at."""
    if shutil.which(SHELLS[shell][0]) is None:
        pytest.skip(f"{shell} is not installed")
    got = folder / "got"
    show = "import json, sys; open(sys.argv[1], 'w').write(json.dumps(sys.argv[2:]))"
    line = " ".join([sys.executable, "-c", shell_quoted(show), shell_quoted(str(got)), *words])
    subprocess.run(
        SHELLS[shell], input=line + "\n", text=True, capture_output=True, timeout=60, check=False
    )
    found: list[str] = json.loads(got.read_text())
    return found


@pytest.mark.parametrize("shell", SHELLS)
def test_values_survive_the_shell_and_hydra(shell: str, tmp_path: Path) -> None:
    words = [setting("data.path", value) for value in ODD]
    assert [read_by_hydra(word) for word in arrived(words, shell, tmp_path)] == [*ODD]


@pytest.mark.parametrize("shell", SHELLS)
def test_lists_survive_too(shell: str, tmp_path: Path) -> None:
    [word] = arrived([setting("plugins", [*ODD])], shell, tmp_path)
    assert read_by_hydra(word) == [*ODD]


@pytest.mark.parametrize("shell", SHELLS)
def test_kinds_of_columns_survive_too(shell: str, tmp_path: Path) -> None:
    names = [
        name for name in ODD if name.strip() == name and name and "\n" not in name and ": " not in name
    ]
    for word, name in zip(
        arrived([column_option(n, "category") for n in names], shell, tmp_path), names, strict=True
    ):
        [override] = add_pluses([word], ["data.columns"])
        parsed = PARSER.parse_override(override)
        value = OmegaConf.to_container(OmegaConf.create({"it": parsed.value()}), resolve=True)["it"]
        if isinstance(value, str) and parsed.key_or_group == "data.columns":
            value = parse_entries(value)
        elif not isinstance(value, dict):
            value = {parsed.key_or_group.removeprefix("data.columns."): value}
        assert value == {name: "category"}, word


@settings(deadline=None)
@given(st.text(max_size=20).filter(lambda text: text != "???" and "\x00" not in text))
def test_any_text_comes_back(text: str) -> None:
    assert read_by_hydra(f"key={hydra_value(text, literal=True)}") == text


@given(
    st.lists(st.text(alphabet="ab'\"\\${}[],: =1.", max_size=8).filter(lambda t: t != "???"), max_size=4)
)
def test_any_list_comes_back(texts: list[str]) -> None:
    assert read_by_hydra(f"key={hydra_value(texts, literal=True)}") == texts


def test_what_needs_no_marks_has_none() -> None:
    assert setting("data.path", "outputs/2026-11-23/a.csv") == "data.path=outputs/2026-11-23/a.csv"
    assert setting("plugins", ["my_models"]) == "'plugins=[my_models]'"
    assert setting("trainer.epochs", 3) == "trainer.epochs=3"


def test_references_stay_where_they_are_meant() -> None:
    assert hydra_value({"key": "${seed}", "last": "a\\"}) == "{key:'${seed}',last:'a\\\\'}"


def test_a_program_is_called_so_that_the_shell_finds_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a clone with an environment of its own, installed where PATH leads, and anywhere else."""
    clone = tmp_path / "a clone"
    beside = clone / ".venv" / "bin" / "tensorboard"
    beside.parent.mkdir(parents=True)
    beside.touch(mode=0o755)
    monkeypatch.setattr(errors.sys, "executable", str(beside.with_name("python")))
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.chdir(clone)
    assert program("tensorboard") == ".venv/bin/tensorboard"
    monkeypatch.chdir(tmp_path)
    assert program("tensorboard") == "'a clone/.venv/bin/tensorboard'"
    monkeypatch.chdir("/")
    assert shlex.split(program("tensorboard")) == [str(beside).removeprefix("/")]
    monkeypatch.setenv("PATH", str(beside.parent))
    assert program("tensorboard") == "tensorboard"


def test_a_module_that_is_missing_and_no_extra_s_stays_as_it_is() -> None:
    with pytest.raises(ModuleNotFoundError, match="no_such_module"), errors.may_need_extras("data=mine"):
        importlib.import_module("no_such_module")


@pytest.mark.parametrize("module", sorted(errors.EXTRAS.keys() - {"trackio"}))  # it clashes with pins
def test_what_is_installed_is_not_complained_of(module: str) -> None:
    errors.require(module, "this test")


_SEARCH = (
    "\nSearch for `cudaErrorMemoryAllocation' in https://docs.nvidia.com/cuda/cuda-runtime-api/"
    "group__CUDART__TYPES.html for more information.\nCUDA kernel errors might be asynchronously"
    " reported at some other API call, so the stacktrace below might be incorrect.\n"
)
LACKING = {
    "CPU": "[enforce fail at alloc_cpu.cpp:121] err == 0. DefaultCPUAllocator: can't allocate memory:"
    " you tried to allocate 1099511627776 bytes. Error code 12 (Cannot allocate memory)",
    "CPU, Windows": "[enforce fail at alloc_cpu.cpp:117] data. DefaultCPUAllocator: not enough memory:"
    " you tried to allocate 911360 bytes.",
    "C++": "std::bad_alloc",
    "MPS": "MPS backend out of memory (MPS allocated: 8.00 GB, other allocations: 1.00 GB, max allowed:"
    " 9.07 GB). Tried to allocate 256 bytes on private pool.",
    "page-locked memory, graphs": f"CUDA error: out of memory{_SEARCH}",
    "driver": "CUDA driver error: out of memory",
    "HIP": "HIP error: out of memory",
    "Triton": "Triton Error [CUDA]: out of memory",
    "cuBLAS": "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
    "cuBLAS's handle": "CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`",
    "cuBLASLt's handle": "CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling"
    " `cublasLtCreate(&handle)`",
    "cuDNN": "cuDNN error: CUDNN_STATUS_ALLOC_FAILED",
    "cuDNN 9, device": "cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED",
    "cuDNN 9, host": "cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_HOST_ALLOCATION_FAILED",
}
OTHER_ERRORS = (
    "CUDA error: device-side assert triggered",
    "CUDA error: an illegal memory access was encountered",
    "CUDA error: operation not permitted when stream is capturing",
    "CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasSgemm(handle, opa, opb, m, n, k)`",
    "CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasSetStream(handle, stream)`",
    "CUDA error: CUBLAS_STATUS_NOT_SUPPORTED when calling `cublasGemmEx(handle)`",
    "cuDNN error: CUDNN_STATUS_INTERNAL_ERROR",
    "cuDNN error: CUDNN_STATUS_NOT_INITIALIZED",
    "cuDNN error: CUDNN_STATUS_EXECUTION_FAILED",
    "unable to mmap 4096 bytes from file </torch_1>: Cannot allocate memory (12)",
    "mat1 and mat2 shapes cannot be multiplied (2x3 and 4x5)",
    "a caption of the data: CUDA error: out of memory",
)


@pytest.mark.parametrize("words", LACKING.values(), ids=LACKING)
def test_lack_of_memory_is_known(words: str) -> None:
    assert is_out_of_memory(RuntimeError(words))


@pytest.mark.parametrize("words", OTHER_ERRORS)
def test_other_errors_are_not_taken_for_it(words: str) -> None:
    assert not is_out_of_memory(RuntimeError(words))


def test_only_torch_s_own_errors_count() -> None:
    assert is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."))
    assert not is_out_of_memory(ValueError(LACKING["cuDNN"]))


def test_what_may_succeed_later_and_what_fails_again() -> None:
    short = DeviceError("out of memory")
    short.__cause__ = torch.OutOfMemoryError("CUDA out of memory")
    full, hangs = CheckpointError("no space left"), DataError("no batch came")
    assert all(map(may_pass, [short, full, hangs, RuntimeError("unknown")]))
    assert not any(map(may_pass, [DeviceError("no GPU"), SpecError("unfit"), NonFiniteError("nan", 3)]))


@pytest.mark.parametrize(
    "error", [CheckpointError("disk full.", "Resume with resume=mine"), NonFiniteError("nan", 3)]
)
def test_an_error_of_another_process_is_the_same(error: BigModelError) -> None:
    other = pickle.loads(pickle.dumps(error))
    assert (type(other), str(other), vars(other)) == (type(error), str(error), vars(error))


def test_what_only_a_single_run_may_do_is_not_told_of_a_sweep_s_job() -> None:
    error = CheckpointError("disk full.", "Resume with resume=mine")
    assert str(error) == reason(error) == "disk full. Resume with resume=mine"
    assert reason(error, in_sweep=True) == "disk full."


def test_torch_says_so_of_a_cpu() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(1 << 50, dtype=torch.uint8)
    assert is_out_of_memory(caught.value)
