"""The methods by name, without torch: the command line lists them."""

from __future__ import annotations

from bigmodel.spec import Features, Input, NextTokens, Target, TokenPair

METHODS: dict[str, str] = {
    "integrated_gradients": "how much each part of an input added to the output, for each sample",
    "occlusion": "how far the output drops when a part of an input is replaced, for each sample",
    "permutation": "how much worse the model is if a column is shuffled; needs targets",
    "partial_dependence": "what the model says on average if a column has this value or that",
    "attention": "where each head of each layer looks",
    "rollout": "the share of each part of an input in what the head reads, through all attention",
    "logit_lens": "what each layer of a model that writes would write next",
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
    return "attention" if isinstance(kind, TokenPair) else "integrated_gradients"
