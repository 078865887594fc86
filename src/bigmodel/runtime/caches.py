"""Cache folders. Those for machine code are private.

Whoever can put a library into such a folder, or the folder into another's place, has it run by whoever
compiles. So each belongs to the user alone, and nobody but root can replace it or what it lies in. Where
that is not so, a fresh folder takes its place until the process ends.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import shutil
import stat
import tempfile
from functools import cache
from pathlib import Path

OF_COMPILERS = {"TORCHINDUCTOR_CACHE_DIR": "torch", "TRITON_CACHE_DIR": "triton"}
"""Where torch and Triton look for compiled code, by environment variable."""

_ours: dict[str, str] = {}
"""What this process has put into these variables."""

_refused: dict[str, str] = {}
"""Why a folder cannot be used, by its name."""


def user_cache() -> Path | None:
    """This program's cache folder; None for a user without a home."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    try:
        return (Path(base) if Path(base).is_absolute() else Path.home() / ".cache") / "bigmodel"
    except RuntimeError:
        return None


def code_folder(name: str, wanted: str | None = None) -> Path:
    """A private folder for machine code.

    Args:
        name: of the folder in `$BIGMODEL_CACHE`, else in the user's cache.
        wanted: another one, as the user has it.

    Returns:
        That folder; a temporary one where others could put code there. `refusals` says why.
    """
    base = os.environ.get("BIGMODEL_CACHE") or user_cache()
    path = Path(wanted or Path(base or os.devnull) / name).absolute()
    _refused.pop(name, None)
    try:
        return _made_private(path)
    except OSError as error:
        _refused[name] = f"{error.filename or path}: {error.strerror or error}"
        return _temporary() / name


def use_private_folders() -> None:
    """Has compilers keep their code in private folders, in this process and in those that it starts. To
    be called before torch's compiler is loaded, which settles on a folder of its own."""
    for variable, name in OF_COMPILERS.items():
        wanted = os.environ.get(variable)
        if wanted == _ours.get(variable):
            wanted = None
        os.environ[variable] = _ours[variable] = str(code_folder(name, wanted))


def refusals() -> list[str]:
    """What to tell a user whose code is not kept, a reason a line."""
    return [
        f"Compiled code is not kept after this process: {why}. Set BIGMODEL_CACHE to another folder."
        for why in dict.fromkeys(_refused.values())
    ]


@cache
def _temporary() -> Path:
    try:
        folder = Path(tempfile.mkdtemp(prefix="bigmodel-"))
    except OSError:
        return Path(os.devnull)  # nothing can be made there: compilers fail, and steps stay eager
    process = os.getpid()
    atexit.register(
        lambda: shutil.rmtree(folder, ignore_errors=True) if os.getpid() == process else None
    )
    return folder


def _made_private(path: Path) -> Path:
    """Makes a folder, or takes one that was private from the beginning.

    Raises:
        OSError: it cannot be made, is another's, or could have been filled or replaced by others.
    """
    if not hasattr(os, "geteuid"):  # Windows: a user's own folder is closed to others
        path.mkdir(parents=True, exist_ok=True)
        return path
    if path.is_symlink():
        raise PermissionError(0, "is a link, which may lead to what others can write", str(path))
    folder = _reached(path)
    found = folder.lstat()
    if found.st_uid != os.geteuid():
        raise PermissionError(0, f"belongs to {_name_of(found.st_uid)}", str(folder))
    if _open_to_others(found):
        raise PermissionError(0, "can be written by others", str(folder))
    if found.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        with contextlib.suppress(OSError):  # others can but read it
            folder.chmod(stat.S_IRWXU)
    return folder


def _reached(path: Path) -> Path:
    """A folder, free of links, to which no way leads that others could turn; missing ones are made."""
    if path == path.parent:
        folder = path
    else:
        folder = _reached(path.parent) / path.name
        if folder.is_symlink():
            _check_owner(folder)
            return _reached(Path(os.path.realpath(folder, strict=True)))
        with contextlib.suppress(FileExistsError):
            folder.mkdir(stat.S_IRWXU)
    _check_owner(folder)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode):
        raise NotADirectoryError(0, "is not a folder", str(folder))
    if _open_to_others(found) and not found.st_mode & stat.S_ISVTX:  # in /tmp each has what he made
        raise PermissionError(0, "can be written by others", str(folder))
    return folder


def _check_owner(path: Path) -> None:
    owner = path.lstat().st_uid
    if owner not in {0, os.geteuid()} and owner != _nameless():
        raise PermissionError(0, f"belongs to {_name_of(owner)}", str(path))


def _open_to_others(found: os.stat_result) -> bool:
    shared = found.st_mode & stat.S_IWGRP and not _is_own_group(found.st_gid)
    return bool(found.st_mode & stat.S_IWOTH or shared)


def _is_own_group(number: int) -> bool:
    """Whether a group is one that the system has made for this user alone, as many do."""
    import grp
    import pwd

    try:
        user, group = pwd.getpwuid(os.geteuid()), grp.getgrgid(number)
    except KeyError:
        return False
    others = {*group.gr_mem} - {user.pw_name}
    return (user.pw_gid, user.pw_name) == (number, group.gr_name) and not others


def _nameless() -> int | None:
    """Whom root's folders belong to in a container in which root has no number; None outside of one."""
    try:
        mapped = [int(line.split()[2]) for line in Path("/proc/self/uid_map").read_text().splitlines()]
        whole = sum(mapped) >= 2**32 - 1
        return None if whole else int(Path("/proc/sys/kernel/overflowuid").read_text())
    except (OSError, ValueError, IndexError):
        return None


def _name_of(number: int) -> str:
    import pwd

    try:
        return f"user {pwd.getpwuid(number).pw_name}"
    except KeyError:
        return f"user {number}"
