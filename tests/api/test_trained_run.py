"""A trained run from Python: what it reads, what it gives back, and what it leaves alone."""

import json
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import soundfile
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import nn

import bigmodel as bm
from bigmodel.errors import CheckpointError, ConfigError, DataError, SpecError
from tests.cli.commands.cli import Bigmodel
from tests.cli.commands.conftest import Run

ROWS = [
    {"city": "Oslo", "area": "3.5", "built": "2024-03-11"},
    {"city": "Rome", "area": None, "built": "2024-03-12"},
    {"city": "Paris", "area": "1.25", "built": "2024-05-11"},
]
COLUMNS = {name: [row[name] for row in ROWS] for name in ROWS[0]}


def opened(folder: Path) -> bm.TrainedRun:
    return bm.load(folder, device="cpu")


def of_command(bigmodel: Bigmodel, folder: Path, new: Path, *more: object) -> list[dict[str, Any]]:
    """What the command line predicts."""
    output = new.parent / "predicted.jsonl"
    words = ("--input", new, "--output", output, "--device", "cpu", "--force", *more)
    result = bigmodel("predict", folder, *words)
    assert result.status == 0, result.err
    return [json.loads(line) for line in output.read_text().splitlines()]


def test_a_table_in_any_form_is_predicted_as_by_the_command(
    made: Run, bigmodel: Bigmodel, tmp_path: Path
) -> None:
    new = tmp_path / "new.csv"
    lines = [",".join(value or "" for value in row.values()) for row in ROWS]
    new.write_text("\n".join(["city,area,built", *lines, ""]))
    expected = of_command(bigmodel, made("table"), new)
    run = opened(made("table"))
    wanted = [row["prediction"] for row in expected]
    assert run.predict(ROWS) == [{"prediction": number} for number in wanted]
    assert run.predict(COLUMNS) == {"prediction": wanted}
    table = run.predict(pa.table(COLUMNS))
    assert isinstance(table, pa.Table)
    assert table.to_pydict() == {"prediction": wanted}
    arrays = run.predict({name: np.array(cells, object) for name, cells in COLUMNS.items()})
    assert isinstance(arrays["prediction"], np.ndarray)
    assert arrays["prediction"].tolist() == wanted


def test_a_path_gives_what_it_holds_with_predictions(made: Run, tmp_path: Path) -> None:
    new = tmp_path / "new.csv"
    new.write_text("city,area,built,note\nOslo,3.5,2024-03-11,mine\n")
    predicted = opened(made("table")).predict(new)
    rows = predicted if isinstance(predicted, list) else predicted.to_dict("records")
    assert rows[0].pop("prediction") == opened(made("table")).predict(ROWS[:1])[0]["prediction"]
    assert rows == [{"city": "Oslo", "area": "3.5", "built": "2024-03-11", "note": "mine"}]


def test_a_frame_keeps_its_index(made: Run) -> None:
    pandas = pytest.importorskip("pandas")
    run, frame = opened(made("table")), pandas.DataFrame(ROWS, index=["x", "y", "z"])
    predicted = run.predict(frame)
    assert predicted.index.tolist() == ["x", "y", "z"]
    assert predicted["prediction"].tolist() == run.predict(COLUMNS)["prediction"]
    frame["price"] = [20.5, 21.5, 22.5]
    assert run.evaluate(frame) == run.evaluate(pa.table(frame))


@pytest.mark.parametrize("name", ["classes", "flags", "values", "images", "sequences", "tokens"])
def test_arrays_are_predicted_as_by_the_command(
    made: Run, bigmodel: Bigmodel, tmp_path: Path, name: str
) -> None:
    draw = np.random.default_rng(0)
    inputs: Any = {
        "images": draw.integers(0, 256, (5, 1, 8, 8)).astype(np.uint8),
        "sequences": draw.normal(size=(5, 6, 2)),
        "tokens": draw.integers(0, 9, (5, 7)),
    }.get(name, draw.normal(size=(5, 5)))
    np.savez(tmp_path / "new.npz", inputs=inputs)
    rows = of_command(bigmodel, made(name), tmp_path / "new.npz", "--probabilities")
    run = opened(made(name))
    columns = [n for n in rows[0] if n not in ("row", "probability") and "of" not in n]
    wanted = [[row[column] for column in columns] for row in rows]
    given = run.predict(inputs)
    assert isinstance(given, np.ndarray)
    assert given.reshape(5, -1).tolist() == wanted
    assert run.predict(torch.from_numpy(inputs)).tolist() == given.tolist()
    listed = run.predict(list(inputs))
    assert [[*one.values()] if isinstance(one, dict) else [one] for one in listed] == wanted
    if name != "values":
        shares = [[row[f"probability of {label}"] for label in run.classes] for row in rows]
        np.testing.assert_allclose(run.predict_proba(inputs), shares, rtol=1e-5)


