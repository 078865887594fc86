"""The files of the group `sweep` and the schemas say the same."""

from pathlib import Path

import pytest
import yaml

from bigmodel.cli.launch.config_index import read_index
from bigmodel.sweeps.config import ModelsConfig, SearchConfig, SweepConfig
from tests.test_configs import descriptions

CONFIGS = Path(__file__).parents[2] / "configs"
CHOICES = read_index([CONFIGS]).groups["sweep"].choices


@pytest.mark.parametrize(
    ("name", "schema"), [("default", SweepConfig), ("optuna", SearchConfig), ("models", ModelsConfig)]
)
def test_keys_and_comments_are_those_of_the_schema(name: str, schema: type[SweepConfig]) -> None:
    comments = {key.path.removeprefix("sweep."): key.description for key in CHOICES[name].keys}
    assert comments == descriptions(schema)


def test_values_are_the_defaults_of_the_schema() -> None:
    values = {name: yaml.safe_load((CONFIGS / "sweep" / f"{name}.yaml").read_text()) for name in CHOICES}
    assert values["default"] == SweepConfig().model_dump(mode="json")
    assert values["optuna"].pop("defaults") == ["default", "_self_"]
    assert values["default"] | values["optuna"] == SearchConfig().model_dump(mode="json")
    assert values["models"].pop("defaults") == ["default", "_self_"]
    assert values["default"] | values["models"] == ModelsConfig().model_dump(mode="json")
