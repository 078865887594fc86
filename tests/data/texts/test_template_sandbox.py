"""A stranger's template: it reaches nothing of Python, and can neither run nor write for ever."""

import datetime

import pytest

from bigmodel.data.texts.template_budget import MOST_TEXT
from bigmodel.data.texts.template_sandbox import ChatTemplate, TemplateError

DAY = datetime.date(2026, 1, 2)
MESSAGES = [{"role": "user", "content": "hi"}]


def rendered(text, **values):
    return ChatTemplate(text, DAY).render({"messages": MESSAGES, **values})[0]


def test_the_functions_of_transformers_are_there():
    assert rendered("{{ messages | tojson }}") == '[{"role": "user", "content": "hi"}]'
    assert rendered("{{ 'é<' | tojson }}") == '"é<"'
    assert rendered("{{ strftime_now('%Y-%m-%d') }}") == "2026-01-02"
    assert (
        rendered("{% for n in range(9) %}{% if n == 2 %}{% break %}{% endif %}{{ n }}{% endfor %}")
        == "01"
    )
    assert rendered("  {% if true %}\nx{% endif %}") == "x"
    assert rendered("{{ 'a' ~ 1 ~ none ~ ['b'] | join }}") == "a1Noneb"
    assert rendered("{{ ' a b ' | trim | upper | replace('A', 'c') }}") == "c B"
    assert rendered("{{ 7 % 4 + 2 ** 3 * 2 }}") == "19"
    assert rendered("{% macro f(x) %}<{{ x }}>{% endmacro %}{{ f('y') }}") == "<y>"


def test_generation_blocks_are_found_wherever_they_are_written():
    text = (
        "a{% set x %}{% generation %}one{% endgeneration %}{% endset %}{{ x | upper }}"
        "{% for n in [1, 2] %}-{% generation %}{{ n }}{% endgeneration %}{% endfor %}"
    )
    template = ChatTemplate(text, DAY)
    whole, places = template.render({})
    assert whole == "aONE-1-2"
    assert [whole[place] for place in places] == ["ONE", "1", "2"]
    assert template.has_generation
    assert not ChatTemplate("{# {% generation %} #}{{ 'endgeneration' }}", DAY).has_generation


def test_characters_for_private_use_stay_in_the_text():
    content = "\ue000\ue001"
    text, places = ChatTemplate("{% generation %}{{ c }}{% endgeneration %}", DAY).render({"c": content})
    assert (text, places) == (content, [slice(0, 2)])


OUTSIDE = (
    "{{ messages.__class__.__mro__ }}",
    "{{ messages[0]['__class__'].x }}",
    "{{ ().__class__.__base__.__subclasses__() }}",
    "{{ namespace.__init__.__globals__ }}",
    "{{ raise_exception.__globals__.x }}",
    "{{ strftime_now.__self__.x }}",
    "{{ self._TemplateReference__context.x }}",
    "{{ cycler.x }}",
    "{{ lipsum() }}",
    "{{ messages.append(1) }}",
    "{% do messages[0].update({}) %}",
    "{% include 'x' %}",
    "{{ (messages | attr('__class__')).x }}",
    "{% for c in ''.__class__.__mro__ %}{{ c.x }}{% endfor %}{{ ''.__class__.x }}",
)


@pytest.mark.parametrize("text", OUTSIDE)
def test_nothing_of_python_is_reached(text):
    with pytest.raises(TemplateError):
        rendered(text)
    assert MESSAGES == [{"role": "user", "content": "hi"}]


