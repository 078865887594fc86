"""What a chat template can use of Python and Jinja: what such templates need, all of it counted."""

from __future__ import annotations

import datetime
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jinja2
from jinja2 import nodes
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.runtime import Context, Macro
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace

from bigmodel.data.texts.template_budget import Budget, shallow_size
from bigmodel.data.texts.template_counting import KEPT, MADE, READ, TICK, Counted

_MOST_RANGE = 10_000
_MOST_NUMBER = 1 << 64
_DATE_FORMAT = re.compile(r"(?:[^%]|%[-#]?[A-Za-z%]){0,1000}")
_TEXT_METHODS = (
    *("capitalize", "count", "endswith", "find", "index", "isalnum", "isalpha", "isdigit", "islower"),
    *("isspace", "istitle", "isupper", "join", "lower", "lstrip", "partition", "replace", "rfind"),
    *("rindex", "rpartition", "rsplit", "rstrip", "split", "splitlines", "startswith", "strip"),
    *("swapcase", "title", "upper"),
)
"""Methods of texts: the others format, or fill up with blanks to any width."""

_SLOW_METHODS = ("lstrip", "rfind", "rindex", "rpartition", "rsplit", "rstrip", "strip", "trim")
"""Their work may grow by the product of the sizes of the text and of what is looked for."""

_FREE = ("count", "d", "default", "first", "last", "length", *("get", "items", "keys", "values"))
"""Filters, and methods of mappings, whose work doesn't depend on sizes."""

_SHALLOW_FILTERS = ("list", "map", "reject", "rejectattr", "reverse", "select", "selectattr")
"""They go through entries without looking into them."""

_SORTING_FILTERS = ("dictsort", "max", "min", "sort", "unique")
_FILTERS = (
    *("abs", "capitalize", "e", "escape", "float", "int", "items", "join", "lower", "replace", "round"),
    *("safe", "string", "title", "trim", "upper"),
    *("count", "d", "default", "first", "last", "length"),
    *_SHALLOW_FILTERS,
    *_SORTING_FILTERS,
)
"""Those that chat templates use: the others fill up to any width, or their work is hard to foresee."""

_TESTS_OF_KIND = (
    *("boolean", "callable", "defined", "escaped", "false", "filter", "float", "integer", "iterable"),
    *("mapping", "none", "number", "sameas", "sequence", "string", "test", "true", "undefined"),
)
"""Tests that don't look at contents."""


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
        body = caller()
        if begin in body:
            raise SecurityError("{% generation %} is within another {% generation %}")
        return f"{begin}{body}{end}"


