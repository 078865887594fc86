"""Schedules against torch's own, and against their formulas where torch has none."""

import math
import warnings

import pytest
import torch
from torch.optim import lr_scheduler as reference

from bigmodel.errors import ConfigError
from bigmodel.optim.schedulers import apply
from bigmodel.registry import schedulers

BASE = 0.3
TOTAL = 40


def build(name, total=TOTAL, **options):
    return schedulers.build(schedulers.parse({"name": name, **options}), total)


def sgd(lr=BASE):
    return torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=lr)


def torchs_factors(make, count=TOTAL):
    """The multipliers of a scheduler of torch's, update by update."""
    optimizer = sgd()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        scheduler = make(optimizer)
        factors = []
        for _ in range(count):
            factors.append(optimizer.param_groups[0]["lr"] / BASE)
            optimizer.step()
            scheduler.step()
    return factors


def factors(scheduler, count=TOTAL):
    return [scheduler.factor(t) for t in range(count)]


TORCHS = {
    "constant": ({}, lambda o: reference.LambdaLR(o, lambda _: 1.0)),
    "linear": (
        {"end_factor": 0.2},
        lambda o: reference.LinearLR(o, start_factor=1.0, end_factor=0.2, total_iters=TOTAL),
    ),
    "cosine": (
        {"min_factor": 0.1},
        lambda o: reference.CosineAnnealingLR(o, T_max=TOTAL, eta_min=0.1 * BASE),
    ),
    "one_cycle": (
        {},
        lambda o: reference.OneCycleLR(o, BASE, total_steps=TOTAL + 1, cycle_momentum=False),
    ),
    "step": ({"step_size": 7, "gamma": 0.5}, lambda o: reference.StepLR(o, 7, 0.5)),
    "multistep": (
        {"milestones": [5, 5, 20], "gamma": 0.5},
        lambda o: reference.MultiStepLR(o, [5, 5, 20], 0.5),
    ),
    "exponential": ({"gamma": 0.9}, lambda o: reference.ExponentialLR(o, 0.9)),
    "polynomial": ({"power": 2.5}, lambda o: reference.PolynomialLR(o, TOTAL, 2.5)),
}


@pytest.mark.parametrize("name", TORCHS)
def test_a_schedule_is_torchs(name):
    options, make = TORCHS[name]
    total = TOTAL + 1 if name == "one_cycle" else TOTAL
    assert factors(build(name, total, **options)) == pytest.approx(
        torchs_factors(make), rel=1e-9, abs=1e-12
    )


@pytest.mark.parametrize("anneal", ["cosine", "linear"])
@pytest.mark.parametrize("total", [7, 10, 101])
@pytest.mark.parametrize("pct_start", [0.15, 0.3, 0.77])
def test_one_cycle_is_torchs_to_the_last_update(anneal, total, pct_start):
    ours = build(
        "one_cycle", total, pct_start=pct_start, div_factor=10, final_div_factor=50, anneal=anneal
    )

    def make(optimizer):
        return reference.OneCycleLR(
            optimizer,
            BASE,
            total_steps=total,
            pct_start=pct_start,
            div_factor=10,
            final_div_factor=50,
            anneal_strategy="cos" if anneal == "cosine" else "linear",
            cycle_momentum=False,
        )

    expected = torchs_factors(make, total - 1)
    assert factors(ours, total - 1) == pytest.approx(expected, rel=1e-9)
    assert ours.factor(total - 1) == pytest.approx(1 / 500)
    assert max(factors(ours, total)) <= 1.0


@pytest.mark.parametrize("name", TORCHS)
def test_warm_up_is_torchs_linear_one_and_comes_first(name):
    options, _ = TORCHS[name]
    warm = build(name, TOTAL, warmup=8, warmup_start=0.25, **options)
    ramp = torchs_factors(lambda o: reference.LinearLR(o, 0.25, 1.0, total_iters=8), 8)
    after = build(name, TOTAL - 8, **options)
    # milestones are moments of the run, so the warm-up hides those that fall into it
    shift = 8 if name == "multistep" else 0
    begin = after.factor(shift)
    assert factors(warm, 8) == pytest.approx([begin * factor for factor in ramp])
    assert [warm.factor(8 + t) for t in range(20)] == [after.factor(t + shift) for t in range(20)]


