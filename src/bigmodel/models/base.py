"""What every model is: a body that turns inputs into features, and a head that reads them."""

from __future__ import annotations

from torch import Tensor, nn


class Model(nn.Module):
    """Base of all models: `head(features(inputs))`.

    The two parts are apart so that a loss may fuse with the head, and so that another head can be put
    on the same body. A subclass sets `head` and implements `features`; it is built from its typed
    config and the `DataSpec`, and raises `SpecError` where it cannot read the data.
    """

    head: nn.Module

    def features(self, inputs: Tensor) -> Tensor:
        """Maps inputs, shaped as the spec says, to features of shape (batch, width)."""
        raise NotImplementedError

    def forward(self, inputs: Tensor) -> Tensor:
        """Maps inputs to outputs of shape (batch, spec.target.output_size)."""
        outputs: Tensor = self.head(self.features(inputs))
        return outputs
