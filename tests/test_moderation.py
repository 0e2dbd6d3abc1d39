"""Tests of content moderation: posts in files of many shapes, label maps that are checked, and
macro-F1 over sets.
"""

import json
import random
import re
import tomllib
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import f1_score

from culturepark.errors import CardError, InputError, NotFound
from culturepark.evaluation import card, planning, posts
from culturepark.evaluation.ask import ask_once
from culturepark.evaluation.kinds import moderation
from culturepark.evaluation.measure import estimate
from culturepark.evaluation.types import Attempt
from culturepark.offline import Embedded
from culturepark.records import Reply
from tests.conftest import DATA

REAL = DATA / "moderation"
real = pytest.mark.skipif(not REAL.is_dir(), reason=f"no posts in {REAL}; set CULTUREPARK_DATA")
POSTS = [
    ("Tea is fine.", "NOT_HS"),
    ("Those people spoil tea.", "HS"),
    ("More tea?", "NOT_HS"),
    ("Out with them!", "HS"),
]


@pytest.fixture
def save(tmp_path):
    """Write a file of posts, return its path."""

    def write(name, rows):
        path = tmp_path / "posts" / name
        path.parent.mkdir(exist_ok=True)
        lines = (
            rows
            if isinstance(rows, str)
            else "".join(json.dumps({"data": t, "label": g}) + "\n" for t, g in rows)
        )
        path.write_text(lines, encoding="utf-8", newline="")
        return path

    return write


def asked(park, *data, name="moderation", **how):
    """Set a benchmark up in the tests' workspace."""
    setting = {
        k: how.pop(k) for k in ("method", "seeds", "limit", "count", "respondents") if k in how
    }
    return planning.build_setup(
        card.load(name),
        cultures=("north", "south"),
        data=data,
        workspace=park,
        options=how,
        **setting,
    )


def items(park, *data, **how):
    """Return all that a benchmark asks."""
    setup, benchmark = asked(park, *data, **how)
    return list(planning.plan_items(benchmark, setup))


async def held(park, model, *data, **how):
    """Ask a model all that a benchmark asks, return figures by name, culture and subset."""
    setup, benchmark = asked(park, *data, **how)

    async def ask(request, who="model"):
        return await model(request)

    attempts = [
        await ask_once(benchmark, item, ask) for item in planning.plan_items(benchmark, setup)
    ]
    return {m.key: estimate(m) for m in moderation.KIND.measure(attempts, setup.options)}


def says(answers):
    """A model that labels texts as told, and by words where it isn't."""

    async def model(request):
        return Reply("ok", answers.get(request.facts["text"], "I'd rather not say"))

    return model


TRUE = {text: "Hateful." if gold == "HS" else "not hateful" for text, gold in POSTS}

