"""A stranger's template: it reaches nothing of Python, and can neither run nor write for ever."""

import datetime

import pytest

from bigmodel.data.texts.template_sandbox import MOST_TEXT, ChatTemplate, TemplateError

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
