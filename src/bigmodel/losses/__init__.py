"""Losses: what training minimises. A new one is a new file here and a YAML in configs/loss.

A loss returns the sum over samples and, separately, the number to divide by. Their quotient is what
torch calls the mean; with both, the gradients of unequal micro-batches add up to exactly that of the
whole batch.
"""

from bigmodel.losses.base import Loss

__all__ = ["Loss"]
