"""Operations element by element."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from bigmodel.engine.native.building import (
    C_TYPES,
    Lowering,
    Number,
    layout_of,
    literal,
)
from bigmodel.engine.native.values import (
    Expression,
    Operand,
    Pointwise,
    Unwritten,
    Value,
)

aten = torch.ops.aten


def pointwise(write: Callable[..., str], converts: bool = True) -> Lowering:
    """An operation element by element.

    Args:
        write: C of the result, given that of each argument: of the type to compute in, if `converts`.
    """

    def lower(results: list[Tensor], *arguments: Any, **options: Any) -> list[Value]:
        (result,) = results
        compute = _common_type(arguments) if result.dtype is torch.bool else result.dtype
        shape = tuple(result.shape)

        def number(value: Any) -> Any:
            return Number.of(value, compute) if isinstance(value, bool | int | float) else value

        fixed = [number(argument) for argument in arguments]
        named = {key: number(option) for key, option in options.items() if key not in _IGNORED}

        def expression(*texts: str) -> str:
            rest = iter(texts)
            return write(*(next(rest) if isinstance(a, Operand) else a for a in fixed), **named)

        return [
            Pointwise(
                **layout_of(result),
                expression=expression,
                compute=compute if converts else None,
                operands=tuple(a.expanded(shape) for a in arguments if isinstance(a, Operand)),
            )
        ]

    return lower


_IGNORED = {"dtype", "layout", "device", "pin_memory", "memory_format", "non_blocking"}


def _common_type(arguments: Sequence[Any]) -> torch.dtype:
    """The type in which torch compares."""
    stand_ins = [
        torch.empty((1,) * len(a.shape), dtype=a.value.dtype) if isinstance(a, Operand) else a
        for a in arguments
        if isinstance(a, Operand | bool | int | float)
    ]
    return torch.result_type(stand_ins[0], stand_ins[-1])


def scaled(x: str, factor: Number) -> str:
    return x if factor.value == 1 else f"{factor} * {x}"


_ONE, _SLOPE = Number.of(1, torch.float32), Number.of(0.01, torch.float32)


def _clamped(x: str, low: str | None = None, high: str | None = None) -> str:
    for bound, sign in ((low, "<"), (high, ">")):
        x = x if bound is None else f"({x} {sign} {bound} ? {bound} : {x})"
    return x


def _power(x: str, exponent: Number) -> str:
    match exponent.value:
        case 2:
            return f"{x} * {x}"
        case 3:
            return f"{x} * {x} * {x}"
        case 0.5:
            return f"root({x})"
        case -0.5:
            return f"1 / root({x})"
    return f"power({x}, {exponent})"


def _between(x: str, y: str, share: str) -> str:
    """From the nearer one, as torch does: a share of 1 is y to the bit."""
    near = f"{x} + {share} * ({y} - {x})"
    return f"({share} < 0.5f ? {near} : {y} - ({y} - {x}) * (1 - {share}))"


def _sigmoid(x: str) -> str:
    return f"1 / (1 + exponential(-{x}))"


def _gelu(x: str, *, approximate: str = "none") -> str:
    if approximate != "none":
        return f"gelu_by_tanh({x})"
    return f"{x} * normal_cdf({x})"


def _gelu_backward(gradient: str, x: str, *, approximate: str = "none") -> str:
    if approximate != "none":
        return f"{gradient} * gelu_by_tanh_slope({x})"
    return f"{gradient} * (normal_cdf({x}) + {x} * normal_density({x}))"


def _silu_backward(gradient: str, x: str) -> str:
    return f"{gradient} * silu_slope({x})"


def _elu(x: str, alpha: Number = _ONE, scale: Number = _ONE, input_scale: Number = _ONE) -> str:
    return f"{scale} * ({x} > 0 ? {x} : {alpha} * (exponential({x} * {input_scale}) - 1))"


def _elu_backward(
    gradient: str, alpha: Number, scale: Number, input_scale: Number, is_result: Number, x: str
) -> str:
    at_negative = (
        f"({x} + {alpha})" if is_result.value else f"{alpha} * exponential({x} * {input_scale})"
    )
    return f"{gradient} * {scale} * ({x} > 0 ? 1 : {input_scale} * {at_negative})"


_POINTWISE: dict[Any, Callable[..., str]] = {
    aten.abs.default: lambda x: f"absolute({x})",
    aten.add.Tensor: lambda x, y, alpha=_ONE: f"{x} + {scaled(y, alpha)}",
    aten.add.Scalar: lambda x, y, alpha=_ONE: f"{x} + {scaled(y, alpha)}",
    aten.sub.Tensor: lambda x, y, alpha=_ONE: f"{x} - {scaled(y, alpha)}",
    aten.sub.Scalar: lambda x, y, alpha=_ONE: f"{x} - {scaled(y, alpha)}",
    aten.rsub.Scalar: lambda x, y, alpha=_ONE: f"{y} - {scaled(x, alpha)}",
    aten.rsub.Tensor: lambda x, y, alpha=_ONE: f"{y} - {scaled(x, alpha)}",
    aten.mul.Tensor: lambda x, y: f"{x} * {y}",
    aten.mul.Scalar: lambda x, y: f"{x} * {y}",
    aten.div.Tensor: lambda x, y: f"{x} / {y}",
    aten.div.Scalar: lambda x, y: f"{x} / {y}",
    aten.neg.default: lambda x: f"-{x}",
    aten.sqrt.default: lambda x: f"root({x})",
    aten.rsqrt.default: lambda x: f"1 / root({x})",
    aten.reciprocal.default: lambda x: f"1 / {x}",
    aten.square.default: lambda x: f"{x} * {x}",
    aten.exp.default: lambda x: f"exponential({x})",
    aten.log.default: lambda x: f"logarithm({x})",
    aten.log1p.default: lambda x: f"logarithm_of_1_and({x})",
    aten.pow.Tensor_Scalar: _power,
    aten.pow.Scalar: lambda base, x: f"power({base}, {x})",
    aten.pow.Tensor_Tensor: lambda base, x: f"power({base}, {x})",
    aten.lerp.Scalar: _between,
    aten.lerp.Tensor: _between,
    aten.addcmul.default: lambda x, y, z, value=_ONE: f"{x} + {scaled(y, value)} * {z}",
    aten.addcdiv.default: lambda x, y, z, value=_ONE: f"{x} + {scaled(y, value)} / {z}",
    aten.maximum.default: lambda x, y: f"({x} > {y} || {x} != {x} ? {x} : {y})",
    aten.minimum.default: lambda x, y: f"({x} < {y} || {x} != {x} ? {x} : {y})",
    aten.clamp.default: _clamped,
    aten.clamp_min.default: lambda x, low: _clamped(x, low),
    aten.clamp_max.default: lambda x, high: _clamped(x, None, high),
    aten.eq.Tensor: lambda x, y: f"{x} == {y}",
    aten.eq.Scalar: lambda x, y: f"{x} == {y}",
    aten.ne.Tensor: lambda x, y: f"{x} != {y}",
    aten.ne.Scalar: lambda x, y: f"{x} != {y}",
    aten.lt.Tensor: lambda x, y: f"{x} < {y}",
    aten.lt.Scalar: lambda x, y: f"{x} < {y}",
    aten.le.Tensor: lambda x, y: f"{x} <= {y}",
    aten.le.Scalar: lambda x, y: f"{x} <= {y}",
    aten.gt.Tensor: lambda x, y: f"{x} > {y}",
    aten.gt.Scalar: lambda x, y: f"{x} > {y}",
    aten.ge.Tensor: lambda x, y: f"{x} >= {y}",
    aten.ge.Scalar: lambda x, y: f"{x} >= {y}",
    aten.logical_not.default: lambda x: f"!{x}",
    aten.logical_and.default: lambda x, y: f"({x} != 0) & ({y} != 0)",
    aten.logical_or.default: lambda x, y: f"({x} != 0) | ({y} != 0)",
    aten.bitwise_and.Tensor: lambda x, y: f"{x} & {y}",
    aten.bitwise_or.Tensor: lambda x, y: f"{x} | {y}",
    aten.sign.default: lambda x: f"({x} > 0) - ({x} < 0)",
    aten.sgn.default: lambda x: f"({x} > 0) - ({x} < 0)",
    aten.isnan.default: lambda x: f"{x} != {x}",
    aten.relu.default: lambda x: f"({x} > 0 || {x} != {x} ? {x} : 0)",
    aten.threshold_backward.default: lambda g, x, bound: f"({x} <= {bound} ? 0 : {g})",
    aten.tanh.default: lambda x: f"hyperbolic({x})",
    aten.tanh_backward.default: lambda g, y: f"{g} * (1 - {y} * {y})",
    aten.sigmoid.default: _sigmoid,
    aten.sigmoid_backward.default: lambda g, y: f"{g} * (1 - {y}) * {y}",
    aten.gelu.default: _gelu,
    aten.gelu_backward.default: _gelu_backward,
    aten.silu.default: lambda x: f"{x} / (1 + exponential(-{x}))",
    aten.silu_backward.default: _silu_backward,
    aten.leaky_relu.default: lambda x, slope=_SLOPE: f"({x} > 0 ? {x} : {slope} * {x})",
    aten.leaky_relu_backward.default: lambda g, x, slope, _: f"({x} > 0 ? {g} : {slope} * {g})",
    aten.elu.default: _elu,
    aten.elu_backward.default: _elu_backward,
}
"""C of each operation; those of the same names that work in place are the same."""


def _where(results: list[Tensor], condition: Operand, *choices: Any) -> list[Value]:
    (result,) = results
    name, shape = C_TYPES[result.dtype], tuple(result.shape)
    texts = [
        None if isinstance(choice, Operand) else literal(choice, result.dtype) for choice in choices
    ]

    def write(chosen: str, *others: str) -> str:
        rest = iter(others)
        first, second = (next(rest) if text is None else text for text in texts)
        return f"({chosen} ? ({name}){first} : ({name}){second})"

    operands = [condition, *(choice for choice in choices if isinstance(choice, Operand))]
    expanded = tuple(operand.expanded(shape) for operand in operands)
    return [Pointwise(**layout_of(result), expression=write, compute=None, operands=expanded)]


def _filled(number: Callable[..., float]) -> Lowering:
    """A tensor of one number, which is found among the arguments."""

    def lower(results: list[Tensor], *arguments: Any, **_: Any) -> list[Value]:
        (result,) = results
        text = literal(number(*arguments), result.dtype)
        return [Pointwise(**layout_of(result), expression=lambda: text, compute=None)]

    return lower


def _unwritten(results: list[Tensor], *_: Any, **__: Any) -> list[Value]:
    return [Unwritten(**layout_of(results[0]))]


def _copied(results: list[Tensor], *arguments: Any, **_: Any) -> list[Value]:
    """The last operand as a tensor of its own; that itself where memory and type are alike."""
    (result,) = results
    source = next(a for a in reversed(arguments) if isinstance(a, Operand)).expanded(tuple(result.shape))
    layout = layout_of(result)
    if (
        source.is_whole
        and source.value.dtype is result.dtype
        and source.value.strides == layout["strides"]
    ):
        return [source.value]
    return [Pointwise(**layout, expression=lambda x: x, compute=result.dtype, operands=(source,))]


def _counted(results: list[Tensor], *arguments: Any, **_: Any) -> list[Value]:
    """0, 1, 2, …, or from a start in steps."""
    (result,) = results
    start, step = (arguments[0], 1) if len(arguments) > 1 else (0, 1)
    if len(arguments) > 2:
        step = arguments[2]
    write: Expression = lambda index: f"{start} + {step} * {index}"  # noqa: E731
    return [Pointwise(**layout_of(result), expression=write, compute=None, counted=0)]


def works_in_place(operation: Any) -> bool:
    """Whether an operation changes its first argument."""
    return str(operation).split(".")[1].endswith("_")


def _in_place(operation: Any) -> Any:
    """The operation of the same name that works in place, or None."""
    _, name, overload = str(operation).split(".")
    packet = getattr(aten, f"{name}_", None)
    return None if packet is None else getattr(packet, overload, None)


def _with_those_in_place() -> dict[Any, Lowering]:
    found: dict[Any, Lowering] = {}
    for operation, write in _POINTWISE.items():
        found[operation] = lowering = pointwise(write)
        if (same := _in_place(operation)) is not None:
            found[same] = lowering
    return found


ELEMENTWISE: dict[Any, Lowering] = {
    **_with_those_in_place(),
    aten.where.self: _where,
    aten.where.ScalarSelf: _where,
    aten.where.ScalarOther: _where,
    aten.where.Scalar: _where,
    aten._to_copy.default: _copied,
    aten.clone.default: _copied,
    aten.copy_.default: _copied,
    aten.fill_.Scalar: _filled(lambda _, number: number),
    aten.zero_.default: _filled(lambda *_: 0),
    aten.zeros.default: _filled(lambda *_: 0),
    aten.zeros_like.default: _filled(lambda *_: 0),
    aten.new_zeros.default: _filled(lambda *_: 0),
    aten.ones.default: _filled(lambda *_: 1),
    aten.ones_like.default: _filled(lambda *_: 1),
    aten.new_ones.default: _filled(lambda *_: 1),
    aten.full.default: _filled(lambda _, number: number),
    aten.full_like.default: _filled(lambda _, number: number),
    aten.new_full.default: _filled(lambda _, __, number: number),
    aten.scalar_tensor.default: _filled(lambda number: number),
    torch.ops.prims.scalar_tensor.default: _filled(lambda number: number),
    aten.arange.default: _counted,
    aten.arange.start: _counted,
    aten.arange.start_step: _counted,
    aten.empty.memory_format: _unwritten,
    aten.empty_like.default: _unwritten,
    aten.empty_permuted.default: _unwritten,
    aten.new_empty.default: _unwritten,
}
