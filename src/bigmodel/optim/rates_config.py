"""Settings of every optimizer, whatever its name: which parts of a model learn faster than others."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from bigmodel.registry import Config


class RatesConfig(Config):
    """Factors of the learning rate for parts of a model."""

    layer_decay: float = Field(
        1.0,
        gt=0,
        le=1,
        description="factor of the learning rate from each block to the one below; 1: all are alike",
    )
    rates: dict[str, Annotated[float, Field(gt=0)]] = Field(
        {},
        description="factors of the learning rate of parts, such as {embedding*: 0.1, head: 10}",
    )
