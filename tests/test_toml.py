"""One reader of TOML: byte order marks are passed over, and every mistake is told in plain words
with its line.
"""

import pytest
from conftest import TEA
from hypothesis import given
from hypothesis import strategies as st

import culturepark as cp
from culturepark.errors import CardError
from culturepark.evaluation import card as benchmarks
from culturepark.records import Role
from culturepark.settings import build
from culturepark.toml import parse_toml, read_toml
from culturepark.training import recipe

BOM = b"\xef\xbb\xbf"


def mistake(text: str) -> str:
    with pytest.raises(CardError) as caught:
        parse_toml(text, "x.toml")
    (line,) = caught.value.problems
    return line


def prepend(path):
    path.write_bytes(BOM + path.read_bytes())


def test_cards_with_a_byte_order_mark_are_read(park):
    for path in [
        *park.glob("agents/*.toml"),
        *park.glob("personas/*/*.toml"),
        *park.glob("scenarios/*.toml"),
    ]:
        prepend(path)
    assert cp.check(park)["personas"] == 4


def test_settings_benchmarks_and_recipes_with_a_byte_order_mark_are_read(park):
    (park / "culturepark.toml").write_bytes(BOM + b"turns = 6\n")
    run = cp.start("x", TEA, workspace=park)
    assert run.settings.turns == 6
    prepend(run.folder / "run.toml")
    assert cp.resume(run.folder).settings == run.settings
    (park / "tune.toml").write_bytes(BOM + b'objective = "sft"\nbase = "tiny"\n')
    assert recipe.read_recipe(park / "tune.toml").base == "tiny"
    (park / "b.toml").write_bytes(
        BOM + b'name = "b"\ntitle = "B"\nabout = "b"\nsource = "b"\nkind = "survey"\n'
    )
    assert benchmarks.load(str(park / "b.toml")).name == "b"


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ("name = 'ü'\n".encode("utf-16"), "UTF-16"),
        ("name = 'ü'\n".encode("utf-32"), "UTF-32"),
        ("name = 'x'\n".encode("utf-16-le"), "UTF-16"),
        ("a = 1\nhome = 'Köln'\n".encode("cp1252"), "line 2 holds byte 0xF6 ('ö' in Windows-1252)"),
        (b"\x89PNG\r\n\x1a\n\0\0\0\r", "not UTF-8"),
    ],
)
def test_other_encodings_are_named(tmp_path, data, said):
    (tmp_path / "x.toml").write_bytes(data)
    with pytest.raises(CardError, match="save it as UTF-8") as caught:
        read_toml(tmp_path / "x.toml", "x.toml")
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        (
            'a = 1\nhome = "Kassel\nb = 2',
            2,
            'a quote is opened and not closed on this line: home = "Kassel',
        ),
        ("a = 1\nhome = 'Kassel\nb = 2", 2, "never closed"),
        (
            'a = 1\nsystem = """\nYou\n\nprompt = """\nAsk\n"""\n',
            2,
            "not closed before the next key",
        ),
        ("a = 1\nb = '''\none\ntwo\n", 2, "never closed"),
        ('a = 1\nl = [\n  "x",\n  "y"\nb = 2\n', 2, "closed with ']'"),
        ("x = { a = 1\nb = 2", 1, "closed with '}'"),
        ("a = 1\nx = [", 2, "a list is opened with '[' and not closed"),
        ("x = [\n1,\n", 1, "a list is opened with '[' and not closed"),
        ("x = {", 1, "a table is opened with '{'"),
        ("home = Kassel", 1, "write text in straight quotes"),
        ("home = “Kassel”", 1, "write text in straight quotes"),
        ("a = True", 1, "true, false"),
        ("Kassel", 1, "without '='"),
        ("a = 1\n\na = 2", 3, "stands above already"),
        ("[a]\n[b]\n[a]", 3, "stands above already"),
        (r'a = "C:\users"', 1, "a backslash"),
        ("a = 1 b = 2", 1, "its own line"),
        ('a = "x\x00y"', 1, r"'\x00'"),
        ("[a\nb = 1", 1, "']'"),
    ],
)
def test_a_mistake_is_told_in_plain_words_with_its_line(text, line, said):
    told = mistake(text)
    assert told.startswith(f"x.toml: not valid TOML, line {line}: ") and said in told


