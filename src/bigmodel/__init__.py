"""bigmodel: train neural networks from configurations, on the user's own data.

`bigmodel.train("model=cnn", …)` trains a run, and `bigmodel.load(folder)` gives one that was trained.
They are imported when they are first asked for: the package itself loads nothing.
"""

__version__ = "0.1.0"

_LAZY = {
    "sklearn": "bigmodel.sklearn",
    "TrainedRun": "bigmodel.api.trained_run",
    "load": "bigmodel.api.trained_run",
    "train": "bigmodel.api.training",
}
"""The module of each name that is imported when it is first asked for."""


def __getattr__(name: str) -> object:
    if name not in _LAZY:
        raise AttributeError(f"module 'bigmodel' has no attribute '{name}'")
    import gc
    from importlib import import_module

    # Torch has half a million objects, which would be searched again and again while modules are loaded.
    collects = gc.isenabled()
    gc.disable()
    try:
        module = import_module(_LAZY[name])
    finally:
        if collects:
            gc.enable()
    value = globals()[name] = module if name == "sklearn" else getattr(module, name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_LAZY})
