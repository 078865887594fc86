"""`bigmodel chat`: a conversation with a model that was trained on some, in the terminal."""

from __future__ import annotations

import contextlib
import signal
import sys
from argparse import Namespace
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, TextIO

from bigmodel.cli.messages import note
from bigmodel.errors import ConfigError, DataError, counted
from bigmodel.runtime import progress_messages, standard_streams
from bigmodel.runtime.escaping import escape

if TYPE_CHECKING:
    from bigmodel.cli.commands.loaded_run import LoadedRun
    from bigmodel.data.sources.chat import ChatReader
    from bigmodel.data.texts.conversations import Message
    from bigmodel.models.generation import Sampling

_SIGN = "> "  # asks for a message, on a terminal


def run(arguments: Namespace) -> None:
    """Answers messages until there are no more: lines that are typed, or those of a pipe."""
    # Torch is only needed from here on.
    from bigmodel.cli.commands.loaded_run import load_run, loading
    from bigmodel.cli.commands.output_files import data_stream
    from bigmodel.cli.commands.predictions.texts import sampling_from
    from bigmodel.data.sources.chat import ChatReader
    from bigmodel.data.texts.conversations import Message

    loaded = load_run(arguments.run, *loading(arguments))
    reader = loaded.reader
    if not isinstance(reader, ChatReader):
        raise ConfigError(
            f"chat: {loaded.name} has not learnt from conversations (data=chat). Use bigmodel predict"
            " --prompt."
        )
    talk = Talk(loaded, reader, sampling_from(loaded, arguments), data_stream())
    if arguments.system is not None:
        talk.messages.append(Message("system", arguments.system))
    typed = sys.stdin.isatty() and talk.out.isatty()
    for text in _typed_messages() if typed else _piped_messages():
        if text.strip():
            with _stopped_by_ctrl_c(typed):
                talk.answer(text)


@dataclass
class Talk:
    """A conversation.

    Attributes:
        loaded: the run that answers.
        reader: of the run.
        sampling: how the next token is chosen; every answer draws anew.
        out: where answers are written.
        messages: what has been said, as far as the model can see it.
    """

    loaded: LoadedRun
    reader: ChatReader
    sampling: Sampling
    out: TextIO
    messages: list[Message] = field(default_factory=list)
    _answers: int = 0

    def answer(self, text: str) -> None:
        """Writes the answer to a message as it is generated. If it is interrupted, what there is of it
        stays in the conversation. A message without any is dropped: templates may want roles to
        alternate.

        Raises:
            DataError: the template fails, or a character is not in the vocabulary.
            UndefinedTextsError: the model gives NaN or infinity.
        """
        from bigmodel.data.texts.conversations import Message

        self.messages.append(Message("user", text))
        written = list[str]()
        try:
            self._generate(written)
        except KeyboardInterrupt:
            self._keep("".join(written))
            raise
        self._keep("".join(written))

    def _keep(self, said: str) -> None:
        """Keeps an answer in the conversation, or drops the message that has none."""
        from bigmodel.data.texts.conversations import Message

        if said:
            self.messages.append(Message("assistant", said))
        else:
            del self.messages[-1]
            note("Dropped: your message; it has no answer")

    def _generate(self, written: list[str]) -> None:
        """Writes an answer, and puts it into `written` piece by piece."""
        from bigmodel.data.texts.decoding import Decoder
        from bigmodel.models.generation import generate

        prompt = self._fitting_prompt()
        sampling = replace(self.sampling, seed=self.sampling.seed + self._answers)
        self._answers += 1
        decoder = Decoder(self.reader.decode, prompt)
        spec, device = self.loaded.preprocessing.spec, self.loaded.runtime.device

        def show(piece: str | None) -> None:
            if piece:
                written.append(piece)
                self._write(piece)

        def add(new: list[int]) -> None:
            if new[0] >= 0:
                show(decoder.add(new[0]))

        try:
            generate(self.loaded.model, [prompt], sampling, spec, device, on_tokens=add)
            show(decoder.finish())
        finally:
            self._write("\n")

    def _write(self, piece: str) -> None:
        self.out.write(escape(piece) if self.out.isatty() else piece)
        self.out.flush()
        progress_messages.note_output()
        standard_streams.check_result()

    def _fitting_prompt(self) -> list[int]:
        """The tokens of the conversation; its oldest messages are dropped where the model's context has
        no room for them and an answer."""
        from bigmodel.cli.commands.predictions.texts import note_cut

        context = self.reader.context
        most, dropped = context - min(self.sampling.max_tokens, context // 4), 0
        first = int(self.messages[0].role == "system")
        while len(prompt := self.reader.ask(self.messages)) > most and len(self.messages) > first + 1:
            del self.messages[first]
            dropped += 1
            if self.messages[first].role == "assistant":  # the answer to it
                del self.messages[first]
                dropped += 1
        if dropped:
            oldest = counted(dropped, "oldest message", "oldest messages")
            note(f"Dropped: the {oldest}; the model sees at most {context:,} tokens")
        note_cut(self.loaded, [prompt])
        return prompt


def _typed_messages() -> Iterator[str]:
    """What is typed at a terminal, until Ctrl-D."""
    with contextlib.suppress(ImportError):  # lines can be edited with it; Windows has none
        import readline  # noqa: F401
    while True:
        try:
            with progress_messages.reporting_to(lambda _: None):
                text = input(_SIGN)
        except EOFError:
            print()  # noqa: T201  the shell's prompt goes on a line of its own
            return
        yield text


def _piped_messages() -> Iterator[str]:
    """The lines of standard input.

    Raises:
        DataError: they are not UTF-8.
    """
    try:
        for line in sys.stdin:
            yield line.removesuffix("\n")
    except UnicodeDecodeError as error:
        raise DataError(
            f"standard input: is no text in {sys.stdin.encoding}: {error.reason}."
        ) from error


@contextlib.contextmanager
def _stopped_by_ctrl_c(typed: bool) -> Iterator[None]:
    """Within the block, Ctrl-C ends the block and not the program, if someone types."""
    if not typed:
        yield
        return
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    except KeyboardInterrupt as error:
        if type(error) is not KeyboardInterrupt:  # another signal: the program is to stop
            raise
    finally:
        signal.signal(signal.SIGINT, before)
