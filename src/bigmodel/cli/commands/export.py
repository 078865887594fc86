"""`bigmodel export`: a run's model, with all that goes before and after it, as one ONNX file."""

from __future__ import annotations

import json
from argparse import Namespace
from pathlib import Path
from typing import Any, NamedTuple

from bigmodel.cli.commands.graph import exported
from bigmodel.cli.commands.graph_inputs import Front, front_of
from bigmodel.cli.commands.graph_outputs import ExportedModel
from bigmodel.cli.commands.load import Loaded, load
from bigmodel.cli.commands.outputs import check_kind, check_place, write_bytes
from bigmodel.cli.commands.places import place_of
from bigmodel.cli.commands.telling import tell
from bigmodel.errors import ConfigError, require
from bigmodel.spec import Classes, Flags, TokenPair, Tokens, Values

_LARGEST = (2 << 30) - 1  # bytes of one ONNX file


def run(arguments: Namespace) -> None:
    """Exports, and tells where to."""
    for module in ("onnx", "onnxscript"):  # torch would tell programmers what is missing
        require(module, "export")
    folder = place_of(arguments.run).folder
    output = folder / "model.onnx" if arguments.output is None else Path(arguments.output).expanduser()
    check_kind(output, (".onnx",))
    check_place(output, force=arguments.force)
    loaded = load(arguments.run, arguments.weights, "cpu", arguments.plugins, tell)
    bytes_needed = sum(p.nbytes for p in loaded.model.state_dict().values())
    if bytes_needed > _LARGEST:
        raise ConfigError(f"The model has {bytes_needed / 2**30:.1f} GiB; an ONNX file holds at most 2.")
    made, front, any_length, uncompared = graph_of(loaded)
    write_bytes(made.SerializeToString(), output)
    tell(f"{loaded.name}, weights of step {loaded.step:,}: {output}")
    for given in made.graph.input:
        tell(f"  reads {_shown(given)}")
    for given in made.graph.output:
        tell(f"  gives {_shown(given)}")
    kind = loaded.prepared.spec.input
    if isinstance(kind, Tokens | TokenPair) and not any_length:
        tell(f"  all texts have to be filled up to {kind.length} tokens")
    if front.note:
        tell(f"  {front.note}")
    if uncompared is not None:
        tell(
            "Warning: the graph could not be compared with the model. What comes with onnx cannot"
            f" compute it ({uncompared.rstrip('.')}); with onnxruntime installed, export compares it."
        )
    for path in _vocabulary(loaded, output):
        tell(f"  its vocabulary: {path}")


class Graph(NamedTuple):
    """A graph, what it reads, and the rest of what `graph.Written` says."""

    made: Any
    front: Front
    any_length: bool
    uncompared: str | None


def graph_of(loaded: Loaded) -> Graph:
    """A run's model as a graph, with what it says of itself."""
    spec = loaded.prepared.spec
    front = front_of(loaded.prepared)
    whole = ExportedModel(front.module, loaded.model, spec.target).eval()
    longest = spec.input.length if isinstance(spec.input, Tokens | TokenPair) else 1
    made, any_length, uncompared = exported(whole, front, spec.target, longest)
    told = {
        "model": loaded.name,
        "step": loaded.step,
        "inputs": [
            {"name": one.name, "type": one.kind, "shape": ["batch", *one.shape], "meaning": one.meaning}
            for one in front.inputs
        ],
        "target": _target(loaded),
        "note": front.note,
    }
    made.doc_string = f"{loaded.name}. {front.note}".strip()
    for old in list(made.metadata_props):
        made.metadata_props.remove(old)
    entry = made.metadata_props.add()
    entry.key, entry.value = "bigmodel", json.dumps(told, ensure_ascii=False)
    return Graph(made, front, any_length, uncompared)


def _target(loaded: Loaded) -> dict[str, Any]:
    target = loaded.prepared.spec.target
    kind = {Classes: "classes", Flags: "flags", Values: "values"}.get(type(target), "next_tokens")
    if isinstance(target, Classes | Flags | Values):
        return {"kind": kind, "names": list(target.names)}
    return {"kind": kind, "vocab_size": target.output_size}


def _shown(given: Any) -> str:
    from onnx import TensorProto

    tensor = given.type.tensor_type
    sizes = [str(size.dim_param or size.dim_value or "any") for size in tensor.shape.dim]
    kind = TensorProto.DataType.Name(tensor.elem_type).lower()
    return f"{given.name}: {kind} ({', '.join(['N', *sizes[1:]])})"


def _vocabulary(loaded: Loaded, output: Path) -> list[Path]:
    """Writes beside the graph what turns texts into its tokens and back."""
    vocabulary = getattr(loaded.prepared.reader, "vocabulary", None)
    if vocabulary is None:
        return []
    paths = [output.with_suffix(".vocabulary.json")]
    plain = vocabulary.model_dump()
    tokenizer = plain.pop("tokenizer", "")
    write_bytes((json.dumps(plain, ensure_ascii=False, indent=2) + "\n").encode(), paths[0])
    if tokenizer:  # of the tokenizers library, as it stands
        paths.append(output.with_suffix(".tokenizer.json"))
        write_bytes(tokenizer.encode(), paths[1])
    return paths
