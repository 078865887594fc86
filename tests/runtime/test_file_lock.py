"""One process has a lock; it is free as soon as that process ends."""

import subprocess
import sys
from pathlib import Path

from bigmodel.runtime import file_lock
from bigmodel.runtime.file_lock import locked

_HOLDS = """
import sys
from pathlib import Path
from bigmodel.runtime.file_lock import locked
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_process_that_is_killed_leaves_its_lock(tmp_path: Path, monkeypatch) -> None:
    path = tmp_path / "lock"
    command = [sys.executable, "-c", _HOLDS, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"held\n"
        waited = []
        monkeypatch.setattr(
            file_lock.time, "sleep", lambda _: waited.append(1) or other.kill() or other.wait()
        )
        with locked(path) as alone:
            assert alone
        assert waited


def test_a_disk_without_locks_has_none(tmp_path: Path, monkeypatch) -> None:
    import fcntl

    def refuse(*_: int) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with locked(tmp_path / "lock") as alone:
        assert not alone