@pytest.mark.parametrize(
    "text",
    [
        "a = " + "1" * 5000,
        "a = 0x" + "f" * 99,
        "a = inf",
        "a = [nan]",
        ".".join("a" * 90) + " = 1",
        "a = " + "[" * 9999,
    ],
)
def test_what_python_could_not_work_with_is_one_line(text):
    assert len(mistake(text)) < 200


def test_a_line_that_may_hold_a_key_is_not_shown():
    assert "sk-" not in mistake('[keys]\nopenai = "sk-one') and "two" not in mistake(
        'api_key = "two'
    )


@given(st.text(max_size=200), st.integers(0, 200))
def test_any_text_is_read_or_refused_in_one_line(text, place):
    sound = 'name = "x"\nlist = [1, 2]\nlong = """\na\n"""\n[table]\nkey = { a = 1 }\n'
    for odd in (text, sound[:place] + text + sound[place:]):
        try:
            assert isinstance(parse_toml(odd, "x.toml"), dict)
        except CardError as error:
            assert all(p.startswith("x.toml: ") and "\n" not in p for p in error.problems)


@pytest.mark.parametrize(
    ("card", "said"),
    [
        ('name = "Hanna Müller"', "name: 'Hanna Müller' cannot be a name: write small letters"),
        ("name = 3", "name: must be a text in quotes (there is 3)"),
        ('max_tokens = "many"', "max_tokens: must be a whole number"),
        ("temperature = 3", "temperature: must be at most 2 (there is 3)"),
        ("max_tokens = 0", "max_tokens: must be more than 0"),
        ('cue = "x"', "cue: must be a list"),
        ("cue = [1]", "cue.0: must be a table"),
        ('system = ""', "system: must not be empty"),
        ('purpose = """' + "x" * 32_000 + '"""', "purpose: is longer than 4,000 characters"),
    ],
)
def test_a_wrong_value_is_told_in_plain_words(tmp_path, card, said):
    from culturepark.workspace import parse_card

    (tmp_path / "x.toml").write_text(card)
    problems: list[str] = []
    assert parse_card(tmp_path / "x.toml", Role, "x.toml", problems) is None
    assert any(p.startswith(f"x.toml: {said}") for p in problems), problems
    assert not any(word in "".join(problems) for word in ("Input should", "pattern", "pydantic"))


def test_a_wrong_choice_names_the_nearest(park):
    card = park / "personas/north/norta.toml"
    card.write_text(card.read_text().replace('gender = "woman"', 'gender = "women"'))
    with pytest.raises(CardError, match=r"gender: no such choice\. Did you mean 'woman'"):
        cp.check(park)


def test_a_list_of_wrong_choices_is_not_also_called_too_short():
    with pytest.raises(CardError) as caught:
        build({"modes": ["corss"]})
    assert caught.value.problems == (
        (
            "settings: modes.0: no such choice. Did you mean 'cross'? There are: cross, in (there"
            " is 'corss')"
        ),
    )


@pytest.mark.parametrize("text", ["", "{", '{"base": 3}', "[]", "\x00"])
def test_a_damaged_manifest_is_one_line(tmp_path, text):
    from culturepark.local_models import manifest

    (tmp_path / manifest.FILE).write_text(text)
    with pytest.raises(cp.InputError, match="is no manifest of a tuned model") as caught:
        manifest.read(tmp_path)
    assert "\n" not in str(caught.value) and "pydantic" not in str(caught.value)
