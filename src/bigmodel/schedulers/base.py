"""What a schedule of the user's own may derive from and use."""

from bigmodel.optim.schedulers.base import INTERVAL, Scheduler, SchedulerConfig

__all__ = ["INTERVAL", "Scheduler", "SchedulerConfig"]