# ---------------------------------------------------------------- reading


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.csv", 'id,tweet,label\n1,"one,\ntwo",x\n2,three,y\n3,,x\n4,five,\n'),
        ("a.csv", '\ufeffcomment;Label_Gold\r\n"one,\ntwo";x\r\nthree;y\r\n ;\r\nfive;\r\n'),
        ("a.tsv", 'label\ttest_case\nx\t"one,\ntwo"\ny\tthree\nx\t\n\tfive\n'),
        (
            "a.jsonl",
            (
                '{"data": "one,\\ntwo", "label": "x"}\n\n{"data": "three", "label": "y"}\n{"label":'
                ' "x"}\n{"data": "five", "label": null}\n'
            ),
        ),
        (
            "a.json",
            (
                '{"v": 1, "posts": [{"Text": "one,\\ntwo", "label": "x"}, {"Text": "three",'
                ' "label": "y"}, {"Text": "", "label": "x"}, {"Text": "five", "label": NaN}]}'
            ),
        ),
    ],
)
def test_every_shape_gives_the_same_posts_and_counts_what_it_lacks(save, name, text):
    data = posts.read(save(name, text))
    assert [(p.text, p.label) for p in data.posts] == [("one,\ntwo", "x"), ("three", "y")]
    assert (data.rows, data.empty, data.unlabelled) == (4, 1, 1)


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        (
            "a.csv",
            "tweets,label\nx,y\n",
            r"no column is called text, .* option `text`. Did you mean|There are: tweets, label",
        ),
        ("a.csv", "text,tweet,label\nx,y,z\n", "'text' and 'tweet' could both be the text"),
        ("a.csv", 'text,label\n"one\ntwo",x\nthree\n', r"a.csv:4: 1 columns; its first line has 2"),
        ("a.csv", 'text,label\n"one,x\n', r"a.csv:2: no CSV row"),
        ("a.csv", "text,text,label\n", "two columns are called 'text'"),
        ("a.jsonl", '{"data": "x", "label": "y"}\n{"data"\n', r"a.jsonl:2: not JSON"),
        ("a.jsonl", '{"data": "x", "label": "y"}\n[1]\n', r"a.jsonl:2: list where an object"),
        ("a.json", '{"a": [], "b": []}', "neither a list of objects nor"),
        ("a.json", "[]", "no rows"),
        ("a.xlsx", "", r"files that end in \.csv"),
    ],
)
def test_what_cannot_be_read_is_named_with_its_place(save, name, text, said):
    with pytest.raises(InputError, match=said):
        posts.read(save(name, text))


@pytest.mark.parametrize("votes", [0, -1, 0.5, float("nan")])
def test_a_label_needs_a_vote(save, votes):
    with pytest.raises(InputError, match=r"the option votes = .*one vote at least"):
        posts.read(save("a.csv", "text,insult,praise\nx,0,2\n"), label="insult,praise", votes=votes)


def test_a_map_is_suggested_in_toml(save, park):
    path = save("a.csv", 'text,label\nx,"""OFF"""\ny,\\no\n')
    with pytest.raises(InputError) as error:
        items(park, path)
    example = re.search(r"with the option (map = .*), where … is", str(error.value))[1]
    assert tomllib.loads(example) == {"map": {"a": {'"OFF"': "…", "\\no": "…"}}}


def test_a_column_that_is_named_must_be_there(save):
    path = save("a.csv", "said,judged\nx,1.0\n")
    assert posts.read(path, text="said", label="judged").posts[0].label == "1"
    with pytest.raises(InputError, match=r"no column 'sayd'\. Did you mean 'said'"):
        posts.read(path, text="sayd", label="judged")


def test_a_cell_of_several_labels_means_the_one_that_comes_first_in_the_map(park, save):
    path = save("north.tsv", "text\tlabel\nno\t8\nboth\t1,3\nmild\t2,8\nleft\t9\n")
    told = {"north": {"1": "hateful", "2": "", "3": "hateful", "8": "not hateful", "9": ""}}
    gold = {i.request.facts["text"]: i.gold for i in items(park, path, separator=",", map=told)}
    assert gold == {"no": "not hateful", "both": "hateful"}
    item, *_ = items(park, path, separator=",", map=told)
    assert (item.facts["rows"], item.facts["unlabelled"]) == (4, 2)


def test_columns_of_votes_are_labels_and_a_star_is_every_other_one(park, save):
    path = save("north.csv", "text,insult,racism\na,0,0\nb,2,0\nc,3.0,1\nd,,1\n")
    told = {"north": {"racism": "hateful", "*": "not hateful"}}
    votes = {
        i.request.facts["text"]: i.gold for i in items(park, path, label="insult,racism", map=told)
    }
    assert votes == {"a": "not hateful", "b": "not hateful", "c": "hateful"}
    data = posts.read(path, label=["insult", "racism"], votes=2)
    assert data.labels == {"none": 1, "insult": 2} and data.unlabelled == 1
    with pytest.raises(InputError, match=r"north\.csv:2: insult: 'x' is no number of votes"):
        posts.read(save("north.csv", "text,insult,racism\na,x,0\n"), label="insult,racism")


