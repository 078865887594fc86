"""`bigmodel report`: one page that holds what a run is, safe and the same each time."""

import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from bigmodel.cli.commands.report import distinct_names
from bigmodel.reporting.report import held_out
from bigmodel.reporting.report.held_out import Mistake
from bigmodel.training.loop import fit
from tests.cli.commands.cli import Bigmodel
from tests.cli.commands.conftest import SETTINGS, Run
from tests.small_runs import built

EVIL = "<script>alert('1')</script>"
LARGEST = 5_000_000


class Parts(HTMLParser):
    """What a browser finds: tags, headings, addresses, texts."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.headings: list[str] = []
        self.addresses: list[str] = []
        self.images: list[str | None] = []
        self.texts: list[str] = []
        self._open = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        named = dict(attrs)
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href")]
        if tag == "img":
            self.images.append(named.get("alt"))
        self._open = tag

    def handle_endtag(self, tag: str) -> None:  # noqa: ARG002
        self._open = ""

    def handle_data(self, data: str) -> None:
        if self._open == "h2":
            self.headings.append(data)
        if self._open != "style" and data.strip():
            self.texts.append(data.strip())


TAGS = {
    *("html", "head", "meta", "title", "style", "body", "h1", "h2", "section", "small", "p", "dl", "dt"),
    *("dd", "pre", "table", "thead", "tbody", "tr", "th", "td", "div", "span", "figure", "figcaption"),
    *("img", "svg", "desc", "path", "rect", "text", "image", "details", "summary", "blockquote"),
}
EXPECTED = {
    "classes": ["Which class is taken for which", "Each class", "Ranking: ROC, precision and recall"],
    "flags": ["Each label", "Ranking: ROC, precision and recall", "Calibration"],
    "values": ["Residuals"],
    "table": ["Residuals", "What it depends on"],
    "text": ["The texts that the model expected least", "Generated texts"],
    "pieces": ["The texts that the model expected least", "Generated texts"],
    "pairs": ["The texts that the model expected least", "Generated texts"],
    "documents": ["The texts that the model expected least", "Generated texts"],
    "chat": ["The texts that the model expected least", "Generated texts"],
}
"""Headings of a run's page; other runs are classifications."""


def with_records(run: Path, folder: Path) -> Path:
    """A copy of a run, with figures of two epochs."""
    shutil.copytree(run, folder)
    records = (
        {"epoch": 1, "step": 6, "train/loss": 2.0, "val/loss": 3.0, "val/accuracy": None},
        {"epoch": 2, "step": 12, "train/loss": 1.0, "val/loss": 1.5, "val/accuracy": 0.5},
    )
    (folder / "metrics.jsonl").write_text("".join(f"{json.dumps(record)}\n" for record in records))
    return folder


@pytest.mark.parametrize("name", SETTINGS)
def test_every_kind_of_run_has_a_page(bigmodel: Bigmodel, made: Run, tmp_path: Path, name: str) -> None:
    page = tmp_path / "report.html"
    said = bigmodel("report", made(name), "--output", page, "--device", "cpu")
    assert said.status == 0, said.err
    html = page.read_text(encoding="utf-8")
    parts = Parts(html)
    assert parts.tags <= TAGS
    assert parts.headings[:2] == ["What was run", "Results"]
    assert parts.headings[-1] == "Machine"
    assert [h for h in EXPECTED.get(name, EXPECTED["classes"]) if h not in parts.headings] == []
    assert len(html.encode()) < LARGEST
    assert all(address.startswith("data:image/png;base64,") for address in parts.addresses)
    assert all(parts.images)  # each has an alternative text
    assert "http" not in re.sub(r'http-equiv="', "", html)
    assert [h.split(" of ")[0] for h in parts.headings if h.startswith("On ")] in (
        ["On the validation set"],
        ["On the test set"],
    )
    again = bigmodel("report", made(name), "--output", page, "--device", "cpu", "--force")
    assert again.status == 0
    assert page.read_text(encoding="utf-8") == html


SHOWN = {
    "images": "Picture: prediction",
    "photos": "Picture: prediction",
    "sounds": "Spectrogram: prediction",
    "raw_sounds": "Waveform: prediction",
    "sequences": "Values over time: prediction",
}


