"""Everything that can be chosen by name, and the typed configuration of each choice.

A class is registered under its name together with its configuration:

    class FNNConfig(EntryConfig):
        hidden_sizes: list[PositiveInt] = Field([128], description="width of each layer")

    @models.register("fnn", FNNConfig)
    class FNN(Model):
        def __init__(self, config: FNNConfig, spec: DataSpec) -> None: ...

Built-in entries are the modules of the registry's package, so that a new one is one new file; only the
module that registers the chosen entry is imported. A user's own entries come from `load_plugins`.
Nothing here imports torch.
"""

from __future__ import annotations

import importlib
import importlib.util
import pkgutil
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from bigmodel.errors import (
    BigModelError,
    ConfigError,
    did_you_mean,
    first_line,
    is_too_large,
    line_of,
    may_need_extras,
    setting,
    shell_quoted,
)
from bigmodel.redaction import redact


class Config(BaseModel):
    """Base of every typed configuration: frozen, exact types, unknown keys and NaN forbidden."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, allow_inf_nan=False, protected_namespaces=()
    )


class EntryConfig(Config):
    """Base of the configuration of anything registered: it carries the name that chose it."""

    name: str = Field(description="which registered entry this configures")


_NUMBERS = ("int_type", "float_type", "int_parsing", "float_parsing")
_NUMBER = re.compile(r"[+-]?(\d+|\d*\.\d+|\d+\.)([eE][+-]?\d+)?")
_MAX_QUOTED = 200  # characters of a value that a message quotes

ConfigT = TypeVar("ConfigT", bound=Config)
EntryT = TypeVar("EntryT", bound=Callable[..., Any])


class Entry(NamedTuple):
    """One choice: how to build it and what configures it."""

    factory: Callable[..., Any]
    config: type[EntryConfig]


class Registry:
    """Names of one kind, such as `model`, each with its class and typed configuration.

    Args:
        kind: the configuration group, singular (`"model"`).
        package: module or package whose import registers the built-in entries.
        call: the arguments and the result of an entry, as a signature.
        shared: module and class, as `module:Class`, of settings that every entry has; empty: there are
            none. An entry's own setting of the same name replaces a shared one, whose default then
            means the entry's own.
    """

    def __init__(self, kind: str, package: str, call: str = "(config)", shared: str = "") -> None:
        self.kind = kind
        self._call = call
        self._shared_name = shared
        self._package = package
        self._entries: dict[str, Entry] = {}
        self._loaded = False

    def register(self, name: str, config: type[EntryConfig] = EntryConfig) -> Callable[[EntryT], EntryT]:
        """Decorator that makes a class or function a choice of this kind, configured by `config`.

        Without a `config` it has no options.

        Raises:
            ConfigError: another class has that name, or `config` is no `EntryConfig`.
        """
        if not isinstance(name, str):
            raise ConfigError(f'{self.kind}: an entry has a name, as in .register("mine").')
        if not (isinstance(config, type) and issubclass(config, EntryConfig)):
            raise ConfigError(
                f"{self.kind} '{name}': {config!r} is not a configuration class. Derive one from"
                f' bigmodel.registry.EntryConfig and register with it: .register("{name}", MyConfig).'
            )

        def add(factory: EntryT) -> EntryT:
            known = self._entries.get(name)
            if known is not None and _origin(known.factory) != _origin(factory):
                raise ConfigError(
                    f"{self.kind} '{name}' is registered twice: by {_origin(known.factory)} and by"
                    f" {_origin(factory)}. Rename one of them."
                )
            self._entries[name] = Entry(factory, config)
            return factory

        return add

    def names(self) -> list[str]:
        """All names that can be chosen, sorted."""
        self._load_builtin()
        return sorted(self._entries)

    def entry(self, name: str) -> Entry:
        """The class and configuration registered as `name`.

        Raises:
            ConfigError: there is none; the message lists all names.
        """
        if not self._loaded and not self._load_one(name):
            self._load_builtin()
        if name not in self._entries:
            raise ConfigError(
                f"{self.kind}.name={name!r}: no such {self.kind}.{did_you_mean(name, self._entries)}"
                f" Known: {', '.join(self.names())}. (A plugin's own names need 'plugins=[module]'.)"
            )
        return self._entries[name]

    @cached_property
    def shared(self) -> type[Config]:
        """The schema of the settings that every entry has."""
        module, _, name = self._shared_name.partition(":")
        if not module:
            return Config
        schema: type[Config] = getattr(importlib.import_module(module), name)
        return schema

    def parse(self, values: Mapping[str, Any]) -> EntryConfig:
        """Checks plain values, as composed from YAML, against the schema of the entry they name. Those
        of `shared` are left to `parse_shared`.

        Raises:
            ConfigError: unknown name or key, wrong type, value out of range.
        """
        if not isinstance(values, Mapping) or not isinstance(values.get("name"), str):
            raise ConfigError(
                f"{self.kind}: expected settings with a `name`, got {redact(self.kind, values)!r}."
                f" Choose one with {self.kind}=<{'|'.join(self.names())}>."
            )
        schema = self.entry(values["name"]).config
        own = {k: v for k, v in values.items() if k not in self._shared_fields(schema)}
        for name in set(self.shared.model_fields) & set(schema.model_fields) & set(own):
            # All shared settings are composed, and the entry has a default of its own.
            if own[name] == _plain_default(self.shared, name) != _plain_default(schema, name):
                del own[name]
        return validate(schema, own, self.kind)

    def parse_shared(self, values: Mapping[str, Any]) -> Config:
        """The settings among plain values that every entry has, as a `shared`.

        Raises:
            ConfigError: unknown name of an entry, wrong type, value out of range.
        """
        names = self._shared_fields(self.entry(values["name"]).config)
        return validate(self.shared, {k: v for k, v in values.items() if k in names}, self.kind)

    def _shared_fields(self, schema: type[EntryConfig]) -> set[str]:
        return set(self.shared.model_fields) - set(schema.model_fields)

    def build(self, config: EntryConfig, *args: Any) -> Any:
        """The object that `config` describes: its class called with the config and `args`.

        Raises:
            MissingPackageError: it needs a package that is not installed.
            ConfigError: a plugin's entry fails.
        """
        factory = self.entry(config.name).factory
        try:
            with may_need_extras(f"{self.kind}={config.name}"):
                return factory(config, *args)
        except Exception as error:
            if is_too_large(error) or isinstance(error, BigModelError) or self.is_builtin(config.name):
                raise
            where = line_of(error)
            raise ConfigError(
                f"{self.kind}={config.name}: {_origin(factory)} failed: {type(error).__name__}:"
                f" {first_line(error)}{where}." + ("" if where else f" {self._called(factory)}")
            ) from error

    def _called(self, factory: Callable[..., Any]) -> str:
        """How an entry is called, and how one that takes other arguments is registered."""
        words = f"It is called as {_name(factory)}{self._call}."
        if not isinstance(factory, type):
            return words
        arguments = self._call.partition(" ->")[0]
        return (
            f"{words} If it takes others, register a function instead: def make{arguments}: return"
            f" {_name(factory)}(…)."
        )

    def is_ours(self, name: str) -> bool:
        """Former name of `is_builtin`, which plugins may use."""
        return self.is_builtin(name)

    def is_builtin(self, name: str) -> bool:
        """Whether an entry belongs to this package, and not to a plugin."""
        return self.entry(name).factory.__module__.startswith(f"{self._package}.")

    def _load_one(self, name: str) -> bool:
        """Imports the built-in module whose text registers `name`; returns whether that suffices.

        It does not if a plugin has registered entries: one of them could have a built-in name.
        """
        package = importlib.import_module(self._package)
        inside = f"{self._package}."
        if any(not entry.factory.__module__.startswith(inside) for entry in self._entries.values()):
            return False
        if name not in self._entries:
            for folder in getattr(package, "__path__", []):
                for file in Path(folder).glob("*.py"):
                    if f'.register("{name}",' in file.read_text(encoding="utf-8"):
                        importlib.import_module(inside + file.stem)
        return name in self._entries

    def _load_builtin(self) -> None:
        if self._loaded:
            return
        self._loaded = True  # first: an entry's module may ask for names while it is imported
        module = importlib.import_module(self._package)
        for info in pkgutil.iter_modules(getattr(module, "__path__", [])):
            importlib.import_module(f"{self._package}.{info.name}")


models = Registry(
    "model",
    "bigmodel.models",
    "(config, spec) -> Model",
    shared="bigmodel.models.fine_tuning:FineTuningConfig",
)
data = Registry("data", "bigmodel.data.sources", "(config) -> Dataset")
losses = Registry("loss", "bigmodel.losses", "(config, spec) -> nn.Module of outputs and targets")
optimizers = Registry(
    "optimizer",
    "bigmodel.optim.optimizers",
    "(config, model) -> torch.optim.Optimizer",
    shared="bigmodel.optim.rates_config:RatesConfig",
)
schedulers = Registry("scheduler", "bigmodel.optim.schedulers", "(config, total) -> Scheduler")
metrics = Registry("metrics", "bigmodel.metrics", "(config, target) -> SumMetric or WholeMetric")
"""Not a group of the configuration, as the others are: a run may have several."""

REGISTRIES = {registry.kind: registry for registry in (models, data, losses, optimizers, schedulers)}


def _plain_default(schema: type[Config], name: str) -> Any:
    default = schema.model_fields[name].get_default(call_default_factory=True)
    return default.model_dump(mode="json") if isinstance(default, Config) else default


def validate(schema: type[ConfigT], values: Mapping[str, Any], key: str) -> ConfigT:
    """`values` as a `schema`, or a ConfigError that names each wrong key under the prefix `key`."""
    if oversized := list(_oversized(values, key)):
        raise ConfigError("\n".join(oversized))
    try:
        return schema.model_validate(dict(values))
    except ValidationError as error:
        raise ConfigError("\n".join(_error_lines(schema, error, key))) from None


def _oversized(value: Any, path: str) -> Iterator[str]:
    """An error line for each integer beyond 64 bits, whatever the setting allows."""
    if isinstance(value, Mapping):
        for name, inner in value.items():
            yield from _oversized(inner, f"{path}.{name}".strip("."))
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _oversized(inner, path)
    elif isinstance(value, int) and value.bit_length() > 63:
        yield f"{path}={_quoted(redact(path, value))}: should be within 64 bits, ±{2**63 - 1:,}."


def load_plugins(modules: list[str]) -> None:
    """Imports a user's modules so that what they register can be chosen by name.

    A file in the current folder counts as a module for the installed command, too, unless there is
    another of that name.

    Raises:
        ConfigError: a module does not exist, or its import fails.
    """
    for module in modules:
        try:
            _add_current_folder(module)
            importlib.import_module(module)
        except BigModelError:
            raise
        except ModuleNotFoundError as error:
            if error.name is not None and module.startswith(error.name):
                raise ConfigError(
                    f"plugins: there is no module '{module}'. A plugin is a Python module by its dotted"
                    f" name (`my_models` for my_models.py), in {Path.cwd()} or installed."
                ) from error
            raise ConfigError(f"plugins: '{module}' needs {error.name!r}: {error}") from error
        except Exception as error:
            raise ConfigError(
                f"plugins: importing '{module}' failed: {type(error).__name__}: {first_line(error)}"
            ) from error


def _add_current_folder(module: str) -> None:
    """Appends the current folder to the path if a module exists there and nowhere else.

    It is not removed: a plugin may import its neighbours at any time, and spawned processes inherit
    the path.
    """
    package, here = module.partition(".")[0], str(Path.cwd())
    if package in sys.modules or importlib.util.find_spec(package) is not None:
        return
    if PathFinder.find_spec(package, [here]) is not None:
        sys.path.append(here)


def _origin(factory: Callable[..., Any]) -> str:
    return f"{factory.__module__}.{_name(factory)}"


def _name(factory: Callable[..., Any]) -> str:
    named = factory if hasattr(factory, "__qualname__") else type(factory)  # such as a partial
    return named.__qualname__


def _error_lines(schema: type[BaseModel], error: ValidationError, key: str) -> Iterator[str]:
    """One line for each wrong value. Pydantic has an error for each branch of a union: those of one
    value are joined, and of a list and its item only the item's is told."""
    issues: dict[str, list[Any]] = {}
    for issue in error.errors():
        path = ".".join([key, *(str(part) for part in issue["loc"] if not _is_tag(part))]).strip(".")
        issues.setdefault(path, []).append(issue)
    for path, (first, *others) in issues.items():
        if not any(other.startswith(f"{path}.") for other in issues):
            allowed = [
                first["msg"],
                *(issue["msg"].removeprefix("Input should be ") for issue in others),
            ]
            yield _error_line(schema, first | {"msg": " or ".join(allowed)}, path)


