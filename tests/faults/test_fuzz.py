"""Whatever is configured either trains or ends in one message, never in a traceback."""

import pytest
from hypothesis import HealthCheck, given, settings

from tests.faults import fuzz


@pytest.mark.filterwarnings("ignore")  # of torch's, about odd but allowed settings
@settings(
    max_examples=40,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)
@given(fuzz.overrides())
def test_odd_configurations(argv: list[str]) -> None:
    try:
        assert fuzz.ended_in_a_traceback(argv) is None
    finally:
        fuzz.reset_torch()
