"""Verbs over cards: make a workspace, check it, show what a model is sent."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

from culturepark.api.findings import list_findings
from culturepark.api.runs import merge_settings
from culturepark.context import DialogueContext, look_up
from culturepark.curation.preview import preview as preview_curation
from culturepark.dialogue import casting
from culturepark.dialogue.prompting import build_request
from culturepark.dialogue.runner import Rehearsal, hold_dialogue
from culturepark.errors import CardError, InputError
from culturepark.executor import pool
from culturepark.llm import load as load_model
from culturepark.records import Dialogue, Question, Request, Scene
from culturepark.settings import Settings, build
from culturepark.settings import read_own as read_settings
from culturepark.workspace import ROLES, SETTINGS, Workspace, create_workspace, find_workspace, load
from culturepark.workspace import read_workspace as read_workspace

# The settings that say who meets whom; and how many kinds of scenes there are, by mode and style.
CASTING = {"cultures", "contact", "personas", "scenario", "questions", "modes", "styles", "survey"}
KINDS = 4
UNKNOWN = re.compile(
    r"no (?:name|field) '"
)  # what a trial says of a name that `findings` has named already


def init(target: str | Path) -> Path:
    """Write a new workspace with the shipped cards and return its folder; InputError if the folder
    is not empty.
    """
    return create_workspace(Path(target))


def check(workspace: str | Path | None = None) -> dict[str, Any]:
    """Read every card and render every prompt once; return counts. CardError lists every mistake in
    every card at once.
    """
    cards, problems = read_workspace(find_workspace(workspace))
    problems += list_findings(cards)
    places = set(map(_place, problems))
    if not any(p.startswith(SETTINGS) for p in problems):
        problems += _first_scenes(cards)
    problems += [
        p
        for p in _prompts(_without_wrong_codes(cards))
        if not (UNKNOWN.search(p) and _place(p) in places)
    ]
    if problems:
        raise CardError(dict.fromkeys(problems))
    return {
        "workspace": str(cards.root),
        "roles": len(cards.roles),
        "cultures": len(cards.cultures),
        "personas": len(cards.personas),
        "scenarios": len(cards.scenarios),
        "questions": sum(len(s.questions) for s in cards.scenarios.values()),
    }


def _place(problem: str) -> str:
    """Return the file, key and line of what is wrong in a template."""
    place = re.match(r".*?: line \d+", problem)
    return place[0] if place else problem


def _without_wrong_codes(workspace: Workspace) -> Workspace:
    """Return the cards without views and answers that are no option, which are told of already, so
    that prompts can be tried.
    """
    codes = {
        q.id: {o.code for o in q.options} for s in workspace.scenarios.values() for q in s.questions
    }
    personas = {}
    for name, persona in workspace.personas.items():
        views = {item: code for item, code in persona.views.items() if code in codes.get(item, ())}
        personas[name] = persona.model_copy(update={"views": views})
    scenarios = {}
    for name, scenario in workspace.scenarios.items():
        questions = tuple(map(_answerable, scenario.questions))
        scenarios[name] = scenario.model_copy(update={"questions": questions})
    return replace(workspace, personas=personas, scenarios=scenarios)


def _answerable(question: Question) -> Question:
    codes = {o.code for o in question.options}
    answers = {culture: code for culture, code in question.answers.items() if code in codes}
    return question.model_copy(update={"answers": answers})


def _prompts(workspace: Workspace) -> list[str]:
    """Cast every scenario, try every role's templates for one scene per culture; return what is
    wrong.

    The first culture of a scenario holds one scene of each mode and style, as templates may differ
    in these.
    """
    problems: list[str] = []
    survey, tried = _own_settings(workspace).get("survey"), set[str]()
    if any(role not in workspace.roles for role in ROLES):
        return problems
    for culture in workspace.cultures:
        contact = "english-us" if "english-us" in workspace.cultures else culture
        for scenario in workspace.scenarios:
            settings = Settings(scenario=scenario, contact=contact, survey=survey)
            if (
                not workspace.people(culture)
                or not workspace.people(contact)
                or (contact == culture and len(workspace.people(culture)) < 2)
            ):
                continue
            try:
                scenes = casting.scenes(workspace, settings, culture)
                for scene in islice(scenes, 1 if scenario in tried else KINDS):
                    _try_prompts(workspace, settings, scene)
                tried.add(scenario)
            except CardError as error:
                problems += error.problems
            except InputError:
                continue  # a pack with no seed for this culture is no mistake of the cards
    return list(dict.fromkeys(problems))


def _own_settings(workspace: Workspace) -> dict[str, Any]:
    """Return what culturepark.toml says, nothing where it is wrong itself; no keys."""
    try:
        return {
            name: value for name, value in read_settings(workspace.root).items() if name != "keys"
        }
    except CardError:
        return {}


def _first_scenes(workspace: Workspace) -> Iterator[str]:
    """Yield why a run that culturepark.toml casts would have no first scene."""
    data = _own_settings(workspace)
    settings = build(data)
    there = settings.contact in workspace.cultures and settings.scenario in workspace.scenarios
    cast = casting.cultures(workspace, settings) if there and data.keys() & CASTING else ()
    for culture in cast:
        try:
            next(casting.scenes(workspace, settings, culture))
        except CardError as error:
            yield from error.problems
        except InputError as error:
            yield f"{SETTINGS}: {error}"


def _try_prompts(workspace: Workspace, settings: Settings, scene: Scene) -> None:
    moderator = workspace.role("moderator")
    cues = max(1, *(len(card.cues) for card in (moderator, moderator.in_culture) if card))
    context = _rehearse(workspace, settings, scene, min(scene.turns, cues * len(scene.seats)))
    for role in ("extractor", "verifier", "rewriter"):
        preview_curation(context, role, "Many see it so.")


def show(
    role: str,
    *,
    culture: str | None = None,
    persona: str | None = None,
    question: str | None = None,
    scenario: str | None = None,
    turn: int | None = None,
    opinion: str = "Many people see it that way.",
    style: str = "guided",
    delegates: int | None = None,
    settings: Settings | None = None,
    workspace: str | Path | None = None,
) -> Request:
    """Return exactly what a model would be sent for a role at a turn, the turns before it played by
    the embedded engine.

    `turn` counts the dialogue's turns from 0; by default the role's own first. Without `settings`,
    those of the workspace's culturepark.toml hold. NotFound names the nearest right name.
    """
    cards = load(workspace)
    card_ = cards.role(role)
    if card_.name == "moderator":
        raise InputError(
            "the moderator's lines are the cues in agents/moderator.toml; no model is asked for"
            " them"
        )
    base = settings or merge_settings(None, workspace, {})[0]
    scenario = scenario or base.scenario
    cards.scenario(scenario)
    how = {"modes": ("cross",), "styles": (style,), "scenario": scenario}
    base = base.model_copy(update=how | ({"delegates": delegates} if delegates else {}))
    if persona:
        culture = culture or cards.persona(persona).culture
    culture = culture or casting.cultures(cards, base)[0]
    if culture == base.contact:
        base = base.model_copy(update={"modes": ("in",)})
    chosen = base.model_copy(
        update={
            "questions": (question,) if question else (),
            "personas": (persona,) if persona else (),
        }
    )
    scene = next(casting.scenes(cards, chosen, culture))
    first = 1 if role == "delegate" else 0
    return preview(cards, chosen, scene, role, first if turn is None else turn, opinion)


def preview(
    workspace: Workspace,
    settings: Settings,
    scene: Scene,
    role: str,
    turn: int,
    opinion: str = "Many see it so.",
) -> Request:
    """Return the request of a role in a scene once `turn` turns have been held by the embedded
    engine; InputError where another role speaks at that turn.
    """
    context = _rehearse(workspace, settings, scene, turn)
    if role not in ("main_contact", "delegate"):
        return preview_curation(context, role, opinion)
    request = build_request(context, context.dialogue)
    if request.role != role:
        seats = [seat.role for seat in scene.seats]
        turns = [str(n) for n in range(2 * len(seats)) if seats[n % len(seats)] == role]
        raise InputError(
            f"turn {turn} is not the {role}'s: the {request.role} speaks then. The {role}'s are"
            f" turns {', '.join(turns)} and so on, counted from 0"
        )
    return request


def _rehearse(
    workspace: Workspace, settings: Settings, scene: Scene, turns: int
) -> DialogueContext:
    """Return a scene's context once so many turns have been held by the embedded engine."""

    def stop_there(dialogue: Dialogue) -> str | None:
        return "as far as asked" if len(dialogue.turns) >= turns else None

    context = look_up(workspace, Dialogue(scene=scene), settings.survey)
    session = Rehearsal(load_model("embedded"))
    dialogue = pool.run_loop(hold_dialogue(context, session, context.dialogue, (stop_there,)))
    return replace(context, dialogue=dialogue)
