"""Chooses a method, and says why one does not fit a run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from bigmodel.errors import ConfigError, did_you_mean
from bigmodel.explain.attention import attention
from bigmodel.explain.integrated_gradients import integrated_gradients
from bigmodel.explain.logit_lens import logit_lens
from bigmodel.explain.names import METHODS
from bigmodel.explain.occlusion import occlusion
from bigmodel.explain.partial_dependence import partial_dependence
from bigmodel.explain.permutation import permutation
from bigmodel.explain.results import Result, TextResult
from bigmodel.explain.rollout import rollout
from bigmodel.explain.subject import Options, Subject
from bigmodel.spec import (
    Classes,
    DataSpec,
    Features,
    Flags,
    Image,
    Input,
    NextTokens,
    Sequence,
    Target,
    TokenPair,
    Tokens,
    Values,
)


@dataclass(frozen=True)
class Method:
    """A way to explain a model.

    Attributes:
        explain: gives its result.
        inputs, targets: the kinds of data that it is for.
        needs_targets: whether the samples' true targets are needed.
        samples: how many are explained if nothing else is said; None: all.
    """

    explain: Callable[[Subject, Options], Result | TextResult]
    inputs: tuple[type[Input], ...]
    targets: tuple[type[Target], ...] = (Classes, Flags, Values)
    needs_targets: bool = False
    samples: int | None = None

    def fits(self, spec: DataSpec) -> bool:
        """Whether it is for data of this kind."""
        return isinstance(spec.input, self.inputs) and isinstance(spec.target, self.targets)


_JUDGED = (Classes, Flags, Values)
_METHODS: dict[str, Method] = {
    "integrated_gradients": Method(
        integrated_gradients, (Features, Image, Sequence, Tokens), (*_JUDGED, NextTokens)
    ),
    "occlusion": Method(occlusion, (Features, Image, Sequence)),
    "permutation": Method(permutation, (Features,), needs_targets=True),
    "partial_dependence": Method(partial_dependence, (Features,)),
    "attention": Method(
        attention, (Features, Image, Sequence, Tokens, TokenPair), (*_JUDGED, NextTokens), samples=1
    ),
    "rollout": Method(rollout, (Features, Image, Sequence, Tokens), (*_JUDGED, NextTokens)),
    "logit_lens": Method(logit_lens, (Tokens, TokenPair), (NextTokens,), samples=1),
}


def usual_samples(method: Method, spec: DataSpec) -> int | None:
    """How many samples are explained if nothing else is said; None: all. Long texts take long."""
    return 1 if isinstance(spec.target, NextTokens) else method.samples


def method_named(name: str, spec: DataSpec) -> Method:
    """The method of that name.

    Raises:
        ConfigError: there is none, or it is not for data of this kind.
    """
    if name not in _METHODS:
        raise ConfigError(
            f"--method {name}: no such method.{did_you_mean(name, _METHODS)} There are"
            f" {', '.join(_METHODS)}."
        )
    method = _METHODS[name]
    if not method.fits(spec):
        fitting = [other for other, each in _METHODS.items() if each.fits(spec)]
        advice = f"Try --method {' or '.join(fitting)}." if fitting else "No method explains such a run."
        raise ConfigError(
            f"--method {name}: tells {METHODS[name]}; it is not for {spec.input} → {spec.target}."
            f" {advice}"
        )
    return method
