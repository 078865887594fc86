"""Optuna's sampler by CMA-ES, without its pickles. Imported only where Optuna is needed.

Optuna keeps the state of the evolution as a pickle in the search's file, and loads it for the next
trial. A pickle can run code, and the file may be a stranger's. Here the state is computed again from
the results.
"""

from __future__ import annotations

from typing import Any

from optuna.samplers import CmaEsSampler
from optuna.study import StudyDirection


class ReplayedCmaEs(CmaEsSampler):
    """CMA-ES whose state comes from the values of the trials alone, told generation by generation."""

    def _restore_optimizer(self, completed_trials: list[Any]) -> None:
        self._completed = completed_trials

    def _init_optimizer(self, trans: Any, direction: StudyDirection) -> Any:
        optimizer: Any = super()._init_optimizer(trans, direction)
        sign = 1 if direction == StudyDirection.MINIMIZE else -1
        most = optimizer.population_size
        while len(trials := self._of_generation(optimizer.generation)) >= most:
            optimizer.tell([(trans.transform(one.params), sign * one.value) for one in trials[:most]])
        return optimizer

    def _of_generation(self, generation: int) -> list[Any]:
        return self._get_solution_trials(self._completed, generation)
