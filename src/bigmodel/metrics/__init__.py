"""Metrics of models; the kind of target decides which there are, and `metrics=[…]` adds others.

Sums are added up on the device, sample by sample, so that metrics do not depend on the batches, and
fetched once by `compute`. They are plain sums: those of several processes can be added.
"""

from bigmodel.metrics.choice import default_monitor, metric_names, metrics_for, undefined_reasons
from bigmodel.metrics.chosen import ChosenMetrics, Figures
from bigmodel.metrics.classes import CONFUSION_LIMIT
from bigmodel.metrics.selection import choose_metrics, parse_metrics
from bigmodel.metrics.sums import Metrics, defined

__all__ = [
    "CONFUSION_LIMIT",
    "ChosenMetrics",
    "Figures",
    "Metrics",
    "choose_metrics",
    "default_monitor",
    "defined",
    "metric_names",
    "metrics_for",
    "parse_metrics",
    "undefined_reasons",
]
