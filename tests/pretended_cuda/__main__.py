"""python -m tests.pretended_cuda LIBRARY ARGUMENTS: pytest in a process that has the pretended device.

LIBRARY is what `device.cpp` was compiled to; the arguments are pytest's. With `-p
tests.pretended_cuda.without_values` the tests of `tests/gpu` run as far as they need no values.
"""

import sys
from pathlib import Path

from tests.pretended_cuda.device import load

if __name__ == "__main__":
    load(Path(sys.argv[1]))

    import pytest

    from tests.pretended_cuda import plugin

    sys.exit(pytest.main(sys.argv[2:], plugins=[plugin]))
