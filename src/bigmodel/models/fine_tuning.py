"""Settings of every model, whatever its name: where it starts, and what of it is trained."""

from __future__ import annotations

from pydantic import Field

from bigmodel.registry import Config


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
