"""What a model can start from: a run, a Hugging Face folder, or a file with weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bigmodel import registry
from bigmodel.build.pretrained import tensors
from bigmodel.build.pretrained.tokenizer import read_json, read_tokenizer
from bigmodel.checkpointing import checkpoint
from bigmodel.data.normalize import ImageScaling, ImageSize
from bigmodel.data.preprocessing import Preprocessing
from bigmodel.data.texts.chat_format import format_of
from bigmodel.data.texts.vocabulary import LengthLimit
from bigmodel.errors import CheckpointError, ConfigError, DataError, first_line
from bigmodel.models.families import FAMILIES
from bigmodel.models.families.base import Family, Weights
from bigmodel.spec import Classes, Image, Tokens

_TRANSFORMER = "transformer"
"""The entry that all families are presets of."""


@dataclass(frozen=True)
class Source:
    """Weights to start from, and what is known of the model that has them.

    Attributes:
        where: the setting and its value, for messages.
        about: what it is, for the header.
        options: of the model, that its weights need; empty if they are not known.
        inputs: what the model expects of its inputs, for `DataConfig.starting_from`.
        labels: the classes that its head tells apart; empty: it has none, or they are not known.
        family: whose names the weights have; None: ours.
        files: that hold the weights.
        own: the weights of a run, which has been read.
    """

    where: str
    about: str
    options: dict[str, Any] = field(default_factory=dict)
    inputs: tuple[Any, ...] = ()
    labels: tuple[str, ...] = ()
    family: Family | None = None
    files: tuple[Path, ...] = ()
    own: Mapping[str, Tensor] | None = None

    def weights(self, blocks: int) -> tuple[Weights, list[str]]:
        """The weights under our names, and the names of those that have none here.

        Args:
            blocks: of the model, for weights of a family.

        Raises:
            CheckpointError: a file is damaged.
        """
        if self.own is not None:
            return dict(self.own), []
        theirs = tensors.read_tensors(list(self.files), self.where)
        if self.family is not None:
            return self.family.to_ours(theirs, blocks)
        found = {name: family.to_ours(theirs, blocks) for name, family in FAMILIES.items()}
        weights, left = max(found.values(), key=lambda each: len(each[0]))
        return (weights, left) if len(weights) > len(theirs) / 2 else (theirs, [])


def read_source(text: str, key: str = "model.pretrained") -> Source:
    """What a setting names, without the weights of large files.

    Raises:
        ConfigError: there is nothing, it is something else, or of an unknown family.
        CheckpointError, DataError: a part of it cannot be read.
    """
    where, path = f"{key}={text}", Path(text).expanduser()
    if not text.strip() or not _is_there(path):
        raise ConfigError(f"{where}: there is no such file or folder.{_download(text, key)}")
    if path.is_dir() and ((path / "checkpoints").is_dir() or (path / "manifest.json").is_file()):
        return _of_run(path, where)
    if path.is_dir():
        return _of_folder(path, where)
    if path.suffix not in (*tensors.SAFETENSORS, *tensors.PICKLED):
        allowed = ", ".join((*tensors.SAFETENSORS, *tensors.PICKLED))
        raise ConfigError(
            f"{where}: is neither a folder nor a file of weights, whose names end in {allowed}."
        )
    if (path.parent / "config.json").is_file():
        return _of_folder(path.parent, where, path)
    return Source(where, f"the weights in {path.name}", files=(path,))


def _is_there(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # such as a name that is too long
        return False


def _download(text: str, key: str) -> str:
    """How to get a model that is named as on Hugging Face's hub."""
    owner, slash, name = text.partition("/")
    if not (owner and slash and name) or "/" in name or owner in (".", "..", "~"):
        return ""
    return (
        " Nothing is downloaded from here. If it is a model of the Hugging Face hub:"
        f" hf download {text} --local-dir {name}, then {key}={name}"
    )


def _of_folder(folder: Path, where: str, file: Path | None = None) -> Source:
    """A model as Hugging Face's libraries write it.

    Args:
        file: its weights; None: those under the usual names.
    """
    settings = read_json(folder / "config.json")
    if not settings:
        raise ConfigError(
            f"{where}: the folder has no config.json, which says what the model is made of, and is no"
            " run's folder. Name the folder that holds it, or a file of this model's weights."
        )
    kind = str(settings.get("model_type"))
    if kind not in FAMILIES:
        raise ConfigError(
            f"{where}: its config.json has model_type={kind}. Known are {', '.join(FAMILIES)}."
        )
    if settings.get("quantization_config"):
        raise ConfigError(
            f"{where}: its weights are quantised (quantization_config in its config.json), which is not"
            " read. Use the folder of the model that was quantised."
        )
    family = FAMILIES[kind]
    try:
        options = {"name": _TRANSFORMER, "readout": family.readout, **family.options(settings)}
        registry.models.parse(options)
        labels = _labels(settings)
    except ConfigError as error:
        raise ConfigError(f"{where}: its config.json: {error}") from error
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ConfigError(
            f"{where}: its config.json has no usable {first_line(error, type(error).__name__)}, which a"
            f" {kind} needs."
        ) from error
    inputs = _text_inputs(folder, settings, where) if family.reads is Tokens else []
    if family.reads is Image:
        inputs += _image_inputs(folder, settings, where)
    files = tensors.weight_files(folder, where) if file is None else [file]
    return Source(where, kind, options, tuple(inputs), labels, family, tuple(files))