def test_pictures_are_read_as_their_files(made: Run) -> None:
    folder = made("photos")
    run, files = opened(folder), sorted((folder.parent / "photos").glob("*/*.png"))[::3]
    pictures = [Image.open(file) for file in files]
    assert run.predict([str(file) for file in files]) == run.predict(pictures)
    by_file, in_memory = run.predict_proba(files), run.predict_proba(pictures)
    assert in_memory == by_file
    assert run.predict_proba([np.asarray(picture) for picture in pictures]) == by_file
    assert [*by_file[0]] == ["high", "low"]
    figures = run.evaluate(pictures, [file.parent.name for file in files])
    hits = [p == f.parent.name for p, f in zip(run.predict(files), files, strict=True)]
    assert figures["accuracy"] == pytest.approx(np.mean(hits))


@pytest.mark.parametrize("name", ["sounds", "raw_sounds"])
def test_recordings_are_read_as_their_files(made: Run, name: str) -> None:
    folder = made(name)
    run, files = opened(folder), sorted((folder.parent / "sounds").glob("*/*.wav"))[::3]
    by_file = run.predict_proba(files)
    pairs = [soundfile.read(file, dtype="float32") for file in files]
    assert run.predict_proba(pairs) == by_file
    assert run.predict_proba([(torch.from_numpy(sound)[None], rate) for sound, rate in pairs]) == by_file
    assert run.predict_proba([soundfile.read(file, dtype="int16") for file in files]) == by_file
    named = [{"array": sound, "sampling_rate": rate} for sound, rate in pairs]
    assert run.predict_proba(named) == by_file
    with pytest.raises(DataError, match=r"number 0 \(it is no pair of an array and"):
        run.predict([pairs[0][0]])


def test_texts_are_strings_or_a_column(made: Run) -> None:
    run, texts = opened(made("reviews")), ["good, nice", "awful poor bad"]
    listed = run.predict(texts)
    assert listed == run.predict({"text": texts, "other": [1, 2]})["prediction"]
    assert set(listed) <= {"neg", "pos"}
    by_name = run.evaluate(texts, ["pos", "neg"])
    assert by_name == run.evaluate({"text": texts, "label": ["pos", "neg"]})
    with pytest.raises(DataError, match=r"number 1 \(counted from 0\) is empty"):
        run.predict(["good", " "])
    with pytest.raises(DataError, match="such as int"):
        run.predict([1])


def test_it_writes_as_the_command_does(made: Run, bigmodel: Bigmodel) -> None:
    run = opened(made("text"))
    text = run.generate("ROMEO: ", tokens=20, seed=3)
    said = bigmodel("predict", made("text"), "--prompt", "ROMEO: ", "--tokens", 20, "--seed", 3)
    assert said.out == f"ROMEO: {text}\n"
    assert run.generate(["ROMEO: "], tokens=20, seed=3) == [text]
    assert (
        run.generate("ROMEO: ", tokens=1, temperature=0)
        == text[:0] + run.generate("ROMEO: ", tokens=9, temperature=0)[:1]
    )
    with pytest.raises(ConfigError, match="top_p=2"):
        run.generate("ROMEO: ", top_p=2)
    with pytest.raises(DataError, match="the prompt: "):
        run.generate("ROMEO ✂")
    with pytest.raises(ConfigError, match=r"Use generate\(prompt\)"):
        run.predict(["ROMEO: "])


def test_it_translates_as_the_command_does(made: Run, bigmodel: Bigmodel, tmp_path: Path) -> None:
    run, sources = opened(made("pairs")), ["ein Hund 3", "zwei Katze 5"]
    (tmp_path / "new.txt").write_text("\n".join([*sources, ""]))
    said = bigmodel("predict", made("pairs"), "--input", tmp_path / "new.txt", "--device", "cpu")
    assert run.generate(sources) == said.out.removesuffix("\n").split("\n")
    figures = run.evaluate(sources, ["one dog 3", "two cat 5"])
    assert figures["loss"] > 0


@pytest.mark.parametrize("name", ["classes", "table", "text", "pairs"])
def test_the_figures_are_those_of_the_command(made: Run, bigmodel: Bigmodel, name: str) -> None:
    said = bigmodel("eval", made(name), "--device", "cpu", "--json")
    figures = json.loads(said.out)["figures"]
    own = opened(made(name)).evaluate()
    assert {f"{json.loads(said.out)['part']}/{k}": v for k, v in own.items()} == figures


