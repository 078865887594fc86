"""What each of torch's operations means, as expressions, reductions and products."""

from __future__ import annotations

from typing import Any

from bigmodel.engine.native.building import Lowering
from bigmodel.engine.native.operations.attention import ATTENTION
from bigmodel.engine.native.operations.composite import COMPOSITE
from bigmodel.engine.native.operations.elementwise import ELEMENTWISE
from bigmodel.engine.native.operations.indexing import INDEXING
from bigmodel.engine.native.operations.products import PRODUCTS
from bigmodel.engine.native.operations.reductions import REDUCTIONS

OPERATIONS: dict[Any, Lowering] = {
    **ELEMENTWISE,
    **REDUCTIONS,
    **PRODUCTS,
    **COMPOSITE,
    **ATTENTION,
    **INDEXING,
}
"""Views need no entry, nor does what torch decomposes into these."""
