"""Python loads this at its start: has the process send itself signals when it is at a state.

The variable STRIKE holds JSON:

    states    one or more of
                  import NAME         a module begins to be imported, for the first time
                  call MODULE:NAME    a function or method is called, for the first time
                  drop MODULE:NAME    the same, within a destructor, where what is raised goes nowhere
                  end threads         all is done: the interpreter waits for threads
                  end exit            it calls what was left to be done at exit
                  end last exit       the last of that
                  end modules         it takes modules apart
    numbers   the signals
    ignored   whether they are ignored from the start
    results   None: the process strikes itself with each signal. Otherwise it forks at each state, once
              for each signal; the child strikes itself and goes on, and a line in this file says how it
              ended: state, signal, status, and what it left in the current folder. What it printed is in
              RESULTS.NUMBER-OF-STATE.SIGNAL. So one process, which takes seconds to get there, serves
              for all states and signals.

Without `results`, a file `struck` in the current folder says that the signals were sent.
"""

import atexit
import importlib.abc
import importlib.util
import json
import os
import signal
import sys
import threading
import types
from pathlib import Path

plan = json.loads(os.environ.pop("STRIKE"))
states, numbers, results = plan["states"], plan["numbers"], plan["results"]
for number in numbers:
    if plan["ignored"]:
        signal.signal(number, signal.SIG_IGN)
    else:  # whoever runs the tests may ignore it, in the background say
        usual = signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
        signal.signal(number, usual)

SENT = str(Path.cwd() / "struck")
OUTPUT = os.O_CREAT | os.O_WRONLY
left = set(range(len(states)))  # empty in a child
table = -1 if results is None else os.open(results, OUTPUT)


# What it needs stands in its defaults, since this module has been taken apart when the last state is
# reached.
def strike(
    place, states=states, numbers=numbers, results=results, left=left, table=table, os=os, sent=SENT
):
    if place not in left:
        return
    left.remove(place)
    if results is None:
        os.close(os.open(sent, os.O_CREAT))
        for number in numbers:
            os.kill(os.getpid(), number)
        return
    made = [folder for folder, _, _ in os.walk(".")]
    for number in numbers:
        child = os.fork()
        if child == 0:
            left.clear()
            printed = os.open(f"{results}.{place}.{int(number)}", OUTPUT)
            os.dup2(printed, 1)
            os.dup2(printed, 2)
            os.close(printed)
            os.kill(os.getpid(), number)
            return
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        line = "\t".join([states[place], str(int(number)), str(status), *os.listdir(".")])
        os.write(table, f"{line}\n".encode())
        for folder in made:  # the child has taken its own folder away, which is this process's too
            os.makedirs(folder, exist_ok=True)
    if not left and not states[place].startswith("end "):
        os._exit(0)


class Dropped:
    def __init__(self, place):
        self.place = place

    def __del__(self):
        strike(self.place)


class Last:
    def __init__(self, place):
        self.place = place

    def __del__(self, strike=strike):
        strike(self.place)


class Watch(importlib.abc.MetaPathFinder):
    """Strikes as a module begins to be imported, or has a function of it strike."""

    def __init__(self, place, kind, name):
        self.place, self.kind = place, kind
        self.module, _, self.function = name.partition(":")

    def find_spec(self, name, path=None, target=None):  # noqa: ARG002
        if name != self.module:
            return None
        self.module = ""
        if self.kind == "import":
            strike(self.place)
            return None
        spec = importlib.util.find_spec(name)
        load = spec.loader.exec_module

        def loaded(module):
            load(module)
            self.wrap(module)

        spec.loader.exec_module = loaded
        return spec

    def wrap(self, owner):
        *path, name = self.function.split(".")
        for part in path:
            owner = getattr(owner, part)
        act = getattr(owner, name)

        def striking(*args, **more):
            strike(self.place) if self.kind == "call" else Dropped(self.place)
            return act(*args, **more)

        setattr(owner, name, striking)


def arm(place, state):
    kind, _, what = state.partition(" ")
    if kind != "end":
        sys.meta_path.insert(0, Watch(place, kind, what))
    elif what == "threads":
        threading._register_atexit(strike, place)
    elif what == "last exit":  # before ours, as the first to be registered is the last to be called
        atexit.register(strike, place)
    elif what == "exit":
        registered = atexit.register

        def later(act, *args, **more):
            atexit.register = registered
            registered(act, *args, **more)
            registered(strike, place)
            return act

        atexit.register = later
    else:
        sys.modules["last"] = types.ModuleType("last")
        sys.modules["last"].last = Last(place)


# Watches are asked last in, first out, and one that wraps a function asks those behind it: so that two
# functions of one module are both wrapped, and `last exit` is registered before `exit`.
for index, state in sorted(enumerate(states), key=lambda one: one[1] != "end last exit"):
    arm(index, state)
