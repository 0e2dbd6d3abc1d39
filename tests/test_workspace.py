"""Cards: what is wrong is said at once, whole and precisely."""

import pytest
from conftest import TEA

import culturepark as cp
from culturepark.dialogue.simulate import plan
from culturepark.workspace import locate_output


def problems(park) -> list[str]:
    with pytest.raises(cp.CardError) as caught:
        cp.check(park)
    return list(caught.value.problems)


def test_a_sound_workspace_is_counted(park):
    assert cp.check(park)["personas"] == 4


def test_every_mistake_in_every_card_is_told_at_once(park):
    (park / "personas/north/norta.toml").write_text("name = [")
    (park / "scenarios/tea.toml").write_text(
        (park / "scenarios/tea.toml").read_text().replace("about =", "abuot =", 1)
    )
    told = problems(park)
    assert any(p.startswith("personas/north/norta.toml: not valid TOML") for p in told)
    assert any("question.0.abuot: unknown key. Did you mean 'about'?" in p for p in told)
    assert any("question.0.about: missing" in p for p in told)


@pytest.mark.parametrize("name", ["../../evil", "c:evil", "con", "", "a/b", ".hidden", "a\u0000b"])
def test_a_card_name_never_leaves_its_folder(park, name):
    card = park / "personas/north/norta.toml"
    card.write_text(
        card.read_text().replace(
            'name = "norta"', f"name = {name!r}".replace("'", '"').replace("\\x00", "\\u0000"), 1
        )
    )
    assert any("personas/north/norta.toml: name" in p for p in problems(park))


@pytest.mark.parametrize(
    "name", ["../x", "a/b", "", ".x", "x.", "con", "nul.txt", "C:x", "ä", "x" * 81]
)
def test_a_run_name_never_leaves_the_output_folder(park, name):
    with pytest.raises(cp.InputError, match="cannot be a folder"):
        locate_output(park, name)


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("con", "'con' is the name of a device on Windows"),
        ("com1.txt", "'com1' is the name of a device on Windows"),
        ("x.", "it ends with a dot"),
        (".x", "it begins with a dot"),
        ("x" * 300, "it is too long: 300 characters, of 80 at most"),
        ("über", "use ASCII letters"),
    ],
)
def test_the_reason_why_a_run_name_cannot_be_a_folder_is_told(park, name, why):
    with pytest.raises(cp.InputError, match="cannot be a folder") as caught:
        locate_output(park, name)
    assert why in str(caught.value) and len(str(caught.value)) < 250


def test_a_persona_without_a_culture_and_a_view_of_nothing_are_told(park):
    (park / "personas/north/culture.toml").unlink()
    card = park / "personas/south/soutb.toml"
    card.write_text(card.read_text() + "[views]\nT1 = 9\nT99 = 1\n")
    told = "\n".join(problems(park))
    assert "culture: 'north' has no culture.toml beside it" in told
    assert "views.T1: 9 is no option of T1; there are: 1, 2" in told
    assert "views.T99: no such question in scenarios/" in told


def test_a_card_behind_a_link_out_of_the_workspace_is_refused(park, tmp_path):
    outside = tmp_path / "outside.toml"
    outside.write_text("name = 'x'")
    (park / "personas/north/outside.toml").symlink_to(outside)
    assert any("outside the workspace" in p for p in problems(park))


@pytest.mark.parametrize(
    ("content", "told"),
    [(b"\xff\xfe", "not UTF-8"), (b"a=" + b"[" * 5000, ""), (b"x" * 3_000_000, "at most")],
)
def test_hostile_files_are_one_line_each(park, content, told):
    (park / "personas/north/odd.toml").write_bytes(content)
    found = problems(park)
    assert len(found) == 1 and told in found[0] and "personas/north/odd.toml" in found[0]


def test_an_empty_pack_and_a_missing_role_are_told(park):
    (park / "scenarios/empty.toml").write_text(
        'name="empty"\ntitle="E"\nsetting="S."\nsource="s"\nquestion=[]\n'
    )
    (park / "agents/verifier.toml").unlink()
    told = "\n".join(problems(park))
    assert "scenarios/empty.toml: question" in told and "agents/verifier.toml: missing" in told


