"""`bigmodel export`: a run's model, with pre- and postprocessing, as one ONNX file or as a folder for
Hugging Face's transformers; or its weights alone."""

from __future__ import annotations

import json
import os
from argparse import Namespace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bigmodel.cli.commands.loaded_run import (
    LoadedRun,
    Notify,
    check_finite,
    check_single_target,
    load_run,
    loading,
)
from bigmodel.cli.commands.onnx_models.inputs import front_of
from bigmodel.cli.commands.onnx_models.outputs import ExportedModel
from bigmodel.cli.commands.output_files import check_folder_place, check_kind, check_place, write_bytes
from bigmodel.cli.commands.run_paths import resolve_run
from bigmodel.cli.messages import note
from bigmodel.data.texts.tokenizer_file import opening_of, tokenizer_file
from bigmodel.data.texts.vocabulary import VocabularyReader
from bigmodel.errors import ConfigError, require
from bigmodel.metrics.threshold import thresholds
from bigmodel.spec import Classes, Flags, TokenPair, Tokens, Values

if TYPE_CHECKING:
    from bigmodel.cli.commands.onnx_models.model import OnnxGraph

_LARGEST = (2 << 30) - 1  # bytes of one ONNX file


def run(arguments: Namespace) -> None:
    """Exports the model and prints what was written."""
    merges = arguments.merge and not arguments.with_past
    kind = arguments.format or ("safetensors" if merges else "onnx")
    if arguments.with_past and kind != "onnx":
        more = ": transformers has a cache" if kind == "huggingface" else ""
        raise ConfigError(f"--with-past: is for --format onnx. Leave it out{more}.")
    if kind == "huggingface":
        _run_huggingface(arguments)
        return
    if kind == "safetensors":
        _run_safetensors(arguments)
        return
    for module in ("onnx", "onnxscript"):  # torch's own message is for programmers
        require(module, "export")
    output = file_output(arguments.output, resolve_run(arguments.run).folder, kind, arguments.force)
    loaded = load_run(arguments.run, *loading(arguments, "cpu"))
    export_run(loaded, output, note, arguments.with_past)


def _run_safetensors(arguments: Namespace) -> None:
    run_folder = resolve_run(arguments.run).folder
    output = file_output(arguments.output, run_folder, "safetensors", arguments.force)
    loaded = load_run(arguments.run, *loading(arguments, "cpu"))
    write_weights(loaded, output, note)


def write_weights(loaded: LoadedRun, output: Path, notify: Notify) -> None:
    """Writes a run's weights alone, with low-rank updates added, in fp32 and by their names here.

    Raises:
        UndefinedError: weights are NaN or infinite.
        DataError: the file cannot be written.
    """
    from safetensors.torch import save

    # Copies: the format has no weights that share memory.
    weights = {name: value.clone().contiguous() for name, value in loaded.model.state_dict().items()}
    check_finite(weights)
    write_bytes(save(weights, {"format": "pt"}), output)
    numbers = sum(value.numel() for value in weights.values())
    notify(f"{loaded.name}, weights of step {loaded.step:,}, {numbers:,} numbers: {output}")


def _run_huggingface(arguments: Namespace) -> None:
    from bigmodel.cli.commands.huggingface.folder import write_folder  # with safetensors and tokenizers

    output = huggingface_output(arguments.output, resolve_run(arguments.run).folder, arguments.force)
    write_folder(load_run(arguments.run, *loading(arguments, "cpu")), output, note)


def file_output(
    path: str | os.PathLike[str] | None,
    run_folder: Path,
    kind: str,
    force: bool,
    option: str = "--output",
) -> Path:
    """Where a file is written.

    Args:
        path: as given; None: `model` in the run's folder.
        kind: the ending of its name, without the dot.
        force, option: see `check_place`.

    Raises:
        ConfigError: it cannot be written there, or its name ends in something else.
    """
    output = run_folder / f"model.{kind}" if path is None else Path(path).expanduser()
    check_kind(output, (f".{kind}",), option)
    check_place(output, force=force, option=option)
    return output


def huggingface_output(
    path: str | os.PathLike[str] | None, run_folder: Path, force: bool, option: str = "--output"
) -> Path:
    """Where the folder for transformers is written.

    Args:
        path: as given; None: `huggingface` in the run's folder.
        force, option: see `check_folder_place`.

    Raises:
        ConfigError: it cannot be written there.
    """
    output = run_folder / "huggingface" if path is None else Path(path).expanduser()
    if output.suffix == ".onnx":
        raise ConfigError(f"{option} {output}: the format huggingface is a folder. Name one.")
    check_folder_place(output, force=force, option=option)
    return output


