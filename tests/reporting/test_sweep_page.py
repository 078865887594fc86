import base64
import json
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from html.parser import HTMLParser
from typing import Any

import pytest

from bigmodel.reporting.sweep_page import page
from bigmodel.sweeps.leaderboard import JobResult, rank

EVIL = "</script><script>alert(1)</script><img src=http://x/y>"


def job(name: str, value: float | None, changed: dict[str, str], **more: Any) -> JobResult:
    known: dict[str, Any] = {
        "status": "finished",
        "folder": f"s/{name}",
        "checkpoint": f"s/{name}/checkpoints/best",
        "monitor": "val/accuracy",
        "mode": "max",
        "best": {"val/accuracy": value},
        "epochs": 3.0,
        "seconds": 90.0,
    }
    return JobResult(name, changed, **(known | more))


ACCURACIES = {
    ("fnn", "0.1"): (0.51, 0.52, 0.53),
    ("fnn", "1"): (0.61, 0.62, 0.63),
    ("cnn", "0.1"): (0.71, 0.72, 0.73),
    ("cnn", "1"): (0.82, 0.81, 0.80),
}
GRID = [
    job(f"{model}{lr}{seed}", value, {"model": model, "lr": lr, "seed": str(seed)})
    for (model, lr), values in ACCURACIES.items()
    for seed, value in enumerate(values)
]


def curve(result: JobResult, metric: str) -> Sequence[tuple[float, float]]:
    return [(1.0, 0.5), (2.0, float(result.best[metric] or 0.0))] if metric in result.best else []


class Parts(HTMLParser):
    """What a browser would find: text outside of scripts, and tags with their attributes."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.texts: list[str] = []
        self.tags: list[str] = []
        self.addresses: list[str] = []
        self._script = False
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href")]
        self._script = tag in ("script", "style")

    def handle_endtag(self, tag: str) -> None:  # noqa: ARG002
        self._script = False

    def handle_data(self, data: str) -> None:
        if not self._script and data.strip():
            self.texts.append(data.strip())


def figures(html: str) -> list[list[dict[str, Any]]]:
    """The traces of each picture."""
    decoder = json.JSONDecoder()
    starts = [match.end() for match in re.finditer(r'Plotly\.newPlot\(\s*"[\w-]+",\s*', html)]
    return [decoder.raw_decode(html[start:])[0] for start in starts]


def values(trace: dict[str, Any], key: str) -> Any:
    found = trace[key]
    if not isinstance(found, dict):
        return found
    assert found["dtype"] == "f8"
    import numpy as np

    return np.frombuffer(base64.b64decode(found["bdata"]), "f8").tolist()


def test_the_page_has_tables_and_pictures() -> None:
    html = page("outputs/s", rank(GRID), curve)
    parts = Parts(html)
    assert parts.texts[:2] == ["outputs/s", "outputs/s"]
    headings = ["Means", "Jobs", "Learning curves: val/accuracy", "Parallel coordinates"]
    headings.append("Mean val/accuracy of finished jobs for each pair of settings")
    assert [text for text in parts.texts if text in headings] == headings
    assert any(text.startswith("model=cnn lr=1 is better than model=cnn lr=0.1") for text in parts.texts)
    first = parts.texts.index("checkpoint") + 1
    assert parts.texts[first : first + 7] == ["1", "cnn10", "cnn", "1", "0", "0.8200", "–"]
    curves, parallel, heatmap = figures(html)
    assert curves[0]["name"] == "cnn10: model=cnn lr=1 seed=0"
    assert values(curves[0], "y") == [0.5, 0.82]
    assert [axis["label"] for axis in parallel[0]["dimensions"]] == [
        "model",
        "lr",
        "seed",
        "val/accuracy",
    ]
    assert (heatmap[0]["x"], heatmap[0]["y"]) == (["cnn", "fnn"], ["0.1", "1"])
    assert [[round(cell, 9) for cell in line] for line in heatmap[0]["z"]] == [
        [0.72, 0.52],
        [0.81, 0.62],
    ]


def test_the_page_asks_the_network_for_nothing() -> None:
    html = page("s", rank(GRID), curve)
    assert "default-src 'none'" in html
    assert Parts(html).addresses == []


def test_names_are_shown_and_not_obeyed() -> None:
    jobs = [
        job("0", 0.5, {"data.path": EVIL, EVIL: "1"}),
        replace(job("1", 0.6, {"data.path": "b", EVIL: "2"}), name=EVIL, tags=[EVIL], notes=EVIL),
        job("2", None, {"data.path": "c"}, status="failed", error=EVIL, monitor=""),
    ]
    plain = Parts(page("s", rank(GRID), curve)).tags
    parts = Parts(page(EVIL, rank(jobs), curve))
    assert parts.addresses == []
    assert set(parts.tags) <= set(plain)
    assert parts.texts.count(EVIL) >= 7


@pytest.mark.parametrize(
    "jobs",
    [
        [],
        GRID[:1],
        [job("0", None, {"lr": "1"}, status="failed", error="no data", best={}, monitor="", mode="")],
        [job(str(n), 0.5, {"lr": str(n)}) for n in range(3)],
        [*GRID, job("other", None, {}, monitor="val/rmse", mode="min", best={"val/rmse": 1.0})],
        [job(str(n), n / 100, {"lr": f"1e-{n % 9}", "width": str(n), "w": f"w{n}"}) for n in range(99)],
        [job(str(n), 0.5, {"lr": str(n), "wd": str(-n)}) for n in range(20)],
    ],
)
def test_whatever_a_sweep_holds_there_is_a_page(jobs: list[JobResult]) -> None:
    parts = Parts(page("s", rank(jobs), curve))
    assert {each.job for each in jobs} <= set(parts.texts)


def test_plotly_is_loaded_for_the_page_alone() -> None:
    code = "import sys, bigmodel.reporting.sweep_page; sys.exit('plotly' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_pruned_jobs_do_not_count_in_the_mean_of_a_pair() -> None:
    pruned = job("p", 0.1, {"model": "cnn", "lr": "1", "seed": "9"}, status="pruned", error="is worse")
    *_, heatmap = figures(page("s", rank([*GRID, pruned]), curve))
    assert [[round(cell, 9) for cell in line] for line in heatmap[0]["z"]] == [
        [0.72, 0.52],
        [0.81, 0.62],
    ]
