"""`check` finds what cannot be meant, all at once: the file, the key, what there is, and the
nearest right name.
"""

import shutil

import pytest

import culturepark as cp
from culturepark.api.findings import FACTS, find_generalisation
from culturepark.workspace import find_shipped_cards, find_workspace


def problems(park) -> list[str]:
    with pytest.raises(cp.CardError) as caught:
        cp.check(park)
    return list(caught.value.problems)


def edit(park, place, old, new):
    text = (park / place).read_text()
    assert old in text
    (park / place).write_text(text.replace(old, new, 1))


NORTH, TEA = "personas/north/culture.toml", "scenarios/tea.toml"


@pytest.mark.parametrize(
    ("place", "old", "new", "told"),
    [
        (
            TEA,
            "north = 1",
            "nroth = 1",
            (
                "scenarios/tea.toml: question T1: answers.nroth: no such culture in personas/. Did"
                " you mean 'north'"
            ),
        ),
        (
            TEA,
            "north = 1",
            "north = 7",
            "scenarios/tea.toml: question T1: answers.north: 7 is no option; there are: 1, 2",
        ),
        (
            TEA,
            'label = "Disagree"',
            'label = "Agree"',
            "question T1: two options are called 'Agree'",
        ),
        (
            NORTH,
            "style =",
            'survey = ["JP"]\nstyle =',
            (
                "survey: 'JP' is no ISO 3166 code of three letters in the survey. Did you mean"
                " 'JPN' (Japan)"
            ),
        ),
        (NORTH, "style =", 'survey = ["Germany"]\nstyle =', "Did you mean 'DEU' (Germany)"),
        (NORTH, "style =", 'survey = ["deu"]\nstyle =', "Did you mean 'DEU' (Germany)"),
        (NORTH, "style =", 'survey = ["KO"]\nstyle =', "Did you mean 'KOR'"),
        (
            NORTH,
            "style =",
            'hofstede = "Japan"\nstyle =',
            "hofstede: no code 'Japan' in Hofstede's dimensions (where Japan is 'JPN')",
        ),
        (NORTH, "style =", 'hofstede = "DEU"\nstyle =', "(where Germany is 'GER')"),
        (
            NORTH,
            "Many families share rye on feast days.",
            "x" * 32_000,
            "norm.0.text: is longer than 4,000 characters",
        ),
        (
            NORTH,
            "Many families share",
            "All Northern families share",
            "norm.0.text: 'All Northern' speaks for everyone",
        ),
        (NORTH, "Many people talk", "People always talk", "style: 'always' speaks for everyone"),
        (
            "personas/north/norta.toml",
            'given_name = "Norta"',
            'given_name = "nortb"',
            "is also that of north/norta; at one table",
        ),
        (
            "personas/north/norta.toml",
            'given_name = "Norta"',
            'given_name = "A\\nB"',
            "norta.toml: given_name: 'A\\nB' must be one line",
        ),
        (
            "personas/north/norta.toml",
            'given_name = "Norta"',
            'given_name = "Moderator"',
            "given_name: 'Moderator' is the name of a role",
        ),
        ("personas/north/norta.toml", "age = 30", "age = true", "personas/north/norta.toml: age: "),
        (
            "personas/north/norta.toml",
            "secret =",
            'views = { T1 = "1" }\nsecret =',
            "norta.toml: views.T1: must be a number, without quotes (there is '1')",
        ),
        (
            NORTH,
            'topics = ["tea"]',
            'topics = ["taa"]',
            "norm.0.topics: no question has the topic 'taa'. Did you mean 'tea'",
        ),
        (NORTH, "style =", 'survey = ["DEU", "DEU"]\nstyle =', "survey: 'DEU' stands there twice"),
        (
            "personas/north/norta.toml",
            "secret =",
            "views = { T1 = 3, T11 = 1 }\nsecret =",
            "views.T1: 3 is no option of T1",
        ),
        (
            "agents/delegate.toml",
            "{{ culture.title }}",
            "{{ clture.title }}",
            "agents/delegate.toml: system: line 2: no name 'clture' here. Did you mean 'culture'",
        ),
        (
            "agents/delegate.toml",
            "{{ norm.text }}",
            "{{ norm.txt }}",
            "no field 'norm.txt'. Did you mean 'text'",
        ),
        (
            "agents/rewriter.toml",
            "{{ reason }}",
            "{% if false %}{{ raeson }}{% endif %}",
            "agents/rewriter.toml: prompt: line 5: no name 'raeson' here. Did you mean 'reason'",
        ),
        ("agents/judge.toml", "{{ rubric }}", "{{ rubric }", "agents/judge.toml: prompt: line 17"),
        (
            "agents/teacher.toml",
            "{{ asked }}",
            "{{ askd }}",
            "agents/teacher.toml: prompt: line 1: no name 'askd' here. Did you mean 'asked'",
        ),
        (
            "agents/moderator.toml",
            "{{ other.given_name }}",
            "{{ other.secret }}",
            "no field 'other.secret'",
        ),
        (
            "agents/moderator.toml",
            'free_cue = ""',
            'free_cue = "{{ 1 / (turns - turns) }}"',
            "agents/moderator.toml: free_cue: ",
        ),
        (
            "agents/delegate.toml",
            "{{ norm.text }}",
            "{{ norm.text if mode != 'in' else 1 / 0 }}",
            "agents/delegate.toml: system: ",
        ),
        (
            "agents/verifier.toml",
            'prompt = """',
            'prompt = ""\nnotes = """',
            "agents/verifier.toml: notes: unknown key",
        ),
    ],
)
def test_a_card_that_cannot_be_meant_is_found(park, place, old, new, told):
    edit(park, place, old, new)
    assert any(told in problem for problem in problems(park)), problems(park)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ("scenaro = 'tea'", "culturepark.toml: scenaro: unknown key. Did you mean 'scenario'"),
        ("scenario = 'tae'", "culturepark.toml: scenario: no 'tae' here. Did you mean 'tea'"),
        (
            "cultures = ['nroth']",
            "culturepark.toml: cultures: no 'nroth' here. Did you mean 'north'",
        ),
        ("questions = ['T99']", "culturepark.toml: questions: no 'T99' here"),
        (
            "[seats]\nsotuh = 'embedded'",
            "culturepark.toml: seats: no 'sotuh' here. Did you mean 'south'",
        ),
        ("turns = 'many'", "culturepark.toml: turns: must be a whole number (there is 'many')"),
        (
            "[refine]\nfilters = ['frm']",
            "culturepark.toml: refine.filters: no filter 'frm'. Did you mean 'form'",
        ),
        ("[refine]\nembedder = 'bert'", "culturepark.toml: refine.embedder: no embedder 'bert'"),
        (
            "[faults]\ncontradicton = 0.1",
            (
                "culturepark.toml: faults: no fault 'contradicton' to plant. Did you mean"
                " 'contradiction'"
            ),
        ),
        (
            "scenario = 'tea'\ncontact = 'south'\nmodes = ['in']\npersonas = ['norta']",
            "culturepark.toml: in-culture dialogues need two personas",
        ),
        ("survey = 'nothing.csv'", "culturepark.toml: survey: "),
        ("model = 'nosuch'", "culturepark.toml: model: model 'nosuch' names no model"),
        ("model = ''", "culturepark.toml: model: the model's name is empty"),
        (
            "[models]\nverifier = 'nosuch'",
            "culturepark.toml: models.verifier: model 'nosuch' names no model",
        ),
        (
            "[seats]\nsouth = 'nosuch'",
            "culturepark.toml: seats.south: model 'nosuch' names no model",
        ),
        (
            "[keys]\nopenay = 'k'",
            "culturepark.toml: keys: no provider 'openay'. Did you mean 'openai'",
        ),
        ("dialogues = true", "culturepark.toml: dialogues: must be a whole number (there is True)"),
        ("dialogues = '4'", "culturepark.toml: dialogues: must be a whole number (there is '4')"),
        ("batch = 1", "culturepark.toml: batch: must be true or false"),
        ("[refine]\nrewrites = true", "culturepark.toml: refine.rewrites: must be a whole number"),
        ("turns = ", "culturepark.toml: not valid TOML, line 1: the value is missing"),
    ],
)
def test_a_mistake_in_the_settings_is_found(park, settings, told):
    (park / "culturepark.toml").write_text(settings)
    assert any(problem.startswith(told) for problem in problems(park)), problems(park)


