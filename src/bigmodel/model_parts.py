"""The parts of any model: which names a pattern means, its stacks of blocks, and how deep a weight lies.

A pattern is a part's dotted name, such as `head` or `blocks.0.attention`, and means everything in that
part. `0-3` stands for the numbers from 0 to 3, and `*` for any characters.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence

from torch import nn

from bigmodel.errors import ConfigError, did_you_mean, nearest

_RANGE = re.compile(r"(\d+)-(\d+)")
_LONGEST_RANGE = 10_000


def selected(model: nn.Module, patterns: Iterable[str], key: str) -> dict[str, list[str]]:
    """The names of the parameters that each pattern means.

    A parameter that several modules share counts under its first name. A part without parameters of its
    own, such as a head that scores by the embedding, is known but means none.

    Args:
        key: the setting that holds the patterns, for messages.

    Raises:
        ConfigError: a pattern means no part of the model.
    """
    parameters = [name for name, _ in model.named_parameters()]
    found: dict[str, list[str]] = {}
    for pattern in patterns:
        matches = _expression(pattern, key).fullmatch
        found[pattern] = [name for name in parameters if matches(name)]
        if not (found[pattern] or any(matches(name) for name, _ in model.named_modules() if name)):
            known = [name for name, _ in model.named_modules() if name] + parameters
            raise ConfigError(
                f"{key}: {pattern!r} is no part of this model.{_meant(pattern, known)} Its parts:"
                f" {', '.join(main_parts(model))}."
            )
    return found


def _expression(pattern: str, key: str) -> re.Pattern[str]:
    """A pattern as a regular expression for the names of all that it means."""
    pieces = []
    for piece in pattern.split("."):
        if numbers := _RANGE.fullmatch(piece):
            first, last = map(int, numbers.groups())
            if not 0 <= last - first < _LONGEST_RANGE:
                raise ConfigError(f"{key}: {pattern!r}: {piece} should run from low to high.")
            pieces.append(f"(?:{'|'.join(map(str, range(first, last + 1)))})")
        else:
            pieces.append(".*".join(map(re.escape, piece.split("*"))))
    return re.compile(r"\.".join(pieces) + r"(?:\..+)?", re.DOTALL)


def _meant(pattern: str, known: Sequence[str]) -> str:
    near = nearest(pattern, [name.rpartition(".")[2] for name in known])
    if "." in pattern or near is None or near in known:
        return did_you_mean(pattern, known)
    return f" Did you mean '*.{near}'?"


def main_parts(model: nn.Module) -> Iterator[str]:
    """A model's parts, with those of a list as one: `embedding`, `blocks.0-3`, `head`."""
    for name, _ in model.named_parameters(recurse=False):
        yield name
    for name, part in model.named_children():
        count = len(list(part.children())) if isinstance(part, nn.ModuleList | nn.Sequential) else 0
        if count:
            yield f"{name}.0-{count - 1}" if count > 1 else f"{name}.0"
        elif not isinstance(part, nn.ModuleList):
            yield name


def repeated_blocks(model: nn.Module, least: int = 2) -> list[nn.Module]:
    """The blocks in a model's stacks of blocks of one type; none contains another.

    Args:
        least: how many blocks make a stack.
    """
    found: list[nn.Module] = []
    for module in model.children():
        blocks = list(module.children()) if isinstance(module, nn.ModuleList | nn.Sequential) else []
        is_stack = len(blocks) >= least and len({type(block) for block in blocks}) == 1
        # Single layers, such as norms in a list, are not worth compiling by themselves.
        if is_stack and any(True for _ in blocks[0].children()):
            found += blocks
        else:
            found += repeated_blocks(module, least)
    return found


def all_blocks(model: nn.Module) -> list[nn.Module]:
    """The same, also of a model with a single block."""
    return repeated_blocks(model) or repeated_blocks(model, least=1)


def layer_numbers(model: nn.Module) -> dict[str, int]:
    """The layer in which each parameter lies, as in BEiT (Bao et al. 2021, arXiv:2106.08254): 0 for what
    comes before the first of n blocks, such as embeddings, 1 to n for the blocks, n + 1 for the head and
    all else that comes after them.

    What lies between two stacks, such as an encoder's last norm, belongs to the block before it. A model
    without a stack of blocks has none: {}.
    """
    blocks = all_blocks(model)
    number_of = {
        parameter: number
        for number, block in enumerate(blocks, start=1)
        for parameter in block.parameters()
    }
    numbers, newest = {}, 0
    for name, parameter in model.named_parameters():
        newest = number_of.get(parameter, newest)
        is_after = newest == len(blocks) and parameter not in number_of
        numbers[name] = len(blocks) + 1 if is_after or name.split(".")[0] == "head" else newest
    return numbers if blocks else {}


def is_frozen(module: nn.Module) -> bool:
    """Whether a module has parameters, and none of them is trained."""
    parameters = list(module.parameters())
    return bool(parameters) and not any(parameter.requires_grad for parameter in parameters)
