"""Errors of Hydra and OmegaConf as messages of this program.

Each kind of error has one function below, which returns a message or None. A message names the key or
file, says what is allowed there, and gives the likely fix.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from hydra.errors import (
    HydraException,
    MissingConfigException,
    OverrideParseException,
    SearchPathException,
)
from omegaconf.errors import InterpolationResolutionError, MissingMandatoryValue, OmegaConfBaseException

from bigmodel.cli.launch import other_tools
from bigmodel.cli.launch.config_index import ConfigIndex, Group, no_such_choice, read_index
from bigmodel.cli.launch.file_errors import broken_file, out_of_hydra, output_folder
from bigmodel.cli.launch.help import own_folders
from bigmodel.cli.launch.suggestion_check import are_allowed
from bigmodel.errors import (
    BigModelError,
    did_you_mean,
    first_line,
    hydra_value,
    is_too_large,
    setting,
    shell_quoted,
)

PLAIN = re.compile(r"Only one of --|The --resolve|Expected header|Too many comp|Invalid def|In '")
"""How Hydra's messages begin if they come as a plain ValueError."""


@dataclass(frozen=True)
class Case:
    """An error with its text, the index of settings, and the arguments that led to it."""

    error: BaseException
    text: str
    index: ConfigIndex
    argv: Sequence[str]


def explain(error: BaseException, config_dir: Path, argv: Sequence[str]) -> str | None:
    """The message for an error that a wrong configuration or command line caused.

    Args:
        error: as it came out of Hydra.
        config_dir: the shipped configurations.
        argv: the arguments, without the program's name.

    Returns:
        The message, or None for another kind of error, which deserves its traceback.
    """
    for cause in _chain(error):
        if isinstance(cause, BigModelError):  # one of ours, perhaps wrapped by OmegaConf
            return str(cause)
    try:
        index = read_index([config_dir, *own_folders(argv)])
    except (BigModelError, OSError):  # no such --config-dir: Hydra's own error says so
        index = ConfigIndex((), {})
    case = Case(error, str(error), index, argv)
    return next((message for kind in KINDS if (message := kind(case)) is not None), None)


_LAUNCHERS = {
    "joblib": " To install it: pip install hydra-joblib-launcher",
    "submitit": " For Slurm use sweep.launcher=submitit.",
}
"""What to do about launchers of Hydra that are not installed."""


def _no_such_choice(case: Case) -> str | None:
    """`model=cnnn`"""
    error = case.error
    if not isinstance(error, MissingConfigException) or error.missing_cfg_file is None:
        return None
    group, _, name = error.missing_cfg_file.rpartition("/")
    if not group:
        return f"--config-name {name}: there is no {name}.yaml in the folders of configurations."
    typed = _typed_value("data", case) or name
    if group.partition("/")[0] == "data" and (file := other_tools.suggest_file(typed)) is not None:
        return f"data={typed}: data= names the kind of data. Did you mean {file}?"
    known = sorted(error.options or _choices(case.index, group))
    asked_by = re.match(r"In '(\w+/[^']+)': ", case.text)  # a file's own list of defaults
    source = f"{asked_by[1]}.yaml: " if asked_by and asked_by[1] != "hydra/config" else ""
    if not name:
        return f"{source}{group}=: a name is missing. Choices: {', '.join(known)}."
    hint = _LAUNCHERS.get(name.partition("_")[0], "") if group == "hydra/launcher" else ""
    return source + no_such_choice(group, name, known) + hint


def _no_such_folder(case: Case) -> str | None:
    """`--config-dir nowhere`"""
    if not isinstance(case.error, SearchPathException | MissingConfigException):
        return None
    match = re.search(r"directory '([^']*)'", case.text)
    flag = "--config-dir" if isinstance(case.error, SearchPathException) else "--config-path"
    folder = match[1] if match else ""
    return f"{flag} {folder}: there is no such folder. Relative paths start at {Path.cwd()}."


_FOLDERS = ("run.dir", "sweep.dir", "sweep.subdir")
"""Settings of Hydra that name folders, without its name in front."""


def _no_such_key(case: Case) -> str | None:
    """`optimizer.lrr=0.1`, `lr=0.1`, `modle=cnn`"""
    match = re.search(r"Could not override '([^']+)'", case.text)
    if not isinstance(case.error, HydraException) or not match:
        return None
    key, index = match[1], case.index
    asked_by = re.match(r"In '([^']+)': ", case.text)
    source = f"{asked_by[1]}.yaml: " if asked_by else ""
    if key in index.groups:  # a group of the user's own, which no list of defaults names
        value = next((a.partition("=")[2] for a in case.argv if a.startswith(f"{key}=")), "…")
        added = shell_quoted(f"+{key}={value}")
        return f"{source}{key}: nothing is chosen there yet. Add it with a plus: {added}."
    if not source and (hint := _other_tool_hint(key, _typed_value(key, case) or "", case)) is not None:
        return hint
    group = index.groups.get(key.partition(".")[0])
    if group is not None and "." in key:
        return source + _no_such_setting(key, group, case)
    own = key.partition("@")[0]
    meant = did_you_mean(own, [*index.groups, *index.paths(case.argv)])
    if own in _FOLDERS:
        meant = f" Did you mean 'hydra.{own}'?"
    return f"{source}{key}: no such setting or group.{meant} bigmodel-train --help lists all."


