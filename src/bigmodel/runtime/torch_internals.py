"""The private parts of torch that are used, all of them here, and what is done without each.

Torch may change or remove them in any version. On versions in `TRIED` they were seen to be there and to
work. On another, a part that has a check is used only if it passes, and a part that is gone is done
without. Faster steps are verified on every version, before they are used.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from itertools import repeat
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bigmodel.errors import BigModelError

TRIED = frozenset({"2.13"})
"""Versions of torch, without their last number, with which the tests have passed."""

TRACER = "torch._dynamo"
"""Torch's tracer, which takes a second and 70 MB; without it, nothing is avoided."""

_EAGER = "steps stay eager"
_COMPILING = f"{_EAGER}, and device.compile=true compiles nothing"
_ONE_BY_ONE = "tensors are changed one by one"
_ONE_LAYER = "a transformer's blocks are computed layer by layer"
_PUBLIC_KINDS = "the public classes derived from it are known by name"

PARTS = {
    "torch._C._are_functorch_transforms_active": "matrix products and gates are torch's own",
    "torch._C._len_torch_dispatch_stack": "recurrent layers allocate memory at each time step",
    "torch._C._aoti": _EAGER,
    "torch._amp_foreach_non_finite_check_and_unscale_": "each gradient is checked by itself",
    "torch._foreach_add_": _ONE_BY_ONE,
    "torch._foreach_copy_": _ONE_BY_ONE,
    "torch._foreach_lerp": _ONE_BY_ONE,
    "torch._foreach_lerp_": _ONE_BY_ONE,
    "torch._foreach_mul_": _ONE_BY_ONE,
    "torch._fused_adam_": "Adam's update is torch's own",
    "torch._fused_adamw_": "AdamW's update is torch's own",
    "torch._decomp.decomposition_table": "steps that need one are left to torch's compiler",
    "torch.autograd.graph._engine_run_backward": "torch.autograd's own functions are called",
    "torch.compiler._is_compiling_flag": _EAGER,
    "torch.nn.modules.batchnorm._BatchNorm": _PUBLIC_KINDS,
    "torch.nn.modules.conv._ConvNd": _PUBLIC_KINDS,
    "torch.nn.modules.loss._Loss": "a loss of torch's on tokens gets them all in one dimension by name",
    "torch.ops.aten._cudnn_rnn": "cuDNN's recurrent layers are left out of FLOPs",
    "torch.ops.aten._scaled_dot_product_flash_attention_for_cpu": "attention is left out of FLOPs",
    "torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward": (
        "steps with attention are left to torch's compiler"
    ),
    "torch.ops.mkldnn._linear_pointwise": "matrix products are torch's own",
    "torch.utils._python_dispatch.TorchDispatchMode": "steps are left to torch's compiler",
    # Of instances.
    "torch.Tensor._base": "outputs of sharded layers are copied, views or not",
    "torch.amp.GradScaler._found_inf_per_device": "device.precision=fp16 is refused, auto takes fp32",
    "torch.nn.Module._backward_hooks": _ONE_LAYER,
    "torch.nn.Module._backward_pre_hooks": _ONE_LAYER,
    "torch.nn.Module._compiled_call_impl": _EAGER,
    "torch.nn.Module._forward_hooks": _ONE_LAYER,
    "torch.nn.Module._forward_pre_hooks": _ONE_LAYER,
    "torch.nn.Module._modules": "device.parallel.shard and tensor are refused",
    "torch.nn.Module._parameters": "device.parallel.shard and tensor are refused",
    "torch.nn.RNNBase._flat_weights": f"{_EAGER} with torch's recurrent layers",
    "torch.nn.RNNBase._flat_weights_names": "they are those of the parameters, in order",
    "torch.optim.Optimizer._optimizer_step_post_hooks": f"{_EAGER}, Adam's update is torch's own",
    "torch.optim.Optimizer._optimizer_step_pre_hooks": f"{_EAGER}, Adam's update is torch's own",
    "torch.optim.Optimizer._step_supports_amp_scaling": "a skipped update is undone, not left out",
    "torch.optim.optimizer._global_optimizer_post_hooks": f"{_EAGER}, Adam's update is torch's own",
    "torch.optim.optimizer._global_optimizer_pre_hooks": f"{_EAGER}, Adam's update is torch's own",
    # Of the compiler, which is loaded only to compile.
    "torch._inductor.aot_compile": _EAGER,
    "torch._inductor.codecache._HEADER_DIR": _COMPILING,
    "torch._inductor.codecache._HEADER_LOCK_DIR": _COMPILING,
    "torch._inductor.codecache.default_cache_dir": _COMPILING,
    "torch._inductor.config.patch": _EAGER,
    "torch._inductor.fx_passes.mkldnn_fusion._mkldnn_fusion_init": _EAGER,
    "torch._inductor.ir.TensorBox": _EAGER,
    "torch._inductor.lowering.lowerings": _EAGER,
    "torch._inductor.mkldnn_ir.LinearBinary": _EAGER,
    "torch._inductor.mkldnn_ir.LinearUnary": _EAGER,
    "torch._inductor.runtime.cache_dir_utils.default_cache_dir": _COMPILING,
    "torch._inductor.runtime.runtime_utils.default_cache_dir": _COMPILING,
}
"""Each part, and what is done without it."""

