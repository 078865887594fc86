"""The transformer's options."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, ValidationInfo, field_validator

from bigmodel.models.checks import check_divides
from bigmodel.registry import Config, EntryConfig


class RotaryScaling(Config):
    """How rotary positions reach further than the text that a model was trained on."""

    kind: Literal["none", "linear", "llama3", "yarn"] = Field(
        "none", description="none, linear, llama3 (Llama 3.1) or yarn (Peng et al. 2023)"
    )
    factor: float = Field(1.0, ge=1, description="how many times further")
    original_length: int = Field(
        8192, ge=1, description="positions of the original training; for llama3 and yarn"
    )
    low_freq_factor: float = Field(
        1.0, gt=0, description="llama3: wavelengths over original_length / this are stretched in full"
    )
    high_freq_factor: float = Field(
        4.0, gt=0, description="llama3: wavelengths below original_length / this stay as they are"
    )
    beta_fast: float = Field(
        32.0, gt=0, description="yarn: channels that turn more often over original_length stay"
    )
    beta_slow: float = Field(
        1.0, gt=0, description="yarn: channels that turn less often are stretched in full"
    )
    attention_factor: float | None = Field(
        None, gt=0, description="yarn: multiplies queries and keys; null: 0.1 ln(factor) + 1"
    )


class TransformerConfig(EntryConfig):
    """Options of the transformer."""

    dim: int = Field(64, ge=1, description="size of the vector at each position")
    depth: int = Field(2, ge=1, description="blocks of attention and feed-forward, one after another")
    encoder_depth: Annotated[int, Field(ge=1)] | None = Field(
        None, description="blocks that read the source, for translation only; null: depth"
    )
    head_dim: Annotated[int, Field(ge=1)] | None = Field(
        None, description="channels of a head; null: dim over num_heads"
    )
    num_heads: int = Field(4, ge=1, validate_default=True, description="number of heads; divides dim")
    num_kv_heads: Annotated[int, Field(ge=1)] | None = Field(
        None,
        description="heads of keys and values, shared by groups; divides num_heads; null: num_heads",
    )
    qk_norm: bool = Field(False, description="normalise each head's queries and keys, learning a scale")
    mlp_ratio: float = Field(4.0, gt=0, le=64, description="width of the feed-forward layer over dim")
    mlp_dim: Annotated[int, Field(ge=1)] | None = Field(
        None, description="width of the feed-forward layer; null: by mlp_ratio, for swiglu 2/3 of it"
    )
    position: Literal["sinusoidal", "learned", "rotary"] = Field(
        "learned", description="position encoding: sinusoidal, learned or rotary"
    )
    rotary_base: float = Field(
        10_000.0, gt=1, description="rotary: the longest wavelength along a line is 2π times this"
    )
    rotary_scaling: RotaryScaling = Field(
        RotaryScaling(), description="rotary: how positions reach further than in the original training"
    )
    norm: Literal["layernorm", "rmsnorm"] = Field("layernorm", description="layernorm or rmsnorm")
    norm_eps: Annotated[float, Field(gt=0)] | None = Field(
        None, description="added to variances in norms; null: 1e-5, for rmsnorm 1e-6"
    )
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
    embedding_norm: bool = Field(False, description="normalise the vectors before the first block")
    token_types: int = Field(
        0, ge=0, description="kinds of text that have a vector each, which is added: all is of the first"
    )
    class_token: bool = Field(
        False, description="a learnt vector comes before all positions, for the head to read"
    )
    tied_embeddings: bool = Field(False, description="one matrix embeds and scores tokens; text only")
    patch_size: int = Field(2, ge=1, description="side of an image's square patches, in pixels")
    causal: bool = Field(
        False, description="let each position see only itself and those before it; always so in writing"
    )
    readout: Literal["mean", "last", "first", "pooled"] | None = Field(
        None,
        description="what the head sees: mean, last or first position, or tanh of a layer on the first"
        " (pooled); null: last if causal, first with a class token, else mean",
    )
    dropout: float = Field(
        0.1, ge=0, lt=1, description="share of weights and of outputs dropped in training, 0 to 1"
    )

    @field_validator("num_heads")
    @classmethod
    def _heads_divide_dim(cls, num_heads: int, info: ValidationInfo) -> int:
        if info.data.get("head_dim") is not None:
            return num_heads
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
        if position != "rotary" or not dim or not heads:
            return position
        head_dim = info.data.get("head_dim")
        if head_dim is not None and head_dim % 2:
            raise ValueError(f"turns pairs of channels, and head_dim={head_dim} is odd")
        if head_dim is None and dim // heads % 2:
            raise ValueError(
                f"turns pairs of channels, and dim={dim} over num_heads={heads} gives each head"
                f" {dim // heads}; try dim={2 * dim}"
            )
        return position

    @property
    def head_width(self) -> int:
        """Channels of a head."""
        return self.head_dim or self.dim // self.num_heads

    @property
    def feed_forward_width(self) -> int:
        """Inner features of the feed-forward layer."""
        share = 2 / 3 if self.activation == "swiglu" else 1
        return self.mlp_dim or max(1, round(self.dim * self.mlp_ratio * share))

    @property
    def norm_epsilon(self) -> float:
        """Added to variances in norms."""
        return self.norm_eps or (1e-6 if self.norm == "rmsnorm" else 1e-5)

    @property
    def effective_readout(self) -> str:
        """What the head of a model that does not write sees."""
        if self.readout is not None:
            return self.readout
        if self.causal:
            return "last"
        return "first" if self.class_token else "mean"
