"""What is made of arguments before Hydra reads them."""

import pytest

from bigmodel.cli.launch.flags import expand_device_index


@pytest.mark.parametrize(
    ("typed", "read"),
    [
        ("device=cuda:1", ["device=cuda", "device.name=cuda:1"]),
        ("device=cuda:0,cuda:1", ["device=cuda", "device.name=cuda:0,cuda:1"]),
        ("device=cpu,cuda:1", ["device=auto", "device.name=cpu,cuda:1"]),
        ("device=cuda", ["device=cuda"]),
        ("device=cuda:x", ["device=cuda:x"]),
        ("data.path=a:1", ["data.path=a:1"]),
    ],
)
def test_an_index_is_no_choice_of_a_file(typed: str, read: list[str]) -> None:
    assert expand_device_index(["-m", typed]) == ["-m", *read]
