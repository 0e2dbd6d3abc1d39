"""The desk: what is known is not asked again, replays ask nothing, unreadable answers are asked for
again and never data.
"""

import asyncio
import json
import re
import shutil
from dataclasses import replace

import pytest
from conftest import TEA
from pydantic import BaseModel
from test_hosted import ASK

import culturepark as cp
from culturepark.llm.session import Answer, Failure, Models, Session
from culturepark.records import Fault, Reply
from culturepark.store import RunStore


class Shape(BaseModel):
    """What is asked for."""

    a: int


def read(folder, script):
    model = cp.Scripted(script)
    with RunStore(folder) as journal:
        return asyncio.run(
            Session(Models(model), journal).ask_json(ASK, "subject", Shape)
        ), model.requests


def test_an_answer_that_cannot_be_read_is_shown_to_the_model_and_asked_for_again(tmp_path):
    found, asked = read(tmp_path, ["well", '{"a": "x"}', 'Sure: {"a": 3} as you wished'])
    assert isinstance(found, Answer) and found.value.a == 3
    assert [len(r.messages) for r in asked] == [1, 3, 3] and asked[1].messages[1].content == "well"
    assert "read: a: must be a whole number (there is 'x')." in asked[2].messages[2].content
    with RunStore(tmp_path, write=False) as journal:
        assert [s for (s,) in journal.select("SELECT status FROM calls ORDER BY id")] == [
            "unparsed",
            "unparsed",
            "ok",
        ]


def test_what_stays_unreadable_is_a_failure_with_the_raw_text(tmp_path):
    found, asked = read(tmp_path, ["[{[}]"])
    assert found.status == "unparsed" and "[{[}]" in found.reason and len(asked) == 3


def test_a_cut_answer_may_be_longer_the_next_time_and_a_refusal_is_not_asked_for_again(tmp_path):
    found, asked = read(tmp_path / "a", [Reply("truncated", text='{"a"', reason="cut"), '{"a": 1}'])
    assert isinstance(found, Answer) and [r.max_tokens for r in asked] == [9, 18]
    found, asked = read(tmp_path / "b", [Reply("refused", reason="no")])
    assert found == Failure("refused", "no") and len(asked) == 1


def test_a_whole_answer_counts_though_the_model_talked_on_until_it_was_cut(tmp_path):
    cut = [Reply("truncated", text='{"a": 1}\nThat is because {"a', reason="cut")]
    found, asked = read(tmp_path / "a", cut)
    assert isinstance(found, Answer) and found.value.a == 1 and len(asked) == 1
    found, _ = read(tmp_path / "b", [Reply("truncated", text='{"a": "x"} well', reason="cut")])
    assert found == Failure("truncated", "cut")


def test_what_an_earlier_process_was_answered_is_not_asked_again_but_failures_are(tmp_path):
    script = iter(["first", Reply("failed", reason="busy"), "second"])

    def ask(subject, request):
        with RunStore(tmp_path) as journal:
            return asyncio.run(Session(Models(model), journal).ask(request, subject))[0]

    model = cp.Scripted(lambda _: next(script))
    assert [ask("s", ASK).text for _ in range(3)] == ["first"] * 3 and len(model.requests) == 1
    assert [ask("s", replace(ASK, seed=5)).status for _ in range(2)] == ["failed", "ok"] and len(
        model.requests
    ) == 3


def test_a_reply_comes_back_from_the_journal_as_it_was(tmp_path):
    reply = Reply(
        "ok", "text", "", "m", 10, 5, 2, 0.25, 12.5, 3, 1, (Fault(kind="drift", sentence="s"),)
    )
    with RunStore(tmp_path) as journal:
        journal.add_call("k", "s", "delegate", reply)
        assert journal.find_reply("k") == reply and journal.find_reply("other") is None


def test_a_key_changes_with_all_that_can_change_an_answer():
    changed = (
        {"role": "x"},
        {"messages": ()},
        {"temperature": 0.3},
        {"max_tokens": 8},
        {"reply_schema": {}},
        {"seed": 1},
        {"index": 1},
    )
    keys = {replace(ASK, **c).key("m") for c in changed} | {ASK.key("m"), ASK.key("n")}
    assert len(keys) == 9 and replace(ASK, facts={"n": 1}, speaker="a/b").key("m") == ASK.key("m")


# ------------------------------------------------------------------- replay


