import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from bigmodel.errors import DeviceError
from bigmodel.runtime import device as module
from bigmodel.runtime.device import DeviceConfig, Runtime, environment, prepare


def test_auto_is_full_precision_on_a_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    runtime = prepare(DeviceConfig(name="cpu"), seed=1)
    assert (runtime.device.type, runtime.precision, runtime.scaler()) == ("cpu", "fp32", None)
    assert environment(runtime)["torch"] == torch.__version__


def test_a_device_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(DeviceError, match=r"device=cuda: .*There is: cpu\. Use device=cpu"):
        prepare(DeviceConfig(name="cuda"), seed=1)


@pytest.mark.parametrize(("precision", "dtype"), [("bf16", torch.bfloat16), ("fp16", torch.float16)])
def test_mixed_precision(precision: str, dtype: torch.dtype) -> None:
    runtime = prepare(DeviceConfig.model_validate({"name": "cpu", "precision": precision}), seed=1)
    with runtime.autocast():
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == dtype
    assert (runtime.scaler() is not None) == (precision == "fp16")


def test_the_seed_decides() -> None:
    prepare(DeviceConfig(name="cpu"), seed=3)
    first = torch.rand(2)
    prepare(DeviceConfig(name="cpu"), seed=3)
    assert torch.equal(first, torch.rand(2))


@pytest.mark.parametrize("threads", ["auto", None])
def test_a_run_does_not_keep_the_threads_of_the_one_before(
    monkeypatch: pytest.MonkeyPatch, threads: str | None
) -> None:
    """In a sweep they are one process; a trial chooses among torch's number and one."""
    monkeypatch.setattr(module, "_TORCHS_THREADS", 3)
    try:
        prepare(DeviceConfig(name="cpu", threads=2), seed=1)
        assert torch.get_num_threads() == 2
        prepare(DeviceConfig.model_validate({"name": "cpu", "threads": threads}), seed=1)
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(1)


@dataclass
class Gpus:
    """Stands for a machine's GPUs: what torch says of them, and what it is told.

    Attributes:
        bf16: whether they compute in bf16 by themselves; torch emulates it all the same.
        current: the one that torch uses where none is named.
        begun: whether this process has used one of them.
        cublas: what cuBLAS's settings were at their first use.
    """

    bf16: bool = True
    current: int | None = None
    begun: bool = False
    cublas: str | None = None

    def use(self, index: int) -> None:
        if not self.begun:
            self.begun, self.cublas = True, os.environ.get(CUBLAS)
        self.current = index


CUBLAS = "CUBLAS_WORKSPACE_CONFIG"


@pytest.fixture
def gpus(monkeypatch: pytest.MonkeyPatch) -> Iterator[Gpus]:
    two = Gpus()
    replaced: dict[str, Callable[..., Any]] = {
        "is_available": lambda: True,
        "device_count": lambda: 2,
        "get_device_name": lambda device: f"Tesla No. {device}",
        "set_device": two.use,
        "is_initialized": lambda: two.begun,
        "is_bf16_supported": lambda including_emulation=True: including_emulation or two.bf16,
        "manual_seed_all": lambda _: None,
    }
    for name, by in replaced.items():
        monkeypatch.setattr(torch.cuda, name, by)
    for name in (CUBLAS, "CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES"):
        monkeypatch.setenv(name, "")  # so that it is put back afterwards
        monkeypatch.delenv(name)
    yield two
    torch.use_deterministic_algorithms(False)


def on(name: str, **options: Any) -> Runtime:
    return prepare(DeviceConfig(name=name, **options), seed=1)


def test_one_of_several_gpus_is_taken_by_its_index(gpus: Gpus) -> None:
    assert on("cuda:1").device == torch.device("cuda", 1)
    assert gpus.current == 1
    assert on("cuda").device.type == "cuda"
    assert gpus.current == 0, "the run before had another"
    assert on("auto").device.type == "cuda"


@pytest.mark.parametrize("name", ["cpu", "mps"])
def test_the_only_one_of_its_kind_has_an_index_too(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert on(f"{name}:0").device == torch.device(name)
    with pytest.raises(DeviceError, match=rf"device={name}:1: .* There is: {name}:0\. Use"):
        on(f"{name}:1")


@pytest.mark.usefixtures("gpus")
def test_an_index_too_large_is_told_what_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    there = r"There is: cuda:0 \(Tesla No. 0\), cuda:1 \(Tesla No. 1\)\."
    with pytest.raises(DeviceError, match=rf"device=cuda:7: there is no such device\. {there} Use"):
        on("cuda:7")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5")
    with pytest.raises(DeviceError, match=rf"{there} CUDA_VISIBLE_DEVICES=4,5 hides others"):
        on("cuda:4")


@pytest.mark.parametrize(
    "name", ["gpu", "cuda:", "cuda:x", "cuda:-1", "cuda:1:2", "auto:0", "cuda:" + "9" * 9]
)
def test_what_no_device_is_called(name: str) -> None:
    with pytest.raises(ValidationError, match=r"no such device\. Allowed: auto, cpu, cuda or mps"):
        DeviceConfig(name=name)


@pytest.mark.parametrize(("bf16", "expected"), [(True, "bf16"), (False, "fp16")])
def test_auto_takes_no_emulated_precision(gpus: Gpus, bf16: bool, expected: str) -> None:
    gpus.bf16 = bf16
    assert on("cuda").precision == expected


@pytest.mark.parametrize("bf16", [True, False])
def test_an_emulated_precision_is_told(gpus: Gpus, bf16: bool) -> None:
    gpus.bf16 = bf16
    runtime = on("cuda", precision="bf16")
    assert runtime.precision == "bf16"
    assert ("emulated" in str(runtime)) != bf16


def test_cublas_is_set_up_before_it_is_used_so_that_a_later_run_may_ask(gpus: Gpus) -> None:
    on("cuda")
    assert gpus.cublas == ":4096:8"
    on("cuda", deterministic=True)


@pytest.mark.usefixtures("gpus")
def test_the_users_own_settings_of_cublas_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(CUBLAS, ":16:8")
    on("cuda", deterministic=True)
    assert os.environ[CUBLAS] == ":16:8"


@pytest.mark.usefixtures("gpus")
def test_settings_of_cublas_with_other_bits_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(CUBLAS, ":4096:2:16:8")
    on("cuda")
    with pytest.raises(DeviceError, match=r"CUBLAS_WORKSPACE_CONFIG=:4096:2:16:8 .*:4096:8 or :16:8"):
        on("cuda", deterministic=True)


def test_it_is_too_late_for_them_once_cuda_is_in_use(gpus: Gpus) -> None:
    gpus.begun = True
    on("cuda")
    with pytest.raises(DeviceError, match=r"in use in this process .*CUBLAS_WORKSPACE_CONFIG=:4096:8"):
        on("cuda", deterministic=True)
    assert CUBLAS not in os.environ
