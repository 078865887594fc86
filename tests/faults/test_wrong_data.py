"""Data that is not what it says: refused before the first step, never made to fit by broadcasting."""

from dataclasses import replace

import pytest
import torch

from bigmodel.build.new_run import build_run
from bigmodel.data.assemble import assemble
from bigmodel.data.base import SET_NAMES, DataConfig, Dataset
from bigmodel.data.checks import check
from bigmodel.data.parts import Part
from bigmodel.errors import DataError, SpecError
from bigmodel.metrics import metrics_for
from bigmodel.registry import data, losses
from bigmodel.spec import Classes, DataSpec, Features, Flags, Values
from tests.small_runs import config

N = 8
TARGETS = {
    "classes": Classes(("a", "b", "c"), (4, 2, 2)),
    "2 classes": Classes(("a", "b"), (4, 4)),
    "1 flag": Flags(("f",)),
    "3 flags": Flags(("f", "g", "h")),
    "1 value": Values(("v",), (0.0,), (1.0,)),
    "3 values": Values(("u", "v", "w"), (0.0,) * 3, (1.0,) * 3),
}


def spec_of(target):
    return DataSpec("made", Features(3), target, {"train": N, "val": N})


def right(target):
    """Targets of the right shape, and the shape."""
    if isinstance(target, Classes):
        return torch.arange(N) % target.count
    return torch.ones(N, target.count)


def wrong_shapes(target):
    """Every shape that is near to the right one, and that broadcasting would take."""
    good, count = right(target), target.count
    if isinstance(target, Classes):
        return {"(n, 1)": good[:, None], "(1, n)": good[None], "one for all": good[:1]}
    shapes = {"(n, count, 1)": good[:, :, None], "one for all": good[:1], "(n,)": good[:, 0]}
    if count > 1:
        shapes |= {"(n, 1)": good[:, :1], "(count,)": good[0], "(count, n)": good.T}
    return shapes


CASES = [
    pytest.param(target, shape, id=f"{name}, {words}")
    for name, target in TARGETS.items()
    for words, shape in wrong_shapes(target).items()
]

SEEN_IN_DATA = [case for case in CASES if "one for all" not in case.id]  # right for one sample


def scoring(target):
    """Every loss of the registry that takes this kind of target."""
    for name in losses.names():
        try:
            yield losses.build(losses.parse({"name": name}), spec_of(target))
        except SpecError:
            continue


@pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)
def test_every_loss_and_metric_takes_the_right_shape(target):
    outputs = torch.zeros(N, target.output_size)
    taken = list(scoring(target))
    assert len(taken) >= 2, "auto, and the one it stands for"
    for loss in taken:
        assert loss(outputs, right(target)).isfinite()
    metrics_for(target, "cpu").update(outputs, right(target))


@pytest.mark.parametrize(("target", "targets"), CASES)
def test_no_loss_and_no_metric_broadcasts(target, targets):
    outputs = torch.zeros(N, target.output_size)
    for loss in scoring(target):
        with pytest.raises(SpecError, match="do not go with targets of shape"):
            loss(outputs, targets)
    for light in (False, True):
        with pytest.raises(SpecError, match="do not go with targets of shape"):
            metrics_for(target, "cpu", light=light).update(outputs, targets)


@pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)
def test_outputs_of_another_shape_are_not_made_to_fit(target):
    good = torch.zeros(N, target.output_size)
    for outputs in (good[:, 0], good[:1], good[:, :, None], torch.zeros(N, target.output_size + 1)):
        for loss in scoring(target):
            with pytest.raises(SpecError, match="do not go with targets of shape"):
                loss(outputs, right(target))
        with pytest.raises(SpecError, match="do not go with targets of shape"):
            metrics_for(target, "cpu").update(outputs, right(target))


@pytest.mark.parametrize(("target", "targets"), SEEN_IN_DATA)
@pytest.mark.parametrize("name", ["train", "val", "test"])
def test_data_of_the_wrong_shape_is_refused_in_every_part(target, targets, name):
    good = Part(torch.randn(N, 3), right(target))
    check(Dataset(spec_of(target), good, good))
    wrong = Part(torch.randn(len(targets), 3), targets)
    parts = {"train": good, "val": good, name: wrong}
    with pytest.raises(
        DataError, match=rf"{SET_NAMES[name]} set: targets have shape .* but the spec .* says"
    ):
        check(Dataset(spec_of(target), **parts))


@pytest.mark.parametrize(("target", "targets"), SEEN_IN_DATA)
def test_a_source_that_gives_the_wrong_shape_is_refused_when_it_is_read(target, targets):
    samples = Part(torch.randn(len(targets), 3), targets)
    with pytest.raises(DataError, match="training set: targets have shape"):
        assemble(DataConfig(name="made"), spec_of(target), samples)


def labelled(train, val, names, test=None):
    parts = {"train": train, "val": val} | ({} if test is None else {"test": test})
    made = {name: Part(torch.randn(len(rows), 3), torch.tensor(rows)) for name, rows in parts.items()}
    sizes = {name: len(rows) for name, rows in parts.items()}
    return Dataset(DataSpec("made", Features(3), Classes(tuple(names), ()), sizes), **made)


def test_a_class_without_any_sample_is_named():
    words = (
        r"data 'made': 1 of 4 classes have no sample in any set: 1 \('b'\)\. Labels count from 0"
        r" without gaps: renumber them, or remove unused class names from the spec"
    )
    with pytest.raises(DataError, match=words):
        check(labelled([0, 2, 3], [3, 2, 0], "abcd"))


def test_many_classes_without_any_sample_are_counted():
    words = r"8 of 10 classes .*: 1 \('b'\), 2 \('c'\), 3 \('d'\), 4 \('e'\), 5 \('f'\), …\. Labels"
    with pytest.raises(DataError, match=words):
        check(labelled([0, 0], [9, 0], "abcdefghij"))


def test_labels_from_1_are_out_of_range_or_skip_0():
    with pytest.raises(DataError, match=r"3 in row 2"):
        check(labelled([1, 2, 3], [1], "abc"))
    with pytest.raises(DataError, match=r"no sample in any set: 0 \('none'\)"):
        check(labelled([1, 2, 3], [1], ["none", "a", "b", "c"]))


def test_one_sample_in_any_part_is_enough():
    check(labelled([0, 1], [2], "abc"))
    check(labelled([0, 1], [0], "abc", test=[2]))


def test_a_run_is_not_built_on_a_class_without_samples(tmp_path, monkeypatch):
    source = data.entry("synthetic").factory

    def with_a_gap(settings):
        made = source(settings)
        target = replace(made.spec.target, names=(*made.spec.target.names, "never"))
        made.spec = replace(made.spec, target=target)
        return made

    entry = data.entry("synthetic")._replace(factory=with_a_gap)
    monkeypatch.setitem(data._entries, "synthetic", entry)
    with pytest.raises(DataError, match=r"1 of 4 classes have no sample in any set: 3 \('never'\)"):
        build_run(config(), tmp_path)


def test_a_limit_may_leave_classes_out(tmp_path):
    limits = {"trainer.limit.train": 1, "trainer.limit.val": 1, "data.batch_size": 2}
    run = build_run(config(limits), tmp_path)
    assert min(run.dataset.spec.target.counts) == 0
