"""Plain models by scikit-learn, fitted to the arrays that networks are trained on."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch
from hydra.types import HydraContext
from omegaconf import DictConfig

from bigmodel.build.dataset import read_dataset
from bigmodel.cli.sweep.compose import composed
from bigmodel.config import RunConfig, parse
from bigmodel.data.base import Dataset
from bigmodel.data.parts import SplitData, Texts
from bigmodel.errors import ConfigError, reason
from bigmodel.metrics import metrics_for
from bigmodel.spec import Classes, Features, Tokens, Values

MOST_VALUES = 20_000_000
"""Most numbers that baselines are fitted to; of larger data, as many training samples as fit in."""

_FEW = 1000
"""With so many texts, what occurs in one of them only is left out."""

_CHARACTERS = 512
"""Of a vocabulary so small, tokens are taken for characters or bytes."""

_MOST_CATEGORIES = 255  # that scikit-learn's boosting takes as such


@dataclass(frozen=True)
class Baseline:
    """A plain model, fitted to the training set and evaluated on the validation set.

    Attributes:
        figures: its metrics, `val/accuracy` and so on; those of a test set too. Of a cross-validation
            their means.
        seconds: that fitting and evaluating took.
        samples: training samples that it was fitted to, of each fold.
        error: why it has no figures.
        folds: its metrics by fold; empty without a cross-validation.
    """

    name: str
    figures: Mapping[str, float] = field(default_factory=dict)
    seconds: float = 0.0
    samples: int = 0
    error: str | None = None
    folds: Mapping[str, Mapping[str, float]] = field(default_factory=dict)


@dataclass(frozen=True)
class DataKind:
    """What a sweep's data looks like.

    Attributes:
        inputs, target: names of classes of `bigmodel.spec`.
        described: both in words.
    """

    inputs: str
    target: str
    described: str


def kind_of(context: HydraContext, master: DictConfig, overrides: Sequence[str]) -> DataKind:
    """The kind of data of a sweep's job.

    Args:
        context: Hydra's, which composes configurations.
        master: the sweep's own configuration.
        overrides: of the job.

    Raises:
        ConfigError, DataError: the data cannot be read.
    """
    config = _config(context, master, overrides)
    if not config.data.validation:
        raise ConfigError(
            "sweep=models: compares models on the validation set, and data.validation=false leaves none."
            " Leave it out."
        )
    spec = read_dataset(config).spec
    words = f"{spec.input} → {spec.target}"
    return DataKind(type(spec.input).__name__, type(spec.target).__name__, words)


def fit_baselines(
    context: HydraContext, master: DictConfig, jobs: Sequence[Sequence[str]]
) -> tuple[list[Baseline], int]:
    """The baselines for the data of a sweep, and how many samples are for validation.

    Args:
        context, master: as in `kind_of`.
        jobs: the overrides of one job; of one for each fold of a cross-validation.

    Raises:
        ConfigError, DataError: the data cannot be read.
    """
    found: dict[str, list[Baseline]] = {}
    samples = 0
    for overrides in jobs:
        config = _config(context, master, overrides)
        dataset = read_dataset(config)
        samples += len(dataset.part("val"))
        for baseline in fitted(dataset, config.top.seed):
            found.setdefault(str(config.data.val_fold), []).append(baseline)
    if len(found) == 1:
        return next(iter(found.values())), samples
    same = zip(*found.values(), strict=True)
    return [_over_folds(dict(zip(found, each, strict=True))) for each in same], samples


def _over_folds(folds: Mapping[str, Baseline]) -> Baseline:
    """A baseline that was fitted for each fold, as one; a fold that failed leaves it without figures."""
    each = list(folds.values())
    name, seconds = each[0].name, sum(one.seconds for one in each)
    samples = min(one.samples for one in each)
    failed = next((f"fold {fold}: {one.error}" for fold, one in folds.items() if one.error), None)
    if failed is not None:
        return Baseline(name, {}, seconds, samples, failed)
    means = {
        metric: math.fsum(one.figures[metric] for one in each) / len(each) for metric in each[0].figures
    }
    figures = {fold: one.figures for fold, one in folds.items()}
    return Baseline(name, means, seconds, samples, folds=figures)


def _config(context: HydraContext, master: DictConfig, overrides: Sequence[str]) -> RunConfig:
    return parse(composed(context, master, overrides))


def fitted(dataset: Dataset, seed: int = 0) -> list[Baseline]:
    """The baselines for a dataset whose target is classes or values.

    Args:
        dataset: of features, images, sequences or texts.
        seed: of the samples drawn from a large training set, and of boosting.
    """
    target = dataset.spec.target
    assert isinstance(target, Classes | Values)
    train = _limited(dataset.train, seed)
    inputs = _token_lists if isinstance(dataset.spec.input, Tokens) else partial(_rows, dataset)
    x, y = inputs(train), _targets(train).numpy()
    y = y[:, 0] if y.shape[1:] == (1,) else y
    found = []
    for name, make in _models(dataset, len(train), seed):
        began = time.perf_counter()
        figures: dict[str, float] = {}
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # such as of a fit that has not quite converged
                model = make().fit(x, y)
            for part in set(dataset.parts) - {"train"}:
                metrics = metrics_for(target, "cpu")
                for piece in _pieces(dataset.parts[part]):
                    truth = _targets(piece)
                    metrics.update(_outputs(model, inputs(piece), len(truth), target), truth)
                figures |= {f"{part}/{metric}": value for metric, value in metrics.compute().items()}
            found.append(Baseline(name, figures, time.perf_counter() - began, len(train)))
        except Exception as error:  # of scikit-learn's, on data that it cannot take
            found.append(Baseline(name, error=reason(error), samples=len(train)))
    return found


def _pieces(part: SplitData) -> Iterator[SplitData]:
    """A part in pieces of at most `MOST_VALUES` numbers; as a whole it may not fit into memory."""
    most = _most_samples(part)
    return (part.select(index) for index in torch.split(torch.arange(len(part)), most))


def _most_samples(part: SplitData) -> int:
    return max(1, MOST_VALUES // max(1, part.take(slice(0, 1))[0].numel()))


def _limited(part: SplitData, seed: int) -> SplitData:
    most = _most_samples(part)
    if len(part) <= most:
        return part
    generator = torch.Generator().manual_seed(seed)
    return part.select(torch.randperm(len(part), generator=generator)[:most])


def _targets(part: SplitData) -> torch.Tensor:
    return part.targets if isinstance(part, Texts) else part.take(slice(0, len(part)))[1]


def _rows(dataset: Dataset, part: SplitData) -> Any:
    """Inputs as rows of numbers, scaled as networks get them."""
    inputs, scale = part.take(slice(0, len(part)))[0], dataset.preprocessing.scaling()
    scaled = inputs.float() if scale is None else scale(inputs)
    return scaled.flatten(1).numpy()


def _token_lists(part: SplitData) -> list[list[int]]:
    """Texts as lists of tokens, without padding."""
    assert isinstance(part, Texts)
    spans = zip(part.starts.tolist(), part.sizes.tolist(), strict=True)
    tokens = part.tokens.numpy()
    return [tokens[start : start + size].tolist() for start, size in spans]


def _models(dataset: Dataset, samples: int, seed: int) -> Iterator[tuple[str, Callable[[], Any]]]:
    """Names, and what makes each model."""
    from sklearn.dummy import DummyClassifier, DummyRegressor
    from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression, Ridge
    from sklearn.multioutput import MultiOutputRegressor
    from sklearn.pipeline import make_pipeline

    kind, target = dataset.spec.input, dataset.spec.target
    valued = isinstance(target, Values)
    dummy: Any = DummyRegressor if valued else DummyClassifier
    yield ("the mean" if valued else "the most frequent class"), dummy
    linear = partial(Ridge) if valued else partial(LogisticRegression, max_iter=1000)
    name = "linear regression" if valued else "logistic regression"
    if isinstance(kind, Tokens):
        analyzer = partial(_ngrams, longest=5 if kind.vocab_size <= _CHARACTERS else 2)
        counts = partial(TfidfVectorizer, analyzer=analyzer, sublinear_tf=True)
        least = 1 if samples < _FEW else 2
        yield f"tf-idf + {name}", lambda: make_pipeline(counts(min_df=least), linear())
        return
    categories = kind.categories if isinstance(kind, Features) else ()
    yield name, lambda: make_pipeline(_one_hot(categories), linear()) if any(categories) else linear()
    boosting: Any = HistGradientBoostingRegressor if valued else HistGradientBoostingClassifier
    mask = [0 < size <= _MOST_CATEGORIES for size in categories] or None
    boosted = partial(boosting, random_state=seed, categorical_features=mask)
    several = isinstance(target, Values) and target.count > 1
    yield "gradient boosting", lambda: MultiOutputRegressor(boosted()) if several else boosted()


def _ngrams(tokens: list[int], longest: int) -> list[str]:
    """A text's tokens, and all runs of up to `longest` of them."""
    words = [str(token) for token in tokens]
    lengths = range(1, longest + 1)
    return [" ".join(words[i : i + n]) for n in lengths for i in range(len(words) - n + 1)]


def _one_hot(categories: Sequence[int]) -> Any:
    from sklearn.compose import make_column_transformer
    from sklearn.preprocessing import OneHotEncoder

    columns = [index for index, size in enumerate(categories) if size]
    encoder = OneHotEncoder(handle_unknown="ignore")
    return make_column_transformer((encoder, columns), remainder="passthrough")


def _outputs(model: Any, inputs: Any, samples: int, target: Classes | Values) -> torch.Tensor:
    """Predictions as a network gives them: (samples, classes) or (samples, values)."""
    if isinstance(target, Values):
        return torch.from_numpy(np.asarray(model.predict(inputs), np.float32)).view(samples, -1)
    outputs = np.zeros((samples, target.count), np.float32)
    outputs[:, np.asarray(model.classes_)] = model.predict_proba(inputs)  # a class may have no samples
    return torch.from_numpy(outputs)