class ChatEnvironment(ImmutableSandboxedEnvironment):
    """Renders templates within a `Budget`.

    Attributes:
        has_generation: a template with blocks `{% generation %}` was read.
        marks: what stands around what these hold.
        budget: of the rendering.
    """

    intercepted_binops = frozenset(["+", "-", "*", "**", "%"])

    def __init__(self, date: datetime.date) -> None:
        super().__init__(
            trim_blocks=True, lstrip_blocks=True, extensions=[_GenerationBlock, loopcontrols]
        )
        self.has_generation, self.marks = False, ("", "")
        self.budget = Budget()
        self.globals = {
            "namespace": self.globals["namespace"],
            "dict": dict,
            "range": _short_range,
            "raise_exception": _raise_exception,
            "strftime_now": lambda form: _formatted(date, form),
        }
        self.tests = {
            name: test if name in _TESTS_OF_KIND else self._checked(name, test)
            for name, test in self.tests.items()
        }
        self.filters = {name: self._checked(name, self.filters[name]) for name in _FILTERS}
        self.filters["tojson"] = self._to_json
        self.filters |= {
            TICK: _at_run_time(lambda _: self.budget.step()),
            MADE: _at_run_time(lambda value: self.budget.made(value)),
            READ: _at_run_time(self._read),
            KEPT: _at_run_time(_kept),
        }

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        tree = super()._parse(source, name, filename)
        transformed: nodes.Template = Counted().visit(tree)
        return nodes.Template(transformed.body, lineno=1).set_environment(self)  # type: ignore[return-value]

    def begin(self, marks: tuple[str, str]) -> None:
        """Begins to render; `marks` stand around what `{% generation %}` holds."""
        self.marks, self.budget = marks, Budget()

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        if isinstance(obj, str) and attr not in _TEXT_METHODS:
            return False
        return super().is_safe_attribute(obj, attr, value)

    def wrap_str_format(self, value: Any) -> None:
        """`str.format` is not for templates: it fills up to any width."""

    def getattr(self, obj: Any, attribute: str) -> Any:
        self.budget.step()
        return super().getattr(obj, attribute)

    def getitem(self, obj: Any, argument: Any) -> Any:
        self.budget.step()
        if not isinstance(argument, slice):
            self._read(argument)
            return super().getitem(obj, argument)
        return self.budget.made(super().getitem(obj, argument))

    def call(__self, __context: Context, __obj: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: N805
        __self.budget.step()
        if not isinstance(__obj, Macro):  # it only hands on what it is given
            owner = getattr(__obj, "__self__", None)
            owners = [owner] if isinstance(owner, str | list | tuple | dict | range) else []
            name = "" if isinstance(owner, list | tuple) else getattr(__obj, "__name__", "")
            __self._charge(name, [*owners, *args], kwargs)
        made = super().call(__context, __obj, *args, **kwargs)
        return made if isinstance(made, Namespace) else __self.budget.made(made)

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        numbers = isinstance(left, int | float) and isinstance(right, int | float)
        if numbers and max(abs(left), abs(right)) > _MOST_NUMBER:
            raise SecurityError("its numbers are too large")
        if operator == "**" and not (numbers and abs(right) <= 64):
            raise SecurityError("its numbers are too large")
        if operator in "%-" and not numbers:
            raise SecurityError(f"{operator} is for numbers; put texts together with ~")
        if operator == "+" and not numbers:
            self.budget.charge(shallow_size(left) + shallow_size(right))
        if operator == "*" and not numbers:
            sizes = [part if isinstance(part, int) else shallow_size(part) for part in (left, right)]
            self.budget.charge(max(sizes[0] * sizes[1], 0))
        return self.budget.made(super().call_binop(context, operator, left, right))

    def _read(self, value: Any) -> Any:
        """The value, all of which is about to be read."""
        self.budget.charge(self.budget.size(value))
        return value

    def _charge(self, name: str, values: Sequence[Any], named: Mapping[str, Any]) -> None:
        """Counts what a filter or a method is about to read, and what it makes of that if it grows.

        Args:
            name: of the filter or method.
            values: what it is given, first of all what it belongs to.
            named: what it is given by name.
        """
        budget, first = self.budget, values[0] if values else None
        rest = [budget.size(value) for value in (*values[1:], *named.values())]
        if name in _SHALLOW_FILTERS or (name in _FREE and not isinstance(first, str)):
            budget.charge(sum(rest) + (0 if name in _FREE else shallow_size(first)))
            return
        size = budget.size(first)
        if name in _SORTING_FILTERS:
            size *= size.bit_length()
        elif name in _SLOW_METHODS:
            size *= max([1, *rest])
        budget.spend(size + sum(rest))
        if name in ("join", "replace") and rest:
            budget.charge(_grown(name, first, [*values[1:], *named.values()], rest, size))

    def _checked(self, name: str, function: Any) -> Any:
        """A filter or a test whose work is counted."""

        def checked(*args: Any, **named: Any) -> Any:
            self.budget.step()
            self._charge(name, [value for value in args if not _is_of_jinja(value)], named)
            made = function(*args, **named)
            return self.budget.made(self.budget.taken(made) if isinstance(made, Iterator) else made)

        if hasattr(function, "jinja_pass_arg"):  # Jinja passes its environment or context, too
            checked.jinja_pass_arg = function.jinja_pass_arg  # type: ignore[attr-defined]
        return checked

    def _to_json(
        self,
        value: Any,
        ensure_ascii: bool = False,
        indent: int | None = None,
        separators: tuple[str, str] | None = None,
        sort_keys: bool = False,
    ) -> str:
        """Transformers' filter of this name: Jinja's own would escape for HTML."""
        if indent is not None and not (isinstance(indent, int) and indent <= 16):
            raise SecurityError("indent is at most 16")
        self._read(value)
        encoder = json.JSONEncoder(
            ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
        )
        pieces = []
        for piece in encoder.iterencode(value):
            self.budget.spend(len(piece))
            pieces.append(piece)
        made: str = self.budget.made("".join(pieces))
        return made


def _at_run_time(function: Callable[[Any], Any]) -> Any:
    """A filter that Jinja doesn't apply when it compiles."""
    return jinja2.pass_context(lambda _, value: function(value))


def _kept(value: Any) -> Any:
    if isinstance(value, Namespace):
        raise SecurityError("a namespace cannot be kept in another")
    return value


def _grown(name: str, first: Any, others: Sequence[Any], sizes: Sequence[int], size: int) -> int:
    """At most so large is what `join` or `replace` makes, whose arguments may be named.

    Args:
        others: all but the first argument.
        sizes: of these.
        size: of the first argument.
    """
    if name == "replace":
        text = str(first)
        found = max(text.count(str(others[0])), text.count(str(others[-1])))
        return size + found * max(sizes)
    parts, between = (others[0], size) if isinstance(first, str) else (first, max(sizes))
    entries = len(parts) if hasattr(parts, "__len__") else 0
    return size + sum(sizes) + between * entries


def _is_of_jinja(value: Any) -> bool:
    return isinstance(value, jinja2.Environment | Context | nodes.EvalContext)


def _short_range(*bounds: int) -> range:
    made = range(*bounds)
    if len(made) > _MOST_RANGE:
        raise SecurityError(f"its range has more than {_MOST_RANGE:,} numbers")
    return made


def _raise_exception(message: str) -> None:
    raise jinja2.TemplateError(message)


def _formatted(date: datetime.date, form: str) -> str:
    """`date.strftime`, whose codes may have a width without end on some systems."""
    if not _DATE_FORMAT.fullmatch(form):
        raise SecurityError("strftime_now: its format is too long, or has a code such as %99d")
    return date.strftime(form)


def explained(words: str) -> str:
    """What Jinja says of a filter that it doesn't know, and which are there."""
    if not words.startswith("No filter named"):
        return words
    return (
        f"{words.rstrip('.')} for chat templates; there are {', '.join(sorted([*_FILTERS, 'tojson']))}"
    )
