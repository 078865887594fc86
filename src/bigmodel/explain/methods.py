"""Chooses a method, and says why one does not fit a run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from bigmodel.errors import ConfigError, did_you_mean
from bigmodel.explain.integrated_gradients import integrated_gradients
from bigmodel.explain.names import METHODS
from bigmodel.explain.occlusion import occlusion
from bigmodel.explain.partial_dependence import partial_dependence
from bigmodel.explain.permutation import permutation
from bigmodel.explain.results import Result
from bigmodel.explain.subject import Options, Subject
from bigmodel.spec import (
    Classes,
    DataSpec,
    Features,
    Flags,
    Image,
    Input,
    Sequence,
    Target,
    Values,
)


@dataclass(frozen=True)
class Method:
    """A way to explain a model.

    Attributes:
        explain: gives its result.
        inputs, targets: the kinds of data that it is for.
        needs_targets: whether the samples' true targets are needed.
    """

    explain: Callable[[Subject, Options], Result]
    inputs: tuple[type[Input], ...]
    targets: tuple[type[Target], ...] = (Classes, Flags, Values)
    needs_targets: bool = False

    def fits(self, spec: DataSpec) -> bool:
        """Whether it is for data of this kind."""
        return isinstance(spec.input, self.inputs) and isinstance(spec.target, self.targets)


_METHODS: dict[str, Method] = {
    "integrated_gradients": Method(integrated_gradients, (Features, Image, Sequence)),
    "occlusion": Method(occlusion, (Features, Image, Sequence)),
    "permutation": Method(permutation, (Features,), needs_targets=True),
    "partial_dependence": Method(partial_dependence, (Features,)),
}


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
