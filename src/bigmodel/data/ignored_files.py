"""What systems and programs leave beside people's files, and what is never one of them.

macOS puts `__MACOSX` into archives and `._x.jpg` beside `x.jpg`, a Synology `@eaDir` into each folder,
Windows `Thumbs.db`, a notebook server `.ipynb_checkpoints`. All hidden files are passed over as well.
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
    """Whether the name of a file or folder is one that a system or a program gives."""
    return name.lower() in _NAMES | _HIDDEN or name.startswith("._")


def is_ignored(name: str) -> bool:
    """Whether a file or folder found in a folder of data is none of the data: hidden, or clutter."""
    return name.startswith(".") or is_system_file(name)


def first_system_name(path: PurePath) -> str | None:
    """The first part of a path that is clutter; None where none is."""
    return next(filter(is_system_file, path.parts), None)