def _of_a_search(case: Case) -> str | None:
    """`hydra.sweeper.n_trials=20` without a sweeper that has it"""
    typed = re.search(r"Could not override 'hydra\.sweeper\.(\w+)", case.text)
    in_file = re.match(r"In '([^']+)': ConfigKeyError raised", case.text)
    causes = (re.match(r"Key '(\w+)' not in 'BasicSweeper", str(cause)) for cause in _chain(case.error))
    found = typed or (next(filter(None, causes), None) if in_file else None)
    if found is None:
        return None
    source = f"{in_file[1]}.yaml: " if in_file else ""
    return (
        f"{source}hydra.sweeper.{found[1]}: is a setting of hydra/sweeper=optuna, which is not chosen."
        " Add that, or search with sweep=optuna sweep.trials=20."
    )


def _no_such_setting(key: str, group: Group, case: Case) -> str:
    """A key that the chosen entry of a group does not have; another choice may."""
    names = case.index.chosen(case.argv).get(group.name, [group.default or ""])
    chosen = [group.choices[name] for name in names if name in group.choices]
    known = [k.path for choice in chosen for k in choice.keys if k.value is not None]
    where = f"{group.name}={','.join(choice.name for choice in chosen) or 'null'}"
    having = [c.name for c in group.choices.values() if any(k.path == key for k in c.keys)]
    if having:
        others = ", ".join(f"{group.name}={name}" for name in having)
        return f"{key}: {where} has no such setting; it is one of {others}."
    short = ", ".join(dict.fromkeys(path.removeprefix(f"{group.name}.") for path in known))
    return f"{key}: no such setting.{did_you_mean(key, known)} Known for {where}: {short}."


def _wrong_grammar(case: Case) -> str | None:
    """`model`, `cnn`, `sizes=[1,2`, `name='x`"""
    if not isinstance(case.error, OverrideParseException):
        return None
    text, groups = _as_typed(case.error.override, case), case.index.groups
    key, equals, value = text.partition("=")
    if not equals:
        having = [group.name for group in groups.values() if text in group.choices]
        fix = other_tools.suggest_verb(text) or "As in optimizer.lr=0.1."
        if having:
            fix = f"Did you mean '{having[0]}={text}'?"
        elif text in groups:
            fix = f"Choose with {text}=<{'|'.join(sorted(groups[text].choices))}>."
        elif re.search(r"\w[: ]+\S", text):
            fix = f"Did you mean '{re.sub('[: ]+', '=', text, count=1)}'?"
        return f"{text}: expected key=value. {fix}"
    if (hint := _other_tool_hint(key, value, case)) is not None:
        return hint
    unclosed = [end for start, end in ("[]", "{}", "()") if value.count(start) > value.count(end)]
    if " " in key:
        fix = "No blanks are allowed before '='."
    elif unclosed:
        fix = f"A closing '{unclosed[0]}' is missing."
    elif value.count("'") % 2 or value.count('"') % 2:
        fix = "A closing quotation mark is missing."
    elif (call := re.match(r"(\w+)\(", value)) and value.endswith(")"):
        fix = _wrong_call(call[1], key)
    elif re.search(r"(^|,)\s*(,|$)", value):
        fix = "A value is missing beside a comma."
    else:
        quoted = shell_quoted(f'{key}="{value}"') if "${" in value else setting(key, value)
        fix = f"Put it in quotation marks: {quoted}"
    return f"{text}: the value cannot be read. {fix}"


_FUNCTIONS = ("range", "interval", "choice", "glob", "int", "float", "sort", "shuffle", "tag")
"""Functions of Hydra's grammar that sweeps use."""


def _wrong_call(name: str, key: str) -> str:
    """How to mend `seed=rnage(3)` or `seed=range(a,b)`."""
    if name not in _FUNCTIONS:
        return f"There is no function {name}.{did_you_mean(name, _FUNCTIONS)}"
    return f"As in {key}=range(1,5), {key}=interval(0.1,1) or {key}=1,2,3."


def _sweep_without_flag(case: Case) -> str | None:
    """`trainer.epochs=1,2` without -m"""
    match = re.match(r"(?:Ambiguous value for argument|Sweep parameters) '(.+)'", case.text)
    if not isinstance(case.error, HydraException) or not match:
        return None
    text = _as_typed(match[1], case)
    key, _, value = text.partition("=")
    as_list = "" if "(" in value else f" One list is {shell_quoted(f'{key}=[{value}]')}."
    if any(word.startswith("resume=") for word in case.argv):
        return f"{text}: a resumed run takes one value.{as_list}"
    several = f"several values need -m, for one run each: -m {shell_quoted(text)}."
    quoted = setting(key, value)
    if not are_allowed([f"{key}={hydra_value(value, literal=True)}"], case.index, case.argv):
        return f"{text}: {several}{as_list}"
    if Path(value).exists():
        return f"{text}: Did you mean {quoted}? Otherwise {several}"
    return f"{text}: {several} A single text, with its comma, is {quoted}."


