"""Recordings that cannot be heard: why, in words that are true."""

import pytest

from bigmodel.data.files.collecting import Unreadable
from bigmodel.data.media.sounds import duration, listen


@pytest.mark.parametrize("hear", [duration, lambda path: listen(path, 8000)])
def test_what_is_no_recording_is_said_to_be_none(tmp_path, hear):
    path = tmp_path / "a.mp3"
    path.write_bytes(b"hello world " * 100)
    with pytest.raises(Unreadable, match="it is no sound, or damaged"):
        hear(path)
    path = tmp_path / "a.wav"
    path.write_bytes(b"hello world " * 100)
    with pytest.raises(Unreadable, match="Format not recognised"):
        hear(path)
