"""Metrics: what people judge a model by. They follow from the kind of target.

Sums are added up on the device, sample by sample, so that figures do not depend on how samples are
batched, and fetched once by `compute`. They are plain sums: those of several processes may be added.
"""

from bigmodel.metrics.base import Metrics, defined
from bigmodel.metrics.choice import default_monitor, metric_names, metrics_for, undefined_told
from bigmodel.metrics.classes import CONFUSION_LIMIT

__all__ = [
    "CONFUSION_LIMIT",
    "Metrics",
    "default_monitor",
    "defined",
    "metric_names",
    "metrics_for",
    "undefined_told",
]
