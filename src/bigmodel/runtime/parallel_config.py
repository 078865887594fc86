"""`device.parallel`: how the ranks share a model."""

from __future__ import annotations

from typing import NamedTuple

from pydantic import Field

from bigmodel.errors import ConfigError
from bigmodel.registry import Config


class Degrees(NamedTuple):
    """How many ranks share a model in which way; the product is the number of ranks.

    Attributes:
        replicate: copies of the model.
        shard: ranks that share the weights of a copy.
        tensor: ranks that compute each layer of it together.
    """

    replicate: int = 1
    shard: int = 1
    tensor: int = 1

    @property
    def data(self) -> int:
        """How many ranks have rows of a batch of their own."""
        return self.replicate * self.shard

    @property
    def share_weights(self) -> bool:
        """Whether a rank has a part of the weights, and no copy of all."""
        return self.shard * self.tensor > 1

    def __str__(self) -> str:
        parts = {"copies": self.replicate, "shards": self.shard, "tensor parts": self.tensor}
        return " × ".join(f"{count} {name}" for name, count in parts.items() if count > 1)


class ParallelConfig(Config):
    """How the ranks share a model."""

    replicate: int | None = Field(
        None, ge=1, description="copies of the model; null: ranks / (shard × tensor)"
    )
    shard: int | None = Field(
        None, ge=1, description="ranks that share a copy's weights and optimizer state; null: 1"
    )
    tensor: int | None = Field(
        None, ge=1, description="ranks that compute each layer of a transformer together; null: 1"
    )

    def over(self, ranks: int) -> Degrees:
        """The degrees on so many ranks.

        Raises:
            ConfigError: their product is another number.
        """
        shard, tensor = self.shard or 1, self.tensor or 1
        degrees = Degrees(self.replicate or max(1, ranks // (shard * tensor)), shard, tensor)
        if degrees.data * tensor == ranks:
            return degrees
        typed = " × ".join(f"device.parallel.{key}={value}" for key, value in self if value)
        are, product = "is 1 rank" if ranks == 1 else f"are {ranks} ranks", degrees.data * tensor
        raise ConfigError(
            f"{typed}: the product has to be the number of ranks"
            f"{'' if self.replicate else ', or to divide it'}, and there {are}."
            f" Start {product} (device.ranks={product}, or as many with torchrun), or use other degrees."
        )
