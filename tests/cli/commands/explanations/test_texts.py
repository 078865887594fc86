"""`bigmodel explain` of texts, attention and language models."""

import csv
import io
import re
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from bigmodel.cli.commands.explanations.texts import _last_guesses
from bigmodel.explain.results import LogitLens
from tests.cli.commands.cli import Bigmodel, Said
from tests.cli.commands.conftest import Run

CPU = ("--device", "cpu")


def rows_of(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text, newline="")))


def explained(bigmodel: Bigmodel, run: Path, *options: object) -> Said:
    said = bigmodel("explain", run, *options, *CPU)
    assert said.status == 0, said.err
    return said


def test_each_token_of_each_text_is_a_row(made: Run, bigmodel: Bigmodel, tmp_path: Path) -> None:
    texts = tmp_path / "new.csv"
    texts.write_text('text\n"good, nice"\n"awful <b>"\n')
    rows = rows_of(explained(bigmodel, made("reviews"), "--data", texts).out)
    assert set(rows[0]) == {"text", "explained", "position", "token", "word", "attribution"}
    words = defaultdict(str)
    for row in rows:
        words[row["text"]] += row["token"]
    assert words == {"0": "good, nice", "1": "awful <b>"}
    positions = [int(row["position"]) for row in rows if row["text"] == "0"]
    assert positions == list(range(len(positions)))
    assert {row["word"] for row in rows if row["text"] == "0"} == {"good", "nice", ""}


def test_a_class_can_be_named(made: Run, bigmodel: Bigmodel) -> None:
    """Of two classes, what speaks for one speaks against the other."""
    run, prompt = made("reviews"), ("--prompt", "good, awful")
    one, other = (
        [
            float(row["attribution"])
            for row in rows_of(explained(bigmodel, run, *prompt, "--class", name).out)
        ]
        for name in ("pos", "neg")
    )
    assert one == pytest.approx([-value for value in other], abs=1e-4)
    assert any(one)


def test_a_page_escapes_texts_and_colours_them(made: Run, bigmodel: Bigmodel, tmp_path: Path) -> None:
    page = tmp_path / "why.html"
    explained(
        bigmodel, made("reviews"), "--prompt", 'fine <script>alert("1")</script>', "--output", page
    )
    html = page.read_text(encoding="utf-8")
    assert "<script>" not in html
    assert re.sub("<[^>]*>", "", html).count("fine") == 1
    assert "color-mix(in srgb,var(--c" in html


@pytest.mark.parametrize(
    ("name", "method", "size"),
    [
        ("reviews", "integrated_gradients", (400, 50)),
        ("text", "integrated_gradients", (400, 50)),
        ("text", "attention", (400, 200)),
        ("text", "logit_lens", (900, 200)),
        ("tokens", "attention", (400, 200)),
        ("tokens", "rollout", (400, 50)),
        ("pairs", "attention", (400, 400)),
    ],
)
def test_pictures(
    made: Run, bigmodel: Bigmodel, tmp_path: Path, name: str, method: str, size: tuple[int, int]
) -> None:
    picture = tmp_path / "why.png"
    explained(bigmodel, made(name), "--method", method, "--samples", 1, "--output", picture)
    with Image.open(picture) as image:
        assert image.width > size[0]
        assert image.height > size[1]
        assert len(image.convert("RGB").getcolors(1 << 20) or []) > 20


def test_of_a_prompt_the_next_token_is_explained(made: Run, bigmodel: Bigmodel) -> None:
    rows = rows_of(explained(bigmodel, made("text"), "--prompt", "Good nigh").out)
    assert "".join(row["token"] for row in rows) == "Good nigh"
    assert len({row["explained"] for row in rows}) == 1
    named = rows_of(explained(bigmodel, made("text"), "--prompt", "Good nigh", "--class", "S").out)
    assert {row["explained"] for row in named} == {"S"}


def test_a_prompt_longer_than_the_context_is_cut_as_in_writing(made: Run, bigmodel: Bigmodel) -> None:
    said = explained(bigmodel, made("text"), "--prompt", "Good night, good night!")
    assert "Cut: 1 prompt; the model sees only their end: at most 16 tokens" in said.err
    assert "".join(row["token"] for row in rows_of(said.out)) == "ht, good night!"