def test_what_the_reader_replaced_reaches_the_note(park, save):
    path = save(
        "north.jsonl",
        '{"text": "cut \\ud83d", "label": "HS"}\n\n{"text": "a", "label": "NOT_HS"}\n{"text":'
        ' "b"}\n',
    )
    facts = [i.facts for i in items(park, path)]
    assert facts[0]["read"] == {
        "north.jsonl": {
            "blank lines, passed over": 1,
            "halves of characters, replaced by U+FFFD": 1,
        }
    }


@given(
    st.lists(
        st.tuples(
            st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0")),
            st.sampled_from("xy"),
        ),
        min_size=1,
    )
)
def test_any_text_survives_json_lines(tmp_path_factory, rows):
    path = tmp_path_factory.mktemp("posts") / "any.jsonl"
    path.write_text(
        "".join(json.dumps({"data": t, "label": g}, ensure_ascii=False) + "\n" for t, g in rows),
        "utf-8",
        newline="",
    )
    data = posts.read(path)
    assert [(p.text, p.label) for p in data.posts] == [(t, g) for t, g in rows if t.strip()]


def test_files_of_one_name_are_told_apart_by_their_folders(save, tmp_path):
    save("a.jsonl", POSTS)
    (tmp_path / "posts" / "more").mkdir()
    (tmp_path / "posts" / "more" / "a.csv").write_text("text,label\nx,HS\n")
    (tmp_path / "posts" / "README.md").write_text("Not posts.")
    assert sorted(posts.find_files([tmp_path / "posts"])) == ["more-a", "posts-a"]


def test_sets_that_share_texts_are_one_group_in_chains():
    sets = {
        "a": set(range(20)),
        "b": {0, *range(100, 110)},
        "c": {100, *range(200, 300)},
        "d": {0},
        "e": {7, *range(300, 400)},
    }
    assert posts.group_datasets(sets, 0.06) == {**dict.fromkeys("abcd", tuple("abcd")), "e": ("e",)}


# ----------------------------------------------------------------- labels


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        (
            [("a", "0"), ("b", "1"), ("c", "0")],
            (
                r"'0' \(2\), '1' \(1\); no task knows all of them. Say .* map = { \"north_x\" = {"
                r" \"0\" = \"…\", \"1\" = \"…\" } }"
            ),
        ),
        ([("a", "HS"), ("b", "OFF")], r"'HS' \(1\), 'OFF' \(1\); no task knows all"),
        ([("a", "NOT")], r"they fit several tasks \(offence, hate_or_offence\)"),
        (
            [("a", "HS"), ("b", "HS")],
            r"none of them means 'not hateful', so that answer to 'hate' could never be right",
        ),
        ([("a", ""), ("b", None)], "none of its 2 rows has a text and a label"),
    ],
)
def test_labels_that_do_not_fit_are_an_error_with_their_counts(park, save, rows, said):
    with pytest.raises(InputError, match=said):
        items(park, save("north_x.jsonl", rows))


@pytest.mark.parametrize(
    ("mapped", "said"),
    [
        ({"0": "not biased", "1": "biasd"}, "no task offers 'biasd'. Did you mean 'biased'"),
        (
            {"0": "not biased", "1": "hateful"},
            r"mixes the labels of several tasks: 'not biased' \(bias\), 'hateful' \(hate\)",
        ),
        ({"0": "not biased"}, "nothing says which of 'biased', 'not biased' '1' is"),
        ({"0": "not biased", "1": "not biased"}, "none of them means 'biased'"),
        ("0=not biased", "the option `map` is"),
    ],
)
def test_a_map_that_does_not_fit_is_an_error(park, save, mapped, said):
    setup, benchmark = asked(
        park, save("north_x.jsonl", [("a", "0"), ("b", "1")]), map={"north*": mapped}
    )
    with pytest.raises(InputError, match=said):
        next(planning.plan_items(benchmark, setup))


