"""Losses: what training makes small. A new one is a new file here and a YAML in configs/loss.

A loss gives the sum over samples, and apart from it the number to divide by. Sum over normaliser is
what torch calls the mean; kept apart, the gradients of unequal micro-batches add up to exactly those of
the whole batch.
"""

from bigmodel.losses.base import Loss

__all__ = ["Loss"]
