"""A run that was trained, as an object: its model predicts, writes, and is evaluated and exported."""

from __future__ import annotations

import json
import os
import sys
import warnings
from collections.abc import Sequence
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from torch import nn

from bigmodel.api.new_data import GivenData
from bigmodel.api.torch_settings import TorchSettings, unchanged
from bigmodel.cli.commands.loaded_run import LoadedRun, load_run
from bigmodel.data.reader import NewSamples
from bigmodel.errors import BigModelError, ConfigError, UndefinedError, may_need_extras
from bigmodel.reporting import jsonl
from bigmodel.runtime.disk import read_text
from bigmodel.spec import Classes, Flags, NextTokens

if TYPE_CHECKING:
    from bigmodel.cli.commands.explanations.subject import ExplainedPart
    from bigmodel.cli.commands.sureness import CalibrationSource

Format = Literal["onnx", "huggingface", "safetensors"]

_OPTIONS = {"interval": "interval", "set": "prediction_set", "calibrated": "calibrated"}


def load(
    run: str | os.PathLike[str],
    *,
    weights: str = "best",
    device: str = "auto",
    plugins: Sequence[str] = (),
    base: str | os.PathLike[str] | None = None,
) -> TrainedRun:
    """Loads a run that was trained. Its data is not needed.

    Nothing of the process is changed: neither random states, nor torch's settings, nor threads.

    Args:
        run: its folder, or a checkpoint in it.
        weights: `best` by validation, or `last`.
        device: where to compute, such as `cpu` or `cuda:1`; `auto` takes the fastest available.
        plugins: modules that the run was trained with; their code is run.
        base: the weights that a run with `model.lora` was started from, if they have moved.

    Raises:
        CheckpointError: the path is no run, or has no complete checkpoint.
        ConfigError: a plugin was not named, or the device is not there.
    """
    if weights not in ("best", "last"):
        raise ConfigError(f"weights={weights!r}: no such choice. Allowed: 'best', 'last'.")
    moved = None if base is None else os.fspath(base)
    with unchanged():
        path = list(sys.path)
        try:
            loaded = load_run(os.fspath(run), weights, device, list(plugins), _warn, moved)
        finally:
            sys.path[:] = path
        settings = TorchSettings.current()
    return TrainedRun(loaded, settings)


