"""Schedulers: how the learning rate changes as training goes on. A new one is a new file here and a
YAML in configs/scheduler."""

from bigmodel.schedulers.base import Scheduler, SchedulerConfig, apply

__all__ = ["Scheduler", "SchedulerConfig", "apply"]
