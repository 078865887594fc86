"""How much each token of a text added to what a model says of it, or to the token that it expects next.

Integrated gradients, over the vectors of the tokens. The baseline is a text of as many tokens whose
vectors are zero (Sundararajan et al. 2017, section 3); positions and lengths stay those of the text.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from bigmodel.explain.path_integral import integrate
from bigmodel.explain.pieces import sums
from bigmodel.explain.results import Attributions
from bigmodel.explain.subject import Options, Score, Subject
from bigmodel.explain.texts import Text, read_text
from bigmodel.models.base import Model
from bigmodel.spec import NextTokens

BASELINE = "tokens whose vectors are zero"
_NUMBERS = 1 << 22  # of vectors of tokens that go through the model at once
_POINTS = 8  # of a path, at least, for each text


def token_gradients(subject: Subject, options: Options) -> Attributions:
    """How much each token added to the score, for each text.

    Of a text to be continued the score is the log-probability of a next token, by default the likeliest.
    """
    texts = [read_text(subject, place) for place in range(len(subject))]
    writes = isinstance(subject.target, NextTokens)
    explained = explained_tokens(subject, texts) if writes else subject.explained
    model = LastPosition(subject.model) if writes else subject.model
    values: dict[int, Tensor] = {}
    scores = torch.empty(2, len(texts))
    for places in _of_one_length(texts, subject.model):
        inputs = torch.cat([texts[place].inputs for place in places])
        tokens = explained[places]
        score = next_token_score(tokens) if writes else subject.score_of(torch.tensor(places))
        most = options.most or _most(subject.model, inputs.shape[1])
        path = integrate(model, inputs, None, score, most=most)
        own = sum(each for each in path.looked_up if each.shape == inputs.shape)
        for place, row in zip(places, cast(Tensor, own).cpu(), strict=True):
            values[place] = sums(row, texts[place].pieces)
        scores[:, places] = torch.stack([path.start, path.end]).cpu()
    return Attributions(
        "integrated_gradients",
        pad_sequence(
            [values[n] for n in range(len(texts))], batch_first=True, padding_value=float("nan")
        ),
        explained,
        scores=scores[1],
        baseline_scores=scores[0],
        baseline=BASELINE,
        complete=True,
        tokens=tuple(tuple(piece.text for piece in text.pieces) for text in texts),
    )


def next_token_score(tokens: Tensor) -> Score:
    """The log-probability of a next token of each text, from logits of the last position.

    Args:
        tokens: (texts,) int64.
    """

    def score(logits: Tensor, texts: Tensor) -> Tensor:
        chosen = tokens.to(logits.device)[texts, None]
        return logits.double().log_softmax(-1).gather(1, chosen)[:, 0]

    return score


class LastPosition(nn.Module):
    """A model that writes, at the last position of each text: (batch, length) → (batch, vocab_size)."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, inputs: Tensor) -> Tensor:
        if isinstance(self.model, Model):  # logits of the other positions may be large
            logits: Tensor = self.model(inputs, lambda features, head: head(features[:, -1]))
            return logits
        return cast(Tensor, self.model(inputs))[:, -1]


@torch.no_grad()
def explained_tokens(subject: Subject, texts: list[Text]) -> Tensor:
    """The next token that is explained of each text, the chosen or the likeliest one: (texts,) int64."""
    if subject.output is not None:
        return torch.full((len(texts),), subject.output)
    model = LastPosition(subject.model)
    return torch.cat([model(text.inputs).argmax(-1).cpu() for text in texts])


def _of_one_length(texts: list[Text], model: nn.Module) -> Iterator[list[int]]:
    """The places of texts that are explained together: they have as many tokens."""
    places = sorted(range(len(texts)), key=lambda place: len(texts[place].tokens))
    for length, group in groupby(places, key=lambda place: len(texts[place].tokens)):
        alike, size = list(group), _most(model, length) // _POINTS
        yield from (alike[first : first + size] for first in range(0, len(alike), size))


def _most(model: nn.Module, length: int) -> int:
    """How many texts go through the model at once, so that the vectors of all layers fit into memory."""
    width = max((p.shape[-1] for p in model.parameters() if p.dim() > 1), default=1)
    return max(_POINTS, _NUMBERS // (length * width))
