"""Templates that would fill memory or never end, each rendered by `python bombs.py` under a limit
of memory; prints JSON.
"""

import json
import resource
import sys
import time

DOUBLING = (
    "{% set ns = namespace(s='xxxxxxxx', l=[1], d={}) %}{% for i in range(60) %}%s{% endfor %}{{"
    " ns.s|length }}"
)


def unrolled(start: str, step: str, end: str) -> str:
    return "{% set a = " + start + " %}" + ("{% set a = " + step + " %}") * 60 + end


BOMBS = [
    "{{ 'x' * 10**9 }}",
    "{{ 'x' * 999999 * 999999 }}",
    "{{ [0] * 999999999 }}",
    "{{ 9 ** 9 ** 9 }}",
    "{{ 2 ** 999999999 }}",
    "{{ 'x'.center(999999999) }}",
    "{{ 'x'|center(999999999) }}",
    "{{ 'x'.ljust(999999999) }}",
    "{{ 'x'.rjust(999999999, 'é') }}",
    "{{ '7'.zfill(999999999) }}",
    "{{ '\\t'.expandtabs(999999999) }}",
    "{{ '%0999999999d' % 1 }}",
    "{{ '%0999999999d'|format(1) }}",
    "{{ '%*d'|format(999999999, 1) }}",
    "{{ '%.999999999f'|format(1.5) }}",
    "{{ '{:>999999999}'.format(1) }}",
    "{{ '{:{}}'.format(1, 999999999) }}",
    "{{ '{x:>999999999}'.format_map({'x': 1}) }}",
    "{{ 'x'|indent(999999999, true) }}",
    "{{ ('x\\n' * 9)|indent(99999999) }}",
    "{{ lipsum(999999999) }}",
    "{{ lipsum(n=99999, html=false) }}",
    "{{ 1.5|round(999999999, 'ceil') }}",
    "{{ (5).to_bytes(999999999, 'big') }}",
    "{{ 'x'.encode('utf-8') }}",
    "{{ 'x'.translate({120: 'x' * 9999}) }}",
    "{{ [1]|batch(999999999, 0)|list }}",
    "{{ [1]|slice(999999999)|list }}",
    "{{ range(99999999)|list }}",
    "{{ range(9999)|join('x' * 99999) }}",
    "{{ range(9999)|join(range(9999)|join) }}",
    "{{ (range(9999)|join).replace('1', range(9999)|join) }}",
    "{{ range(9999)|join|replace('', range(9999)|join) }}",
    "{{ range(9999)|join|wordwrap(1, wrapstring=range(9999)|join) }}",
    "{{ range(9999)|join|replace(old='', new=range(9999)|join) }}",
    "{{ range(9999)|join|replace(new=range(9999)|join, old='') }}",
    "{{ range(9999)|join|indent(width=range(9999)|join) }}",
    "{{ {}|tojson(999999999) }}",
    "{{ [[[[1]]]]|tojson(99999999) }}",
    "{{ range(9999)|map('center', 99999)|list }}",
    "{{ range(9999)|map('batch', 9999)|list }}",
    "{{ range(9999)|map('string')|sum(start='') }}",
    "{{ [[1]]|sum(start=[]) }}",
    "{% for i in range(99999999) %}x{% endfor %}",
    (
        "{% for a in range(9999) %}{% for b in range(9999) %}{% for c in range(9999) %}x{% endfor"
        " %}{% endfor %}{% endfor %}"
    ),
    "{% for a in range(9999) %}{% for b in range(9999) if false %}{% endfor %}{% endfor %}",
    (
        "{% for a in range(9999) %}{% for b in range(9999) %}{% if a == b %}{% endif %}{% endfor"
        " %}{% endfor %}"
    ),
    "{% for a in range(9999) %}{{ 9999 in range(9999)|list }}{% endfor %}",
    "{% for a in range(9999) %}{{ range(9999)|join|length }}{% endfor %}",
    (
        "{% for a in range(9999) %}{% if range(9999)|list is eq(range(9999)|list) %}{% endif %}{%"
        " endfor %}"
    ),
    (
        "{% set l = range(9999)|list %}{% for a in l %}{% set b = l[1:] %}{% set c = l[::-1] %}{%"
        " endfor %}"
    ),
    "{% set l = range(9999)|list %}{% for a in l %}{{ l|sort|unique|list|length }}{% endfor %}",
    "{% for a in [[1, [2]], [3]] recursive %}{{ loop([a, a, a]) }}{% endfor %}",
    "{% macro m() %}{{ m() }}{{ m() }}{% endmacro %}{{ m() }}",
    "{% macro m(n) %}{% if n %}{{ m(n - 1) }}{{ m(n - 1) }}{% endif %}{% endmacro %}{{ m(60) }}",
    (
        "{% macro m(s, n) %}{% if n %}{{ m(s ~ s, n - 1) }}{% endif %}{% endmacro %}{{"
        " m('xxxxxxxx', 60) }}"
    ),
    "{% macro m(s, n) %}{% if n %}{{ m(s + s, n - 1) }}{% endif %}{% endmacro %}{{ m([1], 60) }}",
    (
        "{% macro m(n) %}{{ caller(n) }}{% endmacro %}{% macro w(n) %}{% call(x) m(n) %}{{ w(n)"
        " }}{{ w(n) }}{% endcall %}{% endmacro %}{{ w(1) }}"
    ),
    DOUBLING.replace("%s", "{% set ns.s = ns.s ~ ns.s %}"),
    DOUBLING.replace("%s", "{% set ns.s = ns.s + ns.s %}"),
    DOUBLING.replace("%s", "{% set ns.s %}{{ ns.s }}{{ ns.s }}{% endset %}"),
    DOUBLING.replace("%s", "{% set ns.s = [ns.s, ns.s]|join %}"),
    DOUBLING.replace("%s", "{% set ns.s = ns.s.replace('x', 'xx') %}"),
    DOUBLING.replace("%s", "{% set ns.s = ns.s|replace('x', 'xx') %}"),
    DOUBLING.replace("%s", "{% set ns.s = 'x'.join([ns.s, ns.s]) %}"),
    DOUBLING.replace("%s", "{% set ns.s = '%s%s'|format(ns.s, ns.s) %}"),
    DOUBLING.replace(
        "%s", "{% set ns.s %}{% filter replace('x', 'xx') %}{{ ns.s }}{% endfilter %}{% endset %}"
    ),
    DOUBLING.replace("%s", "{% set ns.l = ns.l + ns.l %}"),
    DOUBLING.replace("%s", "{% set ns.l = [ns.l, ns.l] %}") + "{{ ns.l }}",
    DOUBLING.replace("%s", "{% set ns.l = (ns.l, ns.l) %}") + "{{ {ns.l: 1} }}",
    DOUBLING.replace("%s", "{% set ns.d = {'a': ns.d, 'b': ns.d} %}") + "{{ ns.d }}",
    DOUBLING.replace("%s", "{% set ns.d = dict(a=ns.d, b=ns.d) %}") + "{{ ns.d|tojson }}",
    DOUBLING.replace("%s", "{% set ns.d = dict(ns.d, a=[ns.d, ns.d]) %}") + "{{ ns.d|string }}",
    DOUBLING.replace("%s", "{% set ns.l = ns.l|batch(1)|list + ns.l|batch(1)|list %}"),
    unrolled("'xxxxxxxx'", "a ~ a", "{{ a|length }}"),
    unrolled("'xxxxxxxx'", "a + a", "{{ a|length }}"),
    unrolled("[1]", "[a, a]", "{{ a == [a] }}"),
    unrolled("[1]", "[a, a]", "{{ a|string }}"),
    unrolled("[1]", "[a, a]", "{{ '%s'|format(a) }}"),
    unrolled("namespace(x=1)", "namespace(x=a, y=a)", "{{ a }}"),
    unrolled("namespace(x=1)", "namespace(x=a, y=a)", "{{ '%s'|format(a) }}"),
    unrolled("namespace(x=1)", "namespace(x=a, y=a)", "{{ a|upper }}"),
    unrolled("namespace(x=1)", "namespace(x=a, y=a)", "{{ [a]|string }}"),
    unrolled("namespace(x=1)", "[namespace(x=a, y=a)]", "{{ a|title }}"),
    unrolled("999999", "a + a", "{{ a }}"),
    "{% set ns = namespace() %}{% set ns.x = ns %}{{ ns }}",
    (
        "{% set ns = namespace(l=[]) %}{% for i in range(9999) %}{% set ns.l = [ns.l] %}{% endfor"
        " %}{{ ns.l }}"
    ),
    (
        "{% set c = cycler(*range(9999)) %}{% for i in range(9999) %}{% for j in range(9999) %}{{"
        " c.next() }}{% endfor %}{% endfor %}"
    ),
    "{% for i in range(9999) %}{{ loop.changed(range(9999)|list) }}{% endfor %}",
    "{% block a %}{{ self.a() }}{{ self.a() }}{% endblock %}",
    "{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}",
    "{{ " + "[" * 5000 + "]" * 5000 + " }}",
    "{{ " + "not " * 5000 + "1 }}",
    "{{ " + "1 + " * 5000 + "1 }}",
    "{{ x" + "|upper" * 5000 + " }}",
    "{% if 1 %}" * 300 + "{% endif %}" * 300,
    "{% for a in [1] %}" * 90 + "{% endfor %}" * 90,
    "{{ " + "9" * 9999 + " }}",
    "{{ 0x" + "f" * 9999 + " }}",
    "{#" * 9999,
    "{{" * 9999,
    "{%" + " " * 90_000,
    "x" * 200_000,
    "{{ ''.__class__.__base__.__subclasses__() }}",
    "{{ range.__init__.__globals__ }}",
    "{{ cycler.__init__.__globals__ }}",
    "{{ 1 // 0 }}",
    "{{ dict(**{1: 2}) }}",
    "{{ namespace.__class__ }}",
    "{{ ''|attr('__class__') }}",
    "{{ [1]|random }}",
    "{{ 'x'|pprint }}",
    "{% include 'x' %}",
    "{% import 'x' as x %}",
    "{% extends 'x' %}",
    "{{ range }}",
    "{{ ''.upper }}",
]


def main() -> None:
    """Print what became of each: its error or the length of its text, seconds, and the peak of
    memory in MiB.
    """
    from culturepark.errors import CardError
    from culturepark.prompts import render

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    resource.setrlimit(resource.RLIMIT_AS, (4 << 30, 4 << 30))
    rows = []
    for bomb in BOMBS:
        began = time.process_time()
        try:
            end = f"{len(render(bomb, {}, 'card'))} characters"
        except CardError as error:
            end = str(error)
        rows.append((bomb[:200], end, round(time.process_time() - began, 3)))
    peak = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    sys.stdout.write(json.dumps({"rows": rows, "peak": peak}))


if __name__ == "__main__":
    main()