@pytest.mark.parametrize(
    "wrong",
    [
        {"dialogues": True},
        {"turns": True},
        {"max_usd": True},
        {"timeout": "3"},
        {"batch": 1},
        {"refine": {"rewrites": True}},
        {"faults": {"refusal": True}},
        {"endpoints": {"openai/m": {"rpm": True}}},
    ],
)
def test_settings_made_in_python_take_no_truth_value_for_a_number(wrong):
    with pytest.raises(
        cp.CardError,
        match=r"^\w+(\.[\w/]+)*: must be (a (whole )?number|true or false) \(there is ",
    ):
        cp.Settings(**wrong)


def test_a_question_whose_options_are_not_those_of_its_figures_is_found(park):
    edit(park, NORTH, "style =", 'survey = ["DEU"]\nstyle =')
    edit(park, TEA, 'id = "T1"', 'id = "Q27"')
    (told,) = problems(park)
    assert told.startswith(
        "scenarios/tea.toml: question Q27: options: they are [1, 2], and the figures for north hold"
    )


def test_all_is_found_at_once(park):
    edit(park, TEA, "north = 1", "nroth = 1")
    edit(park, NORTH, "Many families share", "All families share")
    (park / "culturepark.toml").write_text("turms = 3")
    (park / "agents/judge.toml").write_text("name = [")
    found = "\n".join(problems(park))
    assert all(
        word in found
        for word in ("nroth", "All families", "turms", "agents/judge.toml: not valid TOML")
    )


@pytest.mark.parametrize(
    "place",
    ["personas/hanna.toml", "personas/north/hanna.tml", "scenarios/more/tea.toml", "agents/x.yaml"],
)
def test_a_file_that_no_card_is_read_from_is_found(park, place):
    (park / place).parent.mkdir(exist_ok=True)
    (park / place).write_text("name = 'x'")
    assert any(
        problem.startswith(f"{place}: no card is read here; it would be ")
        for problem in problems(park)
    )