def test_the_lens_tells_of_each_layer_what_it_would_write(made: Run, bigmodel: Bigmodel) -> None:
    rows = rows_of(explained(bigmodel, made("text"), "--prompt", "Sweet", "--method", "logit_lens").out)
    assert [(row["position"], row["layer"]) for row in rows[:3]] == [
        ("0", "embedding"),
        ("0", "block 1"),
        ("1", "embedding"),
    ]
    assert [row["follows"] for row in rows[::2]] == ["w", "e", "e", "t", ""]
    assert all(int(row["rank"]) >= 1 for row in rows if row["follows"])
    assert rows[-1]["rank"] == ""
    for row in rows:
        shares = [float(row[f"probability_{n}"]) for n in range(1, 6)]
        assert shares == sorted(shares, reverse=True)


def test_maps_are_written_as_rows_and_as_arrays(made: Run, bigmodel: Bigmodel, tmp_path: Path) -> None:
    run, arrays = made("text"), tmp_path / "maps.npz"
    rows = rows_of(explained(bigmodel, run, "--prompt", "Sweet", "--method", "attention").out)
    assert len(rows) == 2 * 5 * 5
    sums: dict[tuple[str, str], float] = defaultdict(float)
    for row in rows:
        sums[row["head"], row["query"]] += float(row["weight"])
    assert list(sums.values()) == pytest.approx([1.0] * 10, abs=1e-5)
    explained(bigmodel, run, "--prompt", "Sweet", "--method", "attention", "--output", arrays)
    with np.load(arrays) as found:
        weights = found["0/blocks.0.attention"]
        assert "".join(found["0/blocks.0.attention/keys"]) == "Sweet"
    assert weights.shape == (2, 5, 5)
    assert float(rows[5]["weight"]) == pytest.approx(float(weights[0, 1, 0]), abs=1e-6)


def test_a_translation_is_shown_with_what_it_looks_at(made: Run, bigmodel: Bigmodel) -> None:
    rows = rows_of(
        explained(bigmodel, made("pairs"), "--prompt", "zwei Hund", "--method", "attention").out
    )
    cross = [row for row in rows if row["of"] == "target to source"]
    written = {int(row["query"]): row["query_label"] for row in cross}
    assert "<start>" not in written.values()
    keys = {int(row["key"]): row["key_label"] for row in cross}
    assert "".join(keys[n] for n in range(len(keys))) == "zwei Hund<end>"
    assert {row["of"] for row in rows} == {"source", "target", "target to source"}


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        (
            "images",
            ("--method", "attention"),
            "CNN has no attention, .*model=attention and model=transformer",
        ),
        ("reviews", ("--method", "rollout"), "FNN has no attention"),
        (
            "reviews",
            ("--method", "logit_lens"),
            "it is not for up to 12 tokens .* → 2 classes. Try --method",
        ),
        (
            "pairs",
            ("--method", "rollout"),
            "it is not for pairs of .* Try --method attention or logit_lens",
        ),
        ("classes", ("--prompt", "x"), "--prompt: fnn on synthetic reads 5 features"),
        ("reviews", ("--prompt", "x", "--data", "x.csv"), "one of --data FILE and --prompt TEXT"),
        ("reviews", ("--prompt", "good", "--class", "po"), "--class po: .*Did you mean 'pos'"),
        ("text", ("--prompt", "Good", "--class", "ni"), "is not one token of this run, but 'n', 'i'"),
        ("text", ("--prompt", ""), "--prompt: is empty"),
        ("reviews", ("--prompt", " "), "--prompt: is empty"),
        ("text", ("--prompt", "Z"), "'Z' .* has no token"),
        ("text", ("--prompt", "G", "--output", "why.npz"), "'.npz' is not a supported type"),
    ],
)
def test_what_makes_no_sense_is_refused_in_words(
    made: Run, bigmodel: Bigmodel, name: str, options: tuple[str, ...], words: str
) -> None:
    said = bigmodel("explain", made(name), *options, *CPU)
    assert said.status == 1
    assert re.search(words, said.err.replace("\n", " ")), said.err


def test_only_the_first_window_of_a_long_text_is_explained_and_said_so(
    made: Run, bigmodel: Bigmodel
) -> None:
    said = explained(bigmodel, made("text"))
    assert {row["text"] for row in rows_of(said.out)} == {"0"}
    assert re.search(r"Only the first of \d+ samples; --samples N takes more", said.err)


def test_blanks_that_layers_would_write_are_seen() -> None:
    lens = LogitLens(
        layers=("block 1",),
        inputs=("a",),
        truths=("",),
        best=(((" ", "\n", "b"),),),
        probabilities=torch.tensor([[[0.5, 0.3, 0.1]]]),
        truth_probabilities=torch.zeros(1, 1),
        ranks=torch.zeros(1, 1),
        entropy=torch.zeros(1, 1),
    )
    assert _last_guesses(lens).rows == [["block 1", "_ 0.500", "\\n 0.300", "b 0.100"]]
