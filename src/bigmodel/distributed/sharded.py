"""A model whose weights lie on several ranks: FSDP2, HSDP and tensor parallelism."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import (
    FSDPModule,
    MixedPrecisionPolicy,
    fully_shard,
    register_fsdp_forward_method,
)
from torch.distributed.tensor import DTensor

from bigmodel.distributed.layout import Part
from bigmodel.distributed.parallel import Parallel, changing_buffers, share_buffers
from bigmodel.distributed.tensor_parallel import split_layers
from bigmodel.errors import ConfigError
from bigmodel.runtime import torch_internals
from bigmodel.runtime.device import Runtime
from bigmodel.runtime.parallel_config import Degrees

_HALF = {"bf16": torch.bfloat16, "fp16": torch.float16}
_NORMS = (nn.LayerNorm, nn.RMSNorm, nn.GroupNorm, *torch_internals.batch_norm_kinds())
_OTHER_METHODS = ("prefill", "decode", "read")
"""Methods beside `forward` by which models and their blocks compute."""


class _Weight(NamedTuple):
    """A weight of the model.

    Attributes:
        torchs: as torch holds it between two passes.
        own: this rank's part as a plain tensor, in the same memory.
        holders: how many ranks hold that part.
        partial: the dimensions of the mesh over which gradients are yet to be added up.
    """

    torchs: nn.Parameter
    own: nn.Parameter
    holders: int
    partial: tuple[str, ...]


class Sharded(Parallel):
    """A model of which each rank holds a part of the weights, gradients and optimizer state.

    `fully_shard` (FSDP2; Zhao et al. 2023, arXiv:2304.11277) gathers a block's weights when it is
    computed, and adds up its gradients as it scatters them; with several copies (HSDP) they are added up
    between these as well. Layers that ranks compute together are split before.

    Blocks are gathered in the precision of matrix products, all other weights in fp32. Gradients are
    added up in fp32.

    Args:
        all_used: see `parallelise`.
    """

    lockstep = True

    def __init__(self, model: nn.Module, degrees: Degrees, runtime: Runtime, *, all_used: bool) -> None:
        super().__init__(model)
        self._runtime = runtime
        self._mesh = init_device_mesh(
            runtime.device.type, degrees, mesh_dim_names=("replicate", "shard", "tensor")
        )
        self.own = _same_modules(model, {})
        self._buffers = changing_buffers(model)
        self._is_gathered = False
        indices = {
            name: [torch.arange(size) for size in parameter.shape]
            for name, parameter in model.named_parameters(remove_duplicate=False)
        }
        shapes = {name: tuple(map(len, index)) for name, index in indices.items()}
        split: set[str] = set()
        partial: set[str] = set()
        if degrees.tensor > 1:
            split, partial = split_layers(model, self._mesh["tensor"], indices)
        whole = set(indices) if degrees.data == 1 else self._unsharded()
        if degrees.data > 1:
            self._shard(degrees, [model.get_parameter(name) for name in whole], all_used)
            for name in indices.keys() - whole:
                chunks = indices[name][0].chunk(degrees.shard)
                own = self._place("shard")
                indices[name][0] = chunks[own] if own < len(chunks) else indices[name][0][:0]
        self.parts = {
            name: Part(shapes[name], tuple(map(_runs, index)), self._keeps(name in split, name in whole))
            for name, index in indices.items()
            if name in split or name not in whole
        }
        self._weights = [
            self._weight(torchs, degrees, name in split, name in whole, name in partial)
            for name, torchs in model.named_parameters()
        ]
        self._holders = {weight.own: weight.holders for weight in self._weights}
        _replace_parameters(model, self.own, {w.torchs: w.own for w in self._weights})

    @torch.no_grad()
    def collect(self) -> None:
        partial: dict[tuple[str, ...], list[Tensor]] = {}
        for weight in self._weights:
            gradient = weight.torchs.grad
            if isinstance(gradient, DTensor):
                assert isinstance(weight.torchs, DTensor)
                gradient = gradient.redistribute(placements=weight.torchs.placements).to_local()
            if weight.partial and weight.own.requires_grad:
                gradient = torch.zeros_like(weight.own) if gradient is None else gradient
                partial.setdefault(weight.partial, []).append(gradient)
            weight.torchs.grad = None
            weight.own.grad = gradient
        share_buffers(self._buffers)
        for dimensions, gradients in partial.items():
            flat = torch.cat([gradient.flatten() for gradient in gradients])
            for dimension in dimensions:
                dist.all_reduce(flat, group=self._mesh.get_group(dimension))
            summed = torch.split(flat, [gradient.numel() for gradient in gradients])
            for gradient, total in zip(gradients, summed, strict=True):
                gradient.copy_(total.view_as(gradient))

    def norm(self, parameters: Sequence[nn.Parameter]) -> Tensor:
        by_holders: dict[int, list[Tensor]] = {}
        for parameter in parameters:
            if parameter.grad is not None:
                by_holders.setdefault(self._holders[parameter], []).append(parameter.grad)
        square = torch.zeros((), device=self._runtime.device)
        for holders, gradients in by_holders.items():
            square += nn.utils.get_total_norm(gradients).square() / holders
        dist.all_reduce(square)
        return square.sqrt()

    def any(self, flag: Tensor) -> Tensor:
        dist.all_reduce(flag, dist.ReduceOp.MAX)
        return flag

    @contextmanager
    def gathered(self) -> Iterator[None]:
        modules = self._fsdp_modules()
        for module in modules:
            module.set_reshard_after_forward(False, recurse=False)
            module.unshard()
        self._is_gathered = True
        try:
            with self._runtime.autocast():  # blocks are gathered in its precision
                yield
        finally:
            self._is_gathered = False
            for module in modules:
                module.set_reshard_after_forward(module is not modules[0], recurse=False)
                module.reshard()

    def _unsharded(self) -> set[str]:
        """Weights that all ranks hold: numbers have no rows to share out, and norms, whose weights are
        few, need theirs in fp32."""
        half = self._runtime.precision in _HALF
        return {
            f"{path}.{name}" if path else name
            for path, module in self.model.named_modules()
            for name, parameter in module.named_parameters(recurse=False)
            if not parameter.ndim or (half and isinstance(module, _NORMS))
        }

    def _shard(self, degrees: Degrees, ignored: Sequence[nn.Parameter], all_used: bool) -> None:
        _check_apart(self.model)
        mesh = self._mesh["shard"] if degrees.replicate == 1 else self._mesh["replicate", "shard"]
        half = _HALF.get(self._runtime.precision)
        of_blocks = MixedPrecisionPolicy(half, half and torch.float32, cast_forward_inputs=False)
        options: dict[str, Any] = {"mesh": mesh, "ignored_params": set(ignored)}
        for block in _blocks(self.model):
            fully_shard(block, mp_policy=of_blocks, **options)
        others = MixedPrecisionPolicy(cast_forward_inputs=False)
        fully_shard(self.model, mp_policy=others, reshard_after_forward=False, **options)
        for module in self._fsdp_modules():
            # On every one, or blocks are averaged; and gloo cannot scale what it adds up.
            module.set_gradient_divide_factor(1.0)
            module.set_force_sum_reduction_for_comms(True)
            if not all_used and hasattr(module, "set_reduce_scatter_unused_params"):  # in newer torch
                module.set_reduce_scatter_unused_params(True, recurse=False)
            for name in ("forward", *_OTHER_METHODS):
                if hasattr(module, name):
                    setattr(module, name, _without_views(getattr(module, name)))
            for name in _OTHER_METHODS:
                if hasattr(module, name):
                    register_fsdp_forward_method(cast(nn.Module, module), name)
            # torch moves parts to their final memory when it first gathers them.
            module.unshard()
            module.reshard()
        self.model.register_forward_hook(self._after_forward)

    def _after_forward(self, *_: Any) -> None:
        """Without a backward pass, weights outside blocks would stay gathered, and never be updated."""
        if not (torch.is_grad_enabled() or self._is_gathered):
            cast(FSDPModule, self.model).reshard()

    def _fsdp_modules(self) -> list[FSDPModule]:
        return [module for module in self.model.modules() if isinstance(module, FSDPModule)]

    def _place(self, dimension: str) -> int:
        return self._mesh.get_local_rank(dimension)

    def _keeps(self, is_split: bool, is_whole: bool) -> bool:
        """Whether this rank is the first of those that hold the same part."""
        others = ["replicate", *([] if is_split else ["tensor"]), *(["shard"] if is_whole else [])]
        return not any(map(self._place, others))

    def _weight(
        self, torchs: nn.Parameter, degrees: Degrees, is_split: bool, is_whole: bool, is_partial: bool
    ) -> _Weight:
        own = torchs
        if isinstance(torchs, DTensor):
            with torch.no_grad():
                own = nn.Parameter(torchs.to_local(), torchs.requires_grad)
        holders = (1 if is_split else degrees.tensor) * (degrees.data if is_whole else degrees.replicate)
        over_data = ("replicate", "shard") if is_whole and degrees.data > 1 else ()
        return _Weight(torchs, own, holders, (*(("tensor",) if is_partial else ()), *over_data))


def _blocks(module: nn.Module) -> Iterator[nn.Module]:
    """The modules in the outermost lists, but for those without weights."""
    for child in module.children():
        if isinstance(child, nn.ModuleList):
            yield from (
                block for block in child if block is not None and any(True for _ in block.parameters())
            )
        else:
            yield from _blocks(child)


def _check_apart(model: nn.Module) -> None:
    """Raises ConfigError if a weight belongs to two blocks, or to one and to a layer beside them: it
    could be gathered with neither."""
    blocks = list(_blocks(model))
    within = {module for block in blocks for module in block.modules()}
    beside = [module for module in model.modules() if module not in within]
    held = [set(block.parameters()) for block in blocks]
    held.append({p for module in beside for p in module.parameters(recurse=False)})
    for name, parameter in model.named_parameters():
        if sum(parameter in group for group in held) > 1:
            raise ConfigError(
                f"device.parallel.shard: model.{name} is shared by several blocks, or by one and a layer"
                " beside the blocks. Leave device.parallel.shard out, so that each rank has a copy."
            )


def _without_views(method: Callable[..., Any]) -> Callable[..., Any]:
    """Outputs that are views are copied: if they were changed in place, torch would not notice that the
    backward pass needs the weights."""

    @functools.wraps(method)
    def call(*args: Any, **named: Any) -> Any:
        outputs = method(*args, **named)
        if not torch.is_grad_enabled():
            return outputs
        return _views_copied(outputs)

    return call


def _views_copied(outputs: Any) -> Any:
    match outputs:
        case Tensor():
            return outputs.clone() if torch_internals.is_view(outputs) else outputs
        case dict():
            return type(outputs)((key, _views_copied(value)) for key, value in outputs.items())
        case tuple() if hasattr(outputs, "_fields"):  # a named one
            return type(outputs)(*map(_views_copied, outputs))
        case list() | tuple():
            return type(outputs)(map(_views_copied, outputs))
    return outputs


def _same_modules(module: nn.Module, copies: dict[nn.Module, nn.Module]) -> nn.Module:
    """A copy of a module and those within it, with the same weights and buffers."""
    if module not in copies:
        copy = copies[module] = torch_internals.shallow_copy(module)
        for name, child in module.named_modules(remove_duplicate=False):
            if name and "." not in name:
                setattr(copy, name, _same_modules(child, copies))
    return copies[module]


def _replace_parameters(
    model: nn.Module, copy: nn.Module, replacements: dict[nn.Parameter, nn.Parameter]
) -> None:
    """Gives the copy of a model other weights."""
    for module, same in zip(model.modules(), copy.modules(), strict=True):
        for name, parameter in module.named_parameters(recurse=False, remove_duplicate=False):
            setattr(same, name, replacements[parameter])


def _runs(index: Tensor) -> tuple[tuple[int, int], ...]:
    """Numbers as runs: 0, 1, 2, 5, 6 are (0, 3), (5, 7)."""
    if not len(index):
        return ()
    ends = (index.diff() != 1).nonzero().flatten() + 1
    pieces = torch.tensor_split(index, ends)
    return tuple((int(piece[0]), int(piece[-1]) + 1) for piece in pieces)
