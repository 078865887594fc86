"""python -m tests.fake_cuda LIBRARY ARGUMENTS: pytest in a process that has the fake device.

LIBRARY is the compiled `device.cpp`; the arguments are pytest's. With `-p
tests.fake_cuda.without_values` the tests of `tests/gpu` run as far as they need no values.
"""

import sys
from pathlib import Path

from tests.fake_cuda.device import load

if __name__ == "__main__":
    load(Path(sys.argv[1]))

    import pytest

    from tests.fake_cuda import plugin

    sys.exit(pytest.main(sys.argv[2:], plugins=[plugin]))
