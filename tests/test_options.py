"""Every option that README and docs name is one of the command's own, and every option of a
benchmark's reaches it.
"""

import re

import click
import pytest
import settings_page
from conftest import ROOT

from culturepark import settings
from culturepark.cli import cli
from culturepark.errors import InputError
from culturepark.evaluation import card, comparison, planning, result, tasks
from culturepark.evaluation.kind import BenchmarkKind
from culturepark.options import read_settings
from culturepark.reports import leaderboard
from culturepark.settings import Endpoint, Settings
from culturepark.training import recipe
from culturepark.training.recipe import Recipe

PAGES = sorted(
    p for p in (*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")) if p.name != "CHANGELOG.md"
)
CODE = re.compile(r"```.*?```|``.*?``|`[^`]+`", re.DOTALL)
OPTION = re.compile(r"(?<![\w-])--?[a-zA-Z][\w-]*")
OURS = re.compile(r"(?:^|[|&;(]\s*|\s)culturepark\s+(?!as |import )([a-z-]+[^|&;>#`\n]*)")
FOREIGN = re.compile(
    r"(?:^|[\s(&|;])(?:inspect|pip|python3?|sed|make|printf|cp|git|vllm|llama-server|ollama|transformers|lm_eval|docker|npx|uv|"
    r"torchrun|accelerate|jq|curl|kill|export|source|apt-get|socat|litellm|llamafactory-cli)\s[^\n`]*"
)
SET = re.compile(r"(?:^|\s)(?:-o|--option)[ =]'?([a-z_]+)=")


def bodies(text):
    """What stands as code on a page, with lines that go on joined."""
    return [c.strip("`").replace("\\\n", " ") for c in CODE.findall(text)]


def commands(group, path=()):
    """Every command of the command line, by its words."""
    yield path, group
    if isinstance(group, click.Group):
        context = click.Context(group)
        for name in group.list_commands(context):
            yield from commands(group.get_command(context, name), (*path, name))


KNOWN = dict(commands(cli))


def names(command):
    """The options that a command takes."""
    return {
        o
        for p in command.params
        if isinstance(p, click.Option)
        for o in (*p.opts, *p.secondary_opts)
    } | {
        "--help",
        "-h",
    }


EVERY = set().union(*map(names, KNOWN.values()))


def named(line):
    """The command that a line types, and what follows its name."""
    words = line.split()
    path = tuple(words[:2]) if tuple(words[:2]) in KNOWN else tuple(words[:1])
    return KNOWN.get(path), " ".join(words[len(path) :])


def unknown(page):
    """The options that a page names and no command takes: each beside the line that names it."""
    found = []
    for body in bodies(page):
        typed = OURS.findall(f"\n{body}")
        short = (
            [body]
            if not typed and (body.split() or [""])[0] in {path[0] for path in KNOWN if path}
            else []
        )
        for line in [*typed, *short]:  # `tune sft first` stands for the command too
            whole, _, launched = line.partition(" -- ")  # what is launched is a tune of its own
            for part in filter(None, (whole, launched and f"tune {launched}")):
                command, rest = named(part)
                found += [
                    (line.strip(), o)
                    for o in options(rest)
                    if o not in (names(command) if command else EVERY)
                ]
        rest = "" if short else FOREIGN.sub(" ", OURS.sub(" ", f"\n{body}"))
        found += [(body, o) for o in options(rest) if o.startswith("--") and o not in EVERY]
    return found


def options(text):
    """The options in a command line, those within quotes left out."""
    return OPTION.findall(_bare(text))


def _bare(text):
    """A command line without what stands in quotes."""
    return re.sub(r"'[^']*'|\"[^\"]*\"", " ", text)


def benchmark_options():
    return {
        name: set(card.load_kind(card.load(path).kind).options)
        for name, path in card.list_shipped().items()
    }


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_every_option_that_a_page_names_is_one_of_its_commands(page):
    assert unknown(page.read_text(encoding="utf-8")) == []


def test_an_option_that_is_not_there_is_seen_wherever_it_is_named():
    assert unknown("corpora by `--rewrites` and sieves") == [("--rewrites", "--rewrites")]
    assert [
        o for _, o in unknown("```bash\nculturepark evaluate x survey \\\n --turns 3\n```")
    ] == ["--turns"]
    assert unknown("`evaluate RUN vsm13 --count 5 --turns 3`") == [
        ("evaluate RUN vsm13 --count 5 --turns 3", "--turns")
    ]
    assert (
        unknown(
            "`culturepark tune sft first --base tiny` and `inspect eval x -T a=b --display plain`"
        )
        == []
    )


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_every_benchmark_option_that_a_page_sets_is_one_of_its_benchmark(page):
    known = benchmark_options()
    for body in bodies(page.read_text(encoding="utf-8")):
        for line in body.splitlines():
            asked = [set(known[w]) for w in line.split() if w in known] or [*known.values()]
            assert set(SET.findall(line)) <= set().union(*asked), line


def test_every_verb_and_its_words_on_a_page_exist():
    for page in PAGES:
        for body in bodies(page.read_text(encoding="utf-8")):
            for line in OURS.findall(f"\n{body}"):
                assert (line.split()[0],) in KNOWN, f"{page.name}: culturepark {line}"


# ------------------------------------------------------------ written once


def test_the_page_of_settings_is_made_of_their_fields():
    assert settings_page.PAGE.read_text() == settings_page.make_page()


@pytest.mark.parametrize(
    ("model", "verb"), [(Settings, ("run",)), (Endpoint, ("run",)), (Recipe, ("tune", "mix"))]
)
def test_every_setting_says_what_it_is_and_its_options_are_on_the_command_line(model, verb):
    known = read_settings(model)
    assert list(known) == list(model.model_fields) and all(s.about for s in known.values())
    others = {"beta", "answers"}  # of other objectives
    named = {o for s in known.values() if s.name not in others for o in s.options}
    assert named <= names(KNOWN[verb])


def test_the_files_of_a_run_and_of_a_job_say_what_each_line_is(tmp_path):
    settings.write(Settings(models={"verifier": "a:B"}), tmp_path / "run.toml")
    recipe.write_recipe(recipe.build_recipe({"base": "tiny"}), tmp_path / "tune.toml")
    run, job = ((tmp_path / name).read_text() for name in ("run.toml", "tune.toml"))
    assert "# Turns per dialogue.\nturns = 14\n" in run and "# Model per role.\n[models]" in run
    assert "# Rank of the adapters.\nrank = 16\n" in job
    assert settings.read(tmp_path / "run.toml").models == {"verifier": "a:B"}
    assert not settings.is_edited(tmp_path / "run.toml")


def test_a_comment_is_no_change_of_a_runs_settings(tmp_path):
    settings.write(Settings(), path := tmp_path / "run.toml")
    path.write_text(path.read_text().replace("# Turns per dialogue.", "# mine"))
    assert not settings.is_edited(path)
    path.write_text(path.read_text().replace("turns = 14", "turns = 15"))
    assert settings.is_edited(path)


# ------------------------------------------------- options named like arguments

EVERYTHING = (
    "cultures",
    "data",
    "method",
    "respondents",
    "count",
    "seeds",
    "limit",
    "numbers",
    "workspace",
    "held",
    "options",
)
KIND = BenchmarkKind(
    plan=lambda benchmark, setup: (),
    measure=lambda attempts, options: (),
    options=dict.fromkeys(EVERYTHING, ""),
    culture_source="data",
)
CARD = card.Benchmark(name="clash", title="t", about="a", source="s", kind="test_options:KIND")


@pytest.mark.parametrize("option", EVERYTHING)
def test_an_option_named_like_an_argument_reaches_the_benchmark_and_leaves_the_argument_alone(
    option,
):
    setup, settled = planning.build_setup(CARD, count=7, options={option: "its own"})
    assert setup.options[option] == settled.options[option] == "its own"
    assert (setup.count, setup.cultures, setup.seeds) == (7, (), (0,))


def test_cultures_on_the_command_reach_both_the_map_of_names_and_who_is_asked(
    tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "q.json").write_text(
        '[{"question": "Why tea?", "answer": "It is hot.", "culture": "Deutsch"}]'
    )
    (tmp_path / "tea.toml").write_text(
        'name="tea"\ntitle="t"\nabout="a"\nsource="s"\nkind="answers"\nparser="text"\nscore="contains"\nitems="q.json"\nfields={reference="answer"}\nprompt={system="s",prompt="{{'
        ' question }}"}\n'
    )
    args = [
        "evaluate",
        "mine",
        "tea.toml",
        "-m",
        "embedded",
        "-o",
        'cultures={"Deutsch"="german"}',
        "-o",
        "more=[]",
    ]
    cli.main(args, standalone_mode=False)
    (found,) = [result.read(p) for p in result.find_results(tmp_path / "outputs/mine")]
    assert found.options["cultures"] == {"Deutsch": "german"} and found.setup["cultures"] == []
    assert found.figure("answered", "german") is not None


def test_an_inspect_task_takes_such_an_option_too():
    made = tasks.load_task("vsm13", cultures="korean", count=2, options={"constants": "zero"})
    assert len(made.dataset) == 2
    with pytest.raises(InputError, match="constants"):
        tasks.load_task("vsm13", cultures="korean", constant="zero")


def test_the_board_shows_an_option_beside_the_setting_of_its_name():
    asked = {"label": "m", "run": "r", "model": "m", "models": ("m",), "counts": {}, "asked": {}}
    entry = comparison.ComparedModel(
        setup={"cultures": ["german"]},
        options={"cultures": {"Deutsch": "german"}, "more": []},
        **asked,
    )
    table = comparison.BenchmarkTable(
        benchmark="b", title="t", about="a", source="s", models=(entry,), rows=()
    )
    assert dict(leaderboard.describe_setup(table)) == {
        "cultures": "german",
        "option cultures": "{'Deutsch': 'german'}",
    }
