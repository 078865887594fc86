"""The transformer's options."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, ValidationInfo, field_validator

from bigmodel.models.checks import check_divides
from bigmodel.registry import EntryConfig


class TransformerConfig(EntryConfig):
    """Options of the transformer."""

    dim: int = Field(64, ge=1, description="size of the vector at each position")
    depth: int = Field(2, ge=1, description="blocks of attention and feed-forward, one after another")
    encoder_depth: Annotated[int, Field(ge=1)] | None = Field(
        None, description="blocks that read the source, for translation only; null: depth"
    )
    num_heads: int = Field(4, ge=1, validate_default=True, description="number of heads; divides dim")
    num_kv_heads: Annotated[int, Field(ge=1)] | None = Field(
        None,
        description="heads of keys and values, shared by groups; divides num_heads; null: num_heads",
    )
    qk_norm: bool = Field(False, description="normalise each head's queries and keys, learning a scale")
    mlp_ratio: float = Field(4.0, gt=0, le=64, description="width of the feed-forward layer over dim")
    position: Literal["sinusoidal", "learned", "rotary"] = Field(
        "learned", description="position encoding: sinusoidal, learned or rotary"
    )
    norm: Literal["layernorm", "rmsnorm"] = Field("layernorm", description="layernorm or rmsnorm")
    norm_first: bool = Field(True, description="normalise before each part; false: after, as in 2017")
    activation: Literal["gelu", "gelu_tanh", "relu", "relu_squared", "swiglu"] = Field(
        "gelu", description="of the feed-forward layer: gelu, gelu_tanh, relu, relu_squared or swiglu"
    )
    bias: bool = Field(
        True, description="biases in the blocks' linear layers and norms, and in the head"
    )
    initialisation: Literal["xavier", "gpt2"] = Field(
        "xavier", description="starting weights: xavier (by layer width) or gpt2 (std 0.02)"
    )
    zero_init_outputs: bool = Field(
        False, description="start each block's outputs, and a head of its own, at zero"
    )
    tied_embeddings: bool = Field(False, description="one matrix embeds and scores tokens; text only")
    patch_size: int = Field(2, ge=1, description="side of an image's square patches, in pixels")
    causal: bool = Field(
        False, description="let each position see only itself and those before it; always so in writing"
    )
    readout: Literal["mean", "last"] | None = Field(
        None, description="what the head sees: mean or last position; null: last if causal, else mean"
    )
    dropout: float = Field(
        0.1, ge=0, lt=1, description="share of weights and of outputs dropped in training, 0 to 1"
    )

    @field_validator("num_heads")
    @classmethod
    def _heads_divide_dim(cls, num_heads: int, info: ValidationInfo) -> int:
        return check_divides(num_heads, "dim", info.data.get("dim", num_heads))

    @field_validator("num_kv_heads")
    @classmethod
    def _groups_divide_heads(cls, num_kv_heads: int | None, info: ValidationInfo) -> int | None:
        if num_kv_heads is not None:
            check_divides(num_kv_heads, "num_heads", info.data.get("num_heads", num_kv_heads))
        return num_kv_heads

    @field_validator("position")
    @classmethod
    def _pairs_to_turn(cls, position: str, info: ValidationInfo) -> str:
        dim, heads = info.data.get("dim"), info.data.get("num_heads")
        if position == "rotary" and dim and heads and dim // heads % 2:
            raise ValueError(
                f"turns pairs of channels, and dim={dim} over num_heads={heads} gives each head"
                f" {dim // heads}; try dim={2 * dim}"
            )
        return position
