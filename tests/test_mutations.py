"""Damaged cards: of 5,000, each is a card or one error per mistake that names the file; none ends
in a traceback.
"""

import random
import re
from dataclasses import replace

import pytest

import culturepark as cp
from culturepark.api.findings import list_findings
from culturepark.records import Culture, Persona, Role, Scenario
from culturepark.workspace import parse_card

KINDS = {"agents": Role, "culture": Culture, "personas": Persona, "scenarios": Scenario}
VALUES = [
    b"3",
    b"-1",
    b"0.5",
    b"true",
    b'""',
    b'"x"',
    b"[]",
    b"[[]]",
    b"{}",
    b"{ a = { b = [1] } }",
    b"1979-05-27",
    b"07:32:00",
    b"nan",
    b"-inf",
    b"9" * 30,
    b"9" * 5000,
    b"0x" + b"f" * 40,
    b'"' + b"x" * 5000 + b'"',
    b'"{{ x }}"',
    b'"{{ me.__class__ }}"',
    b'"{% for"',
    b"\"{{ 'x' * 10**9 }}\"",
    b'"../../etc"',
    b'"con"',
    b"'''",
    b'["a", 1]',
    b"[{ code = 1 }]",
    b'"\\u0000"',
    "“x”".encode(),
    b"",
]
JUNK = [
    b"\0",
    b"\xff",
    b"\xef\xbb\xbf",
    b"\r",
    b'"',
    b'"""',
    b"'",
    b"[",
    b"]",
    b"{",
    b"}",
    b"=",
    b".",
    b"#",
    b"\\",
    b"\n",
    b"[[x]]\n",
    b"\xe2\x80\xae",
    b"[" * 3000,
]


def mutate(data: bytes, rng: random.Random) -> bytes:
    """Damage a file as editors, disks, merges and hands do."""
    lines, place = data.split(b"\n"), rng.randrange(len(data) + 1)
    end, at, other = place + rng.randrange(40), rng.randrange(len(lines)), rng.randrange(len(lines))
    match rng.randrange(10):
        case 0:
            return data[:place] + data[end:]
        case 1:
            return data[:place] + rng.choice(JUNK) + data[place:]
        case 2:
            return data[:end] + data[place:]
        case 3:
            return data[:place] + bytes([rng.randrange(256)]) + data[place + 1 :]
        case 4:
            return data[:place]
        case 5:
            del lines[at]
        case 6:
            lines.insert(at, lines[other])
        case 7:
            lines[at], lines[other] = lines[other], lines[at]
        case 8:
            lines[at] = re.sub(rb"=.*", lambda _: b"= " + rng.choice(VALUES), lines[at], count=1)
        case 9:
            lines[at] = re.sub(rb"^(\w+)", lambda m: m[1][1:] + m[1][:1], lines[at])
    return b"\n".join(lines)


def change(base, card):
    """Return the workspace with one of its cards replaced."""
    field = {Role: "roles", Culture: "cultures", Persona: "personas", Scenario: "scenarios"}[
        type(card)
    ]
    key = card.id if isinstance(card, Persona) else card.name
    return replace(base, **{field: {**getattr(base, field), key: card}})


@pytest.mark.parametrize("seed", range(5))
def test_a_thousand_damaged_cards_are_cards_or_errors_that_name_the_file(park, seed):
    base, rng, sound = cp.load(park), random.Random(seed), 0
    files = [p for p in sorted(park.rglob("*.toml")) if p.parent.name != "outputs"]
    whole = {path: path.read_bytes() for path in files}
    for n in range(1000):
        path = rng.choice(files)
        where = path.relative_to(park).as_posix()
        path.write_bytes(mutate(mutate(whole[path], rng) if n % 3 == 0 else whole[path], rng))
        problems: list[str] = []
        card = parse_card(
            path,
            KINDS["culture" if path.name == "culture.toml" else where.split("/")[0]],
            where,
            problems,
        )
        assert all(
            p.startswith(f"{where}: ") and "\n" not in p and len(p) < 900 for p in problems
        ), problems
        assert (card is None) == bool(problems)
        if card is not None:
            sound += 1
            if n % 10 == 0:
                assert all("\n" not in p for p in list_findings(change(base, card)))
            if n % 40 == 0:
                check(park, where)
        path.write_bytes(whole[path])
    assert 150 < sound < 900


def check(park, where):
    """The whole check, prompts rendered: counts, or errors of which each names a card."""
    try:
        assert cp.check(park)["roles"] > 0
    except cp.CardError as error:
        assert all(re.match(r"(agents|personas|scenarios)/", p) for p in error.problems), (
            where,
            error.problems,
        )
