"""Cache folders. Those for compiled code are private.

Anybody who can add a library to such a folder, or replace the folder, can run code as the user. So each
belongs to the user alone, and only root can replace it or its parents. If that is not the case, a
temporary folder is used until the process ends.
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
"""Environment variables for the caches of torch and Triton, with our folder names."""

_ours: dict[str, str] = {}
"""The values that this process has set."""

_refused: dict[str, str] = {}
"""Reasons why a folder cannot be used, by its name."""


def user_cache() -> Path | None:
    """This program's cache folder; None for a user without a home folder."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    try:
        return (Path(base) if Path(base).is_absolute() else Path.home() / ".cache") / "bigmodel"
    except RuntimeError:
        return None


def code_folder(name: str, wanted: str | None = None) -> Path:
    """A private folder for compiled code.

    Args:
        name: of the folder in `$BIGMODEL_CACHE` or, if that is not set, in the user's cache.
        wanted: another folder, set by the user.

    Returns:
        That folder, or a temporary one if others could put code there; `refusals` says why.
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
    """Makes compilers store code in private folders, in this process and its children. Must be called
    before torch's compiler is loaded, which chooses its folder then."""
    for variable, name in OF_COMPILERS.items():
        wanted = os.environ.get(variable)
        if wanted == _ours.get(variable):
            wanted = None
        os.environ[variable] = _ours[variable] = str(code_folder(name, wanted))


def refusals() -> list[str]:
    """Messages for the user if compiled code is not kept, one per reason."""
    return [
        f"Compiled code is not kept after this process: {why}. Set BIGMODEL_CACHE to another folder."
        for why in dict.fromkeys(_refused.values())
    ]


@cache
def _temporary() -> Path:
    try:
        folder = Path(tempfile.mkdtemp(prefix="bigmodel-"))
    except OSError:
        return Path(os.devnull)  # no folder can be created there: compilers fail, and steps stay eager
    process = os.getpid()
    atexit.register(
        lambda: shutil.rmtree(folder, ignore_errors=True) if os.getpid() == process else None
    )
    return folder


def _made_private(path: Path) -> Path:
    """Creates a private folder, or checks an existing one.

    Raises:
        OSError: it cannot be created, belongs to another user, or others can write to or replace it.
    """
    if not hasattr(os, "geteuid"):  # Windows: a user's folders are private
        path.mkdir(parents=True, exist_ok=True)
        return path
    if path.is_symlink():
        raise PermissionError(0, "is a link, which may lead to what others can write", str(path))
    folder = _reached(path)
    status = folder.lstat()
    if status.st_uid != os.geteuid():
        raise PermissionError(0, f"belongs to {_name_of(status.st_uid)}", str(folder))
    if _open_to_others(status):
        raise PermissionError(0, "can be written by others", str(folder))
    if status.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        with contextlib.suppress(OSError):  # others can only read it
            folder.chmod(stat.S_IRWXU)
    return folder


def _reached(path: Path) -> Path:
    """The folder with links resolved, whose path others cannot change; creates missing folders."""
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
    status = folder.lstat()
    if not stat.S_ISDIR(status.st_mode):
        raise NotADirectoryError(0, "is not a folder", str(folder))
    if _open_to_others(status) and not status.st_mode & stat.S_ISVTX:  # the sticky bit of /tmp
        raise PermissionError(0, "can be written by others", str(folder))
    return folder


def _check_owner(path: Path) -> None:
    owner = path.lstat().st_uid
    if owner not in {0, os.geteuid()} and owner != _nameless():
        raise PermissionError(0, f"belongs to {_name_of(owner)}", str(path))


def _open_to_others(status: os.stat_result) -> bool:
    shared = status.st_mode & stat.S_IWGRP and not _is_own_group(status.st_gid)
    return bool(status.st_mode & stat.S_IWOTH or shared)


def _is_own_group(number: int) -> bool:
    """Whether a group is private to this user, as many systems create it."""
    import grp
    import pwd

    try:
        user, group = pwd.getpwuid(os.geteuid()), grp.getgrgid(number)
    except KeyError:
        return False
    others = {*group.gr_mem} - {user.pw_name}
    return (user.pw_gid, user.pw_name) == (number, group.gr_name) and not others


def _nameless() -> int | None:
    """The owner shown for root's folders in a container that does not map root; None outside of one."""
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
