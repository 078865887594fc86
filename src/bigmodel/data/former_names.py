"""Former names of public fields, for plugins written for earlier versions."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar

ClassT = TypeVar("ClassT", bound=type[Any])


def former_name(former: str, name: str) -> Callable[[ClassT], ClassT]:
    """Decorator of a dataclass: `former` is accepted as a keyword argument and attribute for `name`."""

    def add(cls: ClassT) -> ClassT:
        init = cls.__init__

        @functools.wraps(init)
        def accept(self: Any, *values: Any, **named: Any) -> None:
            if former in named:
                named[name] = named.pop(former)
            init(self, *values, **named)

        cls.__init__ = accept
        alias = property(lambda self: getattr(self, name), lambda self, new: setattr(self, name, new))
        setattr(cls, former, alias)
        return cls

    return add
