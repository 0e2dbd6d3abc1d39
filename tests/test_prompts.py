"""Templates are untrusted: they see card fields and nothing behind them."""

import pytest
from conftest import TEA

import culturepark as cp
from culturepark.prompts import render
from culturepark.records import Option


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
    assert render("{{ o.label }}: {{ 2 * 3 }}", {"o": Option(code=1, label="Yes")}, "here") == "Yes: 6"


def test_check_names_card_and_key_of_a_bad_template(park):
    card = park / "agents/delegate.toml"
    card.write_text(card.read_text().replace("{{ me.given_name }}", "{{ me.__class__ }}", 1))
    with pytest.raises(cp.CardError, match=r"agents/delegate\.toml: system: .*__class__"):
        cp.check(park)


def test_show_is_exactly_what_the_model_gets(park):
    shown = cp.show("delegate", culture="north", question="T3", turn=3, settings=cp.Settings(**TEA), workspace=park)
    roles = [m.role for m in shown.messages]
    assert roles == ["system", "user", "assistant", "user"]
    assert "drinking tea with 3 guests" in shown.messages[0].content or "3 guests" in shown.messages[0].content


def test_show_names_what_there_is(park):
    with pytest.raises(cp.NotFound, match="verifier"):
        cp.show("verfier", workspace=park)
    with pytest.raises(cp.InputError, match="turns 1, 3"):
        cp.show("delegate", turn=2, culture="north", settings=cp.Settings(**TEA), workspace=park)
