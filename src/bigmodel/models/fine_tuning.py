"""Settings of every model, whatever its name: the weights it starts from."""

from __future__ import annotations

from pydantic import Field

from bigmodel.registry import Config


class FineTuningConfig(Config):
    """Where a model starts."""

    pretrained: str | None = Field(
        None,
        min_length=1,
        description="weights to start from: a run, a safetensors file, or a Hugging Face folder",
    )
