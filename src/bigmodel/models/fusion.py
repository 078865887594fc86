"""Several kinds of data in one model: an encoder for each, joined by attention."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from pydantic import Field, field_validator
from torch import Tensor, nn

from bigmodel.errors import ConfigError, SpecError, did_you_mean
from bigmodel.models.base import Model
from bigmodel.models.checks import check_divides, refuse_writing
from bigmodel.models.families import FAMILIES
from bigmodel.models.layers.blocks import Block, make_norm
from bigmodel.models.layers.fast_linear import Linear
from bigmodel.models.transformer_config import TransformerConfig
from bigmodel.registry import EntryConfig, models, validate
from bigmodel.spec import DataSpec, Features, Image, Modality, Multimodal, Sequence, Tokens

KINDS: dict[type, str] = {Features: "features", Image: "image", Sequence: "sequence", Tokens: "text"}
"""The key in `encoders` of each kind of data."""

Settings = str | dict[str, Any]
"""A model's name, or its options, perhaps with its name, and with `pretrained`: the weights it starts
from, which whoever builds a run loads."""


class FusionConfig(EntryConfig):
    """Options of the fusion of several kinds of data."""

    dim: int = Field(64, ge=1, description="size of the tokens that parts become")
    depth: int = Field(2, ge=1, description="blocks of attention over all tokens")
    num_heads: int = Field(4, ge=1, validate_default=True, description="number of heads; divides dim")
    mlp_ratio: float = Field(4.0, gt=0, le=64, description="width of the feed-forward layer over dim")
    tokens_per_part: int = Field(1, ge=1, description="tokens that each part becomes")
    encoders: dict[str, Settings] = Field(
        {},
        description="models of a kind (features, image, sequence, text) or of a column, such as {image:"
        " attention, photo: {name: cnn, residual: true}}; else cnn, and fnn for features",
    )
    modality_dropout: float = Field(
        0.1, ge=0, lt=1, description="share of parts left out in training, though never all of a sample"
    )
    dropout: float = Field(
        0.1, ge=0, lt=1, description="share of weights and of outputs dropped in training, 0 to 1"
    )

    @field_validator("num_heads")
    @classmethod
    def _heads_divide_dim(cls, num_heads: int, info: Any) -> int:
        return check_divides(num_heads, "dim", info.data.get("dim", num_heads))

    @field_validator("encoders")
    @classmethod
    def _known_settings(cls, encoders: dict[str, Settings]) -> dict[str, Settings]:
        for key, settings in encoders.items():
            # Which options there are may follow from the weights.
            if isinstance(settings, str) or "name" in settings or "pretrained" not in settings:
                encoder_config(key, settings)
        return encoders

    @property
    def blocks(self) -> TransformerConfig:
        """The options of a block."""
        same = self.model_dump(include={"dim", "depth", "num_heads", "mlp_ratio", "dropout"})
        return TransformerConfig(name="transformer", **same)


def encoder_config(key: str, settings: Settings) -> EntryConfig:
    """The options of an encoder.

    Args:
        key: in `encoders`.
        settings: those that differ from the defaults.

    Raises:
        ConfigError: there is no such model, or it has no such options.
    """
    usual = {"name": "fnn" if key == "features" else "cnn"}
    settings = usual | ({"name": settings} if isinstance(settings, str) else settings)
    settings.pop("pretrained", None)
    where, name = f"model.encoders.{key}", settings["name"]
    if not isinstance(name, str) or name == "fusion":
        raise _wrong_name(f"{where}.name", name)
    try:
        schema = models.entry(name).config
    except ConfigError:
        raise _wrong_name(f"{where}.name", name) from None
    return validate(schema, settings, where)


def _wrong_name(key: str, name: Any) -> ConfigError:
    """The error that an encoder's name, set by `key`, is not that of a model of one kind of data."""
    known = [one for one in models.names() if one != "fusion"]
    if name in FAMILIES:
        fault = (
            f"{name} is model=transformer with other options. Set {key}=transformer, and those of its"
            " options that differ"
        )
    elif not isinstance(name, str) or name == "fusion":
        fault = f"name a model that reads one kind of data: {', '.join(known)}"
    else:
        fault = (
            f"no such model.{did_you_mean(name, known)} Known: {', '.join(known)}; a plugin's own names"
            " need 'plugins=[module]'"
        )
    return ConfigError(f"{key}={name!r}: {fault}.")


