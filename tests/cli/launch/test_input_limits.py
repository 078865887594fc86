"""Configuration files are looked at by the quick parser, with the same verdicts as by the slow one."""

from pathlib import Path

import pytest
import yaml

from bigmodel.cli.launch import input_limits
from bigmodel.cli.launch.input_limits import MOST_DEPTH, MOST_DIGITS, MOST_IN_FILE, fault_of_file

FAULTS = {
    "values": ("x:\n" + "- 1\n" * (MOST_IN_FILE + 1), "more than 20,000 values"),
    "aliases": ("a: &x 1\nb: [" + "*x," * MOST_IN_FILE + "1]\n", "line 2: more than 20,000 values"),
    "digits": ("\nseed:\n  " + "1" * (MOST_DIGITS + 1) + "\n", "line 3: a number of 1,001 digits"),
    "itself": ("x: &a\n - 1\n - *a\n", "line 3: it contains itself"),
    "depth": ("x: " + "[" * (MOST_DEPTH + 1) + "]" * (MOST_DEPTH + 1), "line 1: values are nested"),
}
FINE = {
    "plain": "# c\nname: fnn\nsizes: [1, 2]\n",
    "text": "a: |\n  1\n  2\nb: >-\n  c\n",
    "empty": "",
    "broken": "a: [1\n",
    "tabs": "a:\n\t- b\n",
    "unknown alias": "a: *no\n",
}


@pytest.mark.parametrize("parser", ["CSafeLoader", "SafeLoader"])
@pytest.mark.parametrize("name", [*FAULTS, *FINE])
def test_both_parsers_come_to_the_same_verdict(
    name: str, parser: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not hasattr(yaml, parser):
        pytest.skip("PyYAML was built without libyaml")
    monkeypatch.setattr(input_limits, "_LOADER", getattr(yaml, parser))
    text, verdict = FAULTS[name] if name in FAULTS else (FINE[name], None)
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    found = fault_of_file(path)
    assert found is None if verdict is None else found is not None and verdict in found


@pytest.mark.skipif(not hasattr(yaml, "CSafeLoader"), reason="PyYAML was built without libyaml")
def test_the_quick_parser_reads_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def slow(*_: object) -> None:
        raise AssertionError("the slow parser was used")

    monkeypatch.setattr(yaml.scanner.Scanner, "fetch_more_tokens", slow)
    path = tmp_path / "mine.yaml"
    path.write_text("name: fnn\n")
    assert fault_of_file(path) is None
