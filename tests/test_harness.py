"""Tests of the harness task: other people's code comes to the same figure on the same model,
questions and people.
"""

import json

import pytest

from culturepark import workspace
from culturepark.errors import InputError
from culturepark.evaluation import alignment, card, harness
from culturepark.evaluation.kinds import survey
from culturepark.evaluation.types import Setup
from culturepark.local_models import chat, choices

CULTURES = ("german", "spanish")


@pytest.fixture
def items():
    setup = Setup(workspace.load(workspace.find_shipped_cards()), CULTURES, count=1, limit=12)
    return list(survey.plan(card.load("survey"), setup))


def talk(messages):
    return [{"role": m.role, "content": m.content} for m in messages]


def test_a_task_has_each_peoples_question_once_and_no_options_of_two_digits(items, tmp_path):
    folder = harness.write(
        tmp_path / "task", [*items, *items], lambda messages: messages[-1].content
    )
    rows = [json.loads(line) for line in (folder / "items.jsonl").read_text().splitlines()]
    kept = {(i.culture, i.unit) for i in items if i.culture and max(i.facts["codes"]) < 10}
    assert {(r["culture"], r["question"]) for r in rows} == kept and len(rows) == len(kept) < sum(
        i.culture != "" for i in items
    )
    with pytest.raises(InputError, match="nothing was written"):
        harness.write(tmp_path / "none", [i for i in items if not i.culture], str)


@pytest.mark.filterwarnings("ignore")  # the harness's and its libraries' own, none of ours
def test_the_harness_comes_to_our_figure(items, small, tmp_path):
    lm_eval = pytest.importorskip("lm_eval")
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model, tokenizer = (
        AutoModelForCausalLM.from_pretrained(small),
        AutoTokenizer.from_pretrained(small),
    )
    folder = harness.write(
        tmp_path / "task", items, lambda m: chat.open_turns(tokenizer, [talk(m)])[0].text
    )
    theirs = lm_eval.simple_evaluate(
        HFLM(pretrained=model, tokenizer=tokenizer, batch_size=4),
        tasks=[harness.TASK],
        bootstrap_iters=0,
        task_manager=TaskManager(include_path=str(folder), include_defaults=False),
    )["results"][harness.TASK]["alignment,none"]

    held = [i for i in items if i.culture and max(i.facts["codes"]) < 10]
    digits = [[str(code) for code in i.facts["codes"]] for i in held]
    shares = choices.compute_distributions(
        model, tokenizer, [talk(i.request.messages) for i in held], digits
    )
    ours = [
        alignment.agreement(s, i.gold, alignment.find_offered_options(i.gold, i.facts["n"]))
        for s, i in zip(shares, held, strict=True)
    ]
    assert theirs == pytest.approx(sum(ours) / len(ours), abs=1e-3)
    assert len(held) > 10 and 0 < theirs < 1
