"""Libraries that only some data needs, each imported when it is first used.

So a source of images neither waits for pyarrow nor needs it installed.
"""

from __future__ import annotations

import importlib
from typing import Any


class LazyModule:
    """A module that is imported at the first access to one of its attributes.

    Raises:
        ModuleNotFoundError: at that access, if the module is not installed.
    """

    def __init__(self, name: str) -> None:
        self._module_name = name

    def __getattr__(self, attribute: str) -> Any:
        module = importlib.import_module(self._module_name)
        vars(self).update(vars(module))  # later accesses skip this slow method
        return getattr(module, attribute)


pa = LazyModule("pyarrow")
pc = LazyModule("pyarrow.compute")
pa_csv = LazyModule("pyarrow.csv")
pa_json = LazyModule("pyarrow.json")
pq = LazyModule("pyarrow.parquet")
pil_image = LazyModule("PIL.Image")
pil_ops = LazyModule("PIL.ImageOps")
regex = LazyModule("regex")
soundfile = LazyModule("soundfile")
tokenizers = LazyModule("tokenizers")
