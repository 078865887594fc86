"""How many threads, by a faked clock."""

from collections.abc import Iterator, Sequence

import pytest
import torch

from bigmodel.engine.trial import Trial


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    yield
    torch.set_num_threads(1)


def tried(
    many: int, seconds: dict[int, float | Sequence[float]], choose: bool = True
) -> tuple[Trial, int]:
    """A trial in which a step takes as long as it is said of each number of threads; steps it took."""
    torch.set_num_threads(many)
    trial, steps = Trial(choose), 0
    while not trial.done:
        trial.begin_step()
        taken = seconds[torch.get_num_threads()]
        trial.end_step(taken if isinstance(taken, float) else taken[steps % len(taken)])
        steps += 1
        assert steps < 100
    return trial, steps


@pytest.mark.parametrize(("one", "expected"), [(1.0, 1), (2.9, 4)])
def test_the_quicker_number_is_taken_and_set(one: float, expected: int) -> None:
    trial, steps = tried(4, {4: 2.0, 1: one})
    assert (trial.threads, trial.seconds) == (expected, min(2.0, one))
    assert torch.get_num_threads() == expected
    assert f"A step takes 2e+03 ms with 4 threads and {1000 * one:.3g} ms with 1" in str(trial)
    assert steps == (8 if expected == 1 else 12)


def test_where_it_is_clear_few_steps_are_spent() -> None:
    assert tried(4, {4: 1.0, 1: 20.0})[1] == 8
    assert tried(4, {4: 20.0, 1: 1.0})[1] == 8


def test_a_single_slow_step_decides_nothing() -> None:
    trial, _ = tried(4, {4: [1.0, 1.0, 1.0, 1.0, 50.0, 1.0, 1.0], 1: 1.2})
    assert trial.threads == 4


@pytest.mark.parametrize(("many", "choose"), [(1, True), (4, False)])
def test_without_a_choice_steps_are_timed_alone(many: int, choose: bool) -> None:
    trial, steps = tried(many, {many: [9.0, 9.0, 1.0, 2.0, 3.0, 4.0, 5.0]}, choose)
    assert (trial.compares_threads, trial.threads, trial.seconds, str(trial), steps) == (
        False,
        many,
        3.0,
        "",
        7,
    )
    assert torch.get_num_threads() == many
