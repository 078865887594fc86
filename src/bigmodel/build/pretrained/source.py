"""What a model can start from: a run, a Hugging Face folder, or a file with weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bigmodel.build.pretrained import tensors
from bigmodel.build.pretrained.tokenizer import read_json, read_tokenizer
from bigmodel.checkpointing import checkpoint
from bigmodel.data.normalize import ImageScaling
from bigmodel.data.preprocessing import Preprocessing
from bigmodel.data.texts.chat_format import format_of
from bigmodel.data.texts.vocabulary import LengthLimit
from bigmodel.errors import CheckpointError, ConfigError, first_line
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
    if not path.exists():
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
    kind = settings.get("model_type")
    if kind not in FAMILIES:
        raise ConfigError(
            f"{where}: its config.json has model_type={kind}. Known are {', '.join(FAMILIES)}."
        )
    family = FAMILIES[kind]
    try:
        options = family.options(settings)
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from error
    except (KeyError, TypeError, ValueError) as error:
        raise ConfigError(
            f"{where}: its config.json has no usable {first_line(error, type(error).__name__)}, which a"
            f" {kind} needs."
        ) from error
    inputs: list[Any] = []
    if "vocab_size" in settings:
        inputs += [read_tokenizer(folder, settings, where), format_of(None, folder / "tokenizer.json")]
        positions = settings.get("max_position_embeddings", settings.get("n_positions"))
        inputs += [LengthLimit(positions)] if isinstance(positions, int) else []
    if (scaling := _image_scaling(folder)) is not None:
        inputs.append(scaling)
    pooling = read_json(folder / "1_Pooling" / "config.json")
    if pooling.get("pooling_mode_mean_tokens"):  # a sentence encoder: this is what it was trained for
        options["readout"] = "mean"
    files = tensors.weight_files(folder, where) if file is None else [file]
    labels = tuple(map(str, (settings.get("id2label") or {}).values()))
    return Source(
        where, kind, {"name": _TRANSFORMER, **options}, tuple(inputs), labels, family, tuple(files)
    )


def _image_scaling(folder: Path) -> ImageScaling | None:
    """How pixels are scaled, by a preprocessor_config.json."""
    settings = read_json(folder / "preprocessor_config.json")
    if not settings.get("do_normalize", True):
        return None
    try:
        mean, std = (torch.tensor(settings[key])[:, None, None] for key in ("image_mean", "image_std"))
    except (KeyError, TypeError, ValueError, IndexError):
        return None
    return ImageScaling(mean, std)


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
        options=settings,
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