def test_inverse_sqrt_is_vaswanis():
    """lrate ∝ min(step^-0.5, step · warmup^-1.5), scaled so that its peak is 1."""
    warmup = 12
    ours = build("inverse_sqrt", 100, warmup=warmup, warmup_start=0.0)
    expected = [min(t**-0.5, t * warmup**-1.5) * warmup**0.5 for t in range(1, 100)]
    assert [ours.factor(t) for t in range(1, 100)] == pytest.approx(expected)
    assert build("inverse_sqrt", 100, timescale=20).factor(60) == pytest.approx(0.5)
    assert build("inverse_sqrt", 100).factor(3) == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("shape", "formula"),
    [
        ("sqrt", lambda p: 1 - math.sqrt(p)),
        ("linear", lambda p: 1 - p),
        ("cosine", lambda p: 0.5 + 0.5 * math.cos(math.pi * p)),
    ],
)
def test_wsd_is_constant_and_then_falls(shape, formula):
    """Hägele et al. 2024: f(n, N, N_decay) with n counted within the run, N_decay = 20 % of it."""
    ours = build("wsd", 110, warmup=10, decay=0.2, decay_shape=shape, min_factor=0.1)
    assert [ours.factor(t) for t in range(10, 91)] == [1.0] * 81
    expected = [0.1 + 0.9 * formula((t - 90) / 20) for t in range(90, 110)]
    assert [ours.factor(t) for t in range(90, 110)] == pytest.approx(expected)
    assert ours.factor(110) == pytest.approx(0.1)


@pytest.mark.parametrize("mode", ["min", "max"])
@pytest.mark.parametrize("patience", [0, 2])
def test_plateau_is_torchs(mode, patience):
    values = [1.0, 0.8, 0.79999, 0.8, 0.81, 0.7, 0.9, 1.2, 1.3, 1.3, 1.3, 1.2, 1.4, 0.1, 0.1, 0.1, 0.1]
    optimizer = sgd()
    torchs = reference.ReduceLROnPlateau(
        optimizer, mode=mode, factor=0.5, patience=patience, threshold=1e-3, min_lr=0.05 * BASE
    )
    ours = build("plateau", factor=0.5, patience=patience, threshold=1e-3, min_factor=0.05)
    for t, value in enumerate(values):
        torchs.step(value)
        ours.observe(value, mode)
        assert ours.factor(t) == pytest.approx(optimizer.param_groups[0]["lr"] / BASE), t
    assert ours.factor(0) < 1


def test_plateau_counts_improvement_of_negative_values_the_right_way():
    ours = build("plateau", factor=0.5, patience=0, threshold=0.1)
    for value in (-1.0, -0.95):  # up by less than a tenth of the best's size
        ours.observe(value, "max")
    assert ours.factor(0) == 0.5
    ours.observe(-0.8, "max")
    assert ours.factor(0) == 0.5


def test_plateau_never_takes_nan_or_infinity_for_the_best():
    ours = build("plateau", factor=0.5, patience=1)
    for value in (math.nan, math.inf, 3.0, 2.0):
        ours.observe(value, "min")
    assert ours.factor(0) == 0.5  # after the first two
    assert ours.state_dict() == {"level": 0.5, "waited": 0, "best": 2.0}


def test_plateau_goes_on_from_its_saved_state():
    for seen in range(6):
        values = [3.0, 2.0, 2.0, 2.5, 1.0, 1.0, 1.0, 1.0]
        first, second = (build("plateau", factor=0.5, patience=1) for _ in range(2))
        for value in values[:seen]:
            first.observe(value, "min")
        second.load_state_dict(first.state_dict())
        for value in values[seen:]:
            first.observe(value, "min")
            second.observe(value, "min")
        assert second.state_dict() == first.state_dict()
        assert second.factor(0) == first.factor(0)