_OF_INSTANCES = (
    "torch.Tensor.",
    "torch.amp.",
    "torch.nn.Module.",
    "torch.nn.RNNBase.",
    "torch.optim.Opt",
)
_OF_THE_COMPILER = "torch._inductor."


class MissingPartError(BigModelError):
    """Something needs a part that this torch does not have."""

    def __init__(self, path: str) -> None:
        super().__init__(f"torch {torch.__version__} has no {path} that works as expected")


def is_tried() -> bool:
    """Whether the installed torch is of a version in `TRIED`."""
    return ".".join(torch.__version__.split(".")[:2]) in TRIED


def part(path: str) -> Any:
    """A part of a module of torch's; None if it is not there or does not work as expected."""
    found = _found(path)
    return found if found is None or is_tried() or _passes(path) else None


def needed(path: str) -> Any:
    """Likewise.

    Raises:
        MissingPartError: it is not there.
    """
    found = part(path)
    if found is None:
        raise MissingPartError(path)
    return found


def missing() -> list[str]:
    """The parts that are done without, as `PATH (what is done)`. Does not load the compiler."""
    light = [p for p in PARTS if not p.startswith((*_OF_INSTANCES, _OF_THE_COMPILER))]
    return [f"{path} ({PARTS[path]})" for path in light if part(path) is None]


@cache
def _found(path: str) -> Any:
    assert path in PARTS, path
    owner, name = path.rsplit(".", 1)
    try:
        found: Any = torch
        for step in owner.split(".")[1:]:
            found = getattr(found, step)
    except AttributeError:
        try:
            found = importlib.import_module(owner)
        except ImportError:
            return None
    return getattr(found, name, None)


def _of(instance: object, path: str, *default: object) -> Any:
    """A part of an object.

    Raises:
        MissingPartError: it is not there, and there is no default.
    """
    assert path in PARTS, path
    try:
        return getattr(instance, path.rsplit(".", 1)[1], *default)
    except AttributeError:
        raise MissingPartError(path) from None


# Tensors


def each(operation: str, *lists: Any, **named: Any) -> Sequence[Tensor]:
    """An operation on many tensors in one call, as `each("lerp_", tensors, others, 0.1)`.

    Args:
        operation: of torch.Tensor; `torch._foreach_…` has to be in `PARTS`.
        lists: lists of tensors, or a number for all of them.
    """
    kernel = part(f"torch._foreach_{operation}")
    if kernel is not None:
        changed: Sequence[Tensor] = kernel(*lists, **named)
        return changed
    rows = zip(*(x if isinstance(x, list | tuple) else repeat(x) for x in lists), strict=False)
    with torch.no_grad():
        return [getattr(Tensor, operation)(*row, **named) for row in rows]


