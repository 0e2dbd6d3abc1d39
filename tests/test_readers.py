"""Tests of what reads users' rows: whatever a row holds, it is read or refused in one error that
names its file.
"""

import json
from copy import deepcopy

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import culturepark as cp
from culturepark import workspace
from culturepark.api import lessons
from culturepark.errors import InputError
from culturepark.evaluation import card, planning, posts
from culturepark.evaluation.kinds import opinions
from culturepark.surveys import votes
from culturepark.training import rows
from culturepark.training.hosted import uploads

SHIPPED = workspace.load(None)
ASKED = {"role": "user", "content": "Tea?"}
SAID = {"role": "assistant", "content": "Yes."}
TURNS = [
    {"turn": 0, **ASKED},
    {"turn": 0, "role": "model", "content": "a", "score": 1, "if_chosen": True},
    {"turn": 0, "role": "model", "content": "b", "score": 2},
]
ROWS = {
    "conversation": {
        "user_id": "u",
        "conversation_id": "c",
        "country": "US",
        "conversation_history": TURNS,
    },
    "preference": {
        "prompt": "p",
        "chosen": "a",
        "rejected": "b",
        "metadata": {"country": "US", "user": "u", "minority": True},
    },
    "opinion": {
        "question": "Q",
        "country": "US",
        "options": ["a", "b"],
        "distribution": [0.5, 0.5],
    },
    "opinions": {"question": "Q", "selections": {"US": [0.5, 0.5]}, "options": ["a", "b"]},
    "question": {
        "question": "Q?",
        "answer": "a",
        "associated_culture": "german",
        "culture_type": "t",
        "id": "1",
    },
    "post": {"text": "t", "label": "HS"},
    "trl": {"prompt": [ASKED], "completion": [SAID], "metadata": {"culture": "german"}},
    "messages": {"messages": [ASKED, SAID]},
    "shares": {"prompt": "x", "options": ["a", "b"], "shares": [0.5, 0.5]},
    "kto": {"prompt": "x", "completion": "y", "label": True},
    "upload": {
        "input": {"messages": [ASKED]},
        "preferred_output": [SAID],
        "non_preferred_output": [SAID],
    },
}
ODD = st.recursive(
    st.sampled_from(
        [None, True, 0, -1.5, 10**30, float("nan"), float("inf"), "", "x", "2", "\ud83d"]
    ),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(st.sampled_from(["turn", "role", "content", "score"]), inner, max_size=3)
    ),
    max_leaves=4,
)


def places(value):
    """Yield every (container, key) in a row."""
    for key in (
        value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    ):
        yield value, key
        yield from places(value[key])


def plan(name, path, **how):
    """Plan a benchmark on a file."""
    setup, benchmark = planning.build_setup(card.load(name), data=[path], workspace=SHIPPED, **how)
    return list(planning.plan_items(benchmark, setup))


READERS = {
    "votes": votes.read_votes,
    "opinions": lambda path: opinions.read_polls([path]),
    "posts": posts.read,
    **{
        form: lambda path, form=form: rows.read_corpus(path, form, "german")
        for form in ("trl", "dpo", "kto", "shares")
    },
    **{
        f"upload {m}": lambda path, m=m: uploads.read_parts(path.parent, m, len)
        for m in ("sft", "dpo")
    },
    **{name: lambda path, name=name: plan(name, path) for name in ("moderation", "care", "reward")},
    "chat": lambda path: lessons.chat(cp.Scripted(["x"]), "german", [], print, save=path),
}


@pytest.mark.parametrize("reader", READERS)
@settings(deadline=None, max_examples=40)
@given(data=st.data(), name=st.sampled_from(sorted(ROWS)))
def test_a_row_that_is_changed_anywhere_is_read_or_refused(tmp_path_factory, reader, data, name):
    row = deepcopy(ROWS[name])
    holder, key = data.draw(st.sampled_from(list(places(row))))
    holder[key] = data.draw(ODD)
    path = tmp_path_factory.mktemp("rows") / "train.jsonl"
    path.write_text("".join(json.dumps(r) + "\n" for r in (ROWS[name], row)), encoding="utf-8")
    try:
        READERS[reader](path)
    except cp.ParkError as error:
        assert str(error)


def test_a_services_file_is_sent_as_it_is_so_half_a_character_is_refused(tmp_path):
    good = {"messages": [ASKED, SAID]}
    bad = {"messages": [{**ASKED, "content": "\ud83d"}, SAID]}
    lines = [json.dumps(r) for r in [good] * 10 + [bad]]
    (tmp_path / "train.jsonl").write_text(
        "\n".join(lines) + '\n{"messages": [], "messages": []}\n', encoding="utf-8"
    )
    with pytest.raises(
        InputError,
        match=(
            r"train\.jsonl:11: it holds half a character[^\n]*\n.*:12: the key 'messages' stands"
            r" twice"
        ),
    ):
        uploads.read_parts(tmp_path, "sft", len)


def test_a_corpus_with_blank_lines_and_line_separators_is_whole(tmp_path):
    row = json.dumps({**ROWS["trl"], "prompt": "one\u2028two"}, ensure_ascii=False)
    (tmp_path / "train.jsonl").write_text(f"\ufeff{row}\r\n\n  \n{row}\n\n", encoding="utf-8")
    assert len(rows.read_corpus(tmp_path, "trl").select("train", "german")) == 2


def test_a_conversation_goes_on_after_a_line_separator(tmp_path):
    path = tmp_path / "talk.jsonl"
    talk = lessons.chat(
        cp.Scripted(["three\x85four"]), "german", ["one\u2028two"], print, save=path
    )
    assert (
        lessons.chat(cp.Scripted(["x"]), "german", [], print, save=path) == talk and len(talk) == 2
    )


def test_votes_of_any_kind_of_table_and_posts_without_a_text_are_counted(tmp_path):
    path = tmp_path / "votes.tsv"
    path.write_text(
        "id\ttext\tUS_Hate\tSG_Hate\n1\tTea!\t1\tNA\n2\t \t0\t1\n\n3\tx\t.\t0\n", encoding="utf-8"
    )
    found = votes.read_votes(path)
    assert len(found.pairs) == 2 and found.skipped == {"unlabelled": 2, "posts without a text": 1}
    notes = {
        f.facts["read"]["votes.tsv"]["posts without a text"]
        for f in plan("reward", path, method="likelihood")
    }
    assert notes == {1} and found.notices == {"blank lines, passed over": 1}
