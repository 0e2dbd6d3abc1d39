"""The leaderboard: winners only where the intervals say so, equal questions only, and every number
with its samples.
"""

import json
import random
import re
from functools import partial

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from test_reports import Tags

import culturepark as cp
from culturepark.api.comparison import compare as compare_runs
from culturepark.cli.compare import compare as command
from culturepark.evaluation import comparison, result
from culturepark.evaluation.kind import BenchmarkKind
from culturepark.evaluation.measure import Measure, compare, estimate, mean
from culturepark.evaluation.result import Result
from culturepark.evaluation.types import STRIDE, Attempt
from culturepark.reports import leaderboard, samples

EVIL = "</title></svg><script>alert(1)</script><img src=x onerror=alert(1)>\"'&%$_{\\"


def measure(attempts, options):
    """The share of right answers by culture and altogether; how long answers are stands beside
    it.
    """
    made = []
    for culture in ("", *sorted({o.culture for o in attempts})):
        mine = [o for o in attempts if o.status == "ok" and culture in ("", o.culture)]
        for name, head in (("right", True), ("length", False)):
            units = {(o.seed, o.unit): (o.score if head else len(o.said), 1.0) for o in mine}
            made.append(
                Measure(
                    name,
                    units,
                    mean,
                    culture=culture,
                    better="high" if head else "",
                    headline=head,
                    what="questions",
                )
            )
    return made


KIND = BenchmarkKind(plan=lambda benchmark, setup: (), measure=measure)
SETUP = {
    "method": "sample",
    "respondents": "people",
    "count": 20,
    "seeds": [0, 1],
    "cultures": ["north", "south"],
    "limit": None,
}


def answers(rate, cultures=("north", "south"), count=60, lost=0, said="yes", seeds=(0, 1)):
    """Attempts of `count` questions a culture, right at this rate; the first `lost` cannot be
    read.
    """
    for culture in cultures:
        for seed in seeds:
            for n in range(count):
                status = "unparsed" if n < lost else "ok"
                right = float(random.Random(f"{culture}{n}{seed}{rate}").random() < rate)
                talk = (
                    ("system", "You are from there."),
                    ("user", f"Question {n}?"),
                    ("assistant", said),
                )
                yield Attempt(
                    item=f"{culture}/Q{n}/{seed}",
                    culture=culture,
                    unit=f"{culture}/Q{n}",
                    seed=seed,
                    status=status,
                    reason="it names two" if status != "ok" else "",
                    answer=1 if status == "ok" else None,
                    gold=1,
                    score=right if status == "ok" else None,
                    said=said,
                    talk=talk,
                )


BOARD = "outputs/first/evals/board"
verb = partial(compare_runs, code=True)  # the results are of this file's own kind


def evaluated(run, model, rate=0.5, benchmark="exam", setup=SETUP, made=None, **how):
    """Write a result into a run, and return the run."""
    held = list(answers(rate, **how) if made is None else made)
    (run / "evals").mkdir(parents=True, exist_ok=True)
    one = Result(
        benchmark=benchmark,
        title="An exam",
        about="Questions.",
        source="authored",
        kind="test_leaderboard:KIND",
        model=model,
        models=(f"fake/{model}",),
        setup=setup,
        options={},
        counts=result.count_statuses(held),
        version="0",
        hash=f"{run.name}{model}{benchmark}{rate}",
        figures=tuple(map(estimate, measure(held, {}))),
    )
    result.write(result.locate_result(run / "evals", benchmark, model), one, held)
    return run


@pytest.fixture
def made(park):
    """A run with one good model and two that differ by chance alone."""
    for model, rate in (("good", 0.9), ("fair", 0.5), ("base", 0.501)):
        run = evaluated(park / "outputs" / "first", model, rate)
    return run


def row(made, culture="", name="right"):
    return next(
        r
        for t in made.tables
        for r in (*t.rows, *t.others)
        if (r.name, r.culture) == (name, culture)
    )


def page(park, name="first/evals/board"):
    return (park / "outputs" / name / "leaderboard.html").read_text()