def flag_non_finite(tensors: list[Tensor], flag: Tensor, one: Tensor) -> None:
    """Sets `flag` to 1 if one of the tensors is NaN or infinite.

    Args:
        one: 1 on the same device, by which gradient scaling's kernel multiplies the tensors.
    """
    kernel = part("torch._amp_foreach_non_finite_check_and_unscale_")
    if kernel is not None:
        kernel(tensors, flag, one)
        return
    are_finite = torch.stack([tensor.detach().isfinite().all() for tensor in tensors]).all()
    flag.masked_fill_(~are_finite, 1.0)


def backward(total: Tensor, gradient: Tensor) -> None:
    """torch.autograd.backward without its comparison of two shapes, which imports sympy for a third of a
    second, and takes four microseconds a step."""
    run = part("torch.autograd.graph._engine_run_backward")
    if run is None:
        torch.autograd.backward(total, gradient)
    else:
        run((total,), (gradient,), False, False, (), allow_unreachable=True, accumulate_grad=True)


def gradients(total: Tensor, tensors: Sequence[Tensor], gradient: Tensor) -> Sequence[Tensor | None]:
    """torch.autograd.grad in the same way; None for a tensor that the total does not depend on."""
    run = part("torch.autograd.graph._engine_run_backward")
    if run is None:
        return torch.autograd.grad(total, tensors, gradient, allow_unused=True)
    found: Sequence[Tensor | None] = run(
        (total,), (gradient,), False, False, tuple(tensors), True, accumulate_grad=False
    )
    return found


def is_view(tensor: Tensor) -> bool:
    """Whether a tensor may be a view of another."""
    return _of(tensor, "torch.Tensor._base", tensor) is not None


def onednn_linear() -> Callable[..., Tensor] | None:
    """oneDNN's x Wᵀ + b, of (inputs, weight, bias, "none", [], ""); None if torch was built without."""
    backend: Any = torch.backends.mkldnn
    if not backend.is_available():
        return None
    kernel: Callable[..., Tensor] | None = part("torch.ops.mkldnn._linear_pointwise")
    return kernel


def is_transformed() -> bool:
    """Whether torch.func's transforms may be at work, or torch.jit is tracing."""
    are_active = part("torch._C._are_functorch_transforms_active")
    jit: Any = torch.jit
    return are_active is None or are_active() or jit.is_tracing()


def is_traced() -> bool:
    """Whether operations may be recorded instead of done."""
    depth = part("torch._C._len_torch_dispatch_stack")
    return depth is None or depth() > 0


def decomposition(operation: Any) -> Callable[..., Any] | None:
    """An operation in terms of simpler ones, if torch knows it so."""
    known = part("torch._decomp.decomposition_table")
    return None if known is None else known.get(operation)


def flash_attention() -> list[Any]:
    """Attention on a CPU and its gradient, as recordings see them; nothing if one is missing."""
    name = "torch.ops.aten._scaled_dot_product_flash_attention_for_cpu"
    found = [part(name), part(f"{name}_backward")]
    return [] if None in found else [operation.default for operation in found]


def flop_formulas(
    recurrent: Callable[..., int], attention: Callable[..., int]
) -> dict[Any, Callable[..., int]]:
    """Formulas for operations that torch's FlopCounterMode does not know, as it takes them."""
    formulas = {
        part("torch.ops.aten._cudnn_rnn"): recurrent,
        part("torch.ops.aten._scaled_dot_product_flash_attention_for_cpu"): attention,
    }
    return {operation: formula for operation, formula in formulas.items() if operation is not None}


# Modules


def batch_norm_kinds() -> tuple[type[nn.Module], ...]:
    """The classes of batch norms in any number of dimensions."""
    kind = part("torch.nn.modules.batchnorm._BatchNorm")
    public = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)
    return public if kind is None else (kind,)


