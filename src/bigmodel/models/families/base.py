"""What a family of pretrained models is: a table of names, which is read both ways, and its settings."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from bigmodel.errors import ConfigError
from bigmodel.models.transformer_config import TransformerConfig
from bigmodel.spec import DataSpec, Image, Tokens

Weights = dict[str, Tensor]

Form = Literal["same", "transposed", "kernel", "row"]
"""How a weight lies in theirs: as ours; (inputs, outputs); (outputs, channels, size, size), where ours
has a patch in one row; or with a first axis of 1."""


@dataclass(frozen=True)
class Name:
    """A layer or weight of ours, and of theirs.

    Attributes:
        ours: without the `.weight` or `.bias` of a layer; `{}` stands for the number of a block.
        theirs: several that lie one after another in ours.
        parts: what a layer has; empty: it is a weight itself.
    """

    ours: str
    theirs: tuple[str, ...]
    form: Form = "same"
    parts: tuple[str, ...] = ("weight", "bias")

    def expanded(self, blocks: int) -> Iterator[tuple[str, tuple[str, ...]]]:
        """Full names of ours and theirs."""
        for block in range(blocks if "{}" in self.ours else 1):
            for part in self.parts or ("",):
                end = f".{part}" if part else ""
                yield (
                    self.ours.replace("{}", str(block)) + end,
                    tuple(name.replace("{}", str(block)) + end for name in self.theirs),
                )


@dataclass(frozen=True)
class Family:
    """A family of models.

    Attributes:
        model_type: in a config.json.
        prefix: of all names but those of heads; a file may lack it.
        names: all layers but heads, whether a model of the family has them or not.
        heads: names of the head in theirs, the usual one first, that of `classifier` last.
        classifier: transformers' class with a head for classes, labels or values.
        readout: what that head sees, as the model's option has it.
        options: the model's options by a config.json.
        settings: a config.json by the options, without the model's type. What the family lacks is left
            out: `matching` finds it.
        reads: the kind of its inputs.
        writer: transformers' class that gives the next token; None: the family does not write.
        head_bias: whether heads have a bias.
        aliases: patterns of names in older files, and what they are now.
        ignored: patterns of what is not learnt, such as masks.
    """

    model_type: str
    prefix: str
    names: tuple[Name, ...]
    heads: tuple[str, ...]
    classifier: str
    readout: str
    options: Callable[[Mapping[str, Any]], dict[str, Any]]
    settings: Callable[[TransformerConfig, DataSpec], dict[str, Any]]
    reads: type[Image] | type[Tokens] = Tokens
    writer: str | None = None
    head_bias: bool = True
    aliases: tuple[tuple[str, str], ...] = ()
    ignored: tuple[str, ...] = ()

    def to_ours(self, theirs: Mapping[str, Tensor], blocks: int) -> tuple[Weights, list[str]]:
        """Weights under our names, and those of theirs that have none here.

        Args:
            theirs: by their names.
            blocks: of the model.
        """
        plain = {self._plain(name): name for name in theirs}
        found: Weights = {}
        for name in (*self.names, *self._heads()):
            for ours, parts in name.expanded(blocks):
                if ours not in found and all(part in plain for part in parts):
                    pieces = [theirs[plain.pop(part)] for part in parts]
                    found[ours] = _inward(pieces, name.form)
        left = [name for part, name in plain.items() if not self._is_ignored(part)]
        return found, sorted(left)

    def to_theirs(
        self, ours: Mapping[str, Tensor], blocks: int, patch_size: int = 1, head: str | None = None
    ) -> Weights:
        """Weights under their names.

        Args:
            blocks: of the model.
            patch_size: of a model of images.
            head: one of `heads`; None: the first.

        Raises:
            ConfigError: the family has no place for a weight.
        """
        left, found = dict(ours), dict[str, Tensor]()
        heads = [Name("head", (head or self.heads[0],))]
        for name in (*self.names, *heads):
            prefix = "" if name in heads else self.prefix
            for own, parts in name.expanded(blocks):
                if (weight := left.pop(own, None)) is None:
                    continue
                pieces = _outward(weight, name, parts, patch_size, self._shares(ours, own, len(parts)))
                found |= {prefix + part: piece for part, piece in zip(parts, pieces, strict=True)}
        if left:
            raise ConfigError(f"{self.model_type} has no place for {sorted(left)[0]}.")
        return found

    def _heads(self) -> Iterator[Name]:
        return (Name("head", (head,)) for head in self.heads)

    def _plain(self, name: str) -> str:
        name = name.removeprefix(self.prefix)
        for pattern, now in self.aliases:
            name = re.sub(pattern, now, name)
        return name

    def _is_ignored(self, name: str) -> bool:
        return any(re.fullmatch(pattern, name) for pattern in self.ignored)

    def _shares(self, ours: Mapping[str, Tensor], name: str, count: int) -> list[int]:
        """Rows of each of the layers that lie one after another in ours."""
        rows = len(ours[name])
        if not name.rpartition(".")[0].endswith(".attention.qkv"):
            return [rows // count] * count
        block = name.rpartition(".attention.")[0]
        queries = ours[f"{block}.attention.output.weight"].shape[1]
        return [queries, (rows - queries) // 2, (rows - queries) // 2]


def layers(table: Mapping[str, str | tuple[str, ...]], form: Form = "same") -> Iterable[Name]:
    """Layers of ours and theirs that have a weight and perhaps a bias."""
    for ours, theirs in table.items():
        yield Name(ours, theirs if isinstance(theirs, tuple) else (theirs,), form)


def weights(table: Mapping[str, str], form: Form = "same") -> Iterable[Name]:
    """Weights that belong to no layer of theirs, under their full names."""
    for ours, theirs in table.items():
        yield Name(ours, (theirs,), form, ())


def choose(what: str, value: object, known: Mapping[Any, Any]) -> Any:
    """What a setting of theirs is here.

    Raises:
        ConfigError: it has no counterpart.
    """
    if value not in known:
        raise ConfigError(
            f"The model's config.json has {what}={value}, which cannot be read. Known are"
            f" {', '.join(map(str, known))}."
        )
    return known[value]


_ACTIVATIONS = {"gelu": "gelu", "gelu_new": "gelu_tanh", "relu": "relu"}


def encoder_options(theirs: Mapping[str, Any], dropout: float) -> dict[str, Any]:
    """Options that BERT and the vision transformer state alike; `dropout` where a file does not."""
    return {
        "dim": theirs["hidden_size"],
        "depth": theirs["num_hidden_layers"],
        "num_heads": theirs["num_attention_heads"],
        "mlp_dim": theirs["intermediate_size"],
        "activation": choose("hidden_act", theirs.get("hidden_act", "gelu"), _ACTIVATIONS),
        "norm": "layernorm",
        "norm_eps": theirs.get("layer_norm_eps", 1e-12),
        "bias": True,
        "initialisation": "gpt2",
        "dropout": theirs.get("hidden_dropout_prob", dropout),
    }


def encoder_settings(options: TransformerConfig) -> dict[str, Any]:
    """The same in a config.json."""
    ours = {ours: theirs for theirs, ours in _ACTIVATIONS.items()}
    return {
        "hidden_size": options.dim,
        "num_hidden_layers": options.depth,
        "num_attention_heads": options.num_heads,
        "intermediate_size": options.feed_forward_width,
        "hidden_act": ours.get(options.activation),
        "layer_norm_eps": options.norm_epsilon,
        "hidden_dropout_prob": options.dropout,
        "attention_probs_dropout_prob": options.dropout,
    }


def _inward(pieces: list[Tensor], form: Form) -> Tensor:
    if form == "transposed":
        pieces = [piece.t() if piece.ndim == 2 else piece for piece in pieces]
    joined = pieces[0] if len(pieces) == 1 else torch.cat(pieces)
    if form == "kernel" and joined.ndim == 4:
        return joined.flatten(1)
    return joined[0] if form == "row" else joined


def _outward(
    weight: Tensor, name: Name, parts: tuple[str, ...], patch_size: int, shares: list[int]
) -> list[Tensor]:
    if name.form == "transposed" and weight.ndim == 2:
        weight = weight.t()
    if name.form == "kernel" and weight.ndim == 2:
        weight = weight.view(len(weight), -1, patch_size, patch_size)
    if name.form == "row":
        weight = weight.unsqueeze(0)
    pieces = [weight] if len(parts) == 1 else list(torch.split(weight, shares))
    return [piece.contiguous() for piece in pieces]