def test_a_clearly_better_model_wins_and_is_bold(made, park):
    found = verb("first")
    assert [row(found, c).winner for c in ("", "north", "south")] == ["good"] * 3
    assert (
        len(re.findall(r"<strong>0\.[89]", page(park))) == 3
        and page(park).count('class="who wins"') == 3
    )
    assert (park / f"{BOARD}/leaderboard.tex").read_text().count(r"\boldmath") == 3


def test_two_equal_models_tie_and_nobody_is_bold(park):
    for model, rate in (("fair", 0.5), ("base", 0.501)):
        run = evaluated(park / "outputs" / "first", model, rate)
    found = row(verb(run))
    assert found.winner is None and set(found.tied) == {"fair", "base"}
    assert not re.search(r"<strong>\d", page(park)) and "not told apart" in page(park)


def test_all_comparisons_of_the_board_are_corrected_together(made):
    found = verb(made)
    pairs = [p for t in found.tables for r in t.rows for p in r.pairs]
    assert found.comparisons == len(pairs) == 3 * 3  # pairs of models, by two cultures and both
    smallest = min(p.difference.p for p in pairs)
    assert min(p.corrected for p in pairs) == pytest.approx(9 * smallest)
    assert all(p.corrected >= p.difference.p for p in pairs)


def test_against_one_model_less_is_compared_and_the_others_are_marked(made, park):
    found = verb(made, against="base")
    assert found.comparisons == 6 and {p.second for p in row(found).pairs} == {"base"}
    assert leaderboard.mark_better(
        row(found), "good", "base"
    ) == "▲" and not leaderboard.mark_better(row(found), "fair", "base")
    assert row(found).winner is None and "▲" in page(park) and "than base" in page(park)
    with pytest.raises(cp.InputError, match="Did you mean 'base'"):
        verb(made, against="bass")


def test_a_model_that_was_asked_otherwise_is_told_and_not_compared(park):
    run = evaluated(park / "outputs" / "first", "good", 0.95)
    evaluated(run, "base", 0.3, setup=SETUP | {"method": "likelihood"})
    found = verb(run)
    assert any(
        "not asked alike: method: likelihood for base; sample for good" in w
        for w in found.tables[0].warnings
    )
    assert found.comparisons == 0 and row(found).winner is None and "not asked alike" in page(park)


def test_other_seeds_are_told_and_compared(park):
    run = evaluated(park / "outputs" / "first", "good", 0.95)
    found = verb(evaluated(run, "base", 0.3, setup=SETUP | {"seeds": [0]}, seeds=(0,)))
    assert row(found).winner == "good" and "not asked alike: seeds" in found.tables[0].warnings[0]


def test_models_of_other_cultures_are_compared_where_they_meet(park):
    run = evaluated(park / "outputs" / "first", "good", 0.95)
    found = verb(
        evaluated(run, "own", 0.3, cultures=("north",), setup=SETUP | {"cultures": ["north"]})
    )
    assert (
        row(found, "north").winner == "good"
        and row(found, "").winner is None
        and not row(found, "").pairs
    )
    assert row(found, "south").cell("own") is None and row(found, "south").winner is None


def test_a_model_in_two_runs_is_named_by_its_run_and_the_same_result_is_shown_once(made, park):
    second = evaluated(park / "outputs" / "second", "base", 0.7)
    assert [e.label for e in verb(made, second).tables[0].models] == [
        "first:base",
        "fair",
        "good",
        "second:base",
    ]
    copied = evaluated(park / "outputs" / "third", "base", 0.501)
    place = result.locate_result(copied / "evals", "exam", "base")
    one = result.read(place).model_copy(update={"hash": "firstbaseexam0.501"})
    result.write(place, one, result.load_attempts(place))
    found = verb(made, copied, made)
    assert [e.label for e in found.tables[0].models] == [
        "base",
        "fair",
        "good",
    ] and "shown once" in found.notes[0]