def _plus_or_minus(case: Case) -> str | None:
    """`+seed=1` for a key that exists, `~sed` for one that does not"""
    if not isinstance(case.error, HydraException):
        return None
    if match := re.search(r"already at '([^']+)'", case.text):
        return f"{match[1]}: already exists. Leave out the plus: {match[1]}=…"
    if match := re.match(r"Could not delete .*?'([^']+)'", case.text):
        key = match[1].partition("=")[0]
        meant = did_you_mean(key, [*case.index.groups, *case.index.paths(case.argv)])
        return f"~{key}: there is nothing of that name to remove.{meant}"
    return None


def _not_a_name(case: Case) -> str | None:
    """`model=3`, `model=null`, `model=[0.5]`: a choice must be a name"""
    in_hydra = isinstance(case.error, TypeError) and out_of_hydra(case.error)
    if not (case.text.startswith("Config group override") or in_hydra):
        return None
    for key, _, value in (argument.partition("=") for argument in case.argv):
        known = _choices(case.index, key)
        if known and value not in known:
            return no_such_choice(key, value, known)
    return None if in_hydra else "A choice is given by its name, as in model=cnn."


def _too_large(case: Case) -> str | None:
    """`model.hidden_sizes=[1000000000000]`: more than there is memory for"""
    if not is_too_large(case.error):
        return None
    return (
        f"Out of memory: {first_line(case.error, 'no more memory is available')}. The model or the "
        "data is larger than the memory of this machine: reduce sizes such as model.hidden_sizes and "
        "data.batch_size."
    )


def _interpolation(case: Case) -> str | None:
    """`${there.is.none}`"""
    if not isinstance(case.error, InterpolationResolutionError):
        return None
    key = getattr(case.error, "full_key", None) or "the configuration"
    first = first_line(case.error)
    if match := re.match(r"Interpolation key '([^']+)' not found", first):
        meant = did_you_mean(match[1], case.index.paths(case.argv))
        return f"{key}: refers to ${{{match[1]}}}, which does not exist.{meant}"
    return f"{key}: {first.removeprefix('KeyError raised while resolving interpolation: ')}."


def _missing_value(case: Case) -> str | None:
    """A value that has no default, `???`"""
    if isinstance(case.error, MissingMandatoryValue):
        key = getattr(case.error, "full_key", None) or first_line(case.error).rpartition(" ")[2]
        same = [k.description for k in case.index.all_keys() if k.path == key and k.description]
        meaning = f" ({same[0]})" if same else ""
        return f"{key}: is required and was not set{meaning}. Set {key}=…"
    match = re.match(r"You must specify '([^']+)'", case.text)
    if isinstance(case.error, HydraException) and match:
        known = ", ".join(_choices(case.index, match[1]))
        return f"{match[1]}: a choice is required. Choices: {known}."
    return None


def _anything_else(case: Case) -> str | None:
    """All other errors of Hydra and OmegaConf, without their advice on their own syntax"""
    error = case.error
    of_hydra = isinstance(error, HydraException | OmegaConfBaseException)
    of_hydra = of_hydra or (isinstance(error, ValueError) and bool(PLAIN.match(case.text)))
    if not of_hydra or not out_of_hydra(error):
        return None
    parts = [first_line(error)]
    if isinstance(error.__cause__, OmegaConfBaseException):
        parts += [getattr(error.__cause__, "full_key", None) or "", first_line(error.__cause__)]
    return ": ".join(part.rstrip(".") for part in parts if part) + "."


KINDS: tuple[Callable[[Case], str | None], ...] = (
    _no_such_choice,
    _no_such_folder,
    _of_a_search,
    _no_such_key,
    _wrong_grammar,
    _sweep_without_flag,
    _plus_or_minus,
    _not_a_name,
    _interpolation,
    _missing_value,
    _too_large,
    lambda case: broken_file(case.error, case.argv),
    lambda case: output_folder(case.error, case.argv),
    _anything_else,
)


def _as_typed(text: str, case: Case) -> str:
    """An override without the pluses that `resume=` adds."""
    return text if text in case.argv else text.removeprefix("++")


def _other_tool_hint(key: str, value: str, case: Case) -> str | None:
    """The message for a setting with its name in another tool."""
    meant = other_tools.suggest(key, value, case.index, case.argv)
    return None if meant is None else f"{key}: no such setting. {meant}"


def _typed_value(key: str, case: Case) -> str | None:
    """The value that the command line gives to a key."""
    words = (word.lstrip("+").partition("=") for word in case.argv)
    return next((value for name, _, value in words if name == key), None)


def _choices(index: ConfigIndex, group: str) -> list[str]:
    return sorted(index.groups[group].choices) if group in index.groups else []


def _chain(error: BaseException) -> Iterator[BaseException]:
    """The error and its causes, outermost first; OmegaConf leaves the cause in `__context__`."""
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        wrapped = isinstance(cause, OmegaConfBaseException | HydraException)
        cause = cause.__cause__ or (cause.__context__ if wrapped else None)