def test_a_map_says_what_numbers_mean_and_goes_before_the_cards(park, save):
    setup, benchmark = asked(
        park,
        save("bengali_bad.jsonl", [("a", "0"), ("b", "1")]),
        map={"*bad": {"0": "not biased", "1": "biased"}},
    )
    assert [i.gold for i in planning.plan_items(benchmark, setup)] == ["not biased", "biased"]
    plain, benchmark = asked(park, save("bengali_bad.jsonl", [("a", "NOT"), ("b", "OFF")]))
    assert [i.gold for i in planning.plan_items(benchmark, plain)] == [
        "not aggressive",
        "aggressive",
    ]


def test_an_offered_label_belongs_to_one_task(park, save):
    tasks = {n: {"ask": "?", "labels": {"yes": ["1"], f"no {n}": ["0"]}} for n in "ab"}
    setup, benchmark = asked(park, save("north.jsonl", POSTS), tasks=tasks)
    with pytest.raises(InputError, match=r"tasks.b: 'yes' stands for two labels"):
        next(planning.plan_items(benchmark, setup))


def test_all_files_are_checked_before_anything_is_asked_and_may_be_left_out(park, save):
    files = [
        save("north_a.jsonl", POSTS),
        save("north_b.jsonl", [("x", "2"), ("y", "3")]),
        save("north_c.jsonl", [("z", "4")]),
    ]
    with pytest.raises(InputError, match=r"north_b[\s\S]*north_c"):
        items(park, *files)
    assert len(items(park, *files, without=["north_[bc]"])) == 4


# ------------------------------------------------------------------- plan


def test_a_post_is_put_as_to_a_tuned_model_with_its_task_and_labels(park, save):
    setup, benchmark = asked(park, save("north.jsonl", POSTS), seeds=(3, 4))
    first, second, *_ = planning.plan_items(benchmark, setup)
    assert (
        first.request.messages[0].content.splitlines()[0]
        == "You are a person from the Northern culture. Answer as many people there would, from"
        " your own life and customs."
    )
    assert first.request.messages[1].content.endswith("nothing else: hateful, not hateful")
    assert (first.id, second.id, first.request.temperature) == (
        "north/north/1/3",
        "north/north/1/4",
        0.0,
    )


def test_a_text_without_culture_is_put_to_nobody_in_particular(park, save):
    setup, benchmark = asked(park, save("hindi.jsonl", POSTS))
    first = next(planning.plan_items(benchmark, setup))
    assert first.culture == "" and first.request.messages[0].content.startswith("You label posts.")


def test_posts_of_other_cultures_are_left_out(park, save):
    files = [save("north.jsonl", POSTS), save("south.jsonl", POSTS), save("any.jsonl", POSTS)]
    setup, benchmark = asked(park, *files)
    assert {
        i.subset for i in planning.plan_items(benchmark, replace(setup, cultures=("south",)))
    } == {
        "south",
        "any",
    }
    with pytest.raises(InputError, match=r"no posts of south .* north \(north\)"):
        next(planning.plan_items(benchmark, replace(setup, cultures=("south",), data=(files[0],))))


def test_the_culture_of_all_files_may_be_said(park, save):
    path = save("any.jsonl", POSTS)
    assert {i.culture for i in items(park, path, culture="south")} == {"south"}
    with pytest.raises(NotFound, match="Did you mean 'south'"):
        items(park, path, culture="sout")


def test_by_likelihood_the_labels_are_the_options_and_one_seed_is_enough(park, save):
    setup, benchmark = asked(park, save("north.jsonl", POSTS), method="likelihood", seeds=(0, 1))
    made = list(planning.plan_items(benchmark, setup))
    assert len(made) == 4 and {i.request.options for i in made} == {("hateful", "not hateful")}


def test_without_data_it_says_what_is_wanted(park):
    with pytest.raises(InputError, match=r"which posts\? Give files, or folders of them: \.csv"):
        items(park)


# --------------------------------------------------------------- measures