@pytest.mark.parametrize("name", SHOWN)
def test_mistakes_are_shown_as_what_they_are(
    bigmodel: Bigmodel, made: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    mistakes = [Mistake(1, EVIL, "b"), Mistake(0, "a", "b")]  # whatever the run has learnt
    monkeypatch.setattr(held_out, "worst", lambda *_: mistakes)
    page = tmp_path / "report.html"
    assert bigmodel("report", made(name), "--output", page, "--device", "cpu").status == 0
    parts = Parts(page.read_text())
    said = [text for text in (*filter(None, parts.images), *parts.texts) if text.startswith(SHOWN[name])]
    assert len(said) == 2
    assert said[0].startswith(f"{SHOWN[name]} {EVIL}, truth b, sample ")
    assert parts.headings.count("What spoke for the worst mistakes") == 1
    spoke = [text for text in parts.texts if text.startswith("a; truth b; ")]
    assert spoke  # the drawing's title, and what it is for those who do not see it
    assert parts.tags <= TAGS


def test_of_packed_texts_each_is_shown_by_itself(bigmodel: Bigmodel, made: Run, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    said = bigmodel("report", made("documents"), "--output", page, "--device", "cpu")
    assert said.status == 0, said.err
    lines = {"ROMEO: Good night, good night!", "JULIET: Sweet, so would I. Ä ☃"}
    after = page.read_text(encoding="utf-8").partition("The texts that the model expected least")[2]
    section = after.partition("<h2")[0]
    found = set(re.findall(r">((?:ROMEO|JULIET): [^<]*)<", section))
    assert found
    assert found <= lines
    assert "source" not in section


def test_rows_are_shown_in_the_terms_of_the_table(bigmodel: Bigmodel, made: Run, tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    assert bigmodel("report", made("table"), "--output", page, "--device", "cpu").status == 0
    texts = Parts(page.read_text()).texts
    assert {"city", "area", "built (month)"} <= set(texts)
    assert "What rmse depends on" in texts
    assert {"city", "area", "built"} <= set(texts)  # a bar for each column, not for each input
    assert {"Paris", "New York", "(missing)"} & set(texts)
    assert "On the test set of table" in texts
    row = tmp_path / "row.csv"
    row.write_text("city,area,built,price\nRome,2.5,2024-03-11,30\n")
    said = bigmodel(
        "report", made("table"), "--data", row, "--output", page, "--force", "--device", "cpu"
    )
    assert said.status == 0, said.err
    assert "What rmse depends on" not in Parts(page.read_text()).texts  # one row cannot be shuffled


def test_the_figures_are_those_of_eval(bigmodel: Bigmodel, made: Run, tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    for name in ("classes", "flags", "table"):
        assert bigmodel("report", made(name), "--output", page, "--device", "cpu", "--force").status == 0
        told = bigmodel("eval", made(name), "--device", "cpu").out
        figures = dict(re.findall(r"^(?:val|test)/(\w+) +(\S+)$", told, re.MULTILINE))
        assert len(figures) > 2
        rows = re.findall(r"<tr><td>([\w]+)</td><td class=n>([^<]*)</td></tr>", page.read_text())
        assert dict(rows).items() >= figures.items()


def test_chosen_metrics_are_there(bigmodel: Bigmodel, tmp_path: Path) -> None:
    run, _ = built(tmp_path / "run", {"metrics": ["auc", "log_loss"]})
    (tmp_path / "run").mkdir()
    fit(run)
    page = tmp_path / "report.html"
    assert bigmodel("report", tmp_path / "run", "--output", page, "--device", "cpu").status == 0
    told = bigmodel("eval", tmp_path / "run", "--device", "cpu").out
    figures = re.findall(r"^val/(auc|log_loss) +(\S+)$", told, re.MULTILINE)
    assert len(figures) == 2
    for name, value in figures:
        assert f"<tr><td>{name}</td><td class=n>{value}</td></tr>" in page.read_text()


def test_what_comes_from_data_is_escaped(bigmodel: Bigmodel, tmp_path: Path) -> None:
    rows = [f"{EVIL} {n % 5},{n % 7},{EVIL if n % 2 else 'b'}" for n in range(60)]
    (tmp_path / "t.csv").write_text("\n".join(["<b>name</b>,number,label", *rows]))
    run, _ = built(
        tmp_path / "run",
        {
            "data": {"name": "table", "path": str(tmp_path / "t.csv"), "target": "label"},
            "run": {"name": EVIL, "tags": [EVIL]},
        },
    )
    (tmp_path / "run").mkdir()
    fit(run)
    hydra = tmp_path / "run" / ".hydra"
    hydra.mkdir()
    (hydra / "overrides.yaml").write_text("['data.path=<script>alert(1)</script>']")
    (hydra / "config.yaml").write_text("model:\n  name: <script>\n")
    (hydra / "hydra.yaml").write_text("hydra: {runtime: {cwd: '<img src=x>'}}")
    (tmp_path / "run" / "train.log").write_text("Loss: x\nResuming: after step 4 of 8, 4 epochs done\n")
    page = tmp_path / "report.html"
    said = bigmodel("report", tmp_path / "run", "--output", page, "--device", "cpu")
    assert said.status == 0, said.err
    parts = Parts(page.read_text())
    assert parts.tags <= TAGS
    assert parts.addresses == []
    assert any(text.startswith("<script>") for text in parts.texts)
    assert "bigmodel-train 'data.path=<script>alert(1)</script>'" in parts.texts
    assert "after step 4 of 8" in parts.texts
    called = parts.texts.index("Name")
    assert parts.texts[called : called + 4] == ["Name", EVIL, "Tags", EVIL]


def test_pictures_alone(bigmodel: Bigmodel, made: Run, tmp_path: Path) -> None:
    folder = tmp_path / "figures"
    run = with_records(made("classes"), tmp_path / "run")
    said = bigmodel("report", run, "--png", folder, "--device", "cpu")
    assert said.status == 0, said.err
    names = {path.name for path in folder.iterdir()}
    assert {name for name in names if not name.startswith("dependence-")} == {
        *("curve-loss.png", "confusion.png", "roc.png", "precision-recall.png", "calibration.png"),
        "importances.png",
    }
    assert len(names) == 6 + 4
    assert said.err.endswith(f"Wrote {len(names)} pictures to {folder}\n")
    again = bigmodel("report", made("classes"), "--png", folder, "--device", "cpu")
    assert again.status == 1
    assert "the folder is not empty" in again.err
    assert bigmodel("report", made("classes"), "--png", folder, "--force", "--device", "cpu").status == 0


def test_runs_are_side_by_side(bigmodel: Bigmodel, made: Run, tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    runs = [with_records(made(name), tmp_path / name) for name in ("classes", "ema")]
    said = bigmodel("report", *runs, "--output", page, "--png", tmp_path / "png", "--device", "cpu")
    assert said.status == 0, said.err
    parts = Parts(page.read_text())
    names = distinct_names([str(run) for run in runs])
    assert parts.headings[0] == "Side by side"
    assert parts.headings.count("Calibration") == 2
    table = parts.texts[parts.texts.index("Side by side") :]
    assert table[1:4] == [*names, "outcome"]
    assert {"curve-loss.png", "1-confusion.png", "2-confusion.png"} <= {
        path.name for path in (tmp_path / "png").iterdir()
    }


def test_a_run_whose_data_is_gone_has_a_page(bigmodel: Bigmodel, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("\n".join(["x,y", *(f"{n % 7},{n % 5}.5" for n in range(60))]))
    settings = {"data": {"name": "table", "path": str(tmp_path / "t.csv"), "target": "y"}}
    run, _ = built(tmp_path / "run", settings)
    (tmp_path / "run").mkdir()
    fit(run)
    (tmp_path / "t.csv").rename(tmp_path / "moved.csv")
    page = tmp_path / "report.html"
    words = ("report", tmp_path / "run", "--output", page, "--device", "cpu", "--force")
    said = bigmodel(*words)
    assert said.status == 0
    assert "Not evaluated: " in said.err
    assert "Residuals" not in Parts(page.read_text()).headings
    said = bigmodel(*words, "--data", tmp_path / "moved.csv")
    assert said.status == 0, said.err
    assert f"On {tmp_path / 'moved.csv'}" in Parts(page.read_text()).headings
    said = bigmodel(*words, "--data", tmp_path / "t.csv")  # what is asked for has to be there
    assert said.status == 1


def test_a_run_without_a_checkpoint_has_a_page(bigmodel: Bigmodel, made: Run, tmp_path: Path) -> None:
    with_records(made("classes"), tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "checkpoints")
    page = tmp_path / "report.html"
    said = bigmodel("report", tmp_path / "run", "--output", page)
    assert said.status == 0
    assert "Not evaluated: " in said.err
    parts = Parts(page.read_text())
    assert {"Results", "Learning curves", "Held-out data", "Machine"} <= set(parts.headings)
    assert "Calibration" not in parts.headings


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ([], "report needs --output FILE, for a page, or --png FOLDER, for its figures."),
        (["--output", "r.pdf"], "--output r.pdf: '.pdf' is not a supported type of file."),
        (["--output", "no/r.html"], "--output no/r.html: there is no folder"),
        (["--png", "no/figures"], "--png no/figures: there is no folder"),
        (["--output", "r.html", "--wieghts", "best"], "Did you mean '--weights'?"),
    ],
    ids=" ".join,
)
def test_wrong_input_is_one_message(
    bigmodel: Bigmodel,
    made: Run,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    words: list[str],
    told: str,
) -> None:
    run = made("classes")
    monkeypatch.chdir(tmp_path)
    said = bigmodel("report", run, *words)
    assert (said.status, said.out) == (1, "")
    assert told in said.err
    assert said.err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_too_many_runs_are_refused(bigmodel: Bigmodel, tmp_path: Path) -> None:
    said = bigmodel("report", *(tmp_path / str(n) for n in range(13)), "--output", tmp_path / "r.html")
    assert said.status == 1
    assert "report shows at most 12 runs, but there are 13." in said.err


def test_names_tell_folders_apart() -> None:
    assert distinct_names(["/a/b/c"]) == ["b/c"]
    assert distinct_names(["/a/x/1/c", "/a/y/1/c"]) == ["x/1/c", "y/1/c"]


def cells(page: Path, heading: str) -> list[str]:
    texts = Parts(page.read_text()).texts
    return texts[texts.index(heading) + 1 :]


def test_how_sure_it_is_shows_what_predict_gives(bigmodel: Bigmodel, made: Run, tmp_path: Path) -> None:
    data, page, output = made("table").parent / "t.csv", tmp_path / "r.html", tmp_path / "p.jsonl"
    words = ("--device", "cpu")
    assert bigmodel("report", made("table"), "--data", data, "--output", page, *words).status == 0
    interval = ("--input", data, "--interval", 0.8, "--output", output)
    assert bigmodel("predict", made("table"), *interval, *words).status == 0
    rows = [json.loads(line) for line in output.read_text().splitlines()]
    held = [row["lower"] <= float(row["price"]) <= row["upper"] for row in rows]
    shown = cells(page, "How sure it is")
    assert shown[:4] == ["interval", "value", "holds the truth", "median width"]
    assert shown[4:7] == ["0.8", "price", f"{sum(held) / len(held):.3f}"]


def test_how_sure_it_is_needs_samples_that_it_was_not_learnt_from(
    bigmodel: Bigmodel, made: Run, tmp_path: Path
) -> None:
    draw = np.random.default_rng(0)
    inputs, targets = draw.normal(size=(40, 5)).astype(np.float32), draw.integers(0, 3, 40)
    np.savez(tmp_path / "new.npz", inputs=inputs, targets=targets)
    own, other = tmp_path / "own.html", tmp_path / "other.html"
    words = ("--device", "cpu", "--output")
    assert bigmodel("report", made("classes"), *words, own).status == 0
    assert "How sure it is" not in Parts(own.read_text()).headings
    new = ("--data", tmp_path / "new.npz")
    assert bigmodel("report", made("classes"), *new, *words, other).status == 0
    shown = cells(other, "How sure it is")
    assert shown[:4] == ["set", "holds the truth", "classes in it, mean", "of one class"]
    assert [cell for cell in shown if cell.startswith(("Temperature", "Learnt"))] == [
        "Temperature",
        "Learnt from 16 validation samples.",
    ]
    damaged = shutil.copytree(made("classes"), tmp_path / "damaged")
    (damaged / "calibration.safetensors").write_bytes(b"")
    assert bigmodel("report", damaged, *new, *words, other, "--force").status == 0
    assert any("cannot be read" in cell for cell in cells(other, "How sure it is"))