def _error_line(schema: type[BaseModel], issue: Any, path: str) -> str:
    """One line for one of pydantic's errors: key, value, what is allowed, the likely fix."""
    if issue["type"] == "extra_forbidden":
        fields = _fields_at(schema, issue["loc"][:-1])
        return (
            f"{path}: no such setting.{did_you_mean(str(issue['loc'][-1]), fields)}"
            f" Known here: {', '.join(fields)}."
        )
    if issue["type"] == "missing":
        return f"{path}: is required and was not set."
    if issue["type"] == "model_type":
        keys = ", ".join(f"{path}.{field}" for field in _fields_at(schema, issue["loc"]))
        return f"{path}={_quoted(redact(path, issue['input']))}: is a group of settings: {keys}."
    message = issue["msg"].removeprefix("Value error, ").removeprefix("Input ")
    line = f"{path}={_quoted(redact(path, issue['input']))}: {message}."
    return line + _suggest_fix(path, issue["type"], issue["input"])


def _suggest_fix(path: str, fault: str, value: Any) -> str:
    """How to write a value of the wrong type, if the intention is clear."""
    if isinstance(value, str) and redact(path, value) != value:  # a secret
        return ""
    if fault == "list_type" and isinstance(value, str | int | float):
        return f" A list is written {setting(path, [value])}."
    if fault == "string_type" and isinstance(value, int | float) and not isinstance(value, bool):
        return f" As text it is {setting(path, str(value))}."
    if fault in _NUMBERS and isinstance(value, str) and _NUMBER.fullmatch(value.strip()):
        number = float(value) if re.search(r"[.eE]", value) else int(value)
        variable = shell_quoted(f'{path}="${{oc.decode:${{oc.env:NAME}}}}"')
        return (
            f" This is text. As a number it is {setting(path, number)}; one from an"
            f" environment variable NAME is {variable}."
        )
    return ""


def _quoted(value: Any) -> str:
    """A value as a message quotes it: only the beginning of a long one."""
    text = repr(value)
    return text if len(text) <= _MAX_QUOTED else f"{text[:_MAX_QUOTED]}… ({len(text):,} characters)"


def _is_tag(part: Any) -> bool:
    """Pydantic puts the branch of a union into an error's location, such as `list[int]`."""
    types = {"int", "float", "str", "bool", "none", "constrained-int", "constrained-float"}
    return isinstance(part, str) and ("[" in part or part in types)


def _fields_at(schema: type[BaseModel], location: tuple[Any, ...]) -> list[str]:
    """The field names of the (nested) schema at an error's location."""
    for part in location:
        field = schema.model_fields.get(part) if isinstance(part, str) else None
        nested = field.annotation if field is not None else None
        if isinstance(nested, type) and issubclass(nested, BaseModel):
            schema = nested
    return list(schema.model_fields)