def attempts(gold, said, name="a", labels=("x", "y", "z"), seed=0):
    """Attempts of one set; None is an answer that could not be read."""
    facts = {
        "labels": list(labels),
        "group": [name],
        "task": "t",
        "rows": len(gold),
        "unlabelled": 0,
        "empty": 0,
        "repeats": 0,
    }
    return [
        Attempt(
            item=f"{name}/{i}",
            culture="north",
            unit=str(i),
            subset=name,
            seed=seed,
            gold=g,
            answer=s,
            facts=facts,
            status="unparsed" if s is None else "ok",
        )
        for i, (g, s) in enumerate(zip(gold, said, strict=True))
    ]


LABEL = st.sampled_from("xyz")


def figures(held):
    return {m.key: estimate(m) for m in moderation.KIND.measure(held, {})}


@given(st.lists(st.tuples(LABEL, LABEL), min_size=1, max_size=40))
def test_macro_f1_is_scikit_learns(pairs):
    gold, said = zip(*pairs, strict=True)
    found = figures(attempts(gold, said))
    assert found["macro_f1", "north", ""].value == pytest.approx(
        f1_score(gold, said, average="macro")
    )


@given(st.lists(st.tuples(LABEL, st.one_of(LABEL, st.none())), min_size=1, max_size=40))
def test_an_unread_answer_is_a_label_that_nobody_offered(pairs):
    gold, said = [g for g, _ in pairs], [s or "?" for _, s in pairs]
    found = figures(attempts(gold, [s for _, s in pairs]))
    there = sorted({*gold, *said} - {"?"})
    assert found["macro_f1", "north", "a"].value == pytest.approx(
        f1_score(gold, said, average="macro", labels=there)
    )
    assert found["unparsed", "north", "a"].value == pytest.approx(said.count("?") / len(said))


def test_a_cultures_figure_is_the_mean_over_groups():
    sets = {"a": ("xy", "xy"), "b": ("xy", "yx"), "c": ("xy", "xy")}
    made = [o for name, (gold, said) in sets.items() for o in attempts(gold, said, name, "xy")]
    joined = [
        o.model_copy(
            update={"facts": {**o.facts, "group": ["a", "b"] if o.subset in "ab" else ["c"]}}
        )
        for o in made
    ]
    assert figures(made)["macro_f1", "north", ""].value == pytest.approx(2 / 3)
    found = figures(joined)["macro_f1", "north", ""]
    assert found.value == pytest.approx(0.75) and "a + b" in found.note and found.headline


def test_a_labeller_by_chance_is_expected_where_many_of_them_are():
    rng, gold = random.Random(0), "x" * 3000 + "y" * 600 + "z" * 400
    said = [rng.choice("xyz") for _ in gold]
    assert moderation.chance({"x": 3000, "y": 600, "z": 400}, 3) == pytest.approx(
        f1_score(list(gold), said, average="macro"), abs=0.01
    )


async def test_a_perfect_model_has_all_right_and_a_silent_one_nothing(park, save):
    path = save("north.jsonl", [*POSTS, ("Tea?", ""), ("", "HS")])
    best, none = await held(park, says(TRUE), path), await held(park, says({}), path)
    top, low = best["macro_f1", "north", ""], none["macro_f1", "north", ""]
    assert (top.value, top.low, top.n) == (
        1.0,
        None,
        4,
    ) and "left out 1 without label and 1 without text" in top.note
    assert (low.value, none["unparsed", "north", ""].value, best["unparsed", "", ""].value) == (
        0.0,
        1.0,
        0.0,
    )


async def test_every_model_has_its_mean_and_spread_over_seeds(park, save):
    path = save("north.jsonl", [(f"{text} {n}", gold) for n in range(30) for text, gold in POSTS])
    for model in (Embedded().complete, says(TRUE)):
        found = (await held(park, model, path, seeds="0,1,2"))["macro_f1", "north", ""]
        assert found.seeds == 3 and found.spread is not None and found.n == 120
    chance = (await held(park, Embedded().complete, path, seeds="0,1,2"))["macro_f1", "north", ""]
    assert chance.low < 0.5 < chance.high and chance.spread > 0


