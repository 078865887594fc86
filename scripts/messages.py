"""Lists every message that users can meet: errors, warnings, lines of the console, texts of `--help`.

    python scripts/messages.py                  # all of them, with file and line
    python scripts/messages.py cli/launch data  # those of some folders or files below src/bigmodel
    python scripts/messages.py --kind error     # errors alone: error, help or line

They are found in the source, so that they can be read as one text: does each say what is wrong, what is
allowed, and what to type? A value that is put in at run time is shown as {…} with its expression.
"""

from __future__ import annotations

import argparse
import ast
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1] / "src" / "bigmodel"
HELP = {"Field", "add_argument", "add_parser", "ArgumentParser", "add_argument_group"}
KINDS = ("error", "help", "line")
FEWEST_WORDS = 3
"""Shorter texts are keys, names and formats."""


class Message(NamedTuple):
    """A text, where it is written, and whether it is an error, a text of help, or any other line."""

    path: Path
    line: int
    kind: str
    text: str


def messages(path: Path) -> Iterator[Message]:
    """The texts of one file in order, docstrings left out."""
    yield from _below(ast.parse(path.read_text(encoding="utf-8")), "line", path)


def _below(node: ast.AST, kind: str, path: Path) -> Iterator[Message]:
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):  # a docstring
        return
    if isinstance(node, ast.Raise) or (isinstance(node, ast.Call) and _name(node).endswith("Error")):
        kind = "error"
    elif isinstance(node, ast.Call) and _name(node) in HELP:
        kind = "help"
    text = _text(node)
    if text is None:
        for inner in ast.iter_child_nodes(node):
            yield from _below(inner, kind, path)
    elif len(text.split()) >= FEWEST_WORDS:
        yield Message(path, getattr(node, "lineno", 0), kind, text)


def _name(call: ast.Call) -> str:
    return ast.unparse(call.func).rpartition(".")[2]


def _text(node: ast.AST) -> str | None:
    """What a string literal, an f-string or a sum with one of them says; None for anything else."""
    match node:
        case ast.Constant(value=str(text)):
            return text
        case ast.JoinedStr():
            return "".join(
                str(part.value) if isinstance(part, ast.Constant) else f"{{{ast.unparse(part.value)}}}"  # type: ignore[attr-defined]
                for part in node.values
            )
        case ast.BinOp(op=ast.Add()):
            sides = [_text(node.left), _text(node.right)]
            if sides == [None, None]:
                return None
            rest = [ast.unparse(node.left), ast.unparse(node.right)]
            return "".join(
                side if side is not None else f"{{{code}}}"
                for side, code in zip(sides, rest, strict=True)
            )
    return None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("below", nargs="*", default=["."], help="folders or files below src/bigmodel")
    parser.add_argument("--kind", choices=KINDS, help="messages of this kind alone")
    arguments = parser.parse_args()
    for name in arguments.below:
        place = ROOT / name
        for path in [place] if place.is_file() else sorted(place.rglob("*.py")):
            for message in messages(path):
                if arguments.kind in (None, message.kind):
                    shown = message.text.strip().replace("\n", "\\n")
                    print(f"{path.relative_to(ROOT)}:{message.line}: {message.kind}: {shown}")


if __name__ == "__main__":
    main()
