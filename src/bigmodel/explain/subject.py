"""What is explained: a model, samples, and one number that it gives for each of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor, nn

from bigmodel.data.parts import SplitData
from bigmodel.data.preprocessing import Preprocessing
from bigmodel.data.reader import TextReader
from bigmodel.errors import DIVERGED, ConfigError, UndefinedError, counted, did_you_mean, join_names
from bigmodel.explain.figure import Figure
from bigmodel.metrics import defined
from bigmodel.runtime.device import Runtime
from bigmodel.spec import Classes, Flags, NextTokens, Target, Values
from bigmodel.training.outputs import model_outputs

_BYTES = 64 << 20  # of inputs that go through the model at once
_MOST = 4096  # samples of them

Score = Callable[[Tensor, Tensor], Tensor]
"""One number for each sample, from raw outputs, (batch, output_size), and the indices of the samples,
(batch,) int64: (batch,)."""


@dataclass(frozen=True)
class Options:
    """How thorough a method is.

    Attributes:
        seed: of what is random.
        repeats: how often a column is shuffled.
        budget: how many rows go through the model at most, in all, when columns are shuffled.
        columns: the names of those that are varied; None: all.
        patch: side of what is replaced at once, in pixels or steps; None chooses.
        most: samples that go through the model at once; None chooses.
    """

    seed: int = 0
    repeats: int = 10
    budget: int = 3_000_000
    columns: tuple[str, ...] | None = None
    patch: int | None = None
    most: int | None = None


@dataclass(frozen=True)
class Subject:
    """A model with the samples that it is asked about.

    Attributes:
        model: in evaluation mode, on the runtime's device.
        preprocessing: makes model inputs of stored samples.
        runtime: the device. Methods compute in float32 whatever the run's precision is.
        part: the samples.
        output: the index of the class, label or value that is explained; None: of each sample the class
            that is predicted, the likeliest label, or the first value.
        figure: what the run is judged by; None if the part's targets are placeholders, not the truth.
    """

    model: nn.Module
    preprocessing: Preprocessing
    runtime: Runtime
    part: SplitData
    output: int | None = None
    figure: Figure | None = None

    def __len__(self) -> int:
        return len(self.part)

    @property
    def target(self) -> Target:
        return self.preprocessing.spec.target

    def first(self, count: int) -> Subject:
        """The same with the first `count` samples."""
        return replace(self, part=self.part.select(torch.arange(min(count, len(self)))))

    def inputs(self, chosen: slice | Tensor = slice(None)) -> Tensor:
        """Model inputs of some samples, (samples, *spec.input.shape), on the device."""
        device = self.runtime.device
        stored = self.part.take(chosen)[0].to(device)
        scaling = self.preprocessing.scaling(device)
        return stored if scaling is None else scaling(stored)

    @cached_property
    def outputs(self) -> Tensor:
        """The model's raw outputs for all samples: (samples, output_size) float32 on the CPU."""
        return model_outputs(self.model, self.part, self.preprocessing, self.runtime)

    def outputs_of(self, inputs: Tensor) -> Tensor:
        """The model's raw outputs, float32 on the CPU, for model inputs on the device."""
        size = max(1, min(_MOST, _BYTES // max(1, 4 * inputs[:1].numel())))
        with torch.inference_mode():
            found = [self.model(each).float().cpu() for each in torch.split(inputs, size)]
        return torch.cat(found)

    def scores_of(self, inputs: Tensor, chosen: Tensor) -> Tensor:
        """What is explained, for model inputs in place of the samples at `chosen`: (count,) float64."""
        return scores(self.outputs_of(inputs), self.explained[chosen], self.target).double()

    def check_defined(self) -> None:
        """For methods that need all samples.

        Raises:
            UndefinedError: the model gives NaN or infinity for one.
        """
        if self.undefined:
            raise UndefinedError(
                f"The model gives NaN or infinity for {self.undefined:,} of"
                f" {counted(len(self), 'sample')}: what it depends on cannot be told. {DIVERGED}"
            )

    def needed_figure(self, method: str) -> Figure:
        """What the run is judged by.

        Raises:
            ConfigError: the samples have no targets.
        """
        if self.figure is None:
            raise ConfigError(f"--method {method}: needs samples with their targets.")
        return self.figure

    @cached_property
    def undefined(self) -> int:
        """Of how many samples the model gives NaN or infinity; nothing can be said of them. Texts that
        are to be continued are not counted."""
        if isinstance(self.target, NextTokens):
            return 0
        return int((~defined(self.outputs, self.target)).sum())

    @cached_property
    def explained(self) -> Tensor:
        """The index of the output that is explained, of each sample: (samples,) int64 on the CPU."""
        if self.output is not None:
            return torch.full((len(self),), self.output)
        if isinstance(self.target, Values):
            return torch.zeros(len(self), dtype=torch.int64)
        return self.outputs.argmax(1)

    def output_name(self, index: int) -> str:
        """The name of an output: a class, label or value, or the text of a token."""
        target, reader = self.target, self.preprocessing.reader
        if isinstance(target, NextTokens) and isinstance(reader, TextReader):
            return reader.decode([index])
        return target.names[index] if isinstance(target, Classes | Flags | Values) else str(index)

    def score_of(self, chosen: Tensor) -> Score:
        """The number that is explained, see `scores`, of the samples at `chosen`, (count,) int64."""
        explained = self.explained[chosen].to(self.runtime.device)
        return lambda outputs, samples: scores(outputs, explained[samples], self.target)


def scores(outputs: Tensor, index: Tensor, target: Target) -> Tensor:
    """Raw outputs as one number for each sample, linear in them: (batch,).

    Of a class, its logit less the mean of the other classes' logits, but for those that -infinity makes
    impossible. Logits have an arbitrary constant
    in common, which this takes away; of two classes it leaves the log-odds. Of a label, its log-odds; of
    a value, the value in its own unit.

    Args:
        outputs: (batch, output_size).
        index: of the class, label or value, (batch,) int64.
    """
    if outputs.device.type != "mps":  # it has no float64
        outputs = outputs.double()
    own = outputs.gather(1, index[:, None])[:, 0]
    match target:
        case Classes(count=count) if count > 1:
            impossible = outputs == -torch.inf
            others = outputs.masked_fill(impossible, 0.0).sum(1) - own
            return own - others / (count - 1 - impossible.sum(1)).clamp(min=1)
        case Values(mean=mean, std=std):
            scale, shift = (torch.tensor(x).to(outputs)[index] for x in (std, mean))
            return own * scale + shift
        case _:
            return own


def score_words(target: Target) -> str:
    """What `scores` are."""
    match target:
        case Classes(count=2) | Flags():
            return "log-odds"
        case NextTokens():
            return "log-probability"
        case Classes():
            return "logit less the mean of the other classes' logits"
        case _:
            return "value"


def output_index(target: Target, name: str) -> int:
    """The index of the class, label or value of that name.

    Raises:
        ConfigError: there is none.
    """
    if not isinstance(target, Classes | Flags | Values):
        raise ConfigError(f"--class {name}: the run writes text, which has no classes. Leave it out.")
    if name not in target.names:
        one = {Classes: "class", Flags: "label", Values: "value"}[type(target)]
        raise ConfigError(
            f"--class {name}: the run knows no such {one}.{did_you_mean(name, target.names)} There are"
            f" {join_names(target.names)}."
        )
    return target.names.index(name)
