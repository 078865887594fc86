"""The bases of metrics that are chosen by name, with `metrics=[…]`; a user's own derive from them."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from bigmodel.errors import SpecError
from bigmodel.registry import EntryConfig
from bigmodel.spec import KINDS, Target


class Metric:
    """A figure of an evaluation, or several. Derive from `SumMetric` or from `WholeMetric`.

    Attributes:
        accepts: the kinds of target that it can judge.
        directions: its figures, each with the way it is better, `max` or `min`. Their names are those of
            records: `auc` becomes `val/auc`.
        undefined: why a figure that is NaN is so, although every output is finite.
        decides: whether it judges the likeliest class, or the labels that are set, and not scores. It is
            given outputs that a decision threshold has moved: then the largest output still is the
            prediction, and one above 0 sets a label.

    Raises:
        SpecError: the target is of another kind.
    """

    accepts: tuple[type[Target], ...] = ()
    directions: Mapping[str, str] = {}
    undefined = "nothing in it can be measured"
    decides = False

    def __init__(self, config: EntryConfig, target: Target) -> None:
        self.name, self.target = config.name, target
        if not isinstance(target, self.accepts):
            needs = " or ".join(KINDS[kind] for kind in self.accepts)
            raise SpecError(
                f"metrics=[{config.name}]: needs {needs}, and the target is {target}. Leave it out."
            )


class SumMetric(Metric):
    """A metric that follows from sums over samples: little memory, however many there are."""

    def sums(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Sums over the samples of a batch; those of batches and of ranks are added up.

        Args:
            outputs: the model's raw outputs, (batch, output_size) float32; of next tokens (batch,
                length, vocab_size).
            targets: (batch,) int64 for classes, (batch, count) for flags and standardised values,
                (batch, length) for next tokens, some of them `spec.IGNORED`.

        Returns:
            A tensor of always the same shape, float64 if it is to be exact, on the same device.
        """
        raise NotImplementedError

    def compute(self, sums: Tensor) -> Mapping[str, float] | float:
        """The figures by name, or the only one; NaN if it is undefined.

        Args:
            sums: over all samples, on the CPU.
        """
        raise NotImplementedError

    def by_class(self, sums: Tensor) -> Mapping[str, Tensor]:  # noqa: ARG002
        """Figures of each class, label or value, (count,), for the result of an evaluation alone."""
        return {}


class WholeMetric(Metric):
    """A metric that needs all samples at once, such as a rank or a quantile.

    While a part is evaluated, the outputs of all its samples are kept in the CPU's memory, 4 bytes a
    number, once for all metrics. Next tokens have too many: they are not accepted.
    """

    def compute(self, outputs: Tensor, targets: Tensor) -> Mapping[str, float] | float:
        """The figures by name, or the only one; NaN if it is undefined.

        Args:
            outputs, targets: as `SumMetric.sums` has it, of all samples, on the CPU, in any order.
        """
        raise NotImplementedError

    def by_class(self, outputs: Tensor, targets: Tensor) -> Mapping[str, Tensor]:  # noqa: ARG002
        """Figures of each class, label or value, (count,), for the result of an evaluation alone."""
        return {}
