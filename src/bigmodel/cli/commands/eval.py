"""`bigmodel eval`: how good a run's model is on its own held-out data, or on new data."""

from __future__ import annotations

import json
from argparse import Namespace
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pydantic import Field

from bigmodel.build.dataset import UNSURE, read_dataset
from bigmodel.build.header import describe_loss
from bigmodel.build.new_run import evaluation_size
from bigmodel.cli.commands.loaded_run import LoadedRun, Notify, load_run, loading
from bigmodel.cli.commands.new_data import read_new_data, report_skipped
from bigmodel.cli.commands.output_files import data_stream
from bigmodel.cli.messages import note
from bigmodel.config import RunConfig
from bigmodel.data.base import SET_NAMES, DataConfig, Dataset, PartName
from bigmodel.data.batching.batches import make_batches
from bigmodel.data.fingerprint import compare
from bigmodel.data.parts import SplitData
from bigmodel.errors import DIVERGED, ConfigError, DataError, UndefinedError, counted
from bigmodel.metrics import ChosenMetrics, choose_metrics, metrics_for, parse_metrics
from bigmodel.metrics.threshold import thresholds
from bigmodel.models.base import Writer
from bigmodel.reporting.base import EvaluationResult
from bigmodel.reporting.formatting import shown_path
from bigmodel.reporting.metrics_table import print_metrics
from bigmodel.reporting.summary import jsonable
from bigmodel.spec import Classes, DataSpec, Flags, Values
from bigmodel.training.evaluation import evaluate
from bigmodel.training.text_samples import TextSampler


class ReadingConfig(DataConfig):
    """How new data is batched."""

    batch_tokens: int | None = Field(None, description="most tokens in a batch of texts; null: no bound")


@dataclass(frozen=True)
class EvalData:
    """What a model is evaluated on.

    Attributes:
        dataset: holds the set.
        part: the set's name in it.
        config: how its samples are batched.
        source: a description of the set for messages.
        path: of new data; None for the run's own.
    """

    dataset: Dataset
    part: PartName
    config: DataConfig
    source: str
    path: Path | None = None


def run(arguments: Namespace) -> None:
    """Evaluates a run and prints the figures."""
    loaded = load_run(arguments.run, *loading(arguments))
    data = own_data(loaded) if arguments.data is None else new_data(loaded, arguments)
    chosen = chosen_metrics(loaded, arguments.metrics)
    evaluation = evaluate_data(loaded, data, arguments.batch_size, chosen)
    prefix = data.part if data.path is None else "data"
    named = {f"{prefix}/{name}": value for name, value in evaluation.metrics.items()}
    by_class = {f"{prefix}/{name}": each for name, each in evaluation.by_class.items()}
    samples, loss = len(data.dataset.part(data.part)), loaded.loss().described
    if arguments.json:
        result = {
            "run": str(loaded.run_path.folder),
            "step": loaded.step,
            "part": prefix,
            "path": None if data.path is None else str(data.path),
            "samples": samples,
            "loss": loss,
            "figures": named,
            **({"threshold": threshold} if (threshold := _thresholds(loaded)) else {}),
            **({"by_class": by_class} if by_class else {}),
        }
        data_stream().write(json.dumps(jsonable(result)) + "\n")
        return
    rows = [
        ("Model", f"{loaded.name}, weights of step {loaded.step:,}"),
        ("Data", f"{data.source}, {counted(samples, 'sample')}"),
        ("Loss", describe_loss(loaded.loss(), loaded.preprocessing.spec.target)),
        ("Device", str(loaded.runtime)),
        *_threshold_rows(loaded),
    ]
    print_metrics(shown_path(loaded.run_path.folder), rows, named, by_class)


def _thresholds(loaded: LoadedRun) -> dict[str, float]:
    return thresholds(loaded.cuts, loaded.preprocessing.spec.target)


def _threshold_rows(loaded: LoadedRun) -> list[tuple[str, str]]:
    shown = ", ".join(f"{name} from {value:.3g}" for name, value in _thresholds(loaded).items())
    maximised = loaded.settings.get("threshold")
    return [("Threshold", f"{shown}: best {maximised} of the validation set")] if shown else []


def chosen_metrics(loaded: LoadedRun, names: Sequence[str] = ()) -> ChosenMetrics:
    """The metrics that were chosen for the run, and others by name.

    Raises:
        ConfigError, SpecError: there is no such metric, or it does not suit the target.
    """
    own = parse_metrics(loaded.settings.get("metrics") or [])
    known = {config.name for config in own}
    more = parse_metrics([name for name in dict.fromkeys(names) if name not in known], "--metrics")
    return choose_metrics([*own, *more], loaded.preprocessing.spec.target)


