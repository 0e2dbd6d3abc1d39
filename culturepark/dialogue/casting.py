"""Decides who meets whom over which question: an endless, seeded list of scenes for each
culture.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Literal

from culturepark import surveys
from culturepark.dialogue.topology import hub
from culturepark.errors import CardError, InputError, NotFound
from culturepark.records import Culture, Distribution, Persona, Question, Scene, Seat, stream
from culturepark.settings import Settings, hash_scenes
from culturepark.workspace import Workspace

Mode = Literal["cross", "in"]
Style = Literal["guided", "free"]
Seed = tuple[Question, Distribution | None]  # a question, and what the people answered


def shares(culture: Culture, question: Question, survey: str | None) -> Distribution | None:
    """Return what a culture's people answered; None where they were never asked."""
    return surveys.load_survey(survey).pool(culture.survey, question.id) if culture.survey else None


def cultures(workspace: Workspace, settings: Settings) -> tuple[str, ...]:
    """Return the cultures to simulate: the given ones, or all that have personas, save the
    contact's own.
    """
    if settings.cultures:
        for name in settings.cultures:
            workspace.culture(name)
        return settings.cultures
    return tuple(
        c for c in sorted(workspace.cultures) if c != settings.contact and workspace.people(c)
    )


def seeds(workspace: Workspace, settings: Settings, culture: str) -> list[Seed]:
    """Return the questions this culture has an answer to: surveyed there, or answered in the card.

    A question never asked there yields no seed.
    """
    card, pack = workspace.culture(culture), workspace.scenario(settings.scenario)
    for name in settings.questions:
        workspace.question(settings.scenario, name)
    questions = [q for q in pack.questions if not settings.questions or q.id in settings.questions]
    figures = [(q, shares(card, q, settings.survey)) for q in questions]
    answered = [(q, s) for q, s in figures if s is not None or culture in q.answers]
    if not answered:
        raise InputError(
            f"no seed for culture {culture!r} in scenarios/{settings.scenario}.toml: none of its"
            f" {len(questions)} questions was asked in"
            f" {', '.join(card.survey) or 'any surveyed country'}, and none has an"
            f" `answers.{culture}`"
        )
    for question, people in answered:
        _check_codes(question, people, culture, pack.name)
    return answered


def _check_codes(
    question: Question, people: Distribution | None, culture: str, scenario: str
) -> None:
    """Refuse figures whose codes the question does not have: they belong to another question."""
    codes = {o.code for o in question.options}
    answers = set(people.shares) if people else {question.answers[culture]}
    if not answers <= codes:
        where = f"scenarios/{scenario}.toml: question {question.id}: options"
        raise CardError(
            [
                f"{where}: they are {sorted(codes)}, and the figures for {culture} hold the codes"
                f" {sorted(answers - codes)}"
            ]
        )


def stance(
    persona: Persona,
    question: Question,
    people: Distribution | None,
    culture: str,
    how: str,
    *purpose: object,
) -> int:
    """Return the option code that this person holds in this dialogue."""
    if how == "persona" and question.id in persona.views:
        return persona.views[question.id]
    if people is None:
        return question.answers[culture]
    return people.modal if how == "modal" else people.draw(stream("stance", *purpose))


def scenes(workspace: Workspace, settings: Settings, culture: str) -> Iterator[Scene]:
    """Yield this culture's scenes for ever, in one order: every question once a round, shuffled
    anew each round.

    The first delegate is of this culture; across cultures each further one is of another culture of
    the run whose people have an answer to the question.
    """
    people = _find_people(workspace, settings, culture)
    hosts = _find_people(workspace, settings, settings.contact)
    partners = _find_partners(workspace, settings, culture)
    asks = _choose_seeds(seeds(workspace, settings, culture), partners, settings, culture)
    hashes, topology = hash_scenes(settings, workspace), hub(settings.delegates)
    ways = _list_ways(settings, people, culture)
    ordinal = 0
    while True:
        round_ = stream(settings.seed, culture, "round", ordinal)
        order = round_.sample(asks, len(asks))
        cast = round_.sample(people, len(people))
        for place, (question, answers) in enumerate(order):
            rng = stream(settings.seed, culture, "scene", ordinal)
            mode, style = ways[ordinal % len(ways)]
            delegate = cast[place % len(cast)]
            contact = rng.choice(
                [p for p in (people if mode == "in" else hosts) if p.id != delegate.id]
            )
            table = [contact, delegate]
            near = {culture: people} if mode == "in" else partners.get(question.id, {})
            table += _draw_delegates(near, settings.delegates - 1, table, rng)
            yield Scene(
                ordinal=ordinal,
                culture=culture,
                scenario=settings.scenario,
                question=question.id,
                mode=mode,
                style=style,
                turns=settings.turns,
                seats=tuple(
                    _make_seat(workspace, settings, person, question, (culture, ordinal), i == 0)
                    for i, person in enumerate(table)
                ),
                answer=answers.modal if answers else question.answers[culture],
                run=hashes[mode],
                topology=topology,
            )
            ordinal += 1


