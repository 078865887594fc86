"""Tab completion: the possible next words of a command line, printed for the shell.

`bigmodel-train -sc install=bash` prints a few lines for the shell. From then on it calls
`bigmodel-train -sc query=bash` with the line so far in COMP_LINE and the cursor in COMP_POINT.
As for help, the answer comes from the configuration files: nothing heavy is imported.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from bigmodel.cli.launch.config_index import ConfigIndex, read_index
from bigmodel.cli.launch.help import own_folders
from bigmodel.errors import BigModelError, ConfigError, hydra_value, shell_quoted
from bigmodel.runtime.escaping import escape_line

FLAGS = (
    *("--help", "--help=all", "--version", "--multirun", "--cfg", "--resolve", "--info", "--package"),
    *("--config-dir", "--config-path", "--config-name", "--shell-completion", "--hydra-help"),
)
_FOLDER_FLAGS = ("--config-dir", "-cd", "--config-path", "-cp")
_VALUES = {
    **dict.fromkeys(("--cfg", "-c"), ("job", "hydra", "all")),
    **dict.fromkeys(
        ("--info", "-i"), ("all", "config", "defaults", "defaults-tree", "plugins", "searchpath")
    ),
    **dict.fromkeys(("--shell-completion", "-sc"), ("install=bash", "install=zsh", "install=fish")),
}
_PATHLIKE = re.compile(r"null|\"[^\"]*\"|'[^']*'|(?!true$|false$)[A-Za-z_./~].*")
_UNSAFE, _BACKSLASH = re.compile(r"[^\w@%+=:,./-]"), r"\\\g<0>"
_BASH = r"""
_bigmodel_train() {
    local IFS=$'\n'
    COMPREPLY=($(COMP_LINE=$COMP_LINE COMP_POINT=$COMP_POINT BIGMODEL_BREAKS=$COMP_WORDBREAKS \
        "$1" -sc query=bash 2>/dev/null))
}
complete -o nospace -F _bigmodel_train bigmodel-train scripts/train
"""
_ZSH = r"""
_bigmodel_train() {
    local line="${(j: :)words[1,CURRENT-1]} $PREFIX"
    local -a found=("${(@f)$(COMP_LINE=$line COMP_POINT=$#line \
        ${(Q)words[1]} -sc query=zsh 2>/dev/null)}")
    local -a whole=("${(@)${(@M)found:#* }% }") open=("${(@)found:#* }")
    whole=("${(@)whole:#}") open=("${(@)open:#}")
    (( $#whole )) && compadd -U -S ' ' -- "${whole[@]}"
    (( $#open )) && compadd -U -S '' -- "${open[@]}"
}
(( $+functions[compdef] )) || { autoload -Uz compinit && compinit -u; }
compdef _bigmodel_train bigmodel-train scripts/train
"""
_FISH = r"""
function _bigmodel_train
    set -lx COMP_LINE (commandline -cp)
    set -lx COMP_POINT (string length -- "$COMP_LINE")
    set -l command (commandline -po)[1]
    $command -sc query=fish 2>/dev/null
end
complete -c bigmodel-train -f -a '(_bigmodel_train)'
complete -p '*/scripts/train' -f -a '(_bigmodel_train)'
"""
_REMOVE = {
    "bash": "complete -r bigmodel-train scripts/train; unset -f _bigmodel_train",
    "zsh": "compdef -d bigmodel-train scripts/train; unfunction _bigmodel_train",
    "fish": "complete -e -c bigmodel-train; functions -e _bigmodel_train",
}
_INSTALL = {"bash": _BASH, "zsh": _ZSH, "fish": _FISH}


def complete(argv: Sequence[str], config_dir: Path) -> str:
    """What `-sc install=SHELL`, `uninstall=SHELL` or `query=SHELL` prints.

    Raises:
        ConfigError: another word than these, or another shell.
    """
    at = next(n for n, word in enumerate(argv) if re.match(r"(-sc|--shell-completion)(=|$)", word))
    word = argv[at].partition("=")[2] or "".join(argv[at + 1 : at + 2])
    verb, _, shell = word.partition("=")
    if shell not in _INSTALL or verb not in ("install", "uninstall", "query"):
        raise ConfigError(
            f"-sc {word}: expected install=, uninstall= or query= with a shell: {', '.join(_INSTALL)}."
        )
    if verb != "query":
        return (_INSTALL if verb == "install" else _REMOVE)[shell].strip()
    line = os.environ.get("COMP_LINE", "")
    line = line[: int(os.environ.get("COMP_POINT") or len(line))]
    words = split(line, os.environ.get("BIGMODEL_BREAKS", ""))
    try:
        offers = sorted(set(candidates(words, config_dir)))
    except (BigModelError, OSError):  # such as a folder that does not exist: nothing to offer
        return ""
    offers = [one for one in offers if escape_line(one.head + one.path) == one.head + one.path]
    return "\n".join(_as_typed(one, words[-1], shell, len(offers) == 1) for one in offers)


@dataclass(frozen=True)
class Word:
    """A word of a command line.

    Attributes:
        text: the word without quotation marks, as a program receives it.
        quote: the quotation mark that is open at its end, or nothing.
        kept: how many characters precede the part that bash replaces.
    """

    text: str
    quote: str = ""
    kept: int = 0


class Offer(NamedTuple):
    """A completion of the last word: a text, followed by a path if it ends in one.

    It ends in a blank if the word is then complete.
    """

    head: str
    path: str = ""


def split(line: str, breaks: str = "") -> list[Word]:
    """The words of a line as a shell splits them; the last one, perhaps empty, is at the cursor."""
    words: list[Word] = []
    text, quote, kept, started, at = "", "", 0, False, 0
    while at < len(line):
        char = line[at]
        at += 1
        if char == "\\" and quote != "'" and at < len(line):
            text, started, at = text + line[at], True, at + 1
        elif quote:
            quote, text = ("", text) if char == quote else (quote, text + char)
        elif char in "'\"":
            quote, started, kept = char, True, len(text)
        elif char.isspace():
            if started:
                words.append(Word(text))
            text, kept, started = "", 0, False
        else:
            text, started = text + char, True
            kept = len(text) if char in breaks else kept
    return [*words, Word(text, quote, kept)]


def candidates(words: Sequence[Word], config_dir: Path) -> Iterator[Offer]:
    """The possible completions of the last word."""
    before, typed = [word.text for word in words[1:-1]], words[-1].text
    last = before[-1] if before else ""
    flag, equals, value = typed.partition("=")
    if last in _FOLDER_FLAGS:
        yield from (Offer(path) for path in _paths(typed, folders=True))
    elif equals and flag in _FOLDER_FLAGS:
        yield from (Offer(f"{flag}={path}") for path in _paths(value, folders=True))
    elif last in _VALUES:
        yield from (Offer(f"{one} ") for one in _VALUES[last] if one.startswith(typed))
    elif typed.startswith("-"):
        yield from (Offer(f"{flag} ") for flag in FLAGS if flag.startswith(typed))
    else:
        index = read_index([config_dir, *own_folders(before)])
        sign = typed[: len(typed) - len(typed.lstrip("+~"))]
        bare = typed.removeprefix(sign)
        offers = _values(bare, index, before) if "=" in bare else _keys(bare, index, before)
        yield from (Offer(f"{sign}{one.head}", one.path) for one in offers)


def _keys(typed: str, index: ConfigIndex, before: Sequence[str]) -> Iterator[Offer]:
    """Groups and settings, one level at a time: `trainer.` first, then `trainer.epochs=`."""
    yield from (Offer(f"{group}=") for group in index.groups if group.startswith(typed))
    depth = typed.count(".") + 1
    known = index.paths(before)
    for path in known:
        if path.startswith(typed) and path not in index.groups:
            parts = path.split(".")
            deeper = len(parts) > depth
            whole = ".".join(parts[:depth])
            inner = deeper or any(other.startswith(f"{path}.") for other in known)
            yield Offer(f"{whole}." if inner else f"{whole}=")


def _values(typed: str, index: ConfigIndex, before: Sequence[str]) -> Iterator[Offer]:
    """Choices of a group, separated by commas; values of a setting; files if it may be a path."""
    key, _, value = typed.partition("=")
    if key in index.groups:
        done, comma, name = value.rpartition(",")
        for choice in index.groups[key].choices:
            if choice.startswith(name) and choice not in done.split(","):
                yield Offer(f"{key}={done}{comma}{choice} ")
        return
    if key == "resume" and "auto".startswith(value):
        yield Offer(f"{key}=auto ")
    default = next((setting.value for setting in index.keys(before) if setting.path == key), None)
    if default in ("true", "false"):
        yield from (Offer(f"{key}={one} ") for one in ("true", "false") if one.startswith(value))
    elif default is None or _PATHLIKE.fullmatch(default):
        bare = value.replace("'", "").replace('"', "")
        yield from (Offer(f"{key}=", path) for path in _paths(bare, key == "resume"))
    if default not in (None, "null", "true", "false", "") and str(default).startswith(value):
        yield Offer(f"{key}={default} ")


def _paths(typed: str, folders: bool = False) -> Iterator[str]:
    """Files and folders that begin like this; a folder ends in a slash, a file in a blank."""
    parent, slash, name = typed.rpartition("/")
    try:
        entries = list(os.scandir(Path(f"{parent}{slash}" or ".").expanduser()))
    except OSError:
        return
    for entry in entries:
        if entry.name.startswith(name) and (name or not entry.name.startswith(".")):
            if entry.is_dir():
                yield f"{parent}{slash}{entry.name}/"
            elif not folders:
                yield f"{parent}{slash}{entry.name} "


def _as_typed(offer: Offer, word: Word, shell: str, alone: bool) -> str:
    """An offer as the shell needs it: bash inserts it as it is, others quote it themselves.

    Of several offers only the common beginning is inserted, which must not be quoted.
    """
    text = offer.head + offer.path
    text, end = text.rstrip(" "), " " if text.endswith(" ") else ""
    if alone and offer.path and not word.quote:
        text = offer.head + hydra_value(offer.path.rstrip(" "), literal=True)
    if shell != "bash":
        return text if shell == "fish" else f"{text}{end}"
    inserted = text[word.kept :]
    if word.quote:
        return inserted
    if inserted:
        inserted = shell_quoted(inserted) if alone else _UNSAFE.sub(_BACKSLASH, inserted)
    return inserted + end
