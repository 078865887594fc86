"""Renders the chat templates of tokenizers: Jinja of a stranger, which reaches nothing of Python.

The environment is that of `transformers.apply_chat_template`: its functions, filters and tags. Steps and
text of a template are limited; they are counted rather than timed, so that the result is the same on any
machine.
"""

from __future__ import annotations

import datetime
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import jinja2
from jinja2 import nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.visitor import NodeTransformer

from bigmodel.errors import first_line

MOST_STEPS = 200_000
"""Loops, calls and look-ups of a template."""

MOST_TEXT = 10_000_000
"""Characters of a text, and entries of a list."""

_MOST_RANGE = 10_000
_MOST_NUMBER = 1 << 64
_TEXT_METHODS = (
    *("capitalize", "count", "endswith", "find", "index", "isalnum", "isalpha", "isdigit", "islower"),
    *("isspace", "istitle", "isupper", "join", "lower", "lstrip", "partition", "replace", "rfind"),
    *("rindex", "rpartition", "rsplit", "rstrip", "split", "splitlines", "startswith", "strip"),
    *("swapcase", "title", "upper"),
)
"""Methods of texts: the others format, or fill up with blanks to any width."""

_REMOVED_FILTERS = ("batch", "center", "format", "indent", "pprint", "random", "slice", "wordwrap")
"""Filters that fill with blanks up to any width, or give something else each time."""

_NAME = "<template>"  # what Jinja calls a template without a file
_TICK = "__tick__"


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
        self._text, self._environment = text, _Environment(date)
        try:
            self._compiled = self._environment.from_string(text)
        except jinja2.TemplateSyntaxError as error:
            raise TemplateError(f"{error.message}", error.lineno) from error
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
                self._environment.bounded("", written)
        except Exception as error:  # whatever a stranger's template raises
            raise TemplateError(first_line(error, type(error).__name__), _line(error)) from error
        return _without_marks("".join(pieces), marks)


class _GenerationBlock(Extension):
    """The tag `{% generation %}`: marks what is within it."""

    tags = {"generation"}  # noqa: RUF012  as its base has it

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        self.environment.has_generation = True  # type: ignore[attr-defined]
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.CallBlock(self.call_method("_marked"), [], [], body).set_lineno(line)

    def _marked(self, caller: Any) -> str:
        begin, end = self.environment.marks  # type: ignore[attr-defined]
        return f"{begin}{caller()}{end}"


class _Counted(NodeTransformer):
    """Counts each round of a loop, and turns `a ~ b` into the `+` of texts, whose result is checked."""

    def visit_For(self, node: nodes.For) -> nodes.For:  # noqa: N802
        self.generic_visit(node)
        node.body.insert(0, nodes.ExprStmt(nodes.Call(nodes.Name(_TICK, "load"), [], [], None, None)))
        return node

    def visit_Concat(self, node: nodes.Concat) -> nodes.Expr:  # noqa: N802
        self.generic_visit(node)
        first, *rest = (nodes.Filter(part, "string", [], [], None, None) for part in node.nodes)
        joined: nodes.Expr = first
        for part in rest:
            joined = nodes.Add(joined, part)
        return joined


