"""Attention rollout as attributions: how much of each position is in what the head reads."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from bigmodel.errors import ConfigError
from bigmodel.explain.attention import layer_weights, rolled_out
from bigmodel.explain.groups import Columns
from bigmodel.explain.pieces import sums
from bigmodel.explain.positions import has_class_token, patch_side
from bigmodel.explain.results import Attributions
from bigmodel.explain.subject import Options, Subject
from bigmodel.explain.texts import Text, read_text
from bigmodel.explain.token_gradients import explained_tokens
from bigmodel.models.transformer import Transformer
from bigmodel.spec import Features, Image, NextTokens, Sequence, TokenPair, Tokens


def rollout(subject: Subject, options: Options) -> Attributions:  # noqa: ARG001
    """The share of each token, pixel, step or column in what the head reads, for each sample.

    Shares add up to 1. They speak for nothing and against nothing: what is predicted plays no part.

    Raises:
        ConfigError: the model has no attention.
    """
    kind = subject.preprocessing.spec.input
    assert not isinstance(kind, TokenPair)
    texts: list[Text] = []
    shares = []
    for place in range(len(subject)):
        if isinstance(kind, Tokens):
            texts.append(read_text(subject, place))
            positions = _shares(subject, texts[-1].inputs)[: len(texts[-1].tokens)]
            shares.append(sums(positions, texts[-1].pieces))
        else:
            shares.append(_of_parts(subject, _shares(subject, subject.inputs(torch.tensor([place])))))
    nothing = torch.full((len(subject),), float("nan"))
    return Attributions(
        "rollout",
        pad_sequence(shares, batch_first=True, padding_value=float("nan"))
        if texts
        else torch.stack(shares),
        explained_tokens(subject, texts) if _writes(subject) else subject.explained,
        scores=nothing,
        baseline_scores=nothing,
        baseline="",
        complete=False,
        names=Columns.from_preprocessing(subject.preprocessing).names
        if isinstance(kind, Features)
        else (),
        tokens=tuple(tuple(piece.text for piece in text.pieces) for text in texts),
    )


def _shares(subject: Subject, inputs: Tensor) -> Tensor:
    """The share of each position, (positions,), of one sample."""
    layers = layer_weights(subject.model, inputs)
    if len({layer.weights.shape[2:] for layer in layers} | {layers[0].weights.shape[:1:-1]}) > 1:
        raise ConfigError(
            "--method rollout: the layers of this model attend to different positions, and cannot be"
            " multiplied. Try --method attention."
        )
    whole = rolled_out([layer.weights for layer in layers])[0].cpu()
    if _writes(subject) or (isinstance(subject.model, Transformer) and subject.model.readout == "last"):
        return whole[-1]
    shares = whole.mean(0)
    if isinstance(subject.model, Transformer) and subject.model.readout in ("first", "pooled"):
        shares = whole[0]
    if has_class_token(subject.model):  # it is no part of the input
        shares = shares[1:] / shares[1:].sum()
    return shares


def _writes(subject: Subject) -> bool:
    return isinstance(subject.target, NextTokens)


def _of_parts(subject: Subject, shares: Tensor) -> Tensor:
    """The shares of positions, over what they are made of: pixels, the features of a step, columns."""
    match subject.preprocessing.spec.input:
        case Image(channels=channels, height=height, width=width):
            side = patch_side(subject.model)
            patches = shares.view(height // side, width // side) / (channels * side**2)
            pixels = patches.repeat_interleave(side, 0).repeat_interleave(side, 1)
            return pixels.expand(channels, -1, -1)
        case Sequence(features=features):
            return (shares / features).unsqueeze(1).expand(-1, features)
        case _:
            return Columns.from_preprocessing(subject.preprocessing).sum(shares[None])[0]