def convolution_kinds() -> tuple[type[nn.Module], ...]:
    """The classes of convolutions in any number of dimensions."""
    kind = part("torch.nn.modules.conv._ConvNd")
    public = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
    transposed = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
    return (*public, *transposed) if kind is None else (kind,)


def is_torchs_loss(module: object) -> bool:
    """Whether it is one of torch's losses, or derived from one."""
    kind = part("torch.nn.modules.loss._Loss")
    if kind is not None:
        return isinstance(module, kind)
    return any(base.__module__ == nn.MSELoss.__module__ for base in type(module).__mro__)


def has_hooks(module: nn.Module) -> bool:
    """Whether something may be called when a module, or its backward pass, is."""
    names = ("forward_hooks", "forward_pre_hooks", "backward_hooks", "backward_pre_hooks")
    return any(_of(module, f"torch.nn.Module._{name}", True) for name in names)


def is_compiled(module: nn.Module) -> bool:
    """Whether `module.compile` was called.

    Raises:
        MissingPartError: that cannot be told.
    """
    return _of(module, "torch.nn.Module._compiled_call_impl") is not None


def shallow_copy(module: nn.Module) -> nn.Module:
    """Another module with the same weights, buffers and children, which can be replaced in the copy.

    Raises:
        MissingPartError: torch keeps them elsewhere.
    """
    copy = module.__class__.__new__(module.__class__)
    held = {"_parameters": dict(_of(module, "torch.nn.Module._parameters"))}
    held["_modules"] = dict(_of(module, "torch.nn.Module._modules"))
    copy.__dict__ = {**module.__dict__, **held}
    return copy


@contextmanager
def recurrent_weights_rebound(model: nn.Module) -> Iterator[None]:
    """Lets torch's recurrent layers, which keep a list of their weights, read those of their names.

    Raises:
        MissingPartError: torch keeps them elsewhere.
    """
    layers = [part for part in model.modules() if isinstance(part, nn.RNNBase)]
    originals = [_of(layer, "torch.nn.RNNBase._flat_weights") for layer in layers]
    for layer in layers:
        layer._flat_weights = [getattr(layer, name) for name in recurrent_names(layer)]
    try:
        yield
    finally:
        for layer, original in zip(layers, originals, strict=True):
            layer._flat_weights = original


def recurrent_names(layer: nn.RNNBase) -> list[str]:
    """The names of a recurrent layer's weights, layer by layer and direction by direction."""
    names: list[str] | None = _of(layer, "torch.nn.RNNBase._flat_weights_names", None)
    return [name for name, _ in layer.named_parameters(recurse=False)] if names is None else names


# Optimizers


def adam_kernel(kind: type[torch.optim.Optimizer]) -> Callable[..., None] | None:
    """One call for the update of many tensors by Adam or AdamW; None: there is none."""
    names = {torch.optim.Adam: "torch._fused_adam_", torch.optim.AdamW: "torch._fused_adamw_"}
    kernel: Callable[..., None] | None = part(names[kind])
    return kernel


def may_have_step_hooks(optimizer: torch.optim.Optimizer) -> bool:
    """Whether hooks run at each step, or that cannot be told."""
    own, everybodys = "torch.optim.Optimizer._optimizer_step", "torch.optim.optimizer._global_optimizer"
    try:
        return any(
            _of(optimizer, f"{own}_{when}_hooks") or needed(f"{everybodys}_{when}_hooks")
            for when in ("pre", "post")
        )
    except MissingPartError:
        return True


def skips_in_kernel(optimizer: torch.optim.Optimizer) -> bool:
    """Whether the optimizer's kernel leaves out an update if `found_inf` is 1."""
    return bool(_of(optimizer, "torch.optim.Optimizer._step_supports_amp_scaling", False))


def scales_gradients() -> bool:
    """Whether `overflow_flag` is there."""
    return _of(torch.amp.GradScaler, "torch.amp.GradScaler._found_inf_per_device", None) is not None


