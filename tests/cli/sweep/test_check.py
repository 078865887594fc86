"""What is looked at before a sweep begins; `test_sweeper` has what is said of it."""

from typing import Any

import pytest

from bigmodel.cli.sweep import check
from bigmodel.sweeps.jobs import Job


def test_the_data_of_folds_is_read_once_for_all_that_leave_its_samples_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    read: list[tuple[str, ...]] = []
    monkeypatch.setattr(check, "composed", lambda *parts: parts[-1])
    monkeypatch.setattr(check, "parse", lambda overrides: overrides)
    monkeypatch.setattr(check, "read_dataset", read.append)
    listed = [
        (
            f"data={data}",
            f"data.batch_size={size}",
            f"model={model}",
            "data.folds=2",
            f"data.val_fold={n}",
        )
        for data in ("iris", "wine")
        for size in (8, 16)
        for model in ("fnn", "rnn")
        for n in (0, 1)
    ]
    unused: Any = None
    check.check_folds(unused, unused, [Job(n, words) for n, words in enumerate(listed)])
    assert sorted(words[0] for words in read) == ["data=iris", "data=wine"]
