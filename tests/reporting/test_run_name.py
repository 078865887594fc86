from pathlib import Path
from typing import Any

import pytest

from bigmodel.reporting.base import Labels
from bigmodel.reporting.run_name import folder_name, run_name
from tests.reporting import facts


def named(changed: dict[str, str], **data: Any) -> str:
    config = facts.CONFIG | {"data": facts.CONFIG["data"] | data}
    return run_name(facts.info(Path("run"), config=config, changed=changed))


@pytest.mark.parametrize(
    ("changed", "data", "name"),
    [
        ({}, {}, "fnn-digits"),
        (
            {"model": "fnn", "optimizer.lr": "0.1", "optimizer": "sgd"},
            {},
            "fnn-digits,lr=0.1,optimizer=sgd",
        ),
        ({"device": "cpu", "trainer.log_every": "1", "data.workers": "2"}, {}, "fnn-digits"),
        ({"model.dropout": "0.1", "seed": "3"}, {}, "fnn-digits,dropout=0.1,seed=3"),
        ({"model.norm": "a", "data.norm": "b"}, {}, "fnn-digits,model.norm=a,data.norm=b"),
        ({"model.hidden_sizes": "[128,64]"}, {}, "fnn-digits,hidden_sizes=128_64"),
        ({"metrics": "[{name: ece, bins: 20}]"}, {}, "fnn-digits,metrics=name_ece_bins_20"),
        ({"data.path": "x"}, {"name": "table", "path": "../My houses.csv"}, "fnn-My_houses"),
        ({}, {"name": "table", "path": "outputs/1/frame.parquet"}, "fnn-table"),
        ({}, {"name": "arrays", "path": None}, "fnn-arrays"),
    ],
)
def test_model_data_and_what_was_changed(changed: dict[str, str], data: Any, name: str) -> None:
    assert named(changed, **data) == name
    assert folder_name(name) == name


def test_its_user_s_name_comes_first() -> None:
    known = {"labels": Labels(name="a/b"), "changed": {"seed": "3"}}
    assert run_name(facts.info(Path("run"), **known)) == "a/b"
    assert run_name(facts.info(Path("run"), in_sweep=True, **known)) == "a/b,seed=3"


@pytest.mark.parametrize(
    ("name", "folder"),
    [
        ("../../etc/passwd", "etc_passwd"),
        ("..", "run"),
        (".hidden", "hidden"),
        ("a\x1b[31m\nb\0", "a_31m_b"),
        ("größer, als 東京", "größer,_als_東京"),
        ("/", "run"),
        ("C:\\x", "C_x"),
        ("[a]*?", "a"),
        ("\udcff", "run"),
        ("e" * 300, "e" * 120),
        ("ü" * 300, "ü" * 60),
    ],
)
def test_no_name_leads_out_of_its_folder_or_is_too_long(name: str, folder: str, tmp_path: Path) -> None:
    assert folder_name(name) == folder
    (tmp_path / folder_name(name)).mkdir()
    assert [path.name for path in tmp_path.iterdir()] == [folder]


def test_of_many_changes_the_first_are_told() -> None:
    name = folder_name(named({f"model.some_option_{n}": str(n) for n in range(9)}))
    assert name.startswith("fnn-digits,some_option_0=0,some_option_1=1,")
    assert name.endswith("some_option_5=5,and_3_more")