def test_every_number_leads_to_its_samples(made, park):
    evaluated(made, "odd/name: ü", 0.4, cultures=("north", "land of & <b>"))
    evaluated(made, "good", 0.9, benchmark="other")
    verb(made)
    tags = Tags(page(park))
    links = [v for _, k, v in tags.attributes if k == "href" and not v.startswith("#")]
    assert len(links) > 100
    for link in set(links):
        path, _, anchor = link.partition("#")
        assert (
            not path.startswith(("/", ".."))
            and f'id="{anchor}"' in (park / BOARD / path).read_text()
        )
    cells = re.findall(
        r"<td[^>]*>(.*?)</td>",
        re.sub(r'<table aria-labelledby="[^"]*-pairs".*?</table>', "", page(park), flags=re.S),
        re.S,
    )
    naked = [c for c in cells if re.search(r"\d\.\d{3}", c) and "<a href" not in c]
    assert not naked


def test_large_pages_have_a_file_a_culture(made, park, monkeypatch):
    monkeypatch.setattr(samples, "SPLIT", 100)
    found = verb(made)
    assert row(found, "north").cell("good").samples == "samples/first/exam/good/north.html#north"
    folder = park / BOARD
    text = (folder / "samples/first/exam/good/north.html").read_text()
    assert (
        'id="north"' in text
        and text.count("<article") == 120
        and 'href="../../../../leaderboard.html"' in text
    )
    assert 'href="good/north.html#north"' in (folder / "samples/first/exam/good.html").read_text()


def test_unparsed_answers_are_shown_first_and_told(park):
    run = evaluated(park / "outputs" / "first", "base", lost=20)
    found = verb(run)
    assert found.tables[0].models[0].counts == {"ok": 160, "unparsed": 80}
    assert "80 of 240 items gave no answer (80 unparsed)" in found.tables[0].warnings[0]
    assert (
        "80 unparsed" in page(park)
        and "33%" in page(park)
        and "80 unparsed" in leaderboard.format_comparison(found)
    )
    text = (park / BOARD / found.tables[0].models[0].samples.partition("#")[0]).read_text()
    assert (
        text.index("it names two") < text.index('<span class="status">ok')
        and text.count('class="lost"') == 80
    )
    part = text[text.index('id="south"') :]
    assert part.rindex('class="lost"') < part.index('<span class="status">ok')


def test_what_models_say_and_are_called_cannot_break_out_of_any_page(park):
    run = evaluated(park / "outputs" / "first", EVIL, said=EVIL * 20, cultures=("north", EVIL))
    found = verb(evaluated(run, "base"))
    for path in (park / BOARD).rglob("*.html"):
        text = path.read_text()
        assert not re.search(r"<script|<img|url\(|@import", text) and not Tags(text).open
        ids = [v for _, k, v in Tags(text).attributes if k == "id"]
        assert len(ids) == len(set(ids)) and "default-src 'none'" in text
    assert "&lt;script&gt;" in page(park) and "\x1b" not in leaderboard.format_comparison(found)


@given(st.text(max_size=80), st.text(max_size=80))
def test_a_name_never_leaves_the_folder_of_samples(first, second):
    entry = comparison.ComparedModel(
        label=first,
        run=first,
        model=second,
        models=(),
        setup={},
        options={},
        counts={},
        asked={second: {"ok": 1}},
    )
    path, _, anchor = samples.link_page(first, entry, second).partition("#")
    assert re.fullmatch(r"samples(/[A-Za-z0-9_][A-Za-z0-9._-]*){3}", path) and re.fullmatch(
        r"[A-Za-z0-9_-]+", anchor
    )


@given(st.text())
def test_latex_of_any_text_is_balanced_and_has_no_bare_special(text):
    bare = re.sub(
        r"\\(textbackslash|textasciitilde|textasciicircum)\{\}|\\[{}$&#_%]",
        "",
        leaderboard.escape_latex(text),
    )
    assert not set(bare) & set("\\{}$&#_%~^\n\t")


def test_latex_holds_the_numbers_of_the_json(made, park):
    evaluated(made, EVIL, 0.2)
    verb(made)
    folder = park / BOARD
    text, data = (
        (folder / "leaderboard.tex").read_text(),
        json.loads((folder / "leaderboard.json").read_text()),
    )
    plain = re.sub(r"\\[{}]", "", text)
    assert plain.count("{") == plain.count("}") and text.count(r"\begin{") == text.count(r"\end{")
    rows = [
        line for line in text.splitlines() if line.endswith(r"\\") and not line.startswith("model")
    ]
    shown = re.findall(r"-?\d\.\d{3}", " ".join(rows))
    cells = [r["cells"][i]["figure"] for t in data["tables"] for i in range(4) for r in t["rows"]]
    assert shown == [f"{f[k]:.3f}" for f in cells for k in ("value", "low", "high")]
    assert "An exam: right (higher is better), n = 60 to 120 questions" in text and "Holm" in text