async def test_sets_that_share_texts_enter_once_and_a_text_is_drawn_as_one(park, save):
    files = [
        save("north_a.jsonl", POSTS),
        save("north_b.jsonl", [*POSTS, ("New.", "NOT_HS")]),
        save("north_c.jsonl", [("c", "HS"), ("d", "NOT_HS")]),
    ]
    found = await held(park, says(TRUE), *files)
    shown = found["macro_f1", "north", ""]
    assert (
        "mean over 3 data sets, of which these share texts and enter as one: north_a + north_b:"
        in shown.note
    )
    assert shown.n == 7 and shown.value == pytest.approx(
        (1 + found["macro_f1", "north", "north_b"].value) / 4
    )


async def test_a_sample_is_the_same_every_time_and_says_so(park, save):
    path = save("north.jsonl", [(f"{text} {n}", gold) for n in range(30) for text, gold in POSTS])
    first, again = [await held(park, says(TRUE), path, limit=20) for _ in range(2)]
    assert (
        first == again
        and "20 drawn of 120 labelled rows" in first["macro_f1", "north", "north"].note
    )


HATECHECK = """functionality,test_case,label_gold,ref_templ_id,templ_id
slur_h,Out with them!,hateful,,1
slur_h,Out with you!,hateful,,1
negate_nh,Not out with them!,non-hateful,1.0,2
neutral_nh,Tea.,non-hateful,,3
"""


async def test_hatecheck_is_told_by_functionality_and_drawn_by_template(park, save):
    files = [save("north.csv", HATECHECK), save("hindi.csv", HATECHECK)]
    found = await held(
        park, says({"Out with them!": "hateful", "Tea.": "not hateful"}), *files, name="hatecheck"
    )
    assert (
        found["accuracy", "north", "slur_h"].value
        == found["accuracy", "", "hindi/slur_h"].value
        == 0.5
    )
    assert found["accuracy", "", "negate_nh"].value == 0.0
    assert (found["macro_f1", "north", ""].n, found["macro_f1", "north", ""].what) == (
        2,
        "templates",
    )


def test_a_column_that_hatecheck_wants_must_be_there(park, save):
    path = save("north.csv", "test_case,label_gold\na,hateful\nb,non-hateful\n")
    with pytest.raises(InputError, match=r"north.csv:2: no column 'functionality'"):
        items(park, path, name="hatecheck")


def test_the_cards_hold_what_the_kind_knows(tmp_path):
    assert card.load("moderation").kind == card.load("hatecheck").kind == "moderation"
    own = tmp_path / "own.toml"
    own.write_text(
        'name = "own"\ntitle = "t"\nabout = "a"\nsource = "s"\nkind ='
        ' "moderation"\n[options]\nlabels = 1\n'
    )
    with pytest.raises(CardError, match=r"options.labels: unknown. Did you mean 'label'"):
        card.load(own)


# -------------------------------------------------------------- real files

# Rows, those without label, and how often each label occurs; none lacks its text.
COUNTS = {
    "arabic_multiplatform_hate": (675, 0, {"NOT_HS": 495, "HS": 180}),
    "arabic_offenseval2020": (2000, 0, {"NOT": 1598, "OFF": 402}),
    "bengali_bad_aggression": (1000, 0, {"NOT": 600, "OFF": 400}),
    "bengali_religion_hate": (1000, 0, {"NOT_HS": 600, "HS": 400}),
    "chinese_cdial_bias_gender": (1000, 0, {"0": 928, "1": 72}),
    "german_hasoc": (850, 0, {"NOT": 714, "HOF": 136}),
    "korean_hate": (1000, 218, {"NOT_HS": 607, "HS": 175}),
    "portuguese_offcombr": (1250, 0, {"NOT": 831, "OFF": 419}),
    "spanish_haternet": (1000, 0, {"NOT_HS": 727, "HS": 273}),
    "turkish_offense_corpus": (1000, 0, {"NOT": 783, "OFF": 217}),
    "arabic": (3570, 0, {"hateful": 2494, "non-hateful": 1076}),
    "german": (3645, 0, {"hateful": 2550, "non-hateful": 1095}),
    "hindi": (3565, 0, {"hateful": 2488, "non-hateful": 1077}),
    "mandarin": (3378, 0, {"hateful": 2265, "non-hateful": 1113}),
    "portuguese": (3691, 0, {"hateful": 2581, "non-hateful": 1110}),
    "spanish": (3745, 0, {"hateful": 2632, "non-hateful": 1113}),
}