class _Environment(ImmutableSandboxedEnvironment):
    """See the module."""

    intercepted_binops = frozenset(["+", "*", "**", "%"])

    def __init__(self, date: datetime.date) -> None:
        super().__init__(
            trim_blocks=True, lstrip_blocks=True, extensions=[_GenerationBlock, loopcontrols]
        )
        self.has_generation, self.marks = False, ("", "")
        self._steps = 0
        self.globals = {
            "namespace": self.globals["namespace"],
            "dict": dict,
            "range": _short_range,
            "raise_exception": _raise_exception,
            "strftime_now": date.strftime,
            _TICK: lambda: None,
        }
        self.filters = {
            name: self._checked(name, function)
            for name, function in self.filters.items()
            if name not in _REMOVED_FILTERS
        }
        self.filters["tojson"] = _to_json

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        tree = super()._parse(source, name, filename)
        transformed: nodes.Template = _Counted().visit(tree)
        return nodes.Template(transformed.body, lineno=1).set_environment(self)  # type: ignore[return-value]

    def begin(self, marks: tuple[str, str]) -> None:
        """Begins to render; `marks` stand around what `{% generation %}` holds."""
        self.marks, self._steps = marks, 0

    def bounded(self, value: Any, size: int | None = None) -> Any:
        """The value, unless it is too large; counts a step.

        Raises:
            SecurityError: it is too large, or the template has done too much.
        """
        self._steps += 1
        if self._steps > MOST_STEPS:
            raise jinja2.exceptions.SecurityError(f"it takes more than {MOST_STEPS:,} steps")
        if size is None:
            size = len(value) if isinstance(value, str | list | tuple | dict) else 0
        if size > MOST_TEXT:
            raise jinja2.exceptions.SecurityError(f"it makes something of more than {MOST_TEXT:,} parts")
        return value

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        if isinstance(obj, str) and attr not in _TEXT_METHODS:
            return False
        return super().is_safe_attribute(obj, attr, value)

    def wrap_str_format(self, value: Any) -> None:
        """`str.format` is not for templates: it fills up to any width."""

    def getattr(self, obj: Any, attribute: str) -> Any:
        return self.bounded(super().getattr(obj, attribute))

    def getitem(self, obj: Any, argument: Any) -> Any:
        return self.bounded(super().getitem(obj, argument))

    def call(__self, __context: Context, __obj: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: N805
        for value in (*args, *kwargs.values()):
            __self.bounded(value)
        owner = getattr(__obj, "__self__", None)
        if isinstance(owner, str):
            __self._check_growth(__obj.__name__, owner, args)
        return __self.bounded(super().call(__context, __obj, *args, **kwargs))

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        numbers = isinstance(left, int | float) and isinstance(right, int | float)
        if numbers and max(abs(left), abs(right)) > _MOST_NUMBER:
            raise jinja2.exceptions.SecurityError("its numbers are too large")
        if operator == "**" and not (numbers and abs(right) <= 64):
            raise jinja2.exceptions.SecurityError("its numbers are too large")
        if operator == "%" and not numbers:
            raise jinja2.exceptions.SecurityError("% is for numbers; put texts together with ~")
        if operator in "+*" and not numbers:
            sizes = [part if isinstance(part, int) else len(part) for part in (left, right)]
            self.bounded("", sum(sizes) if operator == "+" else sizes[0] * sizes[1])
        return super().call_binop(context, operator, left, right)

    def _check_growth(self, name: str, text: str, args: Sequence[Any]) -> None:
        """Checks what a method of a text is about to make."""
        if name == "replace" and len(args) > 1:
            self.bounded("", len(text) + text.count(str(args[0])) * len(str(args[1])))
        if name == "join" and args:
            self._check_join(text, args[0])

    def _check_join(self, between: str, parts: Any) -> None:
        if isinstance(parts, Iterable) and not isinstance(parts, str):
            size = sum(len(between) + len(str(part)) for part in parts)
            self.bounded("", size)

    def _checked(self, name: str, function: Any) -> Any:
        """A filter whose result is checked, and what makes texts grow beforehand."""

        def checked(*args: Any, **named: Any) -> Any:
            places = [place for place, value in enumerate(args) if not _is_of_jinja(value)]
            plain = [args[place] for place in places]
            if name == "replace" and isinstance(plain[0], str):
                self._check_growth(name, plain[0], plain[1:])
            if name == "join" and isinstance(plain[0], list | tuple):
                self._check_join(str(plain[1]) if len(plain) > 1 else "", plain[0])
            return self.bounded(function(*args, **named))

        if hasattr(function, "jinja_pass_arg"):  # Jinja passes its environment or context, too
            checked.jinja_pass_arg = function.jinja_pass_arg  # type: ignore[attr-defined]
        return checked


def _is_of_jinja(value: Any) -> bool:
    return isinstance(value, jinja2.Environment | Context | nodes.EvalContext)


def _short_range(*bounds: int) -> range:
    made = range(*bounds)
    if len(made) > _MOST_RANGE:
        raise jinja2.exceptions.SecurityError(f"its range has more than {_MOST_RANGE:,} numbers")
    return made


def _raise_exception(message: str) -> None:
    raise jinja2.TemplateError(message)


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """Transformers' filter of this name: Jinja's own would escape for HTML."""
    if isinstance(indent, int) and indent > 16:
        raise jinja2.exceptions.SecurityError("indent is at most 16")
    options: dict[str, Any] = {"indent": indent, "separators": separators, "sort_keys": sort_keys}
    return json.dumps(value, ensure_ascii=ensure_ascii, **options)


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
