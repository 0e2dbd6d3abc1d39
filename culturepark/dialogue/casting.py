"""Decides who meets whom over which question: an endless, seeded list of scenes for each
culture.
"""

from __future__ import annotations

from collections.abc import Iterator

from culturepark import surveys
from culturepark.errors import CardError, InputError, NotFound
from culturepark.records import Culture, Distribution, Persona, Question, Scene, Seat, stream
from culturepark.settings import Settings, scene_hash
from culturepark.workspace import Workspace


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


def seeds(
    workspace: Workspace, settings: Settings, culture: str
) -> list[tuple[Question, Distribution | None]]:
    """Return the questions this culture has an answer to: surveyed there, or answered in the card.

    A question never asked there yields no seed.
    """
    card, pack = workspace.culture(culture), workspace.scenario(settings.scenario)
    for name in settings.questions:
        workspace.question(settings.scenario, name)
    asked = [q for q in pack.questions if not settings.questions or q.id in settings.questions]
    known = [(q, shares(card, q, settings.survey)) for q in asked]
    found = [(q, s) for q, s in known if s is not None or culture in q.answers]
    if not found:
        raise InputError(
            f"no seed for culture {culture!r} in scenarios/{settings.scenario}.toml: none of its"
            f" {len(asked)} questions was asked in"
            f" {', '.join(card.survey) or 'any surveyed country'}, and none has an"
            f" `answers.{culture}`"
        )
    for question, found_shares in found:
        _fits(question, found_shares, culture, pack.name)
    return found


def _fits(question: Question, found: Distribution | None, culture: str, scenario: str) -> None:
    """Refuse figures whose codes the question does not have: they belong to another question."""
    codes = {o.code for o in question.options}
    answers = set(found.shares) if found else {question.answers[culture]}
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
    found: Distribution | None,
    culture: str,
    how: str,
    *purpose: object,
) -> int:
    """Return the option code that this person holds in this dialogue."""
    if how == "persona" and question.id in persona.views:
        return persona.views[question.id]
    if found is None:
        return question.answers[culture]
    return found.modal if how == "modal" else found.draw(stream("stance", *purpose))


def scenes(workspace: Workspace, settings: Settings, culture: str) -> Iterator[Scene]:
    """Yield this culture's scenes for ever, in one order: every question once a round, shuffled
    anew each round.
    """
    people, hosts = (
        _people(workspace, settings, culture),
        _people(workspace, settings, settings.contact),
    )
    asked = seeds(workspace, settings, culture)
    run = scene_hash(settings, workspace)
    pairs = [
        (m, s) for m in settings.modes for s in settings.styles if m == "cross" or len(people) > 1
    ]
    if not pairs:
        raise InputError(
            f"in-culture dialogues need two personas; personas/{culture}/ has {len(people)}"
        )
    ordinal = 0
    while True:
        round_ = stream(settings.seed, culture, "round", ordinal)
        order = round_.sample(asked, len(asked))
        cast = round_.sample(people, len(people))
        for place, (question, found) in enumerate(order):
            rng = stream(settings.seed, culture, "scene", ordinal)
            mode, style = pairs[ordinal % len(pairs)]
            delegate = cast[place % len(cast)]
            contact = rng.choice(
                [p for p in (people if mode == "in" else hosts) if p.id != delegate.id]
            )
            yield Scene(
                ordinal=ordinal,
                culture=culture,
                scenario=settings.scenario,
                question=question.id,
                mode=mode,
                style=style,
                turns=settings.turns,
                seats=(
                    Seat(
                        role="main_contact",
                        persona=contact.id,
                        view=_view(workspace, settings, contact, question, ordinal, culture),
                    ),
                    Seat(
                        role="delegate",
                        persona=delegate.id,
                        view=_view(workspace, settings, delegate, question, ordinal, culture),
                    ),
                ),
                answer=found.modal if found else question.answers[culture],
                run=run,
            )
            ordinal += 1


def _people(workspace: Workspace, settings: Settings, culture: str) -> list[Persona]:
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


def _view(
    workspace: Workspace,
    settings: Settings,
    persona: Persona,
    question: Question,
    ordinal: int,
    culture: str,
) -> int | None:
    """Return a persona's option, from their own culture's figures; None where their people were
    never asked.
    """
    card = workspace.culture(persona.culture)
    found = shares(card, question, settings.survey)
    if found is None and card.name not in question.answers and question.id not in persona.views:
        return None
    return stance(
        persona,
        question,
        found,
        card.name,
        settings.stance,
        settings.seed,
        culture,
        ordinal,
        persona.id,
    )