def overflow_flag(scaler: torch.amp.GradScaler, optimizer: torch.optim.Optimizer) -> Tensor:
    """The scaler's own flag of an overflow, after `unscale_`: `update` reads it."""
    flag: Tensor
    (flag,) = _of(scaler, "torch.amp.GradScaler._found_inf_per_device")(optimizer).values()
    return flag


# The compiler


@contextmanager
def values_unread() -> Iterator[None]:
    """Optimizers do not read values of tensors, as when torch.compile traces them.

    Raises:
        MissingPartError: they cannot be told.
    """
    needed("torch.compiler._is_compiling_flag")
    before = torch.compiler._is_compiling_flag
    torch.compiler._is_compiling_flag = True
    try:
        yield
    finally:
        torch.compiler._is_compiling_flag = before


def check_compiles() -> None:
    """Raises MissingPartError if a step could not be traced or loaded. Does not load the compiler."""
    for path in ("torch._C._aoti", "torch.compiler._is_compiling_flag"):
        needed(path)


def load_compiled(path: Path, device: torch.device) -> Callable[[list[Tensor]], list[Tensor]]:
    """The code of a library that `compile_ahead` has made.

    Raises:
        RuntimeError: torch cannot load it.
    """
    aoti = needed("torch._C._aoti")
    if device.type == "cuda":
        code = aoti.AOTIModelContainerRunnerCuda(str(path), 1, str(device)).run
    else:
        code = aoti.AOTIModelContainerRunnerCpu(str(path), 1).run
    typed: Callable[[list[Tensor]], list[Tensor]] = code
    return typed


def keep_compiled_in(folder: str) -> None:
    """Loads torch's compiler, and has it keep all files in a folder, whatever the environment says.

    Precompiled headers lie in the temporary folder otherwise, under a name that anybody may have taken
    before.

    Raises:
        MissingPartError: where they lie cannot be changed.
    """
    places = ("runtime.cache_dir_utils", "runtime.runtime_utils", "codecache")
    names = [f"torch._inductor.{place}.default_cache_dir" for place in places]
    headers = {"_HEADER_DIR": "precompiled_headers", "_HEADER_LOCK_DIR": "precompiled_headers/locks"}
    for path in (*names, *(f"torch._inductor.codecache.{name}" for name in headers)):
        needed(path)
    for path in names:
        module: Any = importlib.import_module(path.rpartition(".")[0])
        module.default_cache_dir = lambda: folder
    for name, below in headers.items():
        setattr(module, name, str(Path(folder) / below))


def compile_ahead(
    graph: nn.Module, arguments: tuple[Tensor, ...], path: Path, settings: dict[str, Any]
) -> str:
    """Compiles a graph into a library at `path`; returns its real path.

    Args:
        settings: of the compiler, as `{"cpp.vec_isa_ok": True}`.

    Raises:
        MissingPartError: torch's compiler has changed.
    """
    with needed("torch._inductor.config.patch")(settings), _onednn_lowerings():
        options = {"aot_inductor.output_path": str(path)}
        return str(needed("torch._inductor.aot_compile")(graph, arguments, options=options))


@contextmanager
def _onednn_lowerings() -> Iterator[None]:
    """Lets the compiler call oneDNN's matrix product where `onednn_linear` was called.

    By itself it only calls it with weights that never change.
    """
    operators = onednn_linear()
    if operators is None:
        yield
        return
    lowerings = needed("torch._inductor.lowering.lowerings")
    create = needed("torch._inductor.ir.TensorBox").create

    def lower_to(node: Any) -> Callable[..., Any]:
        return lambda *arguments, **_: create(node.create(*arguments))

    needed("torch._inductor.fx_passes.mkldnn_fusion._mkldnn_fusion_init")()
    overloads: Any = operators
    ours: dict[Any, Callable[..., Any]] = {
        overloads.default: lower_to(needed("torch._inductor.mkldnn_ir.LinearUnary")),
        # With a sum that follows it.
        overloads.binary: lower_to(needed("torch._inductor.mkldnn_ir.LinearBinary")),
    }
    before = {operator: lowerings[operator] for operator in ours}
    lowerings.update(ours)
    try:
        yield
    finally:
        lowerings.update(before)


