"""Texts that a model generates from held-out ones: samples to read, and BLEU of translations."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from bigmodel.data.base import Dataset, PartName
from bigmodel.data.packing import Documents, PackedDocuments
from bigmodel.data.parts import SplitData, TextPairs, Windows
from bigmodel.data.reader import TextReader
from bigmodel.distributed.ranks import ALONE, Ranks
from bigmodel.errors import require
from bigmodel.models.base import Model, Writer
from bigmodel.models.generation import Sampling, UndefinedTextsError, generate, translate
from bigmodel.reporting.base import GeneratedText
from bigmodel.runtime import progress_messages
from bigmodel.spec import NextTokens, TokenPair

SAMPLES = 4
"""Texts of each evaluation that are kept for reports."""

_PROMPT, _CONTINUED, _TEMPERATURE = 32, 200, 0.8  # tokens read and written of each sample, and how
AT_ONCE = 128
"""Texts that are translated side by side."""


@dataclass(frozen=True)
class TextSampler:
    """Has a model write texts at each evaluation.

    Attributes:
        dataset: the data; its reader turns tokens into words.
        reader: of the dataset.
        device: where the model is.
        pairs: how many pairs of the validation set are translated; the first ones.
        beams: of the search that translates the test set; the validation set is translated greedily.
    """

    dataset: Dataset
    reader: TextReader
    device: torch.device
    pairs: int = 0
    beams: int = 1

    @classmethod
    def of(
        cls, dataset: Dataset, model: nn.Module, device: torch.device, pairs: int, beams: int
    ) -> TextSampler | None:
        """A sampler; None if the data is not text, or the model cannot generate."""
        if not isinstance(dataset.spec.target, NextTokens) or not isinstance(model, Writer):
            return None
        if not isinstance(dataset.reader, TextReader):
            return None
        sampler = cls(dataset, dataset.reader, device, pairs, beams)
        if "bleu" in sampler.metrics:
            require("sacrebleu", f"data.bleu_pairs={pairs}")  # now, not at the first evaluation
        return sampler

    @property
    def metrics(self) -> dict[str, str]:
        """The metrics that `sample` returns for the validation set, each with `max` or `min`."""
        return {"bleu": "max"} if isinstance(self.dataset.spec.input, TokenPair) and self.pairs else {}

    def sample(
        self,
        model: Model,
        name: PartName,
        between: Callable[[], None],
        *,
        samples: bool,
        at_once: int = AT_ONCE,
        ranks: Ranks = ALONE,
    ) -> tuple[dict[str, float], list[GeneratedText]]:
        """Generates texts from a part.

        Args:
            between: called before each batch; what it raises is passed on.
            samples: whether samples are wanted; if not, only what a metric needs is generated.
            at_once: most texts that are translated side by side, beams counted.
            ranks: the processes that share the texts to translate.

        Returns:
            Metrics by name, and a few texts.
        """
        part = self.dataset.part(name)
        if isinstance(part, TextPairs):
            count = min(self.pairs, len(part)) if name == "val" else len(part)
            beams = self.beams if name == "test" else 1
            if count == 0:
                return {}, []
            pairs = self._translations(model, part, count, beams, between, at_once, ranks)
            return {"bleu": bleu([p.text for p in pairs], [p.truth for p in pairs])}, pairs[:SAMPLES]
        return {}, self._continuations(model, part) if samples else []

    def examples(self, model: Model, name: PartName) -> list[GeneratedText]:
        """A few texts generated from a part, to read: continuations, or greedy translations."""
        part = self.dataset.part(name)
        if isinstance(part, TextPairs):
            count = min(SAMPLES, len(part))
            return self._translations(model, part, count, 1, lambda: None, AT_ONCE, ALONE)
        return self._continuations(model, part)

    def _continuations(self, model: Model, part: SplitData) -> list[GeneratedText]:
        """The beginnings of a few texts, spread over the part, and how the model goes on."""
        prompts = _prompts(part)
        if not prompts:
            return []
        sampling = Sampling(max_tokens=_CONTINUED, temperature=_TEMPERATURE)
        written = generate(model, prompts, sampling, self.dataset.spec, self.device)
        return [
            GeneratedText(self.reader.decode(prompt), self.reader.decode(tokens), "")
            for prompt, tokens in zip(prompts, written, strict=True)
        ]

    def _translations(
        self,
        model: Model,
        part: TextPairs,
        count: int,
        beams: int,
        between: Callable[[], None],
        at_once: int,
        ranks: Ranks,
    ) -> list[GeneratedText]:
        """The first pairs of a part: source, translation, and the translation that was given."""
        target = self.dataset.spec.target
        assert isinstance(target, NextTokens)
        source, reference = (_texts(part, side, count) for side in (0, 1))
        sampling = Sampling(
            max_tokens=self.dataset.spec.input.shape[-1], temperature=0.0, beams=beams, end=target.end
        )
        order = sorted(range(count), key=lambda index: len(source[index]))
        own = order[ranks.data_rank :: ranks.data_size]
        written: dict[int, list[int] | None] = {}
        size, first = max(1, at_once // beams), 0
        with progress_messages.report_progress(lambda: f"Translating: {first:,} of {count:,} texts"):
            for first in range(0, len(own), size):
                between()
                chosen = own[first : first + size]
                sources = [source[index] for index in chosen]
                written |= zip(chosen, self._translated(model, sources, sampling), strict=True)
        for others in ranks.gather(written):
            written |= others
        texts = [written[index] for index in range(count)]
        translations = [text for text in texts if text is not None]
        if len(translations) < count:
            raise UndefinedTextsError(texts)
        words = self.reader.decode
        three = zip(source, translations, reference, strict=True)
        return [GeneratedText(words(s), words(t), words(r)) for s, t, r in three]

    def _translated(
        self, model: Model, sources: list[list[int]], sampling: Sampling
    ) -> Sequence[list[int] | None]:
        """Translations; None for those that the model cannot give. Other ranks have to hear of these."""
        try:
            return translate(model, sources, sampling, self.dataset.spec, self.device)
        except UndefinedTextsError as error:
            return error.texts


def bleu(translations: Sequence[str], references: Sequence[str]) -> float:
    """BLEU of whole texts, 0 to 100, as `sacrebleu` gives it (Post 2018, arXiv:1804.08771).

    Its signature is nrefs:1, case:mixed, tok:13a, smooth:exp: raw texts are compared, cased as they are.
    """
    from sacrebleu.metrics.bleu import BLEU

    return float(BLEU().corpus_score(list(translations), [list(references)]).score)


def _prompts(part: SplitData) -> list[list[int]]:
    """The tokens that a few windows or documents begin with; empty if the part has no such."""
    if isinstance(part, Documents | PackedDocuments):
        return part.prompts(SAMPLES, _PROMPT)
    if not isinstance(part, Windows):
        return []
    places = torch.arange(min(SAMPLES, len(part))) * (len(part) // min(SAMPLES, len(part)))
    most = min(_PROMPT, part.length // 2 or 1)
    return [part.stream[s : s + most].tolist() for s in part.starts[places].tolist()]


def _texts(part: TextPairs, side: int, count: int) -> list[list[int]]:
    """The first texts of one side: their tokens, the end token among them."""
    starts, sizes = part.starts[:count, side].tolist(), part.sizes[:count, side].tolist()
    return [part.tokens[s : s + size].tolist() for s, size in zip(starts, sizes, strict=True)]
