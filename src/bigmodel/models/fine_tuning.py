"""Settings of every model, whatever its name: where it starts, and what of it is trained."""

from __future__ import annotations

import math
from typing import Literal

from pydantic import Field

from bigmodel.registry import Config

FrozenPrecision = Literal["fp32", "bf16", "int8"]


class LoRAConfig(Config):
    """Low-rank adaptation (Hu et al. 2021, arXiv:2106.09685)."""

    rank: int | None = Field(
        None, ge=1, description="width of the low-rank updates of frozen layers; null: no LoRA"
    )
    alpha: float = Field(
        16.0, gt=0, description="size of the updates: they are multiplied by alpha / rank"
    )
    dropout: float = Field(
        0.0, ge=0, lt=1, description="share of an update's inputs dropped in training, 0 to 1"
    )
    scaling: Literal["standard", "rslora"] = Field(
        "standard", description="standard: alpha / rank; rslora: alpha / √rank, for higher ranks"
    )
    targets: list[str] | None = Field(
        None,
        min_length=1,
        description="linear layers, such as [*.qkv]; null: all in the blocks",
    )
    train: list[str] = Field(
        [], description="parts that are trained in full beside, such as [head]; a new head is anyway"
    )

    @property
    def factor(self) -> float:
        """What updates are multiplied with. With the root of the rank (Kalajdzievski 2023,
        arXiv:2312.03732) they do not get smaller as it grows."""
        assert self.rank is not None
        return self.alpha / (math.sqrt(self.rank) if self.scaling == "rslora" else self.rank)


class FineTuningConfig(Config):
    """Where a model starts, and what of it changes."""

    pretrained: str | None = Field(
        None,
        min_length=1,
        description="weights to start from: a run, a safetensors file, or a Hugging Face folder",
    )
    freeze: list[str] = Field(
        [], description="parts that keep their weights, such as [embedding, blocks.0-3]; * is any text"
    )
    unfreeze_every: int | None = Field(
        None,
        ge=1,
        description="epochs until one more block is trained, from the head down; null: all at once",
    )
    frozen_precision: FrozenPrecision = Field(
        "fp32", description="how frozen layers and embeddings are stored: fp32, bf16 or int8"
    )
    lora: LoRAConfig = Field(
        LoRAConfig(), description="low-rank updates of weights that stay as they are"
    )