@models.register("fusion", FusionConfig)
class Fusion(Model):
    """Encoders of several kinds of data, joined by attention over the tokens that they give.

    Each part of the data is read by a model of its own, whose features a linear map turns into a token
    or a few. They and a learnt summary token attend to each other, and the head reads the summary, as
    that of a vision transformer reads its class token. A part that a sample does not have is masked, so
    that nothing stands in for it. In training, parts are left out at random (ModDrop: Neverova et al.
    2014, arXiv:1501.00102), though never all of a sample, so that the model can do without any of them.

    Data of a single kind is one part, which no sample lacks.

    Attributes:
        kinds: what each encoder reads.
        keys: where `encoders` of the options has its settings, if any.

    Shapes: (batch, *spec.input.shape) → features (batch, dim) → (batch, output_size).

    Raises:
        ConfigError: a key in `encoders` is neither a kind of data nor a part, or means several.
        SpecError: an encoder cannot read its part.
    """

    def __init__(self, config: FusionConfig, spec: DataSpec) -> None:
        super().__init__()
        refuse_writing("fusion", spec, several=True)
        self.input = spec.input
        parts = _parts_of(spec)
        _check_keys(config, parts)
        self.tokens_per_part, self.modality_dropout = config.tokens_per_part, config.modality_dropout
        self.kinds = list(parts.values())
        self.encoders, self.projections = nn.ModuleDict(), nn.ModuleDict()
        self.keys: list[str] = []
        for safe, (name, kind) in zip(_module_names(parts), parts.items(), strict=True):
            self.keys.append(name if name in config.encoders else KINDS[type(kind)])
            encoder = _encoder(config, self.keys[-1], kind, spec)
            width = encoder.head.in_features
            encoder.head = nn.Identity()  # its own is not used
            self.encoders[safe] = encoder
            self.projections[safe] = Linear(width, config.tokens_per_part * config.dim)
        self.summary = nn.Parameter(nn.init.normal_(torch.empty(1, 1, config.dim), std=0.02))
        self.blocks = nn.ModuleList(Block(config.blocks) for _ in range(config.depth))
        self.norm = make_norm(config.blocks)
        self.head = Linear(config.dim, spec.target.output_size)

    def features(self, inputs: Tensor) -> Tensor:
        parts, present = self._split(inputs)
        tokens = [self.summary.expand(len(inputs), 1, -1)]
        modules = zip(self.encoders.values(), self.projections.values(), strict=True)
        for part, (encoder, projection) in zip(parts, modules, strict=True):
            assert isinstance(encoder, Model)
            projected = projection(encoder.features(part))
            tokens.append(projected.unflatten(1, (self.tokens_per_part, -1)))
        x, mask = torch.cat(tokens, dim=1), None
        if present is not None:
            if self.training and self.modality_dropout:
                present = drop_parts(present, self.modality_dropout)
            seen = present.repeat_interleave(self.tokens_per_part, dim=1)
            mask = F.pad(seen, (1, 0), value=True)[:, None, None]  # the summary is always seen
        for block in self.blocks:
            x = block(x, mask)
        summary: Tensor = self.norm(x[:, 0])
        return summary

    def _split(self, inputs: Tensor) -> tuple[list[Tensor], Tensor | None]:
        """The inputs of each encoder, and which are there, (batch, parts) bool; None: all are."""
        if not isinstance(self.input, Multimodal):
            return [inputs], None
        kinds = self.input.parts
        present, parts = inputs[:, : len(kinds)] > 0, []
        for index, (kind, columns) in enumerate(zip(kinds, self.input.slices, strict=True)):
            # What stands in for a missing part reaches no token, but a batch norm would count it.
            values = inputs[:, columns].masked_fill(~present[:, index, None], _missing(kind))
            values = values.reshape(-1, *kind.shape)
            parts.append(values.long() if isinstance(kind, Tokens) else values)
        return parts, present


def drop_parts(present: Tensor, share: float) -> Tensor:
    """Leaves out parts of samples at random, but not the last one that a sample has.

    Args:
        present: (batch, parts) bool.
        share: of parts that are left out, 0 to 1.

    Returns:
        Which parts are left, (batch, parts) bool; all those of a sample that would lose every one.
    """
    kept = present & (F.dropout(torch.ones_like(present, dtype=torch.float32), share) > 0)
    return torch.where(kept.any(1, keepdim=True), kept, present)


def _missing(kind: Modality) -> int:
    return kind.pad or 0 if isinstance(kind, Tokens) else 0


def _parts_of(spec: DataSpec) -> dict[str, Modality]:
    """The parts of the data by name; data of one kind is a part with the name of its kind."""
    if isinstance(spec.input, Multimodal):
        return dict(zip(spec.input.names, spec.input.parts, strict=True))
    assert isinstance(spec.input, Modality)
    return {KINDS[type(spec.input)]: spec.input}


def _check_keys(config: FusionConfig, parts: Mapping[str, Modality]) -> None:
    known = [*KINDS.values(), *(name for name in parts if name not in KINDS.values())]
    for key in config.encoders:
        if key not in known:
            raise ConfigError(
                f"model.encoders.{key}: names neither a kind of data nor a part of it."
                f"{did_you_mean(key, known)} Known: {', '.join(known)}."
            )
        others = [name for name, kind in parts.items() if name != key and KINDS[type(kind)] == key]
        if key in parts and others:
            raise ConfigError(
                f"model.encoders.{key}: means both column '{key}' and the kind of column '{others[0]}'."
                f" Rename column '{key}', or set only model.encoders.{others[0]}."
            )


def _encoder(config: FusionConfig, key: str, kind: Modality, spec: DataSpec) -> Any:
    """The model that reads a part, with a linear head."""
    options = encoder_config(key, config.encoders.get(key, {}))
    try:
        encoder = models.build(options, DataSpec(spec.name, kind, spec.target))
    except SpecError as error:
        raise SpecError(str(error).replace("model.", f"model.encoders.{key}.")) from None
    if not isinstance(getattr(encoder.head, "in_features", None), int):
        raise SpecError(
            f"model.encoders.{key}.name={options.name}: only a model with a linear head is an encoder,"
            f" and its head is a {type(encoder.head).__name__}. Use another model."
        )
    return encoder


def _module_names(names: Iterable[str]) -> list[str]:
    """Names for modules, which torch restricts: each one's letters and digits, and what makes it new."""
    taken: list[str] = []
    for name in names:
        safe = re.sub(r"\W", "_", name)
        safe = safe if safe.isidentifier() else f"part_{safe}"
        while safe in taken or hasattr(nn.ModuleDict, safe):
            safe += "_"
        taken.append(safe)
    return taken
