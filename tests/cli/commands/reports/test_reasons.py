"""What a report tells of how a model reads texts."""

import re
from pathlib import Path

import pytest

from tests.cli.commands.cli import Bigmodel
from tests.cli.commands.conftest import Run


@pytest.mark.parametrize(
    ("name", "headings"),
    [
        ("reviews", (True, False)),
        ("text", (False, True)),
        ("pairs", (False, True)),
        ("classes", (False, False)),
    ],
)
def test_texts_are_coloured_and_layers_looked_into(
    bigmodel: Bigmodel, made: Run, tmp_path: Path, name: str, headings: tuple[bool, bool]
) -> None:
    said = bigmodel("report", made(name), "--output", tmp_path / "r.html", "--device", "cpu")
    assert said.status == 0, said.err
    html = (tmp_path / "r.html").read_text(encoding="utf-8")
    known = ("What spoke for the worst mistakes", "What each layer would write next")
    assert tuple(f"<h2>{heading}</h2>" in html for heading in known) == headings
    if headings[0]:
        section = html.partition(f"<h2>{known[0]}</h2>")[2].partition("</section>")[0]
        texts = re.findall(r"<p class=note>(\w+) \([\d.]+%\); truth (\w+) .*?</p><blockquote>", section)
        assert 0 < len(texts) <= 8
        assert all(prediction != truth for prediction, truth in texts)
        assert section.count("color-mix(") > len(texts)
