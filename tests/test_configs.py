"""The shipped YAML files and the schemas say the same: names, values, and what each key means."""

from pathlib import Path
from typing import Any, get_args

import pytest
import yaml
from pydantic import BaseModel

from bigmodel.cli.launch.config_index import Key, read_index
from bigmodel.cli.launch.resume_config import flatten
from bigmodel.config import TopConfig
from bigmodel.registry import REGISTRIES, Config
from bigmodel.runtime.device import DeviceConfig
from bigmodel.training.plan import TrainerConfig

CONFIGS = Path(__file__).parents[1] / "configs"
INDEX = read_index([CONFIGS])
PLAIN = {"device": DeviceConfig, "trainer": TrainerConfig}
FILES = sorted(path for group in (*REGISTRIES, *PLAIN) for path in (CONFIGS / group).glob("*.yaml"))
EVERY_FILE = sorted(CONFIGS.rglob("*.yaml"))


def name_of(path: Path) -> str:
    return str(path.relative_to(CONFIGS).with_suffix(""))


def schema_of(path: Path) -> type[BaseModel]:
    group = path.parent.name
    return PLAIN.get(group) or REGISTRIES[group].entry(values_of(path)["name"]).config


def shared_schema(group: str) -> type[BaseModel]:
    """The schema of the settings that every choice of a group has."""
    return REGISTRIES[group].shared if group in REGISTRIES else Config


def values_of(path: Path) -> dict[str, Any]:
    values = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert isinstance(values, dict)
    return values


def is_preset(path: Path) -> bool:
    """Whether a file is an entry's configuration under another name, with values of its own."""
    return path.parent.name in REGISTRIES and values_of(path)["name"] != path.stem


def keys_of(path: Path) -> dict[str, Key]:
    group = path.parent.name
    choice = INDEX.groups[group].choices[path.stem]
    return {key.path.removeprefix(f"{group}."): key for key in choice.keys}


def nested_schema(annotation: Any) -> type[BaseModel] | None:
    """The schema in a field's type: `Augment`, or `Augment | None`."""
    for kind in (annotation, *get_args(annotation)):
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            return kind
    return None


def descriptions(schema: type[BaseModel], prefix: str = "") -> dict[str, str | None]:
    """Dotted key and description of every field, nested ones included."""
    found: dict[str, str | None] = {}
    for name, field in schema.model_fields.items():
        found[prefix + name] = field.description
        if nested := nested_schema(field.annotation):
            found |= descriptions(nested, f"{prefix}{name}.")
    return found


def test_there_are_files_to_compare():
    assert {path.parent.name for path in FILES} == {*REGISTRIES, *PLAIN}


@pytest.mark.parametrize("kind", REGISTRIES)
def test_every_entry_has_its_file(kind):
    built_in = {
        name
        for name in REGISTRIES[kind].names()
        if REGISTRIES[kind].entry(name).factory.__module__.startswith("bigmodel.")
    }
    files = [path for path in FILES if path.parent.name == kind]
    assert {path.stem for path in files if not is_preset(path)} == built_in
    assert {values_of(path)["name"] for path in files} == built_in


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_file_is_accepted_by_its_schema(path):
    values = values_of(path)
    parsed = schema_of(path).model_validate(values)
    if path.parent.name != "trainer":
        assert next(iter(values)) == "name"
    assert parsed.model_dump(mode="json") == values  # every field is stated, and no other


@pytest.mark.parametrize("path", [path for path in FILES if not is_preset(path)], ids=name_of)
def test_values_are_the_defaults_of_the_schema(path):
    values = values_of(path)
    by_name = {"name": values["name"]} if "name" in values else {}
    assert values == schema_of(path).model_validate(by_name).model_dump(mode="json")


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_comments_are_the_descriptions(path):
    comments = {key: found.description for key, found in keys_of(path).items()}
    assert comments == descriptions(schema_of(path)) | descriptions(shared_schema(path.parent.name))


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_key_order_is_that_of_the_schema(path):
    """The page that `--help` prints follows the files."""
    names = list(schema_of(path).model_fields)
    assert sorted(values_of(path), key=names.index) == list(values_of(path))


def test_top_keys_are_those_of_their_schema():
    comments = {key.path: key.description for key in INDEX.top}
    assert comments == descriptions(TopConfig)
    values = values_of(CONFIGS / "train.yaml")
    own = {key: values[key] for key in comments if "." not in key}
    assert own == TopConfig().model_dump(mode="json")
    assert flatten(own).keys() < comments.keys()


@pytest.mark.parametrize("kind", REGISTRIES)
def test_shared_values_are_the_defaults_of_their_schema(kind):
    values = values_of(CONFIGS / "train.yaml").get(kind, {})
    assert values == shared_schema(kind)().model_dump(mode="json")


@pytest.mark.parametrize("path", EVERY_FILE, ids=name_of)
def test_file_says_what_it_is_and_names_no_code(path):
    lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    first = lines[1] if lines[0].startswith("# @package") else lines[0]
    assert first.startswith("# ")
    assert first.strip("# .").lower() not in ("", path.stem)
    assert "_target_" not in path.read_text(encoding="utf-8")
    assert path.suffix == ".yaml"