def test_targets_may_come_beside_the_data(made: Run) -> None:
    run, prices = opened(made("table")), [20.5, 22.5, 31.0]
    apart = run.evaluate(ROWS, prices)
    assert apart == run.evaluate(COLUMNS | {"price": prices})
    assert apart["mae"] > 0
    numbers = np.random.default_rng(0).normal(size=(6, 5))
    classes = opened(made("classes"))
    labels = [classes.classes[i % 3] for i in range(6)]
    assert classes.evaluate(numbers, np.arange(6) % 3)["loss"] > 0
    assert len(labels) == 6
    with pytest.raises(DataError, match="targets: are needed"):
        classes.evaluate(numbers)
    with pytest.raises(DataError, match="2 for 3 rows"):
        run.evaluate(ROWS, prices[:2])


def test_it_shows_what_was_run(made: Run) -> None:
    run = opened(made("classes"))
    assert run.folder == made("classes")
    assert isinstance(run.model, nn.Module)
    assert not run.model.training
    assert run.config["model"]["hidden_sizes"] == [8]
    assert "fnn on synthetic" in repr(run)
    last = bm.load(made("classes") / "checkpoints" / "last", device="cpu")
    assert last.step == 12


def test_the_records_are_a_table(made: Run) -> None:
    run, folder = opened(made("classes")), made("classes")
    assert len(run.metrics) == 0
    (folder / "metrics.jsonl").write_text(
        '{"epoch": 1, "val/loss": 2.5}\n{"epoch": 2, "val/loss": null}\n'
    )
    rows = run.metrics if isinstance(run.metrics, list) else run.metrics.to_dict("records")
    assert [row["epoch"] for row in rows] == [1, 2]
    (folder / "metrics.jsonl").unlink()


def test_it_exports(made: Run, tmp_path: Path) -> None:
    import onnxruntime

    run, inputs = opened(made("classes")), np.random.default_rng(0).normal(size=(4, 5))
    path = run.export(tmp_path / "model.onnx")
    session = onnxruntime.InferenceSession(path)
    named = {session.get_inputs()[0].name: inputs.astype(np.float32)}
    names = [output.name for output in session.get_outputs()]
    exported = dict(zip(names, session.run(None, named), strict=True))
    np.testing.assert_allclose(exported["probabilities"], run.predict_proba(inputs), rtol=1e-4)
    with pytest.raises(ConfigError, match="already exists"):
        run.export(path)
    assert run.export(path, replace=True) == path


def test_it_writes_weights_alone(made: Run, tmp_path: Path) -> None:
    run, path = opened(made("classes")), tmp_path / "weights.safetensors"
    assert run.export(path, format="safetensors") == path
    written, expected = load_file(path), run.model.state_dict()
    assert written.keys() == expected.keys()
    assert all(torch.equal(written[name], value.cpu()) for name, value in expected.items())
    with pytest.raises(ConfigError, match=r"weights\.onnx: .*\.safetensors"):
        run.export(tmp_path / "weights.onnx", format="safetensors")


def test_it_exports_for_transformers(made: Run, tmp_path: Path) -> None:
    run = opened(made("classes"))
    with pytest.raises(SpecError, match="Use the format onnx"):
        run.export(tmp_path / "out", format="huggingface")
    with pytest.raises(ConfigError, match=r"path .*a\.onnx: the format huggingface is a folder"):
        run.export(tmp_path / "a.onnx", format="huggingface")
    with pytest.raises(ConfigError, match=r"format=torch: no such format\. Allowed: onnx, huggingface"):
        run.export(tmp_path / "out", format="torch")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="with_past=True is for format=onnx"):
        run.export(tmp_path / "out", format="huggingface", with_past=True)
    with pytest.raises(SpecError, match="Only a transformer that continues texts has keys"):
        run.export(tmp_path / "model.onnx", with_past=True)
    assert list(tmp_path.iterdir()) == []


def state() -> list[Any]:
    return [
        torch.get_rng_state().tolist(),
        random.getstate(),
        np.random.get_state()[1].tolist(),
        torch.get_num_threads(),
        torch.get_float32_matmul_precision(),
        torch.backends.cudnn.allow_tf32,
        torch.backends.cudnn.benchmark,
        torch.are_deterministic_algorithms_enabled(),
    ]


def test_nothing_of_the_process_is_changed(made: Run, tmp_path: Path) -> None:
    before = state()
    run = opened(made("text"))
    run.generate("ROMEO: ", tokens=3)
    run.evaluate()
    opened(made("classes")).predict(np.zeros((2, 5)))
    opened(made("classes")).export(tmp_path / "model.onnx")
    with pytest.raises(CheckpointError):
        bm.load(tmp_path)
    assert state() == before


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (7, "int cannot be read"),
        ([], "it is empty"),
        ({"city": ["a"], "built": ["b", "c"]}, "the table: its columns have different lengths"),
        ({"city": ["a"]}, "there is no column 'area'"),
        (np.zeros((2, 7)), r"has shape \(2, 7\), but the run reads 3 columns"),
        (["a text"], "cannot read them"),
    ],
)
def test_what_is_no_table_is_refused(made: Run, data: Any, told: str) -> None:
    with pytest.raises(DataError, match=told):
        opened(made("table")).predict(data)