def _list_ways(
    settings: Settings, people: Sequence[Persona], culture: str
) -> list[tuple[Mode, Style]]:
    """Return the modes and styles of scenes that there are people for, in turn."""
    enough = len(people) > settings.delegates
    ways = [(m, s) for m in settings.modes for s in settings.styles if m == "cross" or enough]
    if not ways:
        needed = "two" if settings.delegates == 1 else settings.delegates + 1
        raise InputError(
            f"in-culture dialogues need {needed} personas; personas/{culture}/ has {len(people)}"
        )
    return ways


Partners = Mapping[str, Mapping[str, Sequence[Persona]]]


def _find_partners(workspace: Workspace, settings: Settings, culture: str) -> Partners:
    """Return, by question, the people of each other culture of the run that has an answer to it."""
    partners: dict[str, dict[str, Sequence[Persona]]] = defaultdict(dict)
    for other in cultures(workspace, settings) if settings.delegates > 1 else ():
        people = _find_people(workspace, settings, other)
        if other != culture and (other != settings.contact or len(people) > 1):
            for question, _ in seeds(workspace, settings, other):
                partners[question.id][other] = people
    return partners


def _choose_seeds(
    table: list[Seed], partners: Partners, settings: Settings, culture: str
) -> list[Seed]:
    """Return the seeds that enough other cultures have an answer to, for all delegates to be
    seated.
    """
    others = settings.delegates - 1
    if not others or "cross" not in settings.modes:
        return table
    askable = [seed for seed in table if len(partners.get(seed[0].id, ())) >= others]
    if not askable:
        raise InputError(
            f"{settings.delegates} delegates are of as many cultures, and no question that"
            f" {culture} answers is answered by {others} more of this run: name more cultures, or"
            " have fewer delegates"
        )
    return askable


def _draw_delegates(
    near: Mapping[str, Sequence[Persona]],
    count: int,
    table: Sequence[Persona],
    rng: random.Random,
) -> list[Persona]:
    """Draw further delegates: each of another culture, or all of the one there is."""
    there = {person.id for person in table}
    free = {name: [p for p in people if p.id not in there] for name, people in near.items()}
    if len(free) == 1 and count > 1:
        (people,) = free.values()
        return rng.sample(people, count)
    return [rng.choice(free[name]) for name in rng.sample(sorted(free), count)]


def _find_people(workspace: Workspace, settings: Settings, culture: str) -> list[Persona]:
    people = [
        p
        for p in workspace.people(culture)
        if not settings.personas or p.id in settings.personas or p.name in settings.personas
    ]
    everyone = {n for p in workspace.personas.values() for n in (p.id, p.name)}
    for name in settings.personas:
        if name not in everyone:
            raise NotFound("persona", name, str(workspace.root / "personas"), everyone)
    people = people or list(workspace.people(culture))
    if not people:
        raise InputError(
            f"culture {culture!r} has no persona card in {workspace.root / 'personas' / culture}"
        )
    return people


def _make_seat(
    workspace: Workspace,
    settings: Settings,
    persona: Persona,
    question: Question,
    purpose: tuple[str, int],
    hosts: bool,
) -> Seat:
    """Return the seat of a persona in one scene; `purpose` names it: its culture and ordinal."""
    view = _find_view(workspace, settings, persona, question, *purpose)
    mined = settings.mine == "everyone" and hosts and view is not None
    return Seat(
        role="main_contact" if hosts else "delegate",
        persona=persona.id,
        view=view,
        language=settings.languages.get(persona.id) or settings.languages.get(persona.culture, ""),
        mined=True if mined else None,
    )


def _find_view(
    workspace: Workspace,
    settings: Settings,
    persona: Persona,
    question: Question,
    culture: str,
    ordinal: int,
) -> int | None:
    """Return a persona's option, from their own culture's figures; None where their people were
    never asked.
    """
    card = workspace.culture(persona.culture)
    people = shares(card, question, settings.survey)
    if people is None and card.name not in question.answers and question.id not in persona.views:
        return None
    return stance(
        persona,
        question,
        people,
        card.name,
        settings.stance,
        settings.seed,
        culture,
        ordinal,
        persona.id,
    )
