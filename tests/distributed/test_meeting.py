"""Processes that do not meet; how they meet and part is tested with real ones in `tests/faults`."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from bigmodel.distributed.environment import Place
from bigmodel.distributed.meeting import Meeting
from bigmodel.errors import DeviceError


@pytest.fixture
def taken() -> Iterator[int]:
    """A port that another program has."""
    with socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True) as server:
        yield server.getsockname()[1]


def free() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
    return port


@pytest.mark.parametrize(
    ("rank", "words"), [(0, "some of them have not come to"), (1, "nobody was there at")]
)
def test_who_has_not_come_is_told(rank: int, words: str) -> None:
    port = free()
    with pytest.raises(DeviceError, match=f"rank {rank}: in 1 seconds {words} 127.0.0.1:{port}"):
        Meeting(Place("torchrun", rank, 2, 0, "127.0.0.1", port), 1.0)


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="no IPv6 here")
def test_a_port_that_another_program_has_is_told(taken: int) -> None:
    with pytest.raises(DeviceError, match=f"127.0.0.1:{taken}, but another program has that port"):
        Meeting(Place("srun", 0, 2, 0, "127.0.0.1", taken), 5.0)