class TrainedRun:
    """A run that was trained; `bigmodel.load` gives one.

    Attributes:
        folder: the run's folder.
        step: the optimizer step after which the weights were saved.
    """

    def __init__(self, loaded: LoadedRun, settings: TorchSettings) -> None:
        self._loaded, self._settings = loaded, settings
        self.folder: Path = loaded.run_path.folder
        self.step: int = loaded.step

    @cached_property
    def _calibration(self) -> CalibrationSource:
        from bigmodel.cli.commands.sureness import CalibrationSource

        return CalibrationSource(self._loaded, _OPTIONS)

    def __repr__(self) -> str:
        return f"<TrainedRun {self._loaded.name}, weights of step {self.step:,}: {self.folder}>"

    def _repr_html_(self) -> str:
        """The run in a notebook: where it is, and the figures of its weights."""
        from bigmodel.reporting.formatting import figure, figures_of
        from bigmodel.reporting.html_text import html_text
        from bigmodel.reporting.summary import read_summary

        rows = [("weights", f"of step {self.step:,}"), ("folder", str(self.folder))]
        with suppress(BigModelError):
            summary = read_summary(self.folder)
            best, final = ({}, {}) if summary is None else (summary.best, summary.final)
            record = best if best.get("step") == self.step else final
            if summary is not None and record.get("step") == self.step:
                figures = figures_of(record) | (summary.test if record is best else {})
                rows += [(name, figure(value)) for name, value in figures.items() if "/" in name]
        cells = "".join(f"<tr><th>{html_text(k)}</th><td>{html_text(v)}</td></tr>" for k, v in rows)
        return f"<b>{html_text(self._loaded.name)}</b><table>{cells}</table>"

    @property
    def model(self) -> nn.Module:
        """The model in evaluation mode, on its device. It reads inputs that are preprocessed, and gives
        raw outputs: (batch, output_size)."""
        return self._loaded.model

    @property
    def config(self) -> dict[str, Any]:
        """The run's settings as nested plain values, secrets left out."""
        return dict(self._loaded.settings)

    @property
    def metrics(self) -> Any:
        """The records of the run, one for each evaluation: a DataFrame if pandas is installed, else a
        list of dicts."""
        path = self.folder / jsonl.NAME
        if not path.is_file():
            return []
        lines = (line for line in read_text(path).splitlines() if line)
        records = [json.loads(line) for line in lines]
        return _frame_of(records)

    def predict(
        self,
        data: Any,
        *,
        batch_size: int | None = None,
        interval: float | None = None,
        prediction_set: float | None = None,
        calibrated: bool = False,
    ) -> Any:
        """Predictions for new data, read as the run's training data was.

        Args:
            data: a DataFrame, an Arrow table, a dict of columns, a list of dicts; an array of samples; a
                list of pictures of PIL, of recordings (an array and its samples per second) or of
                texts; or the path of a file or folder. A table needs the columns that the run was
                trained on, and may have others.
            batch_size: samples computed at once; None chooses.
            interval: for values: adds the ends of an interval that holds the truth so often, such as
                0.9; of several values, each for itself.
            prediction_set: for classes: adds the set of those that may be true, which holds the truth
                so often.
            calibrated: for classes: makes the probability as high as it turns out right.

        Returns:
            What was given: for a DataFrame one with its index, for a table a table, for dicts dicts,
            with `prediction`, and for classes its `probability`; for an array an array, and for a list a
            list of predictions; for a path what the path holds, with these columns. Several flags or
            values have a column each, or, for a list, a dict for each sample; so do the `lower` and
            `upper` end of an interval, and a `set`, a list of names. Where the model gives NaN or
            infinity there is no prediction: null, None or NaN, with a warning.

        Raises:
            DataError: the data is not of the kind that the run was trained on.
            ConfigError: the model writes text; see `generate`. The target has no intervals or sets, or
                the run has too few validation samples for them.
        """
        if calibrated and isinstance(self._loaded.preprocessing.spec.target, Flags):
            raise ConfigError(
                "calibrated: the labels that are predicted stay as they are. Their probabilities:"
                " predict_proba(data, calibrated=True)."
            )
        sure = {"interval": interval, "prediction_set": prediction_set, "calibrated": calibrated}
        return self._predict(data, batch_size, sure, probabilities=False)

    def predict_proba(
        self, data: Any, *, batch_size: int | None = None, calibrated: bool = False
    ) -> Any:
        """The probability of each class or label for new data; see `predict`.

        Args:
            data, batch_size: see `predict`.
            calibrated: makes probabilities as high as they turn out right.

        Returns:
            A table or dicts with a column for each class; for an array (samples, classes), in the order
            of `classes`.

        Raises:
            ConfigError: the run predicts values.
        """
        return self._predict(data, batch_size, {"calibrated": calibrated}, probabilities=True)

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the classes or labels that it predicts, in order; empty for values and text."""
        target = self._loaded.preprocessing.spec.target
        return tuple(target.names) if isinstance(target, Classes | Flags) else ()

    def _predict(
        self, data: Any, batch_size: int | None, sure: dict[str, Any], *, probabilities: bool
    ) -> Any:
        from bigmodel.metrics import defined
        from bigmodel.metrics.temperature import scale
        from bigmodel.reporting.predictions import decode_outputs, merge_columns, predictions
        from bigmodel.training.outputs import model_outputs

        loaded, target = self._loaded, self._loaded.preprocessing.spec.target
        if isinstance(target, NextTokens):
            raise ConfigError(f"{loaded.name}: writes text. Use generate(prompt).")
        if probabilities and not self.classes:
            raise ConfigError(f"{loaded.name}: predicts values, which have no probabilities.")
        given = GivenData.of(data)
        with may_need_extras("predict"), self._settings.applied():
            with unchanged():  # the run's own data may have to be read
                sureness = self._calibration.sureness(_note, **sure)
            samples = given.samples(loaded)
            _warn_of(samples)
            outputs = model_outputs(
                loaded.model, samples.part, loaded.preprocessing, loaded.runtime, batch_size
            )
            known = defined(outputs, target)
            if undefined := int((~known).sum()):
                _warn(
                    f"{undefined:,} of {len(outputs):,} samples have no prediction: the model gives NaN"
                    " or infinity for them."
                )
            columns: dict[str, Any]
            if probabilities:
                temperatures = None if sureness is None else sureness.temperatures
                numbers = decode_outputs(scale(outputs, temperatures), target)
                numbers[~known] = float("nan")
                columns = dict(zip(self.classes, numbers.numpy().T, strict=True))
            else:
                columns = predictions(
                    outputs, target, probabilities=False, cuts=loaded.cuts, sureness=sureness
                )
            if given.kind == "path":
                columns = merge_columns(samples.columns, columns)
            elif given.kind in ("array", "list", "series") and not probabilities:
                columns.pop("probability", None)
            return given.like(columns)

    def evaluate(self, data: Any = None, targets: Any = None) -> dict[str, float]:
        """The figures of the model on data with targets, by name, computed as in training.

        Args:
            data: as for `predict`, with the column of targets; None: the run's own test set, or its
                validation set if it has none.
            targets: labels or values, one for each sample, for data that holds none.

        Returns:
            Figures such as `{"loss": 0.31, "accuracy": 0.97}`.

        Raises:
            DataError: the data is not of the kind that the run was trained on, or has no targets.
            UndefinedError: the model gives NaN or infinity.
        """
        from bigmodel.cli.commands.eval import chosen_metrics, eval_data, evaluate_data, own_data

        with may_need_extras("evaluate"), self._settings.applied(), unchanged():
            if data is None:
                chosen = own_data(self._loaded, _note, "evaluate(data)")
            else:
                given = GivenData.of(data)
                samples = given.samples(self._loaded, targets, with_targets=True)
                _warn_of(samples)
                source = str(given.data) if given.kind == "path" else "the data"
                chosen = eval_data(self._loaded, samples.part, source)
            metrics = chosen_metrics(self._loaded)
            return evaluate_data(self._loaded, chosen, None, metrics, _warn).metrics

    def explain(
        self,
        data: Any = None,
        method: str | None = None,
        *,
        prompt: str | None = None,
        class_name: str | None = None,
        targets: Any = None,
        samples: int | None = None,
        repeats: int = 10,
        seed: int = 0,
    ) -> Any:
        """Why the model says what it says, as `bigmodel explain` does.

        >>> why = run.explain(frame)  # doctest: +SKIP
        >>> why.attributions  # a DataFrame like `frame`: what each column added  # doctest: +SKIP
        >>> run.explain(method="permutation").importances  # doctest: +SKIP
        >>> run.explain(prompt="ROMEO:", method="logit_lens")  # doctest: +SKIP

        Args:
            data: as for `predict`; None: the run's own test set, or its validation set if it has none.
            method: `integrated_gradients`, the default, or `occlusion`: how much each part of a sample
                added to what the model says of it; for tables also `permutation`: how much worse the
                model is if a column is shuffled, and `partial_dependence`: what it says on average of
                each value of a column. `bigmodel explain --help` lists all.
            prompt: a text to explain instead of data: one to judge, to continue or to translate.
            class_name: the class, label, value or next token to explain; None: what is predicted.
            targets: for `permutation` of data that holds none, one for each sample.
            samples: explain only so many first samples; None: all, or one long text.
            repeats: how often a column is shuffled.
            seed: of what is random.

        Returns:
            An `Explanation`; by `attention` an `AttentionMaps`, whose `samples` hold a map for each
            layer, and by `logit_lens` a `LogitLens` for each text.

        Raises:
            ConfigError: there is no such method or class, or the method does not fit the run.
            DataError: the data is not of the kind that the run was trained on, or has no targets though
                the method needs them.
            UndefinedError: the model gives NaN or infinity.
        """
        from bigmodel.api.explanation import explanation
        from bigmodel.cli.commands.explanations.subject import ExplainedPart, own_part, subject_of
        from bigmodel.explain.methods import method_named, usual_samples
        from bigmodel.explain.names import default_method
        from bigmodel.explain.subject import Options

        loaded, spec = self._loaded, self._loaded.preprocessing.spec
        name = method or default_method(spec.input, spec.target, summary=False)
        try:
            chosen = method_named(name, spec)
        except ConfigError as error:
            raise _with_arguments(error) from error
        if prompt is not None and data is not None:
            raise ConfigError("explain takes one of data and prompt.")
        for option, count in {"samples": samples, "repeats": repeats}.items():
            if count is not None and not (isinstance(count, int) and count > 0):
                raise ConfigError(f"{option}={count!r}: must be a whole number, at least 1.")
        given = GivenData.of(data) if data is not None else GivenData("path", None)
        with may_need_extras("explain"), self._settings.applied(), unchanged():
            if prompt is not None:
                part = _prompt_part(loaded, prompt)
            elif data is None:
                part = own_part(loaded, _note, "explain(data)")
            else:
                needed = chosen.needs_targets
                found = given.samples(loaded, targets if needed else None, with_targets=needed)
                _warn_of(found)
                part = ExplainedPart(found.part, "the data", needed, found.columns)
            try:
                most = samples or usual_samples(chosen, spec)
                shown = None if class_name is None else str(class_name)
                subject = subject_of(loaded, part, shown, samples=most)
                result = chosen.explain(subject, Options(seed=seed, repeats=repeats))
            except ConfigError as error:
                raise _with_arguments(error) from error
            if undefined := subject.undefined:
                _warn(
                    f"{undefined:,} of {len(subject):,} samples have no explanation: the model gives NaN"
                    " or infinity for them."
                )
        return explanation(name, result, subject, given)

    def generate(
        self,
        prompt: str | Sequence[str],
        *,
        tokens: int | None = None,
        temperature: float | None = None,
        top_k: int | None = None,
        top_p: float | None = None,
        beams: int | None = None,
        seed: int = 0,
    ) -> Any:
        """Continues a text, or translates it, as `bigmodel predict --prompt` does.

        Args:
            prompt: a text, or several.
            tokens: most new tokens; None: 200, or what a translation may have.
            temperature: 0: always the likeliest token; None: 0.8, and 0 with beams.
            top_k: sample from so many likeliest tokens.
            top_p: sample from tokens that make up this share.
            beams: of a search; None: those of the run for translations, else 1.
            seed: of sampling.

        Returns:
            The text after the prompt, or the translation; a list for several.

        Raises:
            ConfigError: the model writes no text, or a value is out of range.
            DataError: a prompt is empty, or has characters that are not in the vocabulary.
            UndefinedError: the model gives NaN or infinity.
        """
        from bigmodel.cli.commands.predictions.texts import sampling_of, write_texts

        if not isinstance(self._loaded.preprocessing.spec.target, NextTokens):
            raise ConfigError(f"{self._loaded.name}: writes no text. Use predict(data).")
        sampling = sampling_of(
            self._loaded,
            tokens=tokens,
            temperature=temperature,
            top_k=top_k,
            top_p=top_p,
            beams=beams,
            seed=seed,
        )
        prompts = [prompt] if isinstance(prompt, str) else list(prompt)
        with may_need_extras("generate"), self._settings.applied():
            written = write_texts(self._loaded, prompts, sampling)
        texts = [text for text in written if text is not None]
        if len(texts) < len(written):
            raise UndefinedError(f"{self._loaded.name}: the model gives NaN or infinity after a prompt.")
        return texts[0] if isinstance(prompt, str) else texts

    def export(
        self,
        path: str | os.PathLike[str] | None = None,
        *,
        format: Format = "onnx",  # noqa: A002  as on the command line
        with_past: bool = False,
        replace: bool = False,
    ) -> Path:
        """Writes the model, with its preprocessing, for other programs.

        Args:
            path: of the file or folder; None: `model.onnx`, `huggingface` or `model.safetensors` in the
                run's folder.
            format: `onnx`, a file; `huggingface`, a folder that transformers loads, if it has such a
                model; `safetensors`, the weights alone.
            with_past: of a transformer that continues texts, as `onnx`: a graph that takes and gives the
                keys and values of what was read.
            replace: whether existing files may be replaced.

        Returns:
            The path of the file or folder.

        Raises:
            ConfigError: something is there already, the name of a file does not end as its format's
                do, or the format is unknown or has no `with_past`.
            SpecError: the format has no such model.
            MissingPackageError: onnx is not installed.
        """
        from bigmodel.cli.commands.export import (
            export_run,
            file_output,
            huggingface_output,
            write_weights,
        )
        from bigmodel.errors import require

        if format not in get_args(Format):
            raise ConfigError(
                f"format={format}: no such format. Allowed: {', '.join(get_args(Format))}."
            )
        if with_past and format != "onnx":
            more = ": transformers has its own cache" if format == "huggingface" else ""
            raise ConfigError(f"with_past=True is for format=onnx{more}.")
        if format == "huggingface":
            from bigmodel.cli.commands.huggingface.folder import write_folder

            output = huggingface_output(path, self.folder, replace, "path")
            with may_need_extras("export"), unchanged():
                write_folder(self._on_cpu(), output, _note)
            return output
        if format == "onnx":
            for module in ("onnx", "onnxscript"):
                require(module, "export")
        output = file_output(path, self.folder, format, replace, "path")
        with may_need_extras("export"), unchanged():
            if format == "onnx":
                export_run(self._on_cpu(), output, _note, with_past)
            else:
                write_weights(self._on_cpu(), output, _note)
        return output

    def _on_cpu(self) -> LoadedRun:
        from copy import deepcopy
        from dataclasses import replace

        import torch

        device = torch.device("cpu")
        runtime = replace(self._loaded.runtime, device=device, precision="fp32")
        return replace(self._loaded, model=deepcopy(self._loaded.model).to(device), runtime=runtime)


def _frame_of(records: list[dict[str, Any]]) -> Any:
    """Records as a DataFrame if pandas is installed, else as they are."""
    from importlib.util import find_spec

    if find_spec("pandas") is None:
        return records
    import pandas

    return pandas.DataFrame.from_records(records)


def _prompt_part(loaded: LoadedRun, prompt: str) -> ExplainedPart:
    from bigmodel.cli.commands.explanations.prompt import prompt_part

    try:
        return prompt_part(loaded, prompt, _warn)
    except BigModelError as error:
        raise _with_arguments(error) from error


def _with_arguments(error: BigModelError) -> BigModelError:
    """A message with this method's arguments instead of the command line's options."""
    words = str(error).replace("--method ", "method=").replace("--class ", "class_name=")
    words = words.replace("--prompt", "prompt").replace("--data", "data")
    return type(error)(words)


def _warn_of(samples: NewSamples) -> None:
    """Warns of samples that were left out, and of those that are unlike training's."""
    for label, text in samples.header_rows:
        if label == "Warning":
            _warn(text)
    if samples.left_out:
        _warn("Left out: " + ", ".join(f"{count:,} {why}" for why, count in samples.left_out.items()))


def _note(text: str) -> None:
    """Of what a command would print, only warnings are for a program."""
    if text.startswith("Warning: "):
        _warn(text.removeprefix("Warning: "))


def _warn(text: str) -> None:
    """Warns at the caller's own line, however deep this is called."""
    level, frame = 2, sys._getframe(1)
    while frame.f_back is not None and frame.f_globals.get("__name__", "").startswith("bigmodel."):
        level, frame = level + 1, frame.f_back
    warnings.warn(text, stacklevel=level)
