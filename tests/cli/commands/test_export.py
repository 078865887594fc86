"""A graph gives what `predict` gives, asked by another program, whatever the batch."""

import csv
import json
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile
import torch
from onnx.reference import ReferenceEvaluator
from safetensors.torch import load_file

from bigmodel.cli.commands.export import graph_of, write_weights
from bigmodel.cli.commands.loaded_run import LoadedRun
from bigmodel.cli.commands.onnx_models.inputs import front_of
from bigmodel.cli.commands.onnx_models.model import OnnxGraph, compare
from bigmodel.cli.commands.onnx_models.outputs import ExportedModel
from bigmodel.errors import SpecError, UndefinedError
from bigmodel.registry import data
from bigmodel.reporting.predictions import decode_outputs
from bigmodel.spec import Classes, Features, Tokens
from bigmodel.training.loop import fit
from bigmodel.training.outputs import model_outputs
from tests.cli.commands.cli import Bigmodel
from tests.cli.commands.conftest import TEXT_MODEL, Run
from tests.cli.commands.test_loaded_run import loaded
from tests.small_runs import built

pytestmark = pytest.mark.usefixtures("torchlib_is_read_once")
BATCHES = (1, 3, 17)
Export = Callable[[str], OnnxGraph]


@pytest.fixture(scope="session")
def export(made: Run) -> Export:
    """The graph of a run by its name; writing one takes seconds, so each is written once."""
    return cache(lambda name: graph_of(loaded(made(name))))


def session_of(made: Any) -> onnxruntime.InferenceSession:
    onnxruntime.set_default_logger_severity(4)
    return onnxruntime.InferenceSession(made.SerializeToString(), providers=["CPUExecutionProvider"])


def predicted(run: LoadedRun, path: Path) -> torch.Tensor:
    """What `predict` says of a file: probabilities, or values in their own unit."""
    part = run.reader.read(path, with_targets=False).part
    outputs = model_outputs(run.model, part, run.preprocessing, run.runtime)
    return decode_outputs(outputs, run.preprocessing.spec.target)


