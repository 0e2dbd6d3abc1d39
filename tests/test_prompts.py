"""Templates are untrusted: they see card fields and nothing behind them, and cannot fill memory or
go on for ever.
"""

import json
import os
import subprocess
import sys

import pytest
from bombs import BOMBS
from conftest import ROOT, TEA
from hypothesis import given
from hypothesis import strategies as st

import culturepark as cp
from culturepark.prompts import render
from culturepark.records import Option
from culturepark.workspace import find_shipped_cards


@pytest.mark.parametrize(
    "template",
    [
        "{{ ''.__class__.__mro__ }}",
        "{{ o.__init__.__globals__ }}",
        "{{ o.model_dump() }}",
        "{{ o.model_fields_set }}",
        "{{ 'x' * 1000000000 }}",
        "{{ '%1000000000d' % 1 }}",
        "{{ 9 ** 999999 }}",
        "{% for i in range(100000000) %}x{% endfor %}",
        "{{ missing }}",
        "{% include '/etc/passwd' %}",
        "{{ unclosed",
    ],
)
def test_a_template_that_reaches_too_far_is_one_clear_error(template):
    with pytest.raises(cp.CardError, match=r"agents/x\.toml: system: "):
        render(template, {"o": Option(code=1, label="Yes")}, "agents/x.toml: system")


def test_a_template_reads_the_fields_of_cards():
    assert (
        render("{{ o.label }}: {{ 2 * 3 }}", {"o": Option(code=1, label="Yes")}, "here") == "Yes: 6"
    )


@pytest.fixture(scope="module")
def exploded():
    """What became of every bomb, in a process that may take 4 GiB: rows of template, end and
    seconds, and MiB at the peak.
    """
    run = [sys.executable, str(ROOT / "tests/bombs.py")]
    done = subprocess.run(
        run,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_every_bomb_is_the_cards_one_error(exploded):
    assert len(exploded["rows"]) == len(BOMBS) > 100
    assert [
        row for row in exploded["rows"] if not row[1].startswith("card: ") or "\n" in row[1]
    ] == []


def test_no_bomb_takes_much_time_or_memory(exploded):
    assert (
        max(seconds for _, _, seconds in exploded["rows"]) < 10
    )  # half a second on an idle machine
    assert exploded["peak"] < 400  # MiB; 22 on an idle machine


@pytest.mark.parametrize(
    ("template", "told"),
    [
        (
            "One\n{{ clture.title }}",
            r"line 2 \(\{\{ clture.title \}\}\): no name 'clture' here. Did you mean 'culture'",
        ),
        ("{{ o.lable }}", "an option has no field 'lable'. Did you mean 'label'"),
        ("{{ t.kye }}", "the table has no key 'kye'. Did you mean 'key'"),
        ("One\n\n{% if o %}", "line 3 .*'endif'"),
        ("{{ o.label|uper }}", "no filter named 'uper'. Did you mean 'upper'"),
        ("{{ o.code is evn }}", "no test named 'evn'. Did you mean 'even'"),
        ("{{ o.label.format(1) }}", "may not use .format"),
        ("{{ o.label b }}", "expected token '}}', got 'b'"),
        ("{{ culture }}", "a culture is no text; name one of its fields: name, title"),
        ("{{ o.label.upper }}", "a function is no text"),
    ],
)
def test_a_mistake_is_told_with_its_line_and_the_nearest_name(template, told):
    facts = {
        "o": Option(code=1, label="Yes"),
        "t": {"key": 1},
        "culture": cp.load(find_shipped_cards()).culture("german"),
    }
    with pytest.raises(cp.CardError, match=f"system: .*{told}"):
        render(template, facts, "agents/x.toml: system")


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("{{ words|join(', ') }} {{ words|length }}", "b, a 2"),
        (
            (
                "{% for w in words|sort %}{{ loop.index }}{{ w }}{{ ';' if not loop.last }}{%"
                " endfor %}"
            ),
            "1a;2b",
        ),
        ("{% for w in words if w != 'a' %}{{ w }}{% else %}none{% endfor %}", "b"),
        (
            (
                "{% macro m(w) %}<{{ w }}>{% endmacro %}{{ m('x') }}{% macro n() %}{{ caller() }}{%"
                " endmacro %}{% call n() %}y{% endcall %}"
            ),
            "<x>y",
        ),
        (
            (
                "{% set ns = namespace(n=0) %}{% for w in words %}{% set ns.n = ns.n + 1 %}{%"
                " endfor %}{{ ns.n }}"
            ),
            "2",
        ),
        (
            "{% for w in [[1, [2]]] recursive %}{{ w if w is number else loop(w) }}{% endfor %}",
            "12",
        ),
        (
            "{{ '%.2f'|format(0.5) }} {{ 7 // 2 }} {{ 'a' ~ 1 }} {{ 'a' + 'b' }} {{ words[1:] }}",
            "0.50 3 a1 ab ['a']",
        ),
        (
            "{{ words|tojson }} {{ t.items()|list }} {{ t.get('x', 'none') }}",
            '["b", "a"] [(\'key\', 1)] none',
        ),
        ("{% filter upper %}{{ ' x '.strip().replace('x', 'yy') }}{% endfilter %}", "YY"),
        (
            "{{ words|map('upper')|join('') }}{{ 'x'|center(5)|length }}{{ 'a\nb'|indent(2) }}",
            "BA5a\n  b",
        ),
        (
            (
                "{% set c = cycler('x', 'y') %}{{ c.next() }}{{ c.next() }}{% for i in range(3)"
                " %}{{ loop.cycle('o', 'e') }}{% endfor %}"
            ),
            "xyoeo",
        ),
        (
            (
                "{% if 'a' in words and t is mapping and missing is not defined %}yes{% endif %}{{"
                " missing|default('d') }}"
            ),
            "yesd",
        ),
        (
            "{% with x = 1 %}{{ x }}{% endwith %}{% set b %}{{ x|default(2) }}{% endset %}{{ b }}",
            "12",
        ),
    ],
)
def test_the_tools_of_templates_work(template, text):
    assert render(template, {"words": ["b", "a"], "t": {"key": 1}}, "here") == text


