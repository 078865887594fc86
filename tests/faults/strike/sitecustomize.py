"""Python loads this at its start: has the process send itself a signal when it is at a state.

The variable STRIKE says which: a signal's number, and then one of

    import NAME         a module begins to be imported, for the first time
    call MODULE:NAME    a function or method is called, for the first time
    drop MODULE:NAME    the same, within a destructor, where what is raised goes nowhere
    end threads         all is done: the interpreter waits for threads
    end exit            it calls what was left to be done at exit
    end last exit       the last of that
    end modules         it takes modules apart

`ignored` before it: the signal is ignored from the start. A file `struck` says that it was sent.
"""

import atexit
import importlib.abc
import importlib.util
import os
import signal
import sys
import threading
import types
from pathlib import Path

number, _, state = os.environ.pop("STRIKE").partition(" ")
number, mine = int(number), os.getpid()
told, done = Path.cwd() / "struck", False
was_ignored = state.startswith("ignored ")
state = state.removeprefix("ignored ")
if was_ignored:
    signal.signal(number, signal.SIG_IGN)
else:  # whoever runs the tests may ignore it, in the background say
    signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)


def strike() -> None:
    global done
    if not done:
        done = True
        told.touch()
        os.kill(os.getpid(), number)


class Dropped:
    def __del__(self) -> None:
        strike()


class Last:
    """The same with nothing from this module, which is being taken apart."""

    def __del__(
        self,
        number=number,
        kill=os.kill,
        pid=mine,
        touch=os.open,
        path=str(told),
        flags=os.O_CREAT,
    ) -> None:
        touch(path, flags)
        kill(pid, number)


class Watch(importlib.abc.MetaPathFinder):
    """Strikes as a module begins to be imported, or has a function of it strike."""

    def __init__(self, kind: str, name: str) -> None:
        self.kind = kind
        self.module, _, self.function = name.partition(":")

    def find_spec(self, name, path=None, target=None):  # noqa: ARG002
        if name != self.module:
            return None
        if self.kind == "import":
            self.module = ""
            strike()
            return None
        self.module = ""
        spec = importlib.util.find_spec(name)
        load = spec.loader.exec_module

        def loaded(module) -> None:
            load(module)
            self.wrap(module)

        spec.loader.exec_module = loaded
        return spec

    def wrap(self, owner) -> None:
        *path, name = self.function.split(".")
        for part in path:
            owner = getattr(owner, part)
        act = getattr(owner, name)

        def striking(*args, **more):
            strike() if self.kind == "call" else Dropped()
            return act(*args, **more)

        setattr(owner, name, striking)


kind, _, what = state.partition(" ")
if kind != "end":
    sys.meta_path.insert(0, Watch(kind, what))
elif what == "threads":
    threading._register_atexit(strike)
elif what == "last exit":  # before ours, as the first to be registered is the last to be called
    atexit.register(strike)
elif what == "exit":
    registered = atexit.register

    def later(act, *args, **more):
        atexit.register = registered
        registered(act, *args, **more)
        registered(strike)
        return act

    atexit.register = later
else:
    sys.modules["last"] = types.ModuleType("last")
    sys.modules["last"].last = Last()
