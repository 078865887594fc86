"""How much each token of a text added to what a model says of it, or to the token that it expects next.

Integrated gradients, over the vectors of the tokens. The baseline is a text of as many tokens whose
vectors are zero (Sundararajan et al. 2017, section 3); positions and lengths stay those of the text.
"""

from __future__ import annotations

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


def token_gradients(subject: Subject, options: Options) -> Attributions:
    """How much each token added to the score, for each text.

    Of a text to be continued the score is the log-probability of a next token, by default the likeliest.
    """
    texts = [read_text(subject, place) for place in range(len(subject))]
    writes = isinstance(subject.target, NextTokens)
    explained = explained_tokens(subject, texts) if writes else subject.explained
    model = LastPosition(subject.model) if writes else subject.model
    values, ends = [], []
    for place, text in enumerate(texts):
        token = int(explained[place])
        score = next_token_score(token) if writes else subject.score_of(torch.tensor([place]))
        path = integrate(model, text.inputs, None, score, most=_most(subject, text, options))
        own = sum(each for each in path.looked_up if each.shape == text.inputs.shape)
        values.append(sums(cast(Tensor, own)[0].cpu(), text.pieces))
        ends.append(torch.stack([path.start, path.end]).cpu())
    scores = torch.cat(ends, dim=1)
    return Attributions(
        "integrated_gradients",
        pad_sequence(values, batch_first=True, padding_value=float("nan")),
        explained,
        scores=scores[1],
        baseline_scores=scores[0],
        baseline=BASELINE,
        complete=True,
        tokens=tuple(tuple(piece.text for piece in text.pieces) for text in texts),
    )


def next_token_score(token: int) -> Score:
    """The log-probability of a next token, from logits of the last position."""
    return lambda logits, _: logits.double().log_softmax(-1)[:, token]


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


def _most(subject: Subject, text: Text, options: Options) -> int | None:
    """How many texts go through the model at once, so that the vectors of all layers fit into memory."""
    if options.most is not None:
        return options.most
    width = max((p.shape[-1] for p in subject.model.parameters() if p.dim() > 1), default=1)
    return max(1, _NUMBERS // (len(text.tokens) * width))