def test_the_same_results_give_the_same_bytes_and_nothing_half_written(made, park):
    def written():
        folder = park / BOARD
        return {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()}

    verb(made)
    (park / f"{BOARD}/notes.txt").write_text("mine")
    first = written()
    verb(made)
    assert written() | {"x": 1} == first | {"x": 1} and len(first) == 3 + 3 + 1
    assert not list((park / "outputs").glob(".*"))


def test_a_run_without_results_says_what_to_do(park):
    (park / "outputs/empty/evals").mkdir(parents=True)
    with pytest.raises(
        cp.InputError,
        match=r"no results in the run .*empty.*culturepark evaluate empty vsm13 --model",
    ):
        verb("empty")
    with pytest.raises(cp.NotFound, match="Did you mean 'empty'"):
        verb("emty")
    with pytest.raises(cp.InputError, match="no run at"):
        verb(park / "outputs" / "nowhere")
    assert not (park / BOARD).exists()


def test_a_damaged_result_is_named(made, park):
    place = result.locate_result(made / "evals", "exam", "base")
    lines = (place / "outcomes.jsonl").read_text().splitlines(keepends=True)
    for text in ("".join(lines)[:-40], "".join(lines[:-1])):
        (place / "outcomes.jsonl").write_text(text)
        with pytest.raises(cp.InputError, match="damaged"):
            verb(made)
    (place / "result.json").write_text("{}")
    with pytest.raises(cp.InputError, match=r"base.result\.json is no result"):
        verb(made)
    (made / "run.toml").touch()
    with pytest.raises(cp.InputError, match="is a run; give the board another name"):
        leaderboard.write(made, comparison.Comparison(tables=()), {})


def test_many_swaps_give_the_p_value_of_few_only_finer():
    a, b = (measure(list(answers(rate)), {})[0] for rate in (0.5, 0.62))
    few, many = compare(a, b).p, comparison.permute_p_value(a, b, 40_000)
    assert few == pytest.approx(many, abs=3 * (many / 2_000) ** 0.5)
    far = measure(list(answers(0.95)), {})[0]
    assert comparison.permute_p_value(far, a, 40_000) == pytest.approx(1 / 40_001)


def test_a_long_board_can_still_be_won_and_a_short_one_says_that_it_cannot():
    def held(model, rate, count):
        made = list(
            answers(rate, cultures=tuple(f"c{n}" for n in range(12)), count=count, seeds=(0,))
        )
        one = Result(
            benchmark="exam",
            title="x",
            about="x",
            source="x",
            kind="test_leaderboard:KIND",
            model=model,
            models=(),
            setup={},
            options={},
            counts=result.count_statuses(made),
            figures=(),
            hash=model,
        )
        return comparison.measure_result("run", one, made)

    long = comparison.build_comparison(
        [held("a", 0.98, 40), *(held(m, 0.1 + 0.001 * i, 40) for i, m in enumerate("bcd"))]
    )
    assert (
        long.comparisons == 78
        and long.swaps > long.draws
        and row(long, "c3").winner == "a"
        and not long.notes
    )
    short = comparison.build_comparison([held("a", 1.0, 6), held("b", 0.0, 6)])
    assert row(short, "c3").winner is None and "fewer than" in short.notes[0]


def test_figures_made_of_other_sums_are_not_compared():
    def held(model, length):
        units = {(0, f"u{n}"): (1.0,) * length for n in range(9)}
        one = Result(
            benchmark="exam",
            title="x",
            about="x",
            source="x",
            kind="x",
            model=model,
            models=(),
            setup={},
            options={},
            counts={},
            figures=(),
            hash=model,
        )
        return comparison.MeasuredResult(
            "run",
            one,
            {("m", "", ""): Measure("m", units, lambda sums: sums.mean(-1), headline=True)},
            {},
        )

    found = comparison.build_comparison([held("a", 2), held("b", 3)])
    assert (
        found.comparisons == 0
        and row(found, name="m").pairs[0].difference.value is None
        and not row(found, name="m").tied
    )


