"""Renders the chat templates of tokenizers: Jinja of a stranger, which reaches nothing of Python.

The environment is that of `transformers.apply_chat_template`: its functions and tags, and the
filters that templates of chats use. What a template does is counted, see `template_budget`.
"""

from __future__ import annotations

import datetime
import json
from collections.abc import Mapping
from typing import Any

import jinja2
from jinja2.exceptions import SecurityError

from bigmodel.data.texts.template_budget import MOST_TEXT
from bigmodel.data.texts.template_environment import ChatEnvironment, explained
from bigmodel.errors import first_line

_NAME = "<template>"  # what Jinja calls a template without a file


class TemplateError(Exception):
    """A template cannot be read, fails, or says itself that it does not accept the messages.

    Attributes:
        line: of the template, from 1; None: it is not known.
    """

    def __init__(self, text: str, line: int | None = None) -> None:
        super().__init__(text)
        self.line = line

    def __str__(self) -> str:
        place = "" if self.line is None else f"line {self.line}: "
        return f"{place}{self.args[0]}"


class ChatTemplate:
    """A template that can be rendered many times.

    Args:
        text: the template.
        date: what `strftime_now` tells of.

    Attributes:
        has_generation: it has blocks `{% generation %}`, which say what an assistant has written.

    Raises:
        TemplateError: it cannot be read.
    """

    def __init__(self, text: str, date: datetime.date) -> None:
        self._text, self._environment = text, ChatEnvironment(date)
        try:
            self._compiled = self._environment.from_string(text)
        except jinja2.TemplateSyntaxError as error:
            raise TemplateError(explained(f"{error.message}"), error.lineno) from error
        except (RecursionError, SyntaxError, MemoryError) as error:  # Python's limits for the code of it
            raise TemplateError("its blocks or expressions are nested too deep") from error
        self.has_generation = self._environment.has_generation

    def render(self, values: Mapping[str, Any]) -> tuple[str, list[slice]]:
        """The text that the template makes, and where in it its blocks `{% generation %}` are.

        Args:
            values: its variables, plain values.

        Raises:
            TemplateError: it fails, or does too much.
        """
        marks = _unused(self._text, values)
        self._environment.begin(marks)
        pieces, written = [], 0
        try:
            for piece in self._compiled.generate(values):
                pieces.append(piece)
                written += len(piece)
                if written > MOST_TEXT:
                    raise SecurityError(f"it writes more than {MOST_TEXT:,} characters")
        except RecursionError as error:
            raise TemplateError("its calls or values are nested too deep", _line(error)) from error
        except Exception as error:  # whatever a stranger's template raises
            words = explained(first_line(error, type(error).__name__))
            raise TemplateError(words, _line(error)) from error
        finally:
            self._environment.begin(("", ""))  # lets go of what was made
        return _without_marks("".join(pieces), marks)


def _unused(template: str, values: Mapping[str, Any]) -> tuple[str, str]:
    """Two characters for private use that occur nowhere."""
    everything = template + json.dumps(values, ensure_ascii=False, default=str)
    free = (chr(code) for code in range(0xE000, 0xF8FF) if chr(code) not in everything)
    return next(free), next(free)


def _without_marks(text: str, marks: tuple[str, str]) -> tuple[str, list[slice]]:
    begin, end = marks
    plain, spans, size = [], list[slice](), 0
    for place, part in enumerate(text.split(begin)):
        inside, closed, after = part.partition(end)
        if place and closed:
            spans.append(slice(size, size + len(inside)))
        after = after.replace(end, "")  # a part of what was marked
        plain += [inside, after]
        size += len(inside) + len(after)
    return "".join(plain), spans


def _line(error: BaseException) -> int | None:
    """The line of the template that an error comes from."""
    found, trace = None, error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == _NAME:
            found = trace.tb_lineno
        trace = trace.tb_next
    return found