def files(run):
    """What was exported; a card names its run, and may differ in nothing else."""
    named = re.compile(rf"\b{run.folder.name}\b")
    return {
        p.name: named.sub("RUN", p.read_text(encoding="utf-8"))
        for p in (run.corpus / "trl").iterdir()
    }


def test_a_published_run_is_run_again_without_a_key_or_a_model_and_is_the_same(park, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-only-the-first-time")

    def reply(number, body):
        text = body["messages"][-1]["content"]
        if '"opinions"' in text:
            return (
                json.dumps(
                    {"opinions": [{"turn": 1, "text": f"Drinking tea is good, says {number}."}]}
                )
                if number % 3
                else "hm"
            )
        return (
            '{"verdict": "entail", "reason": "yes"}'
            if '"verdict"' in text
            else f"Tea is good, number {number}."
        )

    with cp.Server(reply, models=("tiny",)) as server:
        first = cp.run(
            "first",
            {**TEA, "model": "openai/tiny", "base_url": server.url, "dialogues": 5, "turns": 4},
            formats=("trl",),
        )
        asked = server.counts["requests"]
        monkeypatch.delenv("OPENAI_API_KEY")
        again = cp.run(cp.replay("again", first.folder), formats=("trl",))
        assert server.counts["requests"] == asked
    assert files(again) == files(first) and len(files(first)["train.jsonl"]) > 100


def test_a_replay_fails_on_the_first_answer_that_is_not_there(park):
    first = cp.run(
        "first", {**TEA, "model": "conftest:Plays", "dialogues": 2, "turns": 4}, formats=("trl",)
    )
    with RunStore(first.folder) as journal:
        journal.write("DELETE FROM calls WHERE id = 5")
    with pytest.raises(cp.ReplayMiss, match="does not hold the answer of plays to this"):
        cp.run(cp.replay("again", first.folder))
    with pytest.raises(cp.InputError, match="into itself"):
        cp.replay("first", first.folder)
    shutil.rmtree(first.folder)


# -------------------------------------------------------------------- calls


def test_calls_are_told_by_role_and_model_with_the_slowest_dearest_and_failed(tmp_path):
    with RunStore(tmp_path) as journal:
        for i in range(20):
            failed = i == 7
            journal.add_call(
                f"k{i}",
                "s",
                "delegate",
                Reply(
                    "failed" if failed else "ok",
                    "x",
                    "boom" * failed,
                    "m",
                    10,
                    5,
                    None,
                    None if failed else i / 100,
                    float(i),
                    2 if failed else 1,
                ),
            )
        from culturepark.reports.calls import calls, format_calls

        found = calls(journal, top=3)
    (group,) = found["groups"]
    assert (
        group["calls"],
        group["failed"],
        group["attempts"],
        group["p50_ms"],
        group["p95_ms"],
    ) == (
        20,
        1,
        21,
        9.0,
        18.0,
    )
    assert [c["ms"] for c in found["slowest"]] == [19, 18, 17] and found["dearest"][0][
        "usd"
    ] == 0.19
    assert (
        [c["reason"] for c in found["failed"]] == ["boom"]
        and "boom" in format_calls(found)
        and "+1 unknown" in format_calls(found)
    )


def test_what_failed_is_tried_once_more_at_the_end_and_only_that_is_asked_again(park):
    from conftest import answer

    failed = {"verifier": 0, "delegate": 0}

    def moody(request):
        if request.role in failed and not failed[request.role]:
            failed[request.role] += 1
            return Reply("failed", reason="the endpoint was down", model="moody")
        return answer(request)

    global Moody
    Moody = cp.Scripted(moody, "moody")
    run = cp.run(
        "again", {**TEA, "model": "test_desk:Moody", "dialogues": 3, "turns": 4}, formats=("trl",)
    )
    with run.open_store(write=False) as journal:
        assert journal.select(
            "SELECT COUNT(*) FROM scenes WHERE status = 'done' AND refined = 'ok'"
        ) == [(3,)]
        assert journal.select("SELECT COUNT(*) FROM opinions WHERE dropped LIKE 'un%'") == [(0,)]
        assert journal.select("SELECT status, COUNT(*) FROM calls GROUP BY 1") == [
            ("failed", 2),
            ("ok", len(Moody.requests) - 2),
        ]
        assert journal.select("SELECT COUNT(*) - COUNT(DISTINCT key) FROM calls") == [(2,)]