def test_it_shows_itself_in_a_notebook(made: Run) -> None:
    shown = opened(made("classes"))._repr_html_()
    assert "<b>fnn on synthetic</b>" in shown
    assert "<th>val/accuracy</th>" in shown
    odd = opened(made("classes"))
    odd.folder = Path("<script>")
    assert "<script>" not in odd._repr_html_()


def test_wrong_choices_are_refused(made: Run) -> None:
    with pytest.raises(ConfigError, match="weights='middle'"):
        bm.load(made("classes"), weights="middle")
    with pytest.raises(ConfigError, match="no such device"):
        bm.load(made("classes"), device="abacus")
    with pytest.raises(ConfigError, match="no probabilities"):
        opened(made("values")).predict_proba(np.zeros((2, 5)))
    with pytest.raises(ConfigError, match="writes no text"):
        opened(made("values")).generate("a")


def test_the_package_alone_loads_nothing() -> None:
    script = "import sys; b = set(sys.modules); import bigmodel; print(set(sys.modules) - b)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "{'bigmodel'}"
    assert {"load", "TrainedRun"} <= set(dir(bm))
    with pytest.raises(AttributeError, match="lode"):
        bm.lode  # noqa: B018


def test_how_sure_it_is_in_the_form_of_the_data(made: Run) -> None:
    run, new = opened(made("table")), pa.table(COLUMNS)
    plain, sure = run.predict(new), run.predict(new, interval=0.5)
    assert sure.column_names == ["prediction", "lower", "upper"]
    assert sure["prediction"].to_pylist() == plain["prediction"].to_pylist()
    assert run.predict(ROWS, interval=0.5) == sure.to_pylist()
    values = opened(made("values")).predict(np.zeros((4, 5)), interval=0.9)
    assert values.shape == (4, 3)
    assert (values[:, 1] < values[:, 0]).all()
    assert (values[:, 0] < values[:, 2]).all()


def test_sets_and_calibrated_probabilities_from_python(made: Run) -> None:
    run, inputs = opened(made("classes")), np.random.default_rng(0).normal(size=(50, 5))
    pairs = run.predict(inputs, prediction_set=0.9)
    assert pairs.shape == (50, 2)
    assert all(prediction == names[0] for prediction, names in pairs)
    assert len({len(names) for _, names in pairs}) > 1
    assert run.predict(list(inputs), prediction_set=0.9)[0] == dict(
        zip(("prediction", "set"), pairs[0], strict=True)
    )
    sure = run.predict(inputs[:2], prediction_set=0.1)
    assert [names for _, names in sure] == [[prediction] for prediction, _ in sure], "of one length"
    plain = run.predict_proba(inputs)
    with pytest.warns(UserWarning, match=r"only 1\d validation samples"):
        calibrated = run.predict_proba(inputs, calibrated=True)
    assert plain.argmax(1).tolist() == calibrated.argmax(1).tolist()
    assert not np.allclose(plain, calibrated)
    assert np.allclose(calibrated.sum(1), 1)
    flags = opened(made("flags"))
    with pytest.warns(UserWarning, match=r"only 1\d validation samples"):
        assert flags.predict_proba(inputs, calibrated=True).shape == (50, 2)
    with pytest.raises(ConfigError, match=r"predict_proba\(data, calibrated=True\)"):
        flags.predict(inputs, calibrated=True)
    with pytest.raises(ConfigError, match=r"^interval: .* no intervals\. For classes: prediction_set\."):
        run.predict(inputs, interval=0.9)
    for wrong in (90, 0, 1.0, "0.9", float("nan")):
        with pytest.raises(ConfigError, match=r"^prediction_set=.*: must be a share between 0 and 1"):
            run.predict(inputs, prediction_set=wrong)  # type: ignore[arg-type]


def test_a_frame_holds_sets_as_lists(made: Run) -> None:
    pandas = pytest.importorskip("pandas")
    run = opened(made("reviews"))
    frame = pandas.DataFrame({"text": ["good, nice", "awful poor bad"]}, index=["x", "y"])
    with pytest.warns(UserWarning, match="only .* validation samples"):
        predicted = run.predict(frame, prediction_set=0.5, calibrated=True)
    assert predicted.index.tolist() == ["x", "y"]
    assert all(isinstance(names, list) for names in predicted["set"])