# What parts have to do on a version that was not tried


@cache
def _passes(path: str) -> bool:
    check = _CHECKS.get(path)
    try:
        return check is None or check(_found(path))
    except Exception:  # other arguments than expected, or whatever else has changed
        return False


def _is_near(got: Iterable[Tensor], wanted: list[list[float]]) -> bool:
    return [[round(v, 5) for v in tensor.tolist()] for tensor in got] == wanted


def _updates(kernel: Callable[..., None]) -> bool:
    weights, means, squares = ([torch.tensor([value])] for value in (1.0, 0.0, 0.0))
    kernel(
        *(weights, [torch.tensor([4.0])], means, squares, [], [torch.ones(())]),
        lr=0.1,
        beta1=0.5,
        beta2=0.5,
        weight_decay=0.0,
        eps=1e-8,
        amsgrad=False,
        maximize=False,
    )
    return _is_near([*weights, *means, *squares], [[0.9], [2.0], [8.0]])


def _flags(kernel: Callable[..., None]) -> bool:
    flags = [torch.zeros(()), torch.zeros(())]
    tensors = [torch.tensor([1.0, 2.0]), torch.tensor([1.0, torch.nan])]
    for tensor, flag in zip(tensors, flags, strict=True):
        kernel([tensor], flag, torch.ones(()))
    return _is_near([tensors[0], torch.stack(flags)], [[1.0, 2.0], [0.0, 1.0]])


def _differentiates(run: Callable[..., Any]) -> bool:
    x = torch.tensor([3.0], requires_grad=True)
    total = (x * x).sum()
    half = torch.full((), 0.5)
    (found,) = run((total,), (half,), True, False, (x,), True, accumulate_grad=False)
    run((total,), (half,), False, False, (), allow_unreachable=True, accumulate_grad=True)
    return x.grad is not None and _is_near([found, x.grad], [[3.0], [3.0]])


def _multiplies(kernel: Callable[..., Tensor]) -> bool:
    x, weight, bias = torch.tensor([[1.0, 2.0]]), torch.tensor([[3.0, 4.0]]), torch.tensor([5.0])
    return _is_near([kernel(x, weight, bias, "none", [], "")[0]], [[16.0]])


def _tells_transforms(are_active: Callable[[], bool]) -> bool:
    within: list[bool] = []

    def identity(x: Tensor) -> Tensor:
        within.append(are_active())
        return x

    torch.func.vmap(identity)(torch.zeros(2))
    return within == [True] and not are_active()


def _is_read(_: object) -> bool:
    before = torch.compiler._is_compiling_flag
    torch.compiler._is_compiling_flag = True
    within = torch.compiler.is_compiling()
    torch.compiler._is_compiling_flag = before
    return within and not torch.compiler.is_compiling()


_CHECKS: dict[str, Callable[[Any], bool]] = {
    "torch._C._are_functorch_transforms_active": _tells_transforms,
    "torch._C._len_torch_dispatch_stack": lambda depth: depth() == 0,
    "torch._amp_foreach_non_finite_check_and_unscale_": _flags,
    "torch._fused_adam_": _updates,
    "torch._fused_adamw_": _updates,
    "torch.autograd.graph._engine_run_backward": _differentiates,
    "torch.compiler._is_compiling_flag": _is_read,
    "torch.ops.mkldnn._linear_pointwise": _multiplies,
}


# Last, since on a version that was not tried it is checked.
OperationMode: Any = part("torch.utils._python_dispatch.TorchDispatchMode")
"""What sees each operation on tensors while it is entered; None: there is nothing."""
