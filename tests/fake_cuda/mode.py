"""The torch mode that computes with tensors on the fake device."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.utils._pytree as pytree
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode

from tests.fake_cuda.device import device

_WITHOUT_SHAPES = ("_fused_", "_amp_foreach_non_finite", "_amp_update_scale")
"""Kernels that torch cannot fake: they change their arguments in place."""


class FakeCudaMode(FakeTensorMode):
    """Within it tensors on `cuda` are fake; those on the CPU stay real.

    A float read from the device is 0; everything else copied from there is filled with ones.
    """

    avoid_device_init = True

    def __init__(self) -> None:
        super().__init__(allow_non_fake_inputs=True)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        name = func.__name__
        tensors = [leaf for leaf in pytree.arg_tree_leaves(*args, **kwargs) if isinstance(leaf, Tensor)]
        there = any(isinstance(tensor, FakeTensor) for tensor in tensors)
        wanted = kwargs.get("device")
        if not there and (wanted is None or torch.device(wanted).type != "cuda"):
            return func(*args, **kwargs)
        device.create_context()
        if name.startswith(_WITHOUT_SHAPES):
            return _in_place(name, tensors, args)
        if name == "_local_scalar_dense.default":
            device.wait("read")
            return (
                0.0
                if args[0].is_floating_point()
                else torch.ones((), dtype=args[0].dtype, device="cpu").item()
            )
        if name in ("equal.default", "allclose.default"):
            device.wait("read")
            return True
        if name == "_to_copy.default" and not (there and wanted is None):
            made = self._moved(args[0], kwargs)
            if made is not None:
                return made
        if name == "copy_.default":
            to, source = args[:2]
            late = args[2] if len(args) > 2 else kwargs.get("non_blocking", False)
            if not isinstance(to, FakeTensor):
                _wait_unless(late and to.is_pinned(), "to host")
                return to.fill_(1)
            if not isinstance(source, FakeTensor) and source.dim():
                _wait_unless(late and source.is_pinned(), "from host")
        if name in ("index.Tensor", "index_put_.default"):  # torch copies such an index there
            indices = [leaf for leaf in pytree.arg_tree_leaves(args[1]) if isinstance(leaf, Tensor)]
            _wait_unless(all(isinstance(index, FakeTensor) for index in indices), "from host")
        return super().__torch_dispatch__(func, types, args, kwargs)

    def _moved(self, tensor: Tensor, options: dict[str, Any]) -> Tensor | None:
        """A copy from one device to the other; None if it stays on the device."""
        late = options.get("non_blocking", False)
        if not isinstance(tensor, FakeTensor):
            _wait_unless(late and tensor.is_pinned(), "from host")
            return None
        if torch.device(options["device"]).type == "cuda":
            return None
        _wait_unless(late, "to host")
        return torch.ones(tensor.shape, dtype=options.get("dtype") or tensor.dtype, device="cpu")


def _wait_unless(queued: bool, what: str) -> None:
    if what == "from host":
        device.copy_streams.add(torch.cuda.current_stream())
    if not queued:
        device.wait(what)


def _in_place(name: str, tensors: list[Tensor], args: tuple[Any, ...]) -> Any:
    """Checks a kernel's arguments as the real one does."""
    places = {tensor.device.type for tensor in tensors}
    if places != {"cuda"}:
        raise RuntimeError(f"{name}: Expected all tensors to be on the same device: {sorted(places)}")
    if name.startswith("_amp_foreach"):
        dtypes = {tensor.dtype for tensor in args[0]}
        if not dtypes <= {torch.float16, torch.float32, torch.float64} or len(dtypes) != 1:
            raise RuntimeError(f"{name}: no kernel for {dtypes}")
    return args[0] if name.startswith("_amp_update_scale") else None


def as_cudnn(real: Callable[..., Any], lstm: bool) -> Callable[..., Any]:
    """torch.lstm and the like as they are on CUDA, where the kernel is cuDNN's: under autocast it
    computes in fp16, whatever dtype was asked for (aten/src/ATen/cudnn/AutocastRNN.cpp)."""

    def call(inputs: Tensor, state: Any, weights: list[Tensor], *options: Any) -> Any:
        if not inputs.is_cuda:
            return real(inputs, state, weights, *options)
        _, _, dropout, training, both, batch_first = options
        assert not (dropout and training), "cuDNN's own dropout keeps a state that no checkpoint holds"
        hidden = state[0] if lstm else state
        given = [inputs, hidden, *weights]
        if torch.is_autocast_enabled("cuda"):
            given = [tensor.to(torch.float16) for tensor in given]
        if len({(tensor.dtype, tensor.device) for tensor in given}) != 1:
            raise RuntimeError("Input and parameter tensors are not the same dtype")
        with torch.autocast("cuda", enabled=False):
            x, before, *own = given
            all_in = sum((weight.sum() for weight in own), before.sum()) + x.sum(-1, keepdim=True)
            outputs = all_in.expand(*x.shape[:2], hidden.shape[2] * (1 + both)) * 1
            last = outputs[:, -1] if batch_first else outputs[-1]
            end = last[:, : hidden.shape[2]].expand(hidden.shape) * 1
        return (outputs, end, end * 1) if lstm else (outputs, end)

    return call


def replace_kernels() -> None:
    """Replaces torch's recurrent layers by cuDNN's, and the reading of values by a GPU's."""
    FakeTensor.tolist = lambda tensor: tensor.cpu().tolist()  # type: ignore[method-assign]
    for name in ("lstm", "gru", "rnn_tanh", "rnn_relu"):
        setattr(torch, name, as_cudnn(getattr(torch, name), name == "lstm"))
