"""The README and the pages of the documentation, as blocks, commands and files."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]

_FENCE = re.compile(r"^( *)```(\w*)\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
_FILE = re.compile(r"# (\S+\.(?:py|yaml))\n")


@dataclass(frozen=True)
class Block:
    """A fenced block: the page it stands on, its language and its text."""

    page: str
    language: str
    text: str


def blocks() -> Iterator[Block]:
    """All fenced blocks of all pages."""
    for page in PAGES:
        for indent, language, text in _FENCE.findall(page.read_text(encoding="utf-8")):
            plain = re.sub(f"^{indent}", "", text, flags=re.MULTILINE)
            yield Block(page.name, language, plain)


def commands() -> list[str]:
    """Each command of a `sh` block, or in a sentence, once and without its comment."""
    found = [
        line
        for block in blocks()
        if block.language == "sh"
        for line in block.text.replace("\\\n", " ").splitlines()
    ]
    programs = ("bigmodel-train ", "bigmodel train ")
    found += [piece for _, piece in quoted() if piece.startswith(programs) and "…" not in piece]
    plain = (_without_comment(line) for line in found)
    return list(dict.fromkeys(line for line in plain if line))


def _without_comment(line: str) -> str:
    words = shlex.shlex(line, posix=False, punctuation_chars=False)
    words.whitespace_split, words.commenters = True, "#"
    return " ".join(words)


def files() -> dict[str, str]:
    """The Python and YAML blocks, each under the path in its first comment, which is left out.

    Raises:
        ValueError: a block has no such comment, so that nobody would run it.
    """
    found = {}
    for block in blocks():
        if block.language in {"python", "yaml"}:
            match = _FILE.match(block.text)
            if match is None:
                raise ValueError(f"{block.page}: this block does not begin with a path:\n{block.text}")
            found[match[1]] = block.text[match.end() :]
    return found


def write_files(folder: Path) -> None:
    for name, content in files().items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content, encoding="utf-8")


def samples() -> list[tuple[str, str]]:
    """Commands of `console` blocks, each with the output that is shown."""
    found = [block.text.split("\n", 1) for block in blocks() if block.language == "console"]
    return [(command.removeprefix("$ "), output.rstrip("\n")) for command, output in found]


def prose() -> Iterator[tuple[str, str]]:
    """The name of each page, and its text without fenced blocks."""
    for page in PAGES:
        yield page.name, _FENCE.sub("", page.read_text(encoding="utf-8"))


def quoted() -> Iterator[tuple[str, str]]:
    """The name of each page with each piece of its prose that stands between backticks."""
    for page, text in prose():
        for piece in re.findall(r"`([^`]+)`", text):
            yield page, piece.replace("\n", " ")