def test_a_question_in_two_packs_and_a_culture_without_people_are_found(park):
    (park / "scenarios/more.toml").write_text(
        (park / TEA).read_text().replace('name = "tea"', 'name = "more"', 1)
    )
    for path in (park / "personas/south").glob("sout*.toml"):
        path.unlink()
    found = "\n".join(problems(park))
    assert (
        "question id 'T1' is also in scenarios/more.toml" in found
        and "personas/south/: a culture without people" in found
    )


def test_a_folder_without_a_card_is_found(park):
    (park / "personas/klingon").mkdir()
    assert problems(park) == [
        "personas/klingon/: no card in it; a culture needs personas/klingon/culture.toml"
    ]


def test_a_folder_in_the_place_of_the_settings_is_found(park):
    (park / "culturepark.toml").mkdir()
    assert problems(park) == ["culturepark.toml: cannot be read: Is a directory"]


@pytest.mark.parametrize(
    ("old", "new"), [("culture.title", "clture.title"), ("norm.text", "norm.txt")]
)
def test_a_mistake_in_a_template_is_listed_once(park, old, new):
    edit(park, "agents/delegate.toml", old, new)
    assert len(problems(park)) == 1


def test_settings_that_name_what_there_is_are_sound(park):
    (park / "culturepark.toml").write_text(
        "model = 'openai/x'\n[models]\nverifier = 'hosted_vllm/y'\n[keys]\nopenai = 'k'\nanthropic"
        " = 'k'\n"
    )
    assert cp.check(park)["personas"] == 4


GENERAL = """All Japanese always bow. | Everyone drinks tea. | Nobody comes late. | No guest leaves hungry; all are fed.
Alle Deutschen sind pünktlich. | Man gibt sich immer die Hand. | Tous les Français mangent du pain. | Siempre llegan tarde.
Ninguém come sozinho. | Herkes çay içer. | Все пьют чай. | 日本人总是鞠躬。 | 日本人は必ずお辞儀をする。 | 한국인은 항상 인사한다. | جميع العرب يشربون القهوة.
सभी लोग चाय पीते हैं। | The Germans are punctual without exception. | Die Deutschen sind ohne Ausnahme pünktlich. | Japanese invariably bow."""  # noqa: E501
CAREFUL = """Many bow. | Most people always bring a gift. | Not all Japanese bow. | In many homes rice is cooked every day. | Viele kommen immer pünktlich.
Beaucoup disent toujours bonjour. | Muchos siempre llegan tarde. | Shoes are taken off at the door. | 许多人总是鞠躬。 | 많은 사람들이 항상 인사한다.
Not all Germans drink beer; nobody should think that all do. | One should never refuse tea. | Everybody ought to be greeted.
Nearly everyone knows the tune. | Almost all people know it. | An allotment is never far for many."""  # noqa: E501


def test_words_that_speak_for_everyone_are_heard_in_many_languages():
    said = [line.strip() for line in GENERAL.replace("\n", "|").split("|")]
    assert [line for line in said if not find_generalisation(line, "Japanese")] == []


def test_careful_words_are_left_alone():
    said = [line.strip() for line in CAREFUL.replace("\n", "|").split("|")]
    assert [line for line in said if find_generalisation(line, "Japanese")] == []


def test_the_shipped_cards_pass_and_use_only_names_that_are_known():
    assert (
        cp.check(find_shipped_cards())["roles"] == len(FACTS) + 1
    )  # the judge's names are those of what is judged


@pytest.mark.parametrize("lost", ["agents", "personas", "scenarios"])
def test_a_workspace_that_lost_a_folder_is_an_error_and_not_the_shipped_one(
    park, lost, monkeypatch
):
    shutil.rmtree(park / lost)
    (park / "outputs/deep").mkdir()
    monkeypatch.chdir(park / "outputs/deep")
    with pytest.raises(cp.InputError, match=rf"the workspace at .* has lost {lost}/"):
        find_workspace()


def test_folders_of_other_projects_are_no_workspace(tmp_path, monkeypatch):
    (tmp_path / "agents").mkdir()
    (tmp_path / "agents/robot.toml").write_text("x = 1")
    (tmp_path / "scenarios").mkdir()
    monkeypatch.chdir(tmp_path)
    assert find_workspace() == find_shipped_cards()


def test_settings_of_the_workspace_hold_for_show(park):
    (park / "culturepark.toml").write_text("scenario = 'tea'\ncontact = 'south'")
    assert "drink tea" in cp.show("delegate", culture="north", workspace=park).messages[0].content
    with pytest.raises(cp.NotFound, match="Did you mean 'tea'"):
        cp.show("delegate", culture="north", scenario="tae", workspace=park)


def test_the_nearest_name_is_the_one_with_the_fewest_slips():
    from culturepark.errors import nearest

    assert nearest("modle", ["modes", "model", "models"]).startswith("Did you mean 'model'")
    assert nearest("nroth", ["north", "south"]).startswith("Did you mean 'north'")