def assert_same(
    session: onnxruntime.InferenceSession, feed: dict[str, Any], expected: torch.Tensor
) -> None:
    for samples in BATCHES:
        found = session.run(None, {name: values[:samples] for name, values in feed.items()})
        np.testing.assert_allclose(found[0], expected[:samples].numpy(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["classes", "values", "flags", "images", "sequences", "tokens"])
def test_arrays(made: Run, export: Export, tmp_path: Path, name: str) -> None:
    draw = np.random.default_rng(0)
    inputs: Any = {
        "images": draw.integers(0, 256, (17, 1, 8, 8)).astype(np.uint8),
        "sequences": draw.normal(size=(17, 6, 2)).astype(np.float32),
        "tokens": draw.integers(0, 9, (17, 7)),
    }.get(name, draw.normal(size=(17, 5)).astype(np.float32))
    np.savez(tmp_path / "new.npz", inputs=inputs)
    run = loaded(made(name))
    graph, front, *_ = export(name)
    feed = {front.inputs[0].name: inputs}
    assert_same(session_of(graph), feed, predicted(run, tmp_path / "new.npz"))


def test_pictures_of_the_size_of_the_run(made: Run) -> None:
    run, folder = loaded(made("photos")), made("photos").parent / "photos"
    graph, front, *_ = graph_of(run)
    pixels = run.reader.read(folder, with_targets=False).part.take(slice(None))[0].numpy()
    assert front.inputs[0].kind == str(pixels.dtype) == "uint8"
    assert_same(session_of(graph), {"image": pixels}, predicted(run, folder))


@pytest.mark.parametrize("name", ["sounds", "raw_sounds"])
def test_sounds_are_given_by_their_samples(made: Run, name: str) -> None:
    run, folder = loaded(made(name)), made(name).parent / "sounds"
    graph, front, *_ = graph_of(run)
    (samples,) = front.inputs[0].shape
    assert isinstance(samples, int)
    given = np.zeros((16, samples), np.float32)
    for row, path in enumerate(sorted(folder.rglob("*.wav"))):
        wave = soundfile.read(path, dtype="float32")[0][:samples]
        given[row, : len(wave)] = wave
    assert_same(session_of(graph), {"sound": given}, predicted(run, folder))


def test_classes_come_with_their_labels(made: Run, export: Export) -> None:
    run = loaded(made("classes"))
    graph, *_ = export("classes")
    probabilities, index, label = session_of(graph).run(None, {"inputs": np.zeros((2, 5), np.float32)})
    target = run.preprocessing.spec.target
    assert isinstance(target, Classes)
    assert index.tolist() == probabilities.argmax(1).tolist()
    assert label.tolist() == [target.names[place] for place in index]
    told = json.loads({entry.key: entry.value for entry in graph.metadata_props}["bigmodel"])
    assert told["target"] == {"kind": "classes", "names": list(target.names)}
    assert [one["name"] for one in told["inputs"]] == ["inputs"]


def test_a_table_is_given_by_its_own_columns(made: Run, export: Export, tmp_path: Path) -> None:
    rows = [
        {"city": city, "area": area, "built": f"2024-0{1 + n % 9}-11"}
        for n, (city, area) in enumerate(
            [("Oslo", "3.5"), ("Atlantis", "2"), ("", ""), ("Rome", ""), ("Paris", "1.25")] * 4
        )
    ]
    with (tmp_path / "new.csv").open("w") as file:
        writer = csv.DictWriter(file, rows[0].keys())
        writer.writeheader()
        writer.writerows(rows)
    run = loaded(made("table"))
    graph, front, *_ = export("table")
    named = {given.name: given for given in front.inputs}
    assert {"city", "area", "built"} == named.keys()
    assert named["city"].kind == "word"
    assert "without spaces around it" in named["city"].meaning  # which a graph cannot take away
    assert front.note == "Dates are seconds since 1970 in UTC."
    days = np.array([row["built"] for row in rows], "M8[s]").astype(np.float64)
    feed: dict[str, Any] = {
        "area": np.array([float(row["area"] or "nan") for row in rows], np.float32)[:, None],
        "built": days[:, None],
        "city": np.array([row["city"] for row in rows], dtype=object)[:, None],
    }
    assert_same(session_of(graph), feed, predicted(run, tmp_path / "new.csv"))


def test_numbers_of_any_notation_are_given_as_numbers(tmp_path: Path) -> None:
    cells = [f"{n % 37},{n % 9} kg" for n in range(200)]
    cells[3], cells[5], cells[7] = "k.A.", "1e30 kg", ""
    with (tmp_path / "t.csv").open("w") as file:
        csv.writer(file).writerows([["w", "y"], *([cell, f"{n}.5"] for n, cell in enumerate(cells))])
    settings = {"data": {"name": "table", "path": str(tmp_path / "t.csv"), "target": "y"}}
    made, _ = built(tmp_path / "run", settings)
    (tmp_path / "run").mkdir()
    fit(made)
    run = loaded(tmp_path / "run")
    graph, front, *_ = graph_of(run)
    assert [given.meaning for given in front.inputs] == ["a number in kg, NaN if it is missing"]
    numbers = [float(f"{n % 37}.{n % 9}") for n in range(200)]
    numbers[3], numbers[5], numbers[7] = np.nan, 1e30, np.nan
    fed = np.array(numbers, np.float32)[:, None]
    assert_same(session_of(graph), {"w": fed}, predicted(run, tmp_path / "t.csv"))
    (infinite,) = session_of(graph).run(None, {"w": np.array([[np.inf]], np.float32)})
    np.testing.assert_allclose(infinite, predicted(run, tmp_path / "t.csv")[7:8].numpy(), rtol=1e-4)


def _times(rows: int) -> dict[str, Any]:
    """Columns of all kinds of times, some missing."""
    draw = np.random.default_rng(0)
    known = np.arange(rows) % 7 > 0
    stamps = draw.integers(-4_000_000_000, 9_000_000_000, rows)
    ticks = draw.integers(0, 86_400, rows)
    return {
        "stamp": pa.array(stamps, pa.timestamp("s"), mask=~known),
        "clock": pa.array(ticks.astype(np.int32), pa.time32("s"), mask=~known),
        "took": pa.array(ticks * 1000 - 40_000_000, pa.duration("ms")),
        "close": pa.array(1_600_000_000 + draw.integers(0, 1800, rows), pa.timestamp("s")),
        "once": pa.array(np.full(rows, 1_600_000_000), pa.timestamp("s"), mask=~known),
        "y": draw.normal(size=rows),
    }


def test_times_are_given_in_seconds(tmp_path: Path) -> None:
    columns = _times(400)
    pq.write_table(pa.table(columns), tmp_path / "t.parquet")
    settings = {"data": {"name": "table", "path": str(tmp_path / "t.parquet"), "target": "y"}}
    made, _ = built(tmp_path / "run", settings)
    (tmp_path / "run").mkdir()
    fit(made)
    run = loaded(tmp_path / "run")
    read = run.preprocessing.spec.input
    assert isinstance(read, Features)
    assert read.names[-1] == "once (missing)"  # all that is known of a date that never changes
    graph, front, *_ = graph_of(run)
    feed = {}
    for name in (given.name for given in front.inputs):
        per = {"took": 1000}.get(name, 1)
        narrow = pa.int32() if name == "clock" else pa.int64()
        ticks = columns[name].cast(narrow).cast(pa.int64()).to_numpy(zero_copy_only=False)
        feed[name] = (ticks.astype(np.float64) / per)[:, None]
    assert list(feed) == ["stamp", "clock", "took", "close", "once"]
    found = session_of(graph).run(None, feed)[0]
    np.testing.assert_allclose(
        found, predicted(run, tmp_path / "t.parquet").numpy(), rtol=1e-4, atol=1e-5
    )
    told = json.loads({entry.key: entry.value for entry in graph.metadata_props}["bigmodel"])
    assert [one["meaning"] for one in told["inputs"]][:2] == [
        "seconds since 1970 in UTC, NaN if it is missing",
        "seconds since midnight, NaN if it is missing",
    ]


def test_texts_of_any_length_with_their_vocabulary(
    made: Run, bigmodel: Bigmodel, tmp_path: Path
) -> None:
    output = tmp_path / "model.onnx"
    said = bigmodel("export", made("reviews"), "--output", output)
    assert said.status == 0, said.err
    assert "reads tokens: int64 (N, length)" in said.err
    run = loaded(made("reviews"))
    texts = ["good", "awful, poor", "nice, fine, good"] * 6
    (tmp_path / "new.csv").write_text("\n".join(["text", *(f'"{text}"' for text in texts), ""]))
    tokenizer = tmp_path / "model.tokenizer.json"
    from tokenizers import Tokenizer

    engine = Tokenizer.from_file(str(tokenizer))
    pad = json.loads((tmp_path / "model.vocabulary.json").read_text())["pad"]
    rows = [engine.encode(text, add_special_tokens=False).ids for text in texts]
    width = max(map(len, rows))
    tokens = np.array([row + [pad] * (width - len(row)) for row in rows], np.int64)
    assert_same(session_of(onnx.load(output)), {"tokens": tokens}, predicted(run, tmp_path / "new.csv"))


def test_next_tokens_are_logits(made: Run) -> None:
    run = loaded(made("text"))
    graph, _, any_length, *_ = graph_of(run)
    tokens = torch.randint(20, (3, 16))
    found = session_of(graph).run(None, {"tokens": tokens.numpy()})[0]
    with torch.inference_mode():
        expected = run.model(tokens)
    np.testing.assert_allclose(found, expected.numpy(), rtol=1e-3, atol=1e-4)
    sizes = [
        size.dim_param or size.dim_value for size in graph.graph.output[0].type.tensor_type.shape.dim
    ]
    assert sizes[:2] == ["batch", "length" if any_length else 16]


@pytest.mark.slow
def test_pairs(made: Run) -> None:
    run = loaded(made("pairs"))
    graph, _, *_ = graph_of(run)
    assert [given.name for given in graph.graph.input] == ["source", "target"]


def test_a_graph_that_answers_otherwise_is_refused(made: Run, export: Export) -> None:
    run = loaded(made("classes"))
    graph = export("classes").proto
    with torch.no_grad():
        next(run.model.parameters()).add_(1.0)
    whole = ExportedModel(front_of(run.preprocessing), run.model, run.preprocessing.spec.target).eval()
    with pytest.raises(SpecError, match="differ from the model's by"):
        compare(graph, whole, any_length=False)


@pytest.mark.parametrize("name", ["classes", "table", "sequences", "reviews"])
def test_without_onnxruntime_graphs_are_compared_all_the_same(
    made: Run, export: Export, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    graph, front, any_length, _ = export(name)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    run = loaded(made(name))
    spec = run.preprocessing.spec
    longest = spec.input.length if isinstance(spec.input, Tokens) else 1
    whole = ExportedModel(front, run.model, spec.target, longest).eval()
    compare(graph, whole, any_length)
    with torch.no_grad():
        next(run.model.parameters()).add_(1.0)
    with pytest.raises(SpecError, match="differ from the model's by"):
        compare(graph, whole, any_length)


def failing(date_format: Callable[[int], bool]) -> Callable[..., Any]:
    """onnx's own program, which fails on batches of some sizes."""
    computes = ReferenceEvaluator.run

    def run(self: Any, names: Any, feed: dict[str, Any]) -> Any:
        if date_format(len(next(iter(feed.values())))):
            raise ValueError("Need at least 0 and at most 64 array objects.")
        return computes(self, names, feed)

    return run


def test_a_graph_that_nobody_here_can_compute_is_written_and_that_is_told(
    made: Run, bigmodel: Bigmodel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    monkeypatch.setattr(ReferenceEvaluator, "run", failing(lambda size: True))  # noqa: ARG005
    path = tmp_path / "model.onnx"
    done = bigmodel("export", str(made("reviews")), "--output", str(path))
    assert done.status == 0
    assert "Warning: the graph could not be compared with the model." in done.err
    assert "(Need at least 0 and at most 64 array objects); with onnxruntime installed" in done.err
    onnx.checker.check_model(onnx.load(path))


def test_a_graph_that_takes_one_size_only_is_none(made: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program that answers for the samples that the graph was written by can compute it."""
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    monkeypatch.setattr(ReferenceEvaluator, "run", failing(lambda size: size != 3))
    with pytest.raises(SpecError, match="cannot be written as an ONNX graph: Need at least"):
        graph_of(loaded(made("classes")))


def test_a_graph_takes_truth_and_training_s_spellings_as_predict_does(tmp_path: Path) -> None:
    spelt = ["True", "true", "False", "0"]
    rows = [f"{i / 4},{spelt[i % 4]},{['Köln', 'Bonn'][i % 2]},{i}.5" for i in range(80)]
    rows[6] = "1.5,0,KÖLN,6.5"
    (tmp_path / "a.csv").write_text("\n".join(["x,on,city,y", *rows]), encoding="utf-8")
    settings = {"name": "table", "path": str(tmp_path / "a.csv"), "target": "y"}
    preprocessing = data.build(data.parse(settings)).preprocessing
    words = {given.name: given.words for given in front_of(preprocessing).inputs}
    known = words["on"]
    assert known["TRUE"] == known["true"] == known["True"] == known["1"] == known["1.0"]
    assert known["FALSE"] == known["False"] == known["0"] == known["0.0"] != known["1"]
    assert words["city"]["KÖLN"] == words["city"]["Köln"]
    assert "1" not in words["city"]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--output", "model.pt"], "--output model.pt: '.pt' is not a supported type of file."),
        (["--output", "there.onnx"], "--output there.onnx: already exists. Add --force"),
    ],
)
def test_wrong_uses_are_told(
    made: Run,
    bigmodel: Bigmodel,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    words: list[str],
    told: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there.onnx").touch()
    said = bigmodel("export", made("classes"), *words)
    assert said.status == 1
    assert said.err.startswith(f"bigmodel: {told}")


def test_columns_may_have_the_names_of_what_a_graph_gives(made: Run) -> None:
    run = loaded(made("taken"))
    session = session_of(graph_of(run)[0])
    given = [one.name for one in session.get_outputs()]
    assert given == [f"{name} (predicted)" for name in ("probabilities", "index", "label")]
    path = made("taken").parent / "taken.csv"
    rows = list(csv.DictReader(path.read_text().splitlines()))
    feed: dict[str, Any] = {
        name: np.array([[float(row[name])] for row in rows], np.float32) for name in ("index", "add")
    }
    feed |= {
        name: np.array([[row[name]] for row in rows], object) for name in ("label", "probabilities")
    }
    assert_same(session, feed, predicted(run, path))


def test_weights_alone_start_another_run(made: Run, bigmodel: Bigmodel, tmp_path: Path) -> None:
    said = bigmodel("export", made("ema"), "--merge", "--output", tmp_path / "weights.safetensors")
    assert said.status == 0
    assert f"75 numbers: {tmp_path / 'weights.safetensors'}" in said.out + said.err
    run, _ = built(tmp_path / "run", {"model.pretrained": str(tmp_path / "weights.safetensors")})
    expected = loaded(made("ema")).model.state_dict()
    body = {name: value for name, value in run.state.model.state_dict().items() if "head" not in name}
    assert all(torch.equal(value, expected[name]) for name, value in body.items())


def test_weights_that_have_diverged_are_refused(made: Run, tmp_path: Path) -> None:
    run = loaded(made("ema"))
    with torch.no_grad():
        next(run.model.parameters()).fill_(torch.inf)
    with pytest.raises(UndefinedError, match="weights are NaN or infinite"):
        write_weights(run, tmp_path / "weights.safetensors", lambda _: None)
    assert list(tmp_path.iterdir()) == []


def test_low_rank_updates_are_added_to_what_is_exported(bigmodel: Bigmodel, tmp_path: Path) -> None:
    base, _ = built(tmp_path / "base", {"model": TEXT_MODEL})
    fit(base)
    tuned = TEXT_MODEL | {"pretrained": str(tmp_path / "base"), "lora": {"rank": 2}}
    run, _ = built(tmp_path / "run", {"model": tuned, "optimizer.lr": 0.1})
    fit(run)
    assert bigmodel("export", tmp_path / "run", "--merge").status == 0
    written = load_file(tmp_path / "run" / "model.safetensors")
    expected = loaded(tmp_path / "run").model.state_dict()
    assert written.keys() == expected.keys() == base.state.model.state_dict().keys()
    assert all(torch.equal(value, expected[name]) for name, value in written.items())
    name = "blocks.0.attention.qkv.weight"
    assert not torch.equal(written[name], base.state.model.state_dict()[name])
    assert bigmodel("export", tmp_path / "run", "--output", tmp_path / "model.onnx").status == 0
    (tmp_path / "base").rename(tmp_path / "moved")
    again = ("export", tmp_path / "run", "--merge", "--force")
    assert "If they have moved, name their place" in bigmodel(*again).err
    assert bigmodel(*again, "--base", tmp_path / "moved").status == 0
    after = load_file(tmp_path / "run" / "model.safetensors")
    assert all(torch.equal(value, written[name]) for name, value in after.items())