@pytest.mark.parametrize(
    ("change", "nearest"),
    [
        ({"cultures": ("nroth",)}, "north"),
        ({"questions": ("T0",)}, "T1"),
        ({"scenario": "tee"}, "tea"),
        ({"personas": ("north/nortc",)}, "north/norta"),
    ],
)
def test_unknown_names_come_with_the_nearest(park, change, nearest):
    with pytest.raises(cp.NotFound, match=nearest):
        cp.start("x", {**TEA, **change}, workspace=park)


def test_init_writes_a_workspace_that_checks_and_never_overwrites(tmp_path):
    made = cp.init(tmp_path / "mine")
    assert cp.check(made)["cultures"] >= 9
    with pytest.raises(cp.InputError, match="not an empty folder"):
        cp.init(made)


def test_a_folder_without_cards_is_no_workspace(tmp_path):
    with pytest.raises(cp.InputError, match="culturepark init"):
        cp.check(tmp_path)


def test_a_workspace_has_settings_for_every_run_that_flags_and_files_override_and_keys_that_no_run_keeps(  # noqa: E501
    park,
):
    (park / "culturepark.toml").write_text(
        'turns = 4\ndialogues = 3\nmax_tokens = 900\n[endpoints."openai/x"]\nrpm = 7\nbase_url ='
        ' "http://h/v1"\n[keys]\nopenai = "sk-mine-alone"\n'
    )
    (park / "more.toml").write_text("dialogues = 5")
    run = cp.start(
        "own",
        "more.toml",
        scenario="tea",
        contact="south",
        cultures=("north",),
        model="openai/x",
        turns=6,
        endpoints={"openai/y": {"rpm": 9}, "openai/x": {"tpm": 5}},
        rpm=80,
    )
    s = run.settings
    assert (s.turns, s.dialogues, s.max_tokens) == (6, 5, 900) and run.keys == {
        "openai": "sk-mine-alone"
    }
    assert (
        s.endpoint("openai/x").rpm,
        s.endpoint("openai/x").base_url,
        s.endpoint("openai/y").rpm,
        s.endpoint("openai/z").rpm,
    ) == (7, "http://h/v1", 9, 80)
    assert not [
        p for p in run.folder.rglob("*") if p.is_file() and "sk-mine" in p.read_text()
    ] and "sk-mine" not in repr(run)
    assert cp.resume(run.folder).keys == run.keys
    with pytest.raises(cp.CardError, match=r"culturepark.toml: .*max_usd"):
        (park / "culturepark.toml").write_text("max_usdd = 3")
        cp.start("other")


def test_a_new_workspace_has_a_settings_file_that_says_nothing_yet(tmp_path):
    from culturepark.settings import read_own

    assert read_own(cp.init(tmp_path / "mine")) == {}


def test_a_config_file_may_bring_keys_and_a_folder_without_cards_settings_of_its_own(
    tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("CULTUREPARK_WORKSPACE", raising=False)
    (tmp_path / "culturepark.toml").write_text(
        'turns = 6\n[models]\nverifier = "openai/v"\n[keys]\nopenai = "sk-of-the-folder"\n'
    )
    (tmp_path / "more.toml").write_text(
        '[models]\nextractor = "openai/e"\n[keys]\ngroq = "gsk-of-the-file"\n'
    )
    run = cp.start("x", "more.toml", cultures=("arabic",))
    assert run.settings.turns == 6 and set(run.settings.models) == {"verifier", "extractor"}
    assert run.keys == {"openai": "sk-of-the-folder", "groq": "gsk-of-the-file"}


def test_a_run_may_follow_a_server_that_moves(park):
    run = cp.start(
        "x",
        scenario="tea",
        contact="south",
        cultures=("north",),
        model="openai/x",
        base_url="http://a/v1",
    )
    before = [s.id for s in plan(run.workspace, run.settings, "north", 2)]
    moved = cp.resume(run.folder, base_url="http://b/v1", max_tokens=5)
    assert moved.settings.endpoint("openai/x").base_url == "http://b/v1"
    assert [s.id for s in plan(moved.workspace, moved.settings, "north", 2)] == before
    with pytest.raises(cp.InputError, match="turns cannot change"):
        cp.resume(run.folder, turns=3)