def _labels(settings: Mapping[str, Any]) -> tuple[str, ...]:
    """The classes of a model's head, in the order of its outputs."""
    named = dict(settings.get("id2label") or {})
    return tuple(str(named[number]) for number in sorted(named, key=int))


def _text_inputs(folder: Path, settings: Mapping[str, Any], where: str) -> list[Any]:
    """What a model expects of texts: their tokens, and how long they may be."""
    inputs = [read_tokenizer(folder, settings, where), format_of(None, folder / "tokenizer.json")]
    positions = settings.get("max_position_embeddings", settings.get("n_positions"))
    return [*inputs, LengthLimit(positions)] if isinstance(positions, int) else inputs


def _image_inputs(folder: Path, settings: Mapping[str, Any], where: str) -> list[Any]:
    """What a model expects of images: their size, and how pixels are scaled.

    Raises:
        DataError: the folder's preprocessor_config.json scales them in another way than ours.
    """
    size = settings.get("image_size")
    inputs: list[Any] = [ImageSize(size, size)] if isinstance(size, int) else []
    found = read_json(folder / "preprocessor_config.json")
    mean, std = found.get("image_mean"), found.get("image_std")
    if not found.get("do_normalize", True) or mean is None or std is None:
        return inputs
    numbers = isinstance(mean, list) and isinstance(std, list) and len(mean) == len(std) > 0
    if not (
        numbers
        and all(isinstance(one, int | float) for one in (*mean, *std))
        and min(std) > 0
        and found.get("do_rescale", True)
    ):
        raise DataError(
            f"{where}: its preprocessor_config.json has image_mean={mean}, image_std={std} and"
            f" do_rescale={found.get('do_rescale', True)}. Needed are a number for each channel, of"
            " pixels from 0 to 1, with deviations above 0."
        )
    return [*inputs, ImageScaling(*(torch.tensor(one).float()[:, None, None] for one in (mean, std)))]


def _of_run(folder: Path, where: str) -> Source:
    """The best weights of a run, or the newest if none are; or those of one of its checkpoints."""
    from bigmodel.build.pretrained.adapting import usual_weights  # which reads sources as well

    checkpoints = folder / "checkpoints"
    if not checkpoints.is_dir():
        groups, facts = checkpoint.load(folder)
    elif any(best.is_dir() for best in checkpoint.best_candidates(checkpoints)):
        groups, facts = checkpoint.load_best(checkpoints)
    else:
        groups, facts = (newest := checkpoint.load_newest(checkpoints)).groups, newest.facts
    settings = (facts.get("settings") or {}).get("model")
    weights = groups.get("averaged", groups.get("model"))
    if not isinstance(settings, dict) or weights is None or facts.get("prepared") is None:
        raise CheckpointError(f"{where}: its checkpoint was made by an earlier version. Train it again.")
    preprocessing = Preprocessing.from_facts(facts["prepared"])
    target = preprocessing.spec.target
    return Source(
        where,
        f"{settings['name']} of a run on {preprocessing.spec.name}",
        options=registry.models.parse(settings).model_dump(mode="json"),  # those of the model alone
        inputs=expected_inputs(preprocessing),
        labels=target.names if isinstance(target, Classes) else (),
        own=dict(usual_weights(weights, facts, preprocessing.spec)),
    )


def expected_inputs(preprocessing: Preprocessing) -> tuple[Any, ...]:
    """What a model that was trained with this preprocessing expects of its inputs."""
    inputs: list[Any] = []
    if (vocabulary := getattr(preprocessing.reader, "vocabulary", None)) is not None:
        inputs.append(vocabulary)
    if (chat_format := getattr(preprocessing.reader, "format", None)) is not None:
        inputs.append(chat_format)
    if isinstance(preprocessing.spec.input, Tokens):
        inputs.append(LengthLimit(preprocessing.spec.input.length))
    mean, std = preprocessing.mean, preprocessing.std
    if isinstance(preprocessing.spec.input, Image) and mean is not None and std is not None:
        inputs.append(ImageScaling(mean, std))
    return tuple(inputs)