PIECES = [
    *"{}%-#()[]|~.,:'\"=*+<> \n",
    "{{ ",
    " }}",
    "{% ",
    " %}",
    "for x in ",
    "if ",
    "endfor",
    "endif",
    "set ",
    "macro m(x)",
    "me",
    "x",
    "1",
    "99999999",
    "range(",
    "namespace(",
    "|join",
    "|center",
    "|batch",
    "loop",
    "'a'",
    "not ",
    "is ",
    "in ",
    "recursive",
    "upper",
    "__class__",
]


@given(st.lists(st.sampled_from(PIECES), max_size=30).map("".join))
def test_any_template_is_a_text_or_one_error(template):
    try:
        assert isinstance(render(template, {"me": Option(code=1, label="Yes")}, "card"), str)
    except cp.CardError as error:
        assert (
            len(error.problems) == 1
            and error.problems[0].startswith("card: ")
            and "\n" not in error.problems[0]
        )


def test_check_names_card_and_key_of_a_bad_template(park):
    card = park / "agents/delegate.toml"
    card.write_text(card.read_text().replace("{{ me.given_name }}", "{{ me.__class__ }}", 1))
    with pytest.raises(cp.CardError, match=r"agents/delegate\.toml: system: .*__class__"):
        cp.check(park)


def test_show_is_exactly_what_the_model_gets(park):
    shown = cp.show(
        "delegate",
        culture="north",
        question="T3",
        turn=3,
        settings=cp.Settings(**TEA),
        workspace=park,
    )
    roles = [m.role for m in shown.messages]
    assert roles == ["system", "user", "assistant", "user"]
    assert (
        "drinking tea with 3 guests" in shown.messages[0].content
        or "3 guests" in shown.messages[0].content
    )


def test_show_names_what_there_is(park):
    with pytest.raises(cp.NotFound, match="verifier"):
        cp.show("verfier", workspace=park)
    with pytest.raises(cp.InputError, match="turns 1, 3"):
        cp.show("delegate", turn=2, culture="north", settings=cp.Settings(**TEA), workspace=park)