@pytest.mark.parametrize("name", schedulers.names())
@pytest.mark.parametrize("total", [1, 2, 3, 5])
@pytest.mark.parametrize("warmup", [0, 1, 2, 100])
def test_the_shortest_runs_are_sane(name, total, warmup):
    scheduler = build(name, total, warmup=warmup, warmup_start=0.5)
    values = [scheduler.factor(t) for t in range(total + 3)]
    assert all(math.isfinite(value) and 0 <= value <= 1 for value in values)
    assert values[0] > 0


@pytest.mark.parametrize("pct_start", [0.0, 1.0])
def test_one_cycle_may_only_rise_or_only_fall(pct_start):
    scheduler = build("one_cycle", 10, pct_start=pct_start)
    values = factors(scheduler, 12)
    assert values[:10] == sorted(values[:10], reverse=pct_start == 0)
    assert max(values) == 1.0


@pytest.mark.parametrize("name", sorted(set(schedulers.names()) - {"plateau"}))
def test_only_progress_counts(name):
    """Asked in any order, and by a scheduler just built, the answer is the same: a resume is exact."""
    scheduler = build(name, warmup=5)
    there = factors(scheduler)
    back = [scheduler.factor(t) for t in reversed(range(TOTAL))][::-1]
    scheduler.observe(1.0, "min")
    assert scheduler.state_dict() == {}
    scheduler.load_state_dict({})
    assert there == back == factors(scheduler) == factors(build(name, warmup=5))


def test_apply_multiplies_each_groups_own_base_rate():
    first, second = (torch.nn.Parameter(torch.zeros(1)) for _ in range(2))
    optimizer = torch.optim.SGD([{"params": [first], "lr": 0.1}, {"params": [second], "lr": 3.0}])
    for factor in (0.5, 0.25, 1.0):
        apply(optimizer, factor)
        assert [group["lr"] for group in optimizer.param_groups] == [0.1 * factor, 3.0 * factor]
    apply(optimizer, 0.5)
    fresh = torch.optim.SGD([{"params": [first], "lr": 9.0}, {"params": [second], "lr": 9.0}])
    fresh.load_state_dict(optimizer.state_dict())
    apply(fresh, 1.0)
    assert [group["lr"] for group in fresh.param_groups] == [0.1, 3.0]


def test_apply_fills_a_tensor_rate_in_place():
    rate = torch.tensor(0.5)
    optimizer = torch.optim.Adam([torch.nn.Parameter(torch.zeros(1))], lr=rate, foreach=False)
    held = optimizer.param_groups[0]["lr"]
    for factor in (0.5, 0.25):
        apply(optimizer, factor)
        assert optimizer.param_groups[0]["lr"] is held
        assert held.item() == 0.5 * factor


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("constant", {"warmup": -1}, "scheduler.warmup=-1: should be greater than or equal to 0"),
        ("constant", {"warmup": 1.5}, "scheduler.warmup=1.5"),
        ("constant", {"interval": "batch"}, "scheduler.interval='batch': should be 'step' or 'epoch'"),
        ("cosine", {"min_factor": 1.5}, "less than or equal to 1"),
        ("cosine", {"min_factr": 0.5}, "Did you mean 'min_factor'"),
        ("one_cycle", {"pct_start": math.nan}, "finite"),
        ("one_cycle", {"div_factor": 0.5}, "greater than or equal to 1"),
        ("step", {"step_size": 0}, "greater than or equal to 1"),
        ("multistep", {"milestones": [20, 5]}, r"must rise; try \[5, 20\]"),
        ("polynomial", {"power": 0}, "greater than 0"),
        ("wsd", {"decay": 1.2}, "less than or equal to 1"),
        ("plateau", {"factor": 1.0}, "less than 1"),
    ],
)
def test_options_out_of_range_are_refused(name, options, words):
    with pytest.raises(ConfigError, match=words):
        schedulers.parse({"name": name, **options})
