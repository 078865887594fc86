"""A graph with keys and values writes what `predict` writes, token by token."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx.reference import ReferenceEvaluator

from bigmodel.cli.commands.onnx_models.past import compare_writing, export_with_past
from bigmodel.errors import SpecError, UndefinedError
from bigmodel.models.transformer import Transformer
from bigmodel.models.transformer_config import TransformerConfig
from bigmodel.spec import DataSpec, NextTokens, Tokens
from tests.cli.commands.cli import Bigmodel
from tests.cli.commands.conftest import Run
from tests.cli.commands.family_runs import preset
from tests.cli.commands.test_loaded_run import loaded
from tests.end_to_end import pages

pytestmark = pytest.mark.usefixtures("torchlib_is_read_once")
CONTEXT = 24


@pytest.mark.parametrize("name", ["gpt2", "gpt2-documents", "llama"])
def test_the_program_of_the_docs_writes_what_predict_writes(
    family_run: Run,
    bigmodel: Bigmodel,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    name: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    said = bigmodel("export", family_run(name), "--with-past", "--output", "model.onnx")
    assert said.status == 0, said.err
    program = pages.files()["write_text.py"]
    said = bigmodel("predict", family_run(name), "--prompt", "ROMEO:", "--temperature", 0)
    capsys.readouterr()
    exec(compile(program, "write_text.py", "exec"), {})
    assert capsys.readouterr().out == said.out
    written = len(loaded(family_run(name)).reader.encode(said.out))
    assert written > 2 * CONTEXT or name == "gpt2-documents"  # which ends a text


def test_what_the_graph_says_of_itself(family_run: Run, bigmodel: Bigmodel, tmp_path: Path) -> None:
    output = tmp_path / "model.onnx"
    said = bigmodel("export", family_run("llama"), "--with-past", "--output", output)
    for words in (
        "  reads input_ids: int64 (N, sequence_length)\n",
        "  reads attention_mask: int64 (N, past_sequence_length + sequence_length)\n",
        "  reads past_key_values.0.key: float (N, 2, past_sequence_length, 8), and so on for each",
        "  gives present.0.key: float (N, 2, past_sequence_length + sequence_length, 8), and so on for",
        "  A text has at most 24 tokens; it begins with past_key_values of length 0.\n",
    ):
        assert words in said.err
    assert "past_key_values.1" not in said.err
    proto, vocabulary = onnx.load(output), loaded(family_run("llama")).reader.vocabulary
    told = json.loads({entry.key: entry.value for entry in proto.metadata_props}["bigmodel"])
    assert told["target"] == {
        "kind": "next_tokens",
        "vocab_size": vocabulary.size,
        "end": vocabulary.end,
        "context": CONTEXT,
    }
    assert [one["name"] for one in told["inputs"]] == [value.name for value in proto.graph.input]
    assert [value.name for value in proto.graph.output] == [
        "logits",
        *(f"present.{n}.{part}" for n in range(2) for part in ("key", "value")),
    ]


def model_of(name: str, context: int = 9, **changes: Any) -> tuple[Transformer, DataSpec]:
    options = TransformerConfig.model_validate(preset(name, depth=1, **changes))
    spec = DataSpec("toy", Tokens(context, 30), NextTokens(30))
    torch.manual_seed(0)
    model = Transformer(options, spec).eval()
    with torch.no_grad():  # far from the start, so that each weight matters
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return model, spec


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("gpt2", {"context": 1}),
        ("gpt2", {"context": 2, "position": "sinusoidal", "norm_first": False}),
        ("llama", {"qk_norm": True, "num_kv_heads": 1}),
    ],
)
def test_any_transformer_that_continues_texts(name: str, changes: dict[str, Any]) -> None:
    graph = export_with_past(*model_of(name, **changes))  # which compares both
    assert graph.uncompared is None


def test_a_graph_that_writes_otherwise_is_refused() -> None:
    model, spec = model_of("gpt2")
    proto = export_with_past(model, spec).proto
    with torch.no_grad():
        model.blocks[0].attention.qkv.weight[-32:].mul_(1.1)  # the values
    with pytest.raises(SpecError, match="differ from the model's by"):
        compare_writing(proto, model, spec)


def test_without_onnxruntime_it_is_compared_or_that_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    model, spec = model_of("gpt2")
    assert export_with_past(model, spec).uncompared is None

    def fails(*_: Any) -> Any:
        raise ValueError("no such operator")

    monkeypatch.setattr(ReferenceEvaluator, "run", fails)
    assert export_with_past(model, spec).uncompared == "no such operator"


def test_padding_before_a_text_is_not_seen() -> None:
    model, spec = model_of("llama", num_kv_heads=2)
    session = session_of(export_with_past(model, spec).proto)
    padded = logits_of(session, [[7, 7, 7, 4, 5]], [[0, 0, 0, 1, 1]], [[0, 0, 0, 0, 1]])
    alone = logits_of(session, [[4, 5]], [[1, 1]], [[0, 1]])
    np.testing.assert_allclose(padded[:, -2:], alone, atol=1e-5)


def session_of(proto: Any) -> Any:
    import onnxruntime

    onnxruntime.set_default_logger_severity(4)
    return onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])


def logits_of(session: Any, *given: list[list[int]]) -> Any:
    inputs = session.get_inputs()
    past = [np.zeros((1, one.shape[1], 0, one.shape[3]), np.float32) for one in inputs[3:]]
    feed = zip(inputs, [*map(np.array, given), *past], strict=True)
    return session.run(["logits"], {one.name: value for one, value in feed})[0]


def test_a_model_that_has_diverged_is_refused() -> None:
    model, spec = model_of("gpt2")
    with torch.no_grad():
        model.embedding.weight.fill_(torch.nan)
    with pytest.raises(UndefinedError, match="gives NaN or infinity: it is not exported"):
        export_with_past(model, spec)


@pytest.mark.parametrize(
    ("run", "words", "told"),
    [
        ("classes", ["--with-past"], "Only a transformer that continues texts has keys and values"),
        ("pairs", ["--with-past"], "Only a transformer that continues texts has keys and values"),
        ("text", ["--with-past", "--format", "huggingface"], "--with-past: is for --format onnx"),
    ],
)
def test_wrong_uses_are_told(
    made: Callable[[str], Path],
    bigmodel: Bigmodel,
    tmp_path: Path,
    run: str,
    words: list[str],
    told: str,
) -> None:
    said = bigmodel("export", made(run), *words, "--output", tmp_path / "model.onnx")
    assert said.status == 1
    assert said.err.startswith(f"bigmodel: {told}")
    assert list(tmp_path.iterdir()) == []
