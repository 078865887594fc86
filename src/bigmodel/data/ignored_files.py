"""Files that are never data: those that operating systems and programs leave in folders.

macOS puts `__MACOSX` into archives and `._x.jpg` next to `x.jpg`, a Synology `@eaDir` into each folder,
Windows `Thumbs.db`, Jupyter `.ipynb_checkpoints`. All hidden files are ignored as well.
"""

from __future__ import annotations

from pathlib import PurePath

_NAMES = {
    *("__macosx", "icon\r", "__pycache__", "lost+found"),  # of macOS, Python and ext4
    *("@eadir", "@recently-snapshot", "@recycle", "@tmp", "#recycle", "#snapshot"),  # of storage servers
    *("$recycle.bin", "recycler", "system volume information"),  # of Windows, as the next
    *("desktop.ini", "ehthumbs.db", "thumbs.db"),
}
_HIDDEN = {".ds_store", ".fseventsd", ".ipynb_checkpoints", ".spotlight-v100", ".trashes"}


def is_system_file(name: str) -> bool:
    """Whether a file or folder was left by an operating system or a program, by its name."""
    return name.lower() in _NAMES | _HIDDEN or name.startswith("._")


def is_ignored(name: str) -> bool:
    """Whether a file or folder in a folder of data is not data: hidden, or a system file."""
    return name.startswith(".") or is_system_file(name)


def first_system_name(path: PurePath) -> str | None:
    """The first component of a path that is a system file or folder; None: there is none."""
    return next(filter(is_system_file, path.parts), None)
