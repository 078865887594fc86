"""Names of columns as they are typed: what Hydra's grammar does not take comes in a text."""

import shlex

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from bigmodel.data.tabular.column_options import assignment, column_option, column_options, parse_entries

NAMES = ("zip", "my num", "a.b", "a/b", "a  b", "größe", "size (m)", "50%", "it's", 'a"b', "a: b",
         "a, b", "true", "1e3", "2", "a&b", "a#b", "$x", "back\\slash", "Fläche: m², netto", "{q}",
         "${oc.env:HOME}", "a\\${b}", "ünder:number, b", "a:number", '"x"', "'x'")  # fmt: skip


@pytest.mark.parametrize("kind", ["category", {"number": "1.200,5 €"}, {"date": "%d/%m/%Y"}])
@pytest.mark.parametrize("name", NAMES)
def test_what_is_typed_for_a_name_says_that_name(name, kind):
    (typed,) = shlex.split(column_option(name, kind))
    override = OverridesParser.create().parse_override(f"++{typed}")
    value = OmegaConf.to_container(OmegaConf.create({"all": override.value()}), resolve=True)["all"]
    if override.key_or_group != "data.columns":
        value = {override.key_or_group.removeprefix("data.columns."): value}
    assert (parse_entries(value) if isinstance(value, str) else value) == {name: kind}


def test_the_shortest_way_is_taken():
    assert column_option("zip", "number") == "data.columns.zip=number"
    assert column_option("my num", "category") == "'data.columns={my num: category}'"
    assert column_option("größe", "number") == "'data.columns=\"{größe: number}\"'"
    assert assignment("data.columns", "a", "date") == "data.columns.a=date"
    assert column_option("a", {"number": "1,5"}) == "'data.columns.a={number: \"1,5\"}'"
    assert column_options(["a"], "number") == "data.columns.a=number"
    (typed,) = shlex.split(column_options(["a", "b, c"], "number"))
    value = OverridesParser.create().parse_override(typed).value()
    assert parse_entries(value) == {"a": "number", "b, c": "number"}


@pytest.mark.parametrize(
    "text", ["{a: number, b c: date}", "a: number,b c:date", "'{a: number, b c: date}'"]
)
def test_many_in_one_text(text):
    assert parse_entries(text) == {"a": "number", "b c": "date"}
    assert parse_entries("{}") == {}
    formed = {"a": {"number": "1.200,5"}, "b": "date", "c": {"date": "%d/%m"}}
    assert parse_entries("{a: {number: '1.200,5'}, b: date, c: {date: %d/%m}}") == formed


@pytest.mark.parametrize("text", ["{a}", "number", "{a: number, b}", "{a: [1]}"])
def test_a_text_that_says_no_kinds(text):
    with pytest.raises(ValueError, match="is not a name with its kind, such as"):
        parse_entries(text)
