"""Whether a run was still getting better when it ended."""

from __future__ import annotations

import math
from collections.abc import Sequence

from bigmodel.training.run import Run

WINDOW, LAST = 0.25, 0.1
"""Shares of a run: over which its trend is measured, and within which its best evaluation must lie."""
FEWEST = 3
LEAST_FALL, LEAST_T = 0.05, 3.0
"""What counts as a fall: 5 % of what the loss had fallen before, and three standard errors. Where the
learning rate has fallen to nothing, the loss has mostly stopped at less than that."""


def longer(run: Run) -> str:
    """The setting to resume with, if the validation figures were still improving when the last planned
    step was done: such as `trainer.epochs=60`. Empty if not, or if that cannot be told."""
    progress, plan, config = run.state.progress, run.plan, run.config
    ended = progress.stopped_early or progress.out_of_time or progress.step < plan.steps
    best = progress.best.get("step", 0)
    if ended or config.limit.train is not None or best < (1 - LAST) * plan.steps:
        return ""
    if not falling(progress.losses):
        return ""
    if config.max_steps is not None:
        return f"trainer.max_steps={2 * plan.steps}"
    return f"trainer.epochs={2 * plan.epochs}"


def falling(losses: Sequence[float]) -> bool:
    """Whether validation losses, one for each evaluation, fall up to the last: by the straight line of
    least squares through the last quarter of them."""
    count = max(FEWEST, math.ceil(WINDOW * len(losses)))
    window = losses[-count:]
    if len(losses) < FEWEST or not all(map(math.isfinite, losses)):
        return False
    middle, mean = (count - 1) / 2, sum(window) / count
    spread = sum((x - middle) ** 2 for x in range(count))
    slope = sum((x - middle) * (y - mean) for x, y in enumerate(window)) / spread
    residuals = sum((y - mean - slope * (x - middle)) ** 2 for x, y in enumerate(window))
    error = math.sqrt(residuals / (count - 2) / spread)
    fall = -slope * (count - 1)
    return fall >= LEAST_FALL * (max(losses) - min(losses)) and fall > 0 and -slope > LEAST_T * error