GROWING = {
    "loops": "{% for a in range(9999) %}{% for b in range(9999) %}{% endfor %}{% endfor %}",
    "loops without calls": "{% set r = range(9999) %}"
    "{% for a in r %}{% for b in r %}{% endfor %}{% endfor %}",
    "a long range": "{{ range(10 ** 9) | list }}",
    "times": "{{ 'a' * 1000000000 }}",
    "times, numbers": "{% set ns = namespace(x=9) %}{% for n in range(99) %}"
    "{% set ns.x = ns.x * ns.x %}{% endfor %}",
    "powers": "{{ 9 ** (9 ** 9) }}",
    "percent": "{{ '%1000000000d' % 1 }}",
    "format": "{{ '{:1000000000}'.format(1) }}",
    "a format filter": "{{ '%1000000000d' | format(1) }}",
    "filling": "{{ 'a'.ljust(1000000000) }}",
    "a filling filter": "{{ 'a' | center(1000000000) }}",
    "doubling": "{% set ns = namespace(x='aaaa') %}{% for n in range(99) %}"
    "{% set ns.x = ns.x ~ ns.x %}{% endfor %}",
    "doubling by blocks": "{% set ns = namespace(x='aaaa') %}{% for n in range(99) %}"
    "{% set ns.x %}{{ ns.x }}{{ ns.x }}{% endset %}{% endfor %}",
    "doubling lists": "{% set ns = namespace(x=[1]) %}{% for n in range(99) %}"
    "{% set ns.x = ns.x + ns.x %}{% endfor %}",
    "doubling by join": "{% set ns = namespace(x='aaaa') %}{% for n in range(99) %}"
    "{% set ns.x = [ns.x, ns.x] | join %}{% endfor %}",
    "replace": "{% set s = 'a' * 5000 %}{{ s | replace('a', s) }}",
    "replace, the method": "{% set s = 'a' * 5000 %}{{ s.replace('a', s) }}",
    "join, the method": "{% set s = 'a' * 5000 %}{{ s.join(s | list) }}",
    "macros": "{% macro f(s) %}{{ f(s) }}{{ f(s) }}{% endmacro %}{{ f('a') }}",
    "output": "{% set s = 'a' * 1000000 %}{% for n in range(99) %}{{ s }}{% endfor %}",
}


@pytest.mark.parametrize("name", GROWING)
def test_what_grows_without_end_is_ended(name):
    with pytest.raises(TemplateError):
        rendered(GROWING[name])


