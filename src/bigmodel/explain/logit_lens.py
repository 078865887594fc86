"""The logit lens: what a language model would say if it stopped after each of its layers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from bigmodel.errors import DIVERGED, ConfigError, UndefinedError
from bigmodel.explain.results import LogitLens
from bigmodel.explain.subject import Options, Subject
from bigmodel.explain.texts import Text, read_text
from bigmodel.models.transformer import TransformerBase

_TOP = 5  # next tokens that are named


def logit_lens(subject: Subject, options: Options) -> tuple[LogitLens, ...]:  # noqa: ARG001
    """What each layer says after each token, for each text."""
    return tuple(_of_text(subject, read_text(subject, place)) for place in range(len(subject)))


@dataclass(frozen=True)
class LayerGuesses:
    """What one layer says at each position.

    Attributes:
        tokens, probabilities: the likeliest next tokens, (positions, top), likeliest first.
        truth: the probability of the token that follows, (positions,); NaN where it is unknown.
        ranks: its rank, from 1, (positions,) int64; 0 where it is unknown.
        entropy: of the whole distribution, in nats, (positions,).
    """

    tokens: Tensor
    probabilities: Tensor
    truth: Tensor
    ranks: Tensor
    entropy: Tensor


@torch.no_grad()
def layer_guesses(
    model: nn.Module, inputs: Tensor, following: Sequence[int | None], top: int = _TOP
) -> list[LayerGuesses]:
    """Reads each layer's residual stream as the last one's is read: through the final norm and the head
    (nostalgebraist 2020, "interpreting GPT: the logit lens"). The last layer is the model's own output.

    Args:
        model: in evaluation mode.
        inputs: (1, length), or (1, 2, length) for pairs.
        following: the token that follows each position of the text; None: unknown.
        top: how many tokens are named.

    Raises:
        ConfigError: the model is no transformer that writes.
        UndefinedError: it gives NaN or infinity.
    """
    if not isinstance(model, TransformerBase) or not model.writes:
        raise ConfigError(
            f"{type(model).__name__} has no logit lens: it reads the vectors between the blocks of a"
            " model that writes, which is model=transformer on data=text or data=pairs."
        )
    after = torch.tensor([-1 if token is None else token for token in following])
    guesses = []
    for stream in _residual_streams(model, inputs):  # one at a time: logits may be large
        log_probs = model.unembed(stream[: len(following)]).float().log_softmax(-1).cpu()
        if log_probs.isnan().any():
            raise UndefinedError(f"The model gives NaN or infinity. {DIVERGED}")
        best = log_probs.topk(min(top, log_probs.shape[-1]))
        truth = log_probs.gather(1, after.clamp(min=0)[:, None])
        guesses.append(
            LayerGuesses(
                best.indices,
                best.values.exp(),
                truth[:, 0].exp().masked_fill(after < 0, float("nan")),
                ((log_probs > truth).sum(1) + 1).masked_fill(after < 0, 0),
                torch.special.entr(log_probs.exp()).sum(1),
            )
        )
    return guesses


def _residual_streams(model: TransformerBase, inputs: Tensor) -> list[Tensor]:
    """The vectors before the first block, and after each: (length, dim)."""
    blocks = list(model.decoder_blocks)
    found: list[Tensor] = []
    hooks = [blocks[0].register_forward_pre_hook(lambda _, given: found.append(given[0][0]))]
    hooks += [block.register_forward_hook(lambda _, __, out: found.append(out[0])) for block in blocks]
    try:
        model(inputs)
    finally:
        for hook in hooks:
            hook.remove()
    return found


def _of_text(subject: Subject, text: Text) -> LogitLens:
    layers = layer_guesses(subject.model, text.inputs, text.following)
    return LogitLens(
        layers=("embedding", *(f"block {n}" for n in range(1, len(layers)))),
        inputs=text.labels,
        truths=text.written_labels,
        best=tuple(
            tuple(tuple(map(text.word, row)) for row in layer.tokens.tolist()) for layer in layers
        ),
        probabilities=torch.stack([layer.probabilities for layer in layers]),
        truth_probabilities=torch.stack([layer.truth for layer in layers]),
        ranks=torch.stack([layer.ranks for layer in layers]),
        entropy=torch.stack([layer.entropy for layer in layers]),
    )
