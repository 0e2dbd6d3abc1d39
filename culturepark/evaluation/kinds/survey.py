"""Survey alignment: a scenario's questions, asked under each culture's name and under none, held
against what peoples answered.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from culturepark import surveys, workspace
from culturepark.errors import InputError
from culturepark.evaluation import alignment
from culturepark.evaluation.card import resolve_options
from culturepark.evaluation.kind import BenchmarkKind
from culturepark.evaluation.measure import Measure
from culturepark.evaluation.types import Attempt, Benchmark, Item, Setup
from culturepark.llm import session
from culturepark.records import Culture, Distribution, Persona, Question, stream
from culturepark.surveys import Figures
from culturepark.workspace import Workspace


@dataclass(frozen=True)
class Voice:
    """Who is asked: nobody, a people by the name of its culture or country, or one persona."""

    name: str
    culture: Culture | None = None
    country: str | None = None
    me: Persona | None = None


@dataclass(frozen=True)
class AskedQuestion:
    """One question to one people: what it is called, how its people answered, and what is told of
    that.
    """

    culture: str
    question: Question
    voices: Sequence[Voice]
    gold: Sequence[float] | None = None
    subset: str = ""
    facts: Mapping[str, Any] | None = None


def plan(benchmark: Benchmark, setup: Setup) -> Iterator[Item]:
    """Yield every question to every culture whose people were asked it, and, where `unprompted`, to
    nobody in particular.

    InputError for a culture that no survey figures are known of.
    """
    options = resolve_options(benchmark, setup.options)
    questions = setup.workspace.scenario(options["scenario"]).questions
    figures = surveys.load_survey(options["survey"]) if options["survey"] else setup.survey_figures
    order = rank_questions(questions, setup.limit, lambda q: (options["scenario"], q.id))
    seen: dict[str, Question] = {}
    for name in setup.cultures:
        for asked in _find_answered(setup, setup.workspace.culture(name), order, figures):
            seen[asked.question.id] = asked.question
            yield from build_items(benchmark, setup, asked)
    if options["unprompted"]:
        for question in seen.values():
            asked = AskedQuestion(
                "",
                question,
                [Voice("nobody")],
                subset=find_split(setup, question.id),
                facts={"topic": question.topic},
            )
            yield from build_items(benchmark, setup, asked)


def rank_questions(
    questions: Sequence[Question], limit: int | None, key: Callable[[Question], Any]
) -> Sequence[Question]:
    """Return questions as they are, or, under a limit, in a random order that depends on the key
    alone.
    """
    return (
        questions
        if limit is None
        else sorted(questions, key=lambda q: stream("limit", *key(q)).random())
    )


def _find_answered(
    setup: Setup, culture: Culture, questions: Sequence[Question], figures: Figures
) -> Iterator[AskedQuestion]:
    found = [
        (q, shares) for q in questions if (shares := figures.pool(culture.survey, q.id)) is not None
    ]
    if not found:
        countries = ", ".join(culture.survey) or "no country"
        raise InputError(
            f"culture {culture.name!r} is surveyed through {countries}; {figures.source} holds no"
            f" answer of these questions from there. There are: {', '.join(figures.countries())}."
        )
    voices = choose_voices(setup, culture)
    for question, shares in found[: setup.limit]:
        facts = {
            "topic": question.topic,
            "n": shares.n,
            "survey": shares.survey,
            "weights": figures.describe_weights(),
            "countries": list(shares.countries),
            "of": len(found),
            **({"read": {figures.source: figures.notices}} if figures.notices else {}),
        }
        yield AskedQuestion(
            culture.name,
            question,
            voices,
            list_shares(question, shares),
            find_split(setup, question.id),
            facts,
        )


def choose_voices(setup: Setup, culture: Culture) -> list[Voice]:
    """Return who answers for a culture: its people, or each of its personas; InputError where it
    has none.
    """
    if setup.respondents == "people":
        return [Voice("people", culture)]
    found = [Voice(p.name, culture, me=p) for p in setup.workspace.people(culture.name)]
    if not found:
        raise InputError(
            f"culture {culture.name!r} has no persona; ask its people, or write"
            f" personas/{culture.name}/NAME.toml"
        )
    return found


def list_shares(question: Question, shares: Distribution) -> list[float]:
    """Return a people's shares in the order of a question's options; InputError where they are of
    another question.
    """
    codes = [o.code for o in question.options]
    if unknown := sorted(set(shares.shares) - set(codes)):
        raise InputError(
            f"question {question.id}: the figures of {', '.join(shares.countries)} hold the codes"
            f" {unknown}, its options are {codes}"
        )
    return [shares.shares.get(code, 0.0) for code in codes]


def find_split(setup: Setup, question: str) -> str:
    """Return in which part of the corpus a question is: alignment.TUNED or HELD; "" where no corpus
    is known, or not of this question.
    """
    split = setup.held.get(question, "")
    return {"": "", "train": alignment.TUNED}.get(split, alignment.HELD)


def build_items(benchmark: Benchmark, setup: Setup, asked: AskedQuestion) -> Iterator[Item]:
    """Yield the requests of one question to one people: one a voice for likelihoods, `count` of
    them in turns for samples.

    The items of one question are one unit.
    """
    likelihood = setup.method == "likelihood"
    rounds = len(asked.voices) if likelihood else setup.count
    for replica in setup.list_replicas():
        role = benchmark.asks(setup.workspace, wording=replica.wording)
        options = replica.arrange(asked.question.options)
        question = asked.question.model_copy(update={"options": options})
        codes = [o.code for o in options]
        choice = {"codes": codes, "labels": [o.label for o in options]}
        gold = None if asked.gold is None else list(replica.arrange(asked.gold))
        for i in range(rounds):
            voice = asked.voices[i % len(asked.voices)]
            name = f"{asked.culture or 'none'}/{question.id}/{voice.name}/{i}/{replica.number}"
            facts = {
                **choice,
                "question": question,
                "culture": voice.culture,
                "country": voice.country,
                "me": voice.me,
                "numbered": setup.is_numbered,
                "options": codes,
                "view": voice.me.views.get(question.id) if voice.me else None,
            }
            request = session.build_single_request(role, facts, None, benchmark.name, name)
            if likelihood:
                request = replace(
                    request, options=tuple(setup.begins(question, code) for code in codes)
                )
            yield Item(
                name,
                asked.culture,
                question.id,
                request,
                asked.subset,
                replica.number,
                gold,
                {**choice, "question": question.id, **(asked.facts or {})},
            )


def measure(attempts: Sequence[Attempt], options: Mapping[str, Any]) -> Sequence[Measure]:
    """Return alignment, margin, steerability, variance and what to read them by; units are
    questions.
    """
    surveys = sorted(
        {
            ", ".join(filter(None, (o.facts["survey"], o.facts.get("weights"))))
            for o in attempts
            if "survey" in o.facts
        }
    )
    return alignment.measure(attempts, ordered=True, note=_describe_source(surveys))


def _describe_source(surveys: Iterable[str]) -> str:
    return f"People: {', '.join(surveys)}; valid answers only"


def _warn_embedded(setup: Setup) -> str:
    """Return why the embedded engine's row is no model's: the shipped personas' views follow the
    shipped figures; of other personas and other figures nothing of the kind is known.
    """
    own = setup.options.get("survey")
    figures = surveys.load_survey(own) if own else setup.survey_figures
    shipped = figures is surveys.load_shipped()
    if shipped and _has_shipped_views(setup):
        return (
            "True by construction: the embedded engine answers with the personas' views, which were"
            " given to them so that together they follow this survey's shares. The row shows how"
            " well they do; it is no model that knows a culture."
        )
    known = f"follow the shipped figures, not {figures.source}"
    if shipped:
        known = "follow the shipped figures, and not all of these personas are shipped"
    return (
        "No model's row: the embedded engine answers with the personas' views. Those of the"
        f" shipped personas {known}; the row shows how far the views are from the figures."
    )


def _has_shipped_views(setup: Setup) -> bool:
    """Return whether these cultures are surveyed, and their personas think, as the shipped ones."""
    shipped, asked = workspace.load(workspace.find_shipped_cards()), setup.workspace
    return all(
        name in shipped.cultures
        and shipped.culture(name).survey == asked.culture(name).survey
        and _list_views(shipped, name) == _list_views(asked, name)
        for name in setup.cultures
    )


def _list_views(cards: Workspace, culture: str) -> dict[str, Mapping[str, int]]:
    return {persona.id: persona.views for persona in cards.people(culture)}


KIND = BenchmarkKind(
    plan=plan,
    measure=measure,
    options={"scenario": "world_values", "survey": "", "unprompted": True},
    respondents=("people", "personas"),
    surveyed=True,
    axes=("orders", "wordings"),
    embedded_warning=_warn_embedded,
)
