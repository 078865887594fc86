"""What a model writes: as it comes, and for each line of a file."""

import json
import re
import sys
from pathlib import Path

import pytest

from bigmodel.data.reader import TextReader
from bigmodel.data.texts.decoding import Decoder
from tests.cli.commands.cli import Bigmodel
from tests.cli.commands.conftest import Run
from tests.cli.commands.test_loaded_run import loaded


def test_pieces_of_words_come_out_as_they_would_together(made: Run) -> None:
    reader = loaded(made("pieces")).preprocessing.reader
    assert isinstance(reader, TextReader)
    text = " ROMEO: Ä ☃ Sweet,  so\n\nwould I"
    decoder = Decoder(reader.decode)
    pieces = [*(decoder.add(token) for token in reader.encode(text)), decoder.finish()]
    assert "".join(piece or "" for piece in pieces) == text
    assert "" not in pieces[:-1]


def test_a_prompt_is_gone_on_with(made: Run, bigmodel: Bigmodel) -> None:
    args = ("predict", made("text"), "--prompt", "ROMEO:", "--tokens", 20, "--device", "cpu")
    first, again, other = bigmodel(*args), bigmodel(*args), bigmodel(*args, "--seed", 1)
    assert first.status == 0, first.err
    assert first.out.startswith("ROMEO:")
    assert len(first.out) == len("ROMEO:") + 20 + 1
    assert first.out == again.out != other.out


def test_several_samples_differ(made: Run, bigmodel: Bigmodel) -> None:
    said = bigmodel(
        *("predict", made("text"), "--prompt", "ROMEO:", "--tokens", 12, "--samples", 2),
        *("--device", "cpu"),
    )
    found = re.fullmatch(r"--- 1 ---\n(ROMEO:.*)\n--- 2 ---\n(ROMEO:.*)\n", said.out, re.S)
    assert found is not None
    assert found[1] != found[2]


@pytest.mark.parametrize("samples", [1, 2])
def test_control_characters_are_shown_on_a_terminal_and_sent_through_a_pipe(
    made: Run, bigmodel: Bigmodel, monkeypatch: pytest.MonkeyPatch, samples: int
) -> None:
    args = ("predict", made("pieces"), "--prompt", "RO\x1b[31m", "--tokens", 4, "--device", "cpu")
    said = bigmodel(*args, "--samples", samples)
    assert said.status == 0, said.err
    assert said.out.count("RO\x1b[31m") == samples
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    said = bigmodel(*args, "--samples", samples)
    assert said.out.count(r"RO\x1b[31m") == samples
    assert "\x1b" not in said.out


@pytest.mark.parametrize(
    "choice", [["--temperature", 0], ["--beams", 2], ["--top-k", 3, "--top-p", 0.9]]
)
def test_ways_of_choosing(made: Run, bigmodel: Bigmodel, choice: list[object]) -> None:
    args = ("predict", made("pieces"), "--prompt", "Sweet", "--tokens", 6, "--device", "cpu")
    said = bigmodel(*args, *choice)
    assert said.status == 0, said.err
    assert said.out.startswith("Sweet")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--prompt", "x%"], "--prompt: The text: the character"),
        (["--prompt", ""], "--prompt: is empty."),
        (["--prompt", "R", "--top-p", "2"], "--top-p 2.0: must be above 0 and at most 1."),
        (["--prompt", "R", "--beams", "2", "--top-k", "2"], "--beams 2 looks for the likeliest text"),
        (["--input", "none.txt"], "--input none.txt: there is no such file."),
    ],
)
def test_wrong_uses_are_told(made: Run, bigmodel: Bigmodel, words: list[str], told: str) -> None:
    said = bigmodel("predict", made("text"), *words, "--device", "cpu")
    assert said.status == 1
    assert told in said.err


def test_a_file_of_prompts(made: Run, bigmodel: Bigmodel, tmp_path: Path) -> None:
    (tmp_path / "prompts.txt").write_text("ROMEO\nJU\n")
    args = ("predict", made("text"), "--input", tmp_path / "prompts.txt", "--tokens", 5)
    printed = bigmodel(*args, "--device", "cpu")
    assert printed.status == 0, printed.err
    assert len(printed.out.splitlines()) == 2
    bigmodel(*args, "--output", tmp_path / "o.csv", "--device", "cpu")
    assert (tmp_path / "o.csv").read_text().startswith("prompt,text\n")


