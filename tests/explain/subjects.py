"""Models that have learnt something, with samples, to be asked why."""

from functools import cache

import torch
from torch import Tensor

from bigmodel.data.parts import Part
from bigmodel.data.preprocessing import Preprocessing
from bigmodel.explain.figure import Figure
from bigmodel.explain.subject import Subject
from bigmodel.losses import Loss
from bigmodel.losses.adapted import build_loss
from bigmodel.metrics import ChosenMetrics
from bigmodel.registry import losses
from bigmodel.runtime.device import DeviceConfig, Runtime, prepare
from bigmodel.spec import Classes, DataSpec, Features, Image, Input, Sequence, Target, Values
from tests.models.cases import build

KINDS: dict[str, Input] = {
    "table": Features(6, ("a", "b", "colour", "d", "shape", "noise"), (0, 0, 4, 0, 3, 0)),
    "picture": Image(1, 8, 8),
    "recording": Image(1, 12, 6),
    "sequence": Sequence(10, 3),
}
CLASSES = Classes(("x", "y", "z"), (1, 1, 1))
READS = {
    "fnn": tuple(KINDS),
    "cnn": ("picture", "recording", "sequence"),
    "rnn": ("picture", "recording", "sequence"),
    "attention": tuple(KINDS),
    "transformer": tuple(KINDS),
}
CASES = [(model, kind) for model, kinds in READS.items() for kind in kinds]


def runtime() -> Runtime:
    return prepare(DeviceConfig(name="cpu"), 0)


def loss_for(spec: DataSpec) -> Loss:
    loss: Loss = build_loss(losses.parse({"name": "auto"}), spec)
    return loss


def subject(model: torch.nn.Module, spec: DataSpec, inputs: Tensor, targets: Tensor) -> Subject:
    """A model with samples whose targets are known."""
    figure = Figure.monitored("val/loss", spec.target, loss_for(spec), ChosenMetrics())
    part = Part(inputs, targets)
    return Subject(model.eval(), Preprocessing(spec), runtime(), part, figure=figure)


def drawn(kind: str, count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Samples and their classes, which are written into a few parts of each; all else is noise."""
    draw = torch.Generator().manual_seed(seed)
    classes = torch.randint(3, (count,), generator=draw)
    inputs = torch.randn(count, *KINDS[kind].shape, generator=draw)
    if kind == "table":
        inputs[:, 2] = torch.where(classes == 1, 3.0, torch.randint(1, 3, (count,), generator=draw))
        inputs[:, 4] = torch.randint(1, 3, (count,), generator=draw).float()
        inputs[:, 0] += 3.0 * (classes == 0)
        inputs[:, 1] += 3.0 * (classes == 2)
    elif kind == "sequence":
        inputs[torch.arange(count), 2 + 2 * classes, 1] += 5.0
    else:
        rows = 1 + 2 * classes
        for sample, row in enumerate(rows.tolist()):
            inputs[sample, 0, row : row + 2, 2:4] += 3.0
    return inputs, classes


@cache
def learnt(model: str, kind: str) -> Subject:
    """A small model that has learnt the classes, with new samples."""
    torch.manual_seed(0)
    spec = DataSpec("toy", KINDS[kind], CLASSES)
    small = {"fnn": {"hidden_sizes": [32]}, "cnn": {"channels": [8, 16]}, "rnn": {"hidden_size": 24}}
    options = small.get(model, {"dim": 16, "depth": 1})
    if kind == "recording" and model in ("attention", "transformer"):
        options = {**options, "patch_size": 2}
    network = build(model, spec, **options)
    inputs, classes = drawn(kind, 256, 1)
    optimizer = torch.optim.Adam(network.parameters(), lr=0.01)
    for _ in range(50):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(network(inputs), classes).backward()
        optimizer.step()
    return subject(network, spec, *drawn(kind, 60, 2))


def linear(target: Target, inputs: int = 4) -> tuple[Subject, torch.nn.Linear]:
    """A linear model of random weights, with random samples."""
    network = torch.nn.Linear(inputs, target.output_size)
    spec = DataSpec("toy", Features(inputs), target)
    samples = torch.randn(30, inputs)
    targets = network(samples).detach()
    if not isinstance(target, Values):
        targets = targets.argmax(1) if isinstance(target, Classes) else (targets > 0).float()
    return subject(network, spec, samples, targets), network