def export_run(loaded: LoadedRun, output: Path, notify: Notify, with_past: bool = False) -> None:
    """Writes a run's model, which is on the CPU, as an ONNX file.

    Args:
        notify: receives what the file holds.
        with_past: for writing, with keys and values of what was read.

    Raises:
        ConfigError: the model is too large for one.
        SpecError: it cannot be written as a graph.
        DataError: the file cannot be written.
    """
    check_single_target(loaded.preprocessing.spec)
    bytes_needed = sum(p.nbytes for p in loaded.model.state_dict().values())
    if bytes_needed > _LARGEST:
        raise ConfigError(f"The model has {bytes_needed / 2**30:.1f} GiB; an ONNX file holds at most 2.")
    proto, front, any_length, uncompared = graph_of(loaded, with_past)
    write_bytes(proto.SerializeToString(), output)
    notify(f"{loaded.name}, weights of step {loaded.step:,}: {output}")
    for verb, values in (("reads", proto.graph.input), ("gives", proto.graph.output)):
        for value in values:
            if not (with_past and _is_repeated(value.name)):
                more = ", and so on for each block" if with_past and value.name.endswith(".key") else ""
                notify(f"  {verb} {_signature(value)}{more}")
    kind = loaded.preprocessing.spec.input
    if isinstance(kind, Tokens | TokenPair) and not any_length:
        notify(f"  all texts must be padded to {kind.length} tokens")
    if front.note:
        notify(f"  {front.note}")
    if uncompared is not None:
        notify(
            "Warning: the graph could not be compared with the model. onnx's own evaluator cannot "
            f"compute it ({uncompared.rstrip('.')}); with onnxruntime installed, export compares it."
        )
    for path in _vocabulary(loaded, output):
        notify(f"  its vocabulary: {path}")


def _is_repeated(name: str) -> bool:
    """Whether it is of the same shape as the keys of the first block."""
    return name.endswith((".key", ".value")) and not name.endswith(".0.key")


def graph_of(loaded: LoadedRun, with_past: bool = False) -> OnnxGraph:
    """A run's model as a graph, with metadata."""
    from bigmodel.cli.commands.onnx_models.model import export_graph  # needs onnx
    from bigmodel.cli.commands.onnx_models.past import export_with_past

    spec = loaded.preprocessing.spec
    if with_past:
        graph = export_with_past(loaded.model, spec)
    else:
        front = front_of(loaded.preprocessing)
        longest = spec.input.length if isinstance(spec.input, Tokens | TokenPair) else 1
        whole = ExportedModel(front, loaded.model, spec.target, longest, loaded.cuts)
        graph = export_graph(whole.eval())
    _describe(graph, loaded)
    return graph


def _describe(graph: OnnxGraph, loaded: LoadedRun) -> None:
    """Adds metadata to a graph."""
    spec, front = loaded.preprocessing.spec, graph.front
    metadata = {
        "model": loaded.name,
        "step": loaded.step,
        "inputs": [
            {"name": one.name, "type": one.kind, "shape": ["batch", *one.shape], "meaning": one.meaning}
            for one in front.inputs
        ],
        "target": _target(loaded),
        "thresholds": thresholds(loaded.cuts, spec.target),
        "note": front.note,
    }
    proto = graph.proto
    proto.doc_string = f"{loaded.name}. {front.note}".strip()
    for old in list(proto.metadata_props):
        proto.metadata_props.remove(old)
    entry = proto.metadata_props.add()
    entry.key, entry.value = "bigmodel", json.dumps(metadata, ensure_ascii=False)


def _target(loaded: LoadedRun) -> dict[str, Any]:
    target = loaded.preprocessing.spec.target
    kind = {Classes: "classes", Flags: "flags", Values: "values"}.get(type(target), "next_tokens")
    if isinstance(target, Classes | Flags | Values):
        return {"kind": kind, "names": list(target.names)}
    context = getattr(loaded.preprocessing.spec.input, "length", None)
    end = getattr(target, "end", None)
    return {"kind": kind, "vocab_size": target.output_size, "end": end, "context": context}


def _signature(value: Any) -> str:
    from onnx import TensorProto

    tensor = value.type.tensor_type
    sizes = [str(size.dim_param or size.dim_value or "any") for size in tensor.shape.dim]
    kind = TensorProto.DataType.Name(tensor.elem_type).lower()
    return f"{value.name}: {kind} ({', '.join(['N', *sizes[1:]])})"


def _vocabulary(loaded: LoadedRun, output: Path) -> list[Path]:
    """Writes the vocabulary beside the graph, for tokenizing its inputs and decoding its outputs."""
    reader = loaded.preprocessing.reader
    if not isinstance(reader, VocabularyReader):
        return []
    paths = [output.with_suffix(".vocabulary.json")]
    plain = reader.vocabulary.model_dump()
    tokenizer, opening = plain.pop("tokenizer", ""), opening_of(reader)
    write_bytes((json.dumps(plain, ensure_ascii=False, indent=2) + "\n").encode(), paths[0])
    if (opening or not tokenizer) and find_spec("tokenizers") is not None:
        tokenizer = tokenizer_file(reader.vocabulary, opening).text
    if tokenizer:
        paths.append(output.with_suffix(".tokenizer.json"))
        write_bytes(tokenizer.encode(), paths[1])
    return paths
