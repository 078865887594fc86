"""Schedulers: how the learning rate changes during training. A new one is a new file here and a
YAML in configs/scheduler."""

from bigmodel.optim.schedulers.base import EXTENSIONS, Scheduler, SchedulerConfig, apply
from bigmodel.optim.schedulers.schedule import Change, Schedule

__all__ = ["EXTENSIONS", "Change", "Schedule", "Scheduler", "SchedulerConfig", "apply"]