def trained(run, model, rates, count=40):
    """Write the result of a recipe that was trained so often, each training right at a rate of its
    own.
    """
    made = [
        o.model_copy(update={"seed": r * STRIDE, "item": f"{o.culture}/{o.unit}/0"})
        for r, rate in enumerate(rates)
        for o in answers(rate, seeds=(0,), count=count)
    ]
    return evaluated(run, model, made=made)


def test_what_one_training_shows_is_said_of_these_weights_alone(park):
    run = trained(park / "outputs" / "first", "lucky", [0.9])
    trained(run, "other", [0.4])
    found = verb(run)
    won = row(found)
    assert (won.winner, won.winning, leaderboard.describe_winner(won)) == (
        "lucky",
        "weights",
        "lucky (these weights)",
    )
    assert (
        set(won.pairs[0].weights) == {"lucky", "other"}
        and "these weights alone" in found.tables[0].warnings[-1]
    )
    told = json.loads((park / BOARD / "leaderboard.json").read_text())["tables"][0]
    assert [m["trainings"] for m in told["models"]] == [1, 1] and told["rows"][0][
        "winning"
    ] == "weights"
    text = (park / BOARD / "leaderboard.tex").read_text()
    assert r"lucky$^\dagger$" in text and "not for the recipe that made them" in text
    assert "lucky (these weights)" in page(
        park
    ) and "these weights" in leaderboard.format_comparison(found)


def test_a_recipe_wins_over_its_trainings(park):
    run = trained(park / "outputs" / "first", "good", [0.88, 0.9, 0.92, 0.9, 0.89])
    trained(run, "other", [0.4, 0.42, 0.39, 0.41, 0.4])
    found = verb(run)
    won = row(found)
    assert (won.winner, won.winning, won.pairs[0].weights, won.pairs[0].difference.trainings) == (
        "good",
        "recipe",
        (),
        5,
    )
    assert r"\dagger" not in (
        park / BOARD / "leaderboard.tex"
    ).read_text() and "5 trainings" in leaderboard.format_comparison(found)
    assert not any("these weights" in w for w in found.tables[0].warnings)


def test_recipes_that_differ_by_luck_of_training_alone_have_no_winner(park):
    run = trained(park / "outputs" / "first", "first", [0.9, 0.45, 0.8])
    trained(run, "second", [0.5, 0.7, 0.4])
    found = verb(run)
    assert row(found).winner is None and row(found).pairs[0].difference.p > 0.05
    assert any("fewer than 5 trainings" in note for note in found.notes)


def test_the_command_prints_a_table_or_the_json_of_the_file(made, park):
    run = CliRunner().invoke(command, ["first", "--allow-code"], catch_exceptions=False)
    assert (
        "good" in run.output
        and "0.9" in run.output
        and "*" in run.output
        and "leaderboard.html" in run.output
    )
    run = CliRunner().invoke(
        command, ["first", "--allow-code", "--json", "--name", "again"], catch_exceptions=False
    )
    assert json.loads(run.output) == json.loads(
        (park / "outputs/again/leaderboard.json").read_text()
    )


def test_nobody_wins_by_leaving_out_what_is_hard(park):
    whole = list(answers(0.5, seeds=(0,)))
    easy = [
        o if o.score else o.model_copy(update={"status": "unparsed", "score": None, "answer": None})
        for o in whole[::2]
    ] + whole[1::2]
    for model, made in (("whole", whole), ("easy", sorted(easy, key=lambda o: o.item))):
        run = evaluated(park / "outputs" / "first", model, setup=SETUP | {"seeds": [0]}, made=made)
    found = row(verb(run))
    assert found.cells[0].figure.value != found.cells[1].figure.value
    assert found.pairs[0].difference.value == 0 and found.winner is None


def test_a_run_that_is_not_there_is_answered_with_those_that_are(park):
    cp.start("mine", scenario="tea", contact="south", cultures=("north",), workspace=park)
    with pytest.raises(cp.NotFound, match=r"no run 'nosuch' .* There are: mine"):
        compare_runs("nosuch", workspace=park)
