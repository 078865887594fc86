"""Whether a run was still getting better when it ended."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from statistics import fmean

from bigmodel.training.run import Run

LAST = 0.1
"""The share of a run within which its best evaluation must lie."""
PARTS, FEWEST, LEAST_FALL = 8, 3, 0.2
"""A run's evaluations are cut into so many parts, and in their second half this share of the whole fall
has to come. A run that has converged, or only becomes calmer as its learning rate falls, has less."""


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
    """Whether validation losses, one for each evaluation, still fall to the last: the means of parts of
    them do, from one to the next, and by enough."""
    if len(losses) < FEWEST or not all(map(math.isfinite, losses)):
        return False
    count = min(PARTS, len(losses))
    cuts = [round(place * len(losses) / count) for place in range(count + 1)]
    means = [fmean(losses[start:end]) for start, end in pairwise(cuts)]
    late = means[(count - 1) // 2 :] if count > FEWEST + 1 else means
    falls = all(after < before for before, after in pairwise(late))
    return falls and late[0] - late[-1] >= LEAST_FALL * (max(means) - min(means))