def test_translations_of_a_prompt_and_of_a_file(made: Run, bigmodel: Bigmodel, tmp_path: Path) -> None:
    run = made("pairs")
    one = bigmodel("predict", run, "--prompt", "ein Hund", "--tokens", 6, "--device", "cpu")
    assert one.status == 0, one.err
    assert not one.out.startswith("ein Hund")
    (tmp_path / "new.de").write_text("ein Hund\nzwei\nKatze ein zwei Hund\n")
    many = bigmodel(
        *("predict", run, "--input", tmp_path / "new.de", "--output", tmp_path / "new.en"),
        *("--tokens", 6, "--device", "cpu"),
    )
    assert many.status == 0, many.err
    assert len((tmp_path / "new.en").read_text().splitlines()) == 3
    assert (tmp_path / "new.en").read_text().splitlines()[0] == one.out.rstrip("\n").replace("\n", "\\n")


@pytest.mark.parametrize("name", ["text", "pieces", "pairs"])
@pytest.mark.parametrize("choice", [(), ("--beams", 2)], ids=str)
def test_a_line_for_each_line_and_a_blank_one_for_a_blank_one(
    made: Run, bigmodel: Bigmodel, tmp_path: Path, name: str, choice: tuple[object, ...]
) -> None:
    words = ("ein Hund", "zwei") if name == "pairs" else ("ROMEO", "Sweet")
    lines = [words[0], "", "   ", words[1], "\t", ""]
    path = tmp_path / "lines.txt"
    path.write_text("\n".join(lines) + "\n")
    args = ("predict", made(name), "--input", path, "--tokens", 5, "--device", "cpu", *choice)
    said = bigmodel(*args)
    assert said.status == 0, said.err
    written = said.out.removesuffix("\n").split("\n")
    assert [bool(line) for line in written] == [True, False, False, True, False, False]
    assert "Blank: 4 of 6 lines; their outputs are blank too" in said.err
    bigmodel(*args, "--output", tmp_path / "o.jsonl")
    rows = [json.loads(line) for line in (tmp_path / "o.jsonl").read_text().splitlines()]
    assert [next(iter(row.values())) for row in rows] == lines
    assert [list(row.values())[-1] == "" for row in rows] == [not line.strip() for line in lines]
    path.write_text("\n\n")
    assert bigmodel(*args).out == "\n\n"


def test_a_blank_prompt_is_not_translated(made: Run, bigmodel: Bigmodel) -> None:
    said = bigmodel("predict", made("pairs"), "--prompt", "  ", "--device", "cpu")
    assert (said.status, said.out) == (1, "")
    assert "--prompt: is empty." in said.err


def test_prompts_that_the_model_does_not_see_whole_are_told(
    made: Run, bigmodel: Bigmodel, tmp_path: Path
) -> None:
    (tmp_path / "prompts.txt").write_text("ROMEO\n" + "Sweet, so would I. " * 3 + "\n")
    told = "Cut: 1 prompt; the model sees only their end: at most 16 tokens"
    args = ("predict", made("text"), "--tokens", 2, "--device", "cpu")
    assert told in bigmodel(*args, "--input", tmp_path / "prompts.txt").err
    assert told in bigmodel(*args, "--prompt", "Sweet, so would I. ").err
    assert "Cut" not in bigmodel(*args, "--prompt", "Sweet, so would").err


def test_ctrl_c_in_the_middle_ends_the_line(
    made: Run, bigmodel: Bigmodel, monkeypatch: pytest.MonkeyPatch
) -> None:
    add, seen = Decoder.add, []

    def stopped(self: Decoder, token: int) -> str | None:
        if len(seen) == 3:
            raise KeyboardInterrupt
        seen.append(token)
        return add(self, token)

    monkeypatch.setattr(Decoder, "add", stopped)
    said = bigmodel("predict", made("text"), "--prompt", "ROMEO:", "--device", "cpu")
    assert said.status == 130
    assert said.out.endswith("\n")
    assert len(said.out) == len("ROMEO:") + 3 + 1
    assert said.err == "bigmodel: Stopped.\n"
