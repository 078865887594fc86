"""The metrics of steps come back as numbers, and no memory of a step is kept for them."""

import math
import weakref

import torch

from bigmodel.engine.step_metrics import StepMetrics, StepMetricsBuffer


def test_steps_come_back_in_order_whichever_way_they_were_added() -> None:
    buffer = StepMetricsBuffer()
    buffer.add(torch.tensor(6.0), torch.tensor(0.0), 3)
    buffer.add_block(torch.tensor([[8.0, 2.0, 1.0, 0.5]]))
    buffer.add(torch.tensor(1.0), torch.tensor(0.0), torch.tensor(4.0))
    drained = buffer.drain()
    steps = [StepMetrics(2, 3), StepMetrics(4, 2, updated=False), StepMetrics(0.25, 4)]
    assert list(drained) == steps
    assert list(drained[1:]) == steps[1:]
    assert len(buffer.drain()) == 0


def test_a_step_without_samples_has_no_mean() -> None:
    buffer = StepMetricsBuffer()
    buffer.add(torch.tensor(0.0), torch.tensor(0.0), 0)
    assert math.isnan(buffer.drain()[0].loss)


def test_on_a_cpu_no_tensor_of_a_step_is_kept() -> None:
    """Each would hold a few bytes amid the memory of the step's large tensors."""
    buffer, total, flag = StepMetricsBuffer(), torch.tensor(6.0), torch.tensor(0.0)
    buffer.add(total, flag, 3)
    kept = weakref.ref(total), weakref.ref(flag)
    del total, flag
    assert [tensor() for tensor in kept] == [None, None]


def test_infinite_sums_and_weights_give_no_warning() -> None:
    buffer = StepMetricsBuffer()
    buffer.add_block(torch.tensor([[math.inf, math.inf, 1.0, 0.0], [math.inf, 2.0, 1.0, 0.0]]))
    losses = buffer.drain().losses.tolist()
    assert math.isnan(losses[0])
    assert losses[1] == math.inf
