"""A conversation in the terminal: streamed, kept in mind, dropped where it is too long, ended."""

import builtins
import io
import signal
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from bigmodel.cli.commands import chat
from bigmodel.data.sources.chat import ChatReader
from bigmodel.data.texts.conversations import Message
from bigmodel.models import generation
from tests.cli.commands.cli import Bigmodel
from tests.cli.commands.conftest import Run

GREEDY = ("--temperature", 0, "--device", "cpu")


class Terminal(io.StringIO):
    """Standard input at which somebody types."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[list[Message]]:
    """The conversations that the model was asked to answer."""
    found, ask = list[list[Message]](), ChatReader.ask

    def kept(self: ChatReader, conversation: list[Message]) -> list[int]:
        found.append(list(conversation))
        return ask(self, conversation)

    monkeypatch.setattr(ChatReader, "ask", kept)
    return found


def piped(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO(text))


def typing(monkeypatch: pytest.MonkeyPatch, *lines: str) -> None:
    """Lines at a terminal, and then Ctrl-D."""
    left: Iterator[str] = iter(lines)

    def typed(sign: str) -> str:
        sys.stdout.write(sign)
        for line in left:
            return line
        raise EOFError

    monkeypatch.setattr(sys, "stdin", Terminal())
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setattr(builtins, "input", typed)


def test_each_line_of_a_pipe_is_answered_in_one_conversation(
    made: Run, bigmodel: Bigmodel, monkeypatch: pytest.MonkeyPatch, asked: list[list[Message]]
) -> None:
    piped(monkeypatch, "bb\n\né\n")
    said = bigmodel("chat", made("chat"), *GREEDY)
    assert (said.status, said.out, said.err) == (0, "BB\nÉ\n", "")
    assert asked[-1] == [Message("user", "bb"), Message("assistant", "BB"), Message("user", "é")]


def test_answers_at_a_terminal_follow_what_is_typed(
    made: Run, bigmodel: Bigmodel, monkeypatch: pytest.MonkeyPatch, asked: list[list[Message]]
) -> None:
    typing(monkeypatch, "a", "  ", "bb")
    said = bigmodel("chat", made("chat"), *GREEDY)
    assert (said.status, said.out) == (0, "> A\n> > BB\n> \n")
    assert asked[0] == [Message("user", "a")]


def test_ctrl_c_ends_an_answer_and_not_the_program(
    made: Run, bigmodel: Bigmodel, monkeypatch: pytest.MonkeyPatch, asked: list[list[Message]]
) -> None:
    typing(monkeypatch, "bb", "é")
    write, interrupted = chat.Talk._write, []

    def interrupting(self: chat.Talk, piece: str) -> None:
        write(self, piece)
        if piece == "B" and not interrupted:
            interrupted.append(piece)
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(chat.Talk, "_write", interrupting)
    handler = signal.getsignal(signal.SIGINT)
    said = bigmodel("chat", made("chat"), *GREEDY)
    assert said.status == 0
    assert said.out.startswith("> B\n> ")
    assert asked[-1][1] == Message("assistant", "B")
    assert signal.getsignal(signal.SIGINT) is handler


def test_a_message_without_an_answer_is_dropped(
    made: Run, bigmodel: Bigmodel, monkeypatch: pytest.MonkeyPatch, asked: list[list[Message]]
) -> None:
    generate, calls = generation.generate, []

    def ending_at_once(*args: Any, **named: Any) -> Any:
        calls.append(args)
        return None if len(calls) == 1 else generate(*args, **named)

    monkeypatch.setattr(generation, "generate", ending_at_once)
    piped(monkeypatch, "a\nbb\n")
    said = bigmodel("chat", made("chat"), *GREEDY)
    assert (said.status, said.out) == (0, "\nBB\n")
    assert said.err == "Dropped: your message; it has no answer\n"
    assert asked[-1] == [Message("user", "bb")]


def test_ctrl_c_before_an_answer_drops_its_message(
    made: Run, bigmodel: Bigmodel, monkeypatch: pytest.MonkeyPatch, asked: list[list[Message]]
) -> None:
    typing(monkeypatch, "a", "bb")
    fitting, calls = chat.Talk._fitting_prompt, []

    def interrupting(self: chat.Talk) -> list[int]:
        calls.append(self)
        if len(calls) == 1:
            signal.raise_signal(signal.SIGINT)
        return fitting(self)

    monkeypatch.setattr(chat.Talk, "_fitting_prompt", interrupting)
    said = bigmodel("chat", made("chat"), *GREEDY)
    assert said.status == 0
    assert "Dropped: your message; it has no answer\n" in said.err
    assert asked == [[Message("user", "bb")]]


def test_the_oldest_messages_are_dropped_where_there_is_no_room(
    made: Run, bigmodel: Bigmodel, monkeypatch: pytest.MonkeyPatch, asked: list[list[Message]]
) -> None:
    piped(monkeypatch, "a\n" * 8)
    said = bigmodel("chat", made("chat"), *GREEDY, "--system", "é")
    assert said.out.count("\n") == 8
    assert "Dropped: the 2 oldest messages; the model sees at most 96 tokens\n" in said.err
    assert all(conversation[0] == Message("system", "é") for conversation in asked)
    assert all(conversation[1].role == "user" for conversation in asked)


def test_answers_are_drawn_anew_but_the_same_with_a_seed(
    made: Run, bigmodel: Bigmodel, monkeypatch: pytest.MonkeyPatch
) -> None:
    outputs = []
    for seed in (0, 0, 1):
        piped(monkeypatch, "a\na\n")
        options = ("--temperature", 5, "--tokens", 12, "--seed", seed, "--device", "cpu")
        outputs.append(bigmodel("chat", made("chat"), *options).out)
    assert outputs[0] == outputs[1] != outputs[2]


def test_what_cannot_be_done_is_told_in_one_line(
    made: Run, bigmodel: Bigmodel, monkeypatch: pytest.MonkeyPatch
) -> None:
    piped(monkeypatch, "a\n")
    said = bigmodel("chat", made("text"), *GREEDY)
    assert said.status == 1
    assert said.err.endswith(
        "has not learnt from conversations (data=chat). Use bigmodel predict --prompt.\n"
    )
    said = bigmodel("chat", made("chat"), "--temperature", -1)
    assert said.err == "bigmodel: --temperature -1.0: must be a number from 0, which is greedy.\n"
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"\xff\n"), "utf-8"))
    said = bigmodel("chat", made("chat"), *GREEDY)
    assert said.err == "bigmodel: standard input: is no text in utf-8: invalid start byte.\n"


def test_predict_takes_a_prompt_as_a_question(made: Run, bigmodel: Bigmodel) -> None:
    said = bigmodel("predict", made("chat"), "--prompt", "bb", *GREEDY)
    assert said.out == "BB\n"
