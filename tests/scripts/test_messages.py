"""The list of messages holds what users can meet, and nothing that only readers of the code do."""

from pathlib import Path

from messages import messages

SOURCE = '''
"""A docstring of several words."""

def check(value, tell):
    """Another docstring, which nobody meets."""
    if value < 0:
        raise ConfigError(f"seed={value:,}: has to be" + " 0 or more.")
    tell("One line " "in two parts.")
    tell("short text")
    parser.add_argument("--data", help="new data to evaluate on")
'''


def test_messages_come_with_line_kind_and_whole_text(tmp_path: Path) -> None:
    path = tmp_path / "module.py"
    path.write_text(SOURCE)
    assert [(m.line, m.kind, m.text) for m in messages(path)] == [
        (7, "error", "seed={value}: has to be 0 or more."),
        (8, "line", "One line in two parts."),
        (10, "help", "new data to evaluate on"),
    ]
