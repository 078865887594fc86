import pytest
import torch

from bigmodel import runtime as module
from bigmodel.errors import DeviceError
from bigmodel.runtime import DeviceConfig, environment, prepare


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
