"""The methods by name, without torch: the command line lists them."""

from __future__ import annotations

from bigmodel.spec import Features, Input, NextTokens, Target

METHODS: dict[str, str] = {
    "integrated_gradients": "how much each part of an input added to the output, for each sample",
    "occlusion": "how far the output drops when a part of an input is replaced, for each sample",
    "permutation": "how much worse the model is if a column is shuffled; needs targets",
    "partial_dependence": "what the model says on average if a column has this value or that",
}
"""What each method tells."""


def default_method(kind: Input, target: Target, *, summary: bool) -> str:
    """The method for data of a kind, if the user names none.

    Args:
        summary: whether a page or a terminal is to show what matters in general, and targets are known;
            not each sample.
    """
    if summary and isinstance(kind, Features) and not isinstance(target, NextTokens):
        return "permutation"
    return "integrated_gradients"
