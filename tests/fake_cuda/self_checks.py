"""The fake device records what it is there to record."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from tests.fake_cuda.device import device


def here() -> Tensor:
    return torch.ones(3)


def there() -> Tensor:
    return torch.ones(3, device="cuda")


WAITING: dict[str, Callable[[], object]] = {
    "a number is read": lambda: there().sum().item(),
    "numbers are read": lambda: there().tolist(),
    "a branch depends on a value": lambda: bool(there().isfinite().all()),
    "values are compared": lambda: torch.equal(there(), there()),
    "a copy to the host": lambda: there().cpu(),
    "a copy into memory that is not page-locked": lambda: here().copy_(there(), non_blocking=True),
    "a copy to the device": lambda: here().cuda(),
    "a copy out of memory that is not page-locked": lambda: here().to("cuda", non_blocking=True),
    "a tensor of numbers": lambda: torch.tensor([1.0, 2.0], device="cuda"),
    "an index on the host": lambda: there()[torch.tensor([0, 2])],
    "all work is waited for": torch.cuda.synchronize,
}
QUEUED: dict[str, Callable[[], object]] = {
    "a copy out of page-locked memory": lambda: here().pin_memory().to("cuda", non_blocking=True),
    "a copy into page-locked memory": lambda: here().pin_memory().copy_(there(), non_blocking=True),
    "a filled tensor": lambda: torch.full((3,), 2.0, device="cuda"),
    "a product": lambda: there() @ there(),
    "a number beside a tensor": lambda: there() * torch.tensor(2.0),
}


@pytest.mark.parametrize("work", WAITING.values(), ids=WAITING)
def test_a_wait_is_noted(work: Callable[[], object]) -> None:
    work()
    assert len(device.waits) == 1


@pytest.mark.parametrize("work", list(WAITING.values())[:-1], ids=list(WAITING)[:-1])
def test_torch_can_be_told_to_refuse_a_wait(work: Callable[[], object]) -> None:
    torch.cuda.set_sync_debug_mode("error")
    with pytest.raises(RuntimeError, match="called a synchronizing CUDA operation"):
        work()


@pytest.mark.parametrize("work", QUEUED.values(), ids=QUEUED)
def test_what_is_queued_is_no_wait(work: Callable[[], object]) -> None:
    work()
    assert device.waits == []


@pytest.mark.parametrize("work", WAITING.values(), ids=WAITING)
def test_no_graph_holds_a_wait(work: Callable[[], object]) -> None:
    with pytest.raises(RuntimeError, match="during capture"), torch.cuda.graph(torch.cuda.CUDAGraph()):
        work()
    assert not torch.cuda.is_current_stream_capturing()


def test_tensors_on_two_devices_do_not_meet() -> None:
    with pytest.raises(RuntimeError, match="same device"):
        there() + here()


def test_autocast_is_that_of_a_gpu() -> None:
    weight = torch.ones(3, 3, device="cuda", requires_grad=True)
    with torch.autocast("cuda", torch.bfloat16):
        product = torch.nn.functional.linear(there(), weight)
        assert product.dtype == torch.bfloat16
        assert product.softmax(-1).dtype == torch.float32
    product.sum().backward()
    assert weight.grad is not None
    assert weight.grad.dtype == torch.float32
    assert weight.grad.is_cuda
    assert device.waits == []