def test_a_large_text_is_no_mistake():
    text = "a" * (MOST_TEXT // 4)
    assert len(rendered("{{ c ~ c }}", c=text)) == MOST_TEXT // 2


def test_messages_name_the_line():
    with pytest.raises(TemplateError, match=r"^line 2: no system$"):
        rendered("\n{{ raise_exception('no system') }}")
    with pytest.raises(TemplateError, match=r"^line 3: Unexpected end"):
        rendered("\n\n{% for x in y %}")
    with pytest.raises(TemplateError, match=r"^line 1: 'nobody' is undefined$"):
        rendered("{{ nobody.name }}")


DOUBLED = (
    "{% set ns = namespace(a=['x'], b=['x']) %}{% for n in range(60) %}{% set ns.a = [ns.a, ns.a] %}"
    "{% set ns.b = [ns.b, ns.b] %}{% endfor %}"
)
LONG = "{% set s = 'a' * 9000000 %}"

COSTLY = {
    "nested lists, written": DOUBLED + "{{ ns.a }}",
    "nested lists, as JSON": DOUBLED + "{{ ns.a | tojson }}",
    "nested lists, compared": DOUBLED + "{{ ns.a == ns.b }}",
    "nested mappings": "{% set ns = namespace(a={}) %}{% for n in range(60) %}"
    "{% set ns.a = {'x': ns.a, 'y': ns.a} %}{% endfor %}{{ ns.a }}",
    "nested namespaces": "{% set ns = namespace(a=1) %}{% for n in range(60) %}"
    "{% set ns.a = namespace(a=ns.a, b=ns.a) %}{% endfor %}{{ ns.a }}",
    "a list of long texts": LONG + "{% set ns = namespace(l=[]) %}{% for n in range(99) %}"
    "{% set ns.l = ns.l + [s] %}{% endfor %}",
    "lists times lists": "{% set a = [0] * 90000 %}{{ ([a] * 1000) | tojson }}",
    "separators": LONG + "{{ ([1] * 10000) | tojson(separators=(s, s)) }}",
    "sorting again and again": "{% set a = range(10000) | list %}{% for n in range(10000) %}"
    "{{ a | sort | length }}{% endfor %}",
    "counting again and again": LONG + "{% for n in range(10000) %}{{ s.count('ba') }}{% endfor %}",
    "looking again and again": LONG + "{% for n in range(10000) %}{{ 'b' in s }}{% endfor %}",
    "comparing again and again": "{% set a = ['a' * 900000] %}{% for n in range(10000) %}"
    "{{ a.count('a' * 9) }}{% endfor %}",
    "a filter with long text between": LONG + "{{ range(10000) | list | join(s) }}",
    "a filter with long text between, named": LONG + "{{ range(10000) | list | join(d=s) }}",
    "a method with long text between": LONG + "{{ s.join(['a'] * 10000) }}",
    "replacing with names": LONG + "{{ s | replace(new=s, old='a') }}",
    "looking up tuples": "{% set t = ('a' * 900000,) %}{% for n in range(10000) %}"
    "{{ {}.get(t) }}{% endfor %}",
    "looking from the end": "{{ ('a' * 1000000).rfind('b' + 'a' * 500000) }}",
    "a block kept": LONG + "{% set x %}{% for n in range(10000) %}{{ s }}{% endfor %}{% endset %}",
    "a block kept, of plain text": "{% set x %}{% for n in range(10000) %}"
    + "x" * 20_000
    + "{% endfor %}"
    "{% endset %}",
    "a macro": "{% macro m() %}" + LONG + "{% for n in range(10000) %}{{ s }}{% endfor %}{% endmacro %}"
    "{{ m() | length }}",
    "a generation block": LONG + "{% generation %}{% for n in range(10000) %}{{ s }}{% endfor %}"
    "{% endgeneration %}",
    "joins within map": LONG + "{{ [[s] * 1000] | map('join') | list | length }}",
    "loops that leave all out": "{% for a in range(9999) %}{% for b in range(9999) if false %}"
    "{% endfor %}{% endfor %}",
    "dates": "{{ strftime_now('%2000000000d') }}",
}


@pytest.mark.parametrize("name", COSTLY)
def test_work_is_counted_in_all(name):
    with pytest.raises(TemplateError, match=r"more than|namespace|has a code such as"):
        rendered(COSTLY[name])


def test_what_real_templates_do_is_within_the_budget():
    many = [{"role": ("user", "assistant")[n % 2], "content": "word " * 200} for n in range(1000)]
    text = (
        "{% set ns = namespace(last=0, seen='') %}{% for m in messages[::-1] %}{% if m.role == 'user' %}"
        "{% set ns.last = loop.revindex0 %}{% endif %}{% endfor %}{% for m in messages %}"
        "{% set c = m.content.split('</think>')[-1].strip() %}{{ '<' + m.role + '>' + c + '\n' }}"
        "{% if loop.last or messages[loop.index0 + 1:] | length > 2 %}!{% endif %}{% endfor %}"
    )
    assert len(rendered(text, messages=many)) > 1_000_000


@pytest.mark.parametrize("name", ["sum", "striptags", "center", "attr"])
def test_a_filter_that_is_not_there_is_named(name):
    with pytest.raises(TemplateError, match=rf"No filter named '{name}' .*there are abs, .*, upper$"):
        rendered(f"{{{{ messages | {name} }}}}")
    with pytest.raises(TemplateError, match=rf"No filter named '{name}'"):
        rendered(f"{{{{ [messages] | map('{name}') | list }}}}")


DEEP = {
    "ifs": "{% if x %}" * 300 + "{% endif %}" * 300,
    "ifs beyond Python's blocks": "{% if x %}" * 101 + "{% endif %}" * 101,
    "parentheses": "{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}",
    "lists": "{{ " + "[" * 300 + "]" * 300 + " }}",
    "macros": "{% macro m(x) %}{{ m(x) }}{% endmacro %}{{ m(1) }}",
}


@pytest.mark.parametrize("name", DEEP)
def test_a_template_nested_too_deep_is_one_message(name):
    with pytest.raises(TemplateError, match=r"nested too deep$"):
        rendered(DEEP[name])


def test_generation_blocks_are_not_nested():
    nested = "{% generation %}a{% generation %}b{% endgeneration %}{% endgeneration %}"
    macro = "{% macro m() %}{% generation %}b{% endgeneration %}{% endmacro %}"
    for text in (nested, macro + "{% generation %}{{ m() }}{% endgeneration %}"):
        with pytest.raises(TemplateError, match="is within another"):
            rendered(text)
    whole = "{% set x %}{% generation %}ab{% endgeneration %}{% endset %}{{ x[1:] }}"
    assert rendered(whole) == "ab"


def test_joining_much_with_little_is_within_the_budget():
    much = ["a" * 100_000] * 10
    assert len(rendered("{{ (', ' * 30).join(c) }}{{ c | join(', ' * 30) }}", c=much)) == 2_001_080
    assert rendered("{{ 'abc' | replace(new='x', old='b') }}{{ ['a', 'b'] | join(d='-') }}") == "axca-b"


def test_no_name_of_a_template_is_in_the_way_of_counting():
    text = "{% set __tick__ = 1 %}{% set environment = 1 %}{% for n in [1, 2] %}{{ n }}{% endfor %}"
    assert rendered(text) == "12"
