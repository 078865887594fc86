"""Metrics of models; the kind of target decides which there are.

Sums are added up on the device, sample by sample, so that metrics do not depend on the batches, and
fetched once by `compute`. They are plain sums: those of several processes can be added.
"""

from bigmodel.metrics.base import Metrics, defined
from bigmodel.metrics.choice import default_monitor, metric_names, metrics_for, undefined_reasons
from bigmodel.metrics.classes import CONFUSION_LIMIT

__all__ = [
    "CONFUSION_LIMIT",
    "Metrics",
    "default_monitor",
    "defined",
    "metric_names",
    "metrics_for",
    "undefined_reasons",
]