def evaluate_data(
    loaded: LoadedRun,
    data: EvalData,
    batch_size: int | None = None,
    chosen: ChosenMetrics | None = None,
    notify: Notify = note,
) -> EvaluationResult:
    """Evaluates a set as in training.

    Args:
        batch_size: samples at once; None: as many as in training.
        chosen: metrics beside the usual ones.
        notify: receives notes for the user.

    Raises:
        UndefinedError: the model gives NaN or infinity.
    """
    dataset, target, device = data.dataset, data.dataset.spec.target, loaded.runtime.device
    size = batch_size or evaluation_size(dataset.spec, data.config.batch_size)
    batches = make_batches(dataset, data.part, data.config, device, batch_size=size, shuffle=False)
    metrics = metrics_for(target, device)
    evaluation = evaluate(
        *(loaded.model, batches, loaded.loss(), metrics, loaded.runtime, dataset),
        chosen=chosen,
        by_class=True,
        cuts=loaded.cuts,
    )
    if evaluation.undefined:
        raise UndefinedError(
            f"{shown_path(loaded.run_path.folder)}: the model, weights of step {loaded.step:,}, gives"
            f" NaN or infinity for samples of {data.source}: nothing can be measured. {DIVERGED}"
        )
    for name, why in evaluation.reasons.items():
        notify(f"{name} is not defined for {data.source}: {why}.")
    pairs, beams = loaded.data_setting("bleu_pairs", 0), loaded.data_setting("beams", 1)
    sampler = TextSampler.of(dataset, loaded.model, device, pairs, beams)
    if sampler is not None:
        assert isinstance(loaded.model, Writer)
        texts = sampler.sample(loaded.model, data.part, lambda: None, samples=False)[0]
        evaluation = replace(evaluation, metrics={**evaluation.metrics, **texts})
    return evaluation


def own_dataset(
    loaded: LoadedRun, notify: Notify, changed: Callable[[str], None]
) -> tuple[RunConfig, Dataset]:
    """The run's configuration and its own data, split as in training.

    Args:
        notify: receives notes for the user.
        changed: called with what has changed if it is not the data that the run was trained on.

    Raises:
        ConfigError, DataError: the data can no longer be read, or is now of another kind.
    """
    config = loaded.config()
    dataset = read_dataset(config, loaded.preprocessing)
    spec, learnt = dataset.spec, loaded.preprocessing.spec
    if spec.input != learnt.input or _labels(spec) != _labels(learnt):
        raise DataError(
            f"data={spec.name}: the data is of another kind now: {spec.input} → {spec.target}, but the"
            f" run was trained on {learnt.input} → {learnt.target}. Restore it."
        )
    if loaded.fingerprint is not None:
        known = loaded.preprocessing.to_facts()
        comparison = compare(loaded.fingerprint, dataset, known, lambda: read_dataset(config))
        if comparison.change is not None:
            changed(comparison.change)
        if comparison.unsure:
            notify(f"Data: {UNSURE}.")
    for row in dataset.header_rows:
        notify(": ".join(row))
    report_skipped(dataset.left_out, notify)
    return config, dataset


def own_data(loaded: LoadedRun, notify: Notify = note, option: str = "--data") -> EvalData:
    """The test set of the run's own data, or its validation set if it has none.

    Args:
        notify: receives notes for the user.
        option: names other data, for messages.

    Raises:
        ConfigError, DataError: the data can no longer be read, or is now of another kind.
    """
    try:
        config, dataset = own_dataset(
            loaded,
            notify,
            lambda change: notify(f"Warning: the data is not what the run was trained on: {change}."),
        )
    except (ConfigError, DataError) as error:
        raise type(error)(
            f"{error}\nThat is the run's own data; {option} evaluates on another file or folder."
        ) from error
    if dataset.test is None and dataset.val is None:
        raise DataError(
            f"data={dataset.spec.name}: the run was trained on all of its data (data.validation=false),"
            f" so that none is left to evaluate on. Name other data with {option}."
        )
    part: PartName = "val" if dataset.test is None else "test"
    return EvalData(dataset, part, config.data, f"the {SET_NAMES[part]} set of {dataset.spec.name}")


def new_data(loaded: LoadedRun, arguments: Namespace) -> EvalData:
    """New data with its targets.

    Raises:
        DataError: it cannot be read, or is not of the kind that the run was trained on.
    """
    new_samples = read_new_data(loaded, "--data", arguments, targets=True)
    path = Path(arguments.data).expanduser()
    return eval_data(loaded, new_samples.part, shown_path(path), path)


def eval_data(loaded: LoadedRun, part: SplitData, source: str, path: Path | None = None) -> EvalData:
    """New samples with their targets, to evaluate on.

    Args:
        part: the samples.
        source, path: see `EvalData`.
    """
    learnt = loaded.preprocessing
    dataset = Dataset(
        DataSpec(learnt.spec.name, learnt.spec.input, learnt.spec.target, {"test": len(part)}),
        train=part,
        val=part,
        test=part,
        mean=learnt.mean,
        std=learnt.std,
        reader=learnt.reader,
    )
    config = ReadingConfig(
        name=learnt.spec.name,
        batch_size=loaded.data_setting("batch_size", 64),
        batch_tokens=loaded.data_setting("batch_tokens", None),
    )
    return EvalData(dataset, "test", config, source, path)


def _labels(spec: DataSpec) -> tuple[str, ...] | int:
    target = spec.target
    return target.names if isinstance(target, Classes | Flags | Values) else target.output_size