@pytest.mark.conformance
@real
def test_all_real_files_are_read_with_their_counts():
    read = {
        name: posts.read(path)
        for name, path in posts.find_files([REAL / "by_culture", REAL / "hatecheck"]).items()
    }
    assert {name: (d.rows, d.unlabelled, d.labels) for name, d in read.items()} == COUNTS
    assert not any(d.empty for d in read.values())


@pytest.mark.conformance
@real
def test_real_labels_are_known_but_for_bare_numbers():
    setup, benchmark = planning.build_setup(card.load("moderation"), data=[REAL / "by_culture"])
    with pytest.raises(
        InputError, match=r"cdial.*'0' \(928\), '1' \(72\); no task knows all of them"
    ) as caught:
        next(planning.plan_items(benchmark, setup))
    assert len(str(caught.value).splitlines()) == 1
    setup, benchmark = planning.build_setup(
        card.load("moderation"),
        data=[REAL / "by_culture"],
        options={"without": "chinese_cdial*"},
        limit=3,
    )
    asked = {i.facts["task"] for i in planning.plan_items(benchmark, setup)}
    assert asked == {"hate", "offence", "hate_or_offence", "aggression"}


@pytest.mark.conformance
@real
def test_hatecheck_is_asked_in_six_languages_and_five_cultures():
    setup, benchmark = planning.build_setup(card.load("hatecheck"), data=[REAL / "hatecheck"])
    made = list(planning.plan_items(benchmark, setup))
    assert len(made) == 21_594
    assert {i.culture for i in made} == {"arabic", "german", "", "chinese", "portuguese", "spanish"}
    assert len({i.unit for i in made if i.subset == "german"}) == 176


@pytest.mark.conformance
@real
def test_real_columns_of_votes_give_the_labels_that_pandas_counts():
    pandas = pytest.importorskip("pandas")
    path, names = (
        REAL / "shapes" / "told_br.csv",
        ["homophobia", "obscene", "insult", "racism", "misogyny", "xenophobia"],
    )
    data, other = posts.read(path, label=names), pandas.read_csv(path)
    counts = {name: int((other[name] >= 1).sum()) for name in names} | {
        "none": int((other[names].sum(axis=1) == 0).sum())
    }
    assert data.labels == counts and len(data.posts) == 21000


@pytest.mark.conformance
@real
@pytest.mark.parametrize(
    ("name", "how", "told", "column"),
    [
        (
            "korean_hate_dev.tsv",
            {"text": "comments", "label": "hate"},
            {"hate": "hateful", "*": "not hateful"},
            "hate",
        ),
        ("cold_test.csv", {}, {"1": "hateful", "0": "not hateful"}, "label"),
    ],
)
def test_real_tables_of_other_shapes_are_mapped_as_pandas_counts(name, how, told, column):
    pandas = pytest.importorskip("pandas")
    path = REAL / "shapes" / name
    other = pandas.read_csv(
        path, sep="\t" if name.endswith("tsv") else ",", keep_default_na=False, dtype=str
    )[column]
    setup, benchmark = planning.build_setup(
        card.load("moderation"), data=[path], options={"map": {path.stem: told}, **how}
    )
    gold = [i.gold for i in planning.plan_items(benchmark, setup)]
    assert gold == [told.get(label, told.get("*")) for label in other]
