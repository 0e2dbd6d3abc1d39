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
    found, problems = read_workspace(find_workspace(workspace))
    problems += list_findings(found)
    known = set(map(_place, problems))
    if not any(p.startswith(SETTINGS) for p in problems):
        problems += _first_scenes(found)
    problems += [
        p
        for p in _prompts(_without_wrong_codes(found))
        if not (UNKNOWN.search(p) and _place(p) in known)
    ]
    if problems:
        raise CardError(dict.fromkeys(problems))
    return {
        "workspace": str(found.root),
        "roles": len(found.roles),
        "cultures": len(found.cultures),
        "personas": len(found.personas),
        "scenarios": len(found.scenarios),
        "questions": sum(len(s.questions) for s in found.scenarios.values()),
    }


def _place(problem: str) -> str:
    """Return the file, key and line of what is wrong in a template."""
    found = re.match(r".*?: line \d+", problem)
    return found[0] if found else problem


def _without_wrong_codes(found: Workspace) -> Workspace:
    """Return the cards without views and answers that are no option, which are told of already, so
    that prompts can be tried.
    """
    codes = {
        q.id: {o.code for o in q.options} for s in found.scenarios.values() for q in s.questions
    }
    personas = {}
    for name, persona in found.personas.items():
        views = {item: code for item, code in persona.views.items() if code in codes.get(item, ())}
        personas[name] = persona.model_copy(update={"views": views})
    scenarios = {}
    for name, scenario in found.scenarios.items():
        questions = tuple(map(_answerable, scenario.questions))
        scenarios[name] = scenario.model_copy(update={"questions": questions})
    return replace(found, personas=personas, scenarios=scenarios)


def _answerable(question: Question) -> Question:
    codes = {o.code for o in question.options}
    answers = {culture: code for culture, code in question.answers.items() if code in codes}
    return question.model_copy(update={"answers": answers})


def _prompts(found: Workspace) -> list[str]:
    """Cast every scenario, try every role's templates for one scene per culture; return what is wrong.

    The first culture of a scenario holds one scene of each mode and style, as templates may differ in these.
    """
    problems: list[str] = []
    survey, tried = _own_settings(found).get("survey"), set[str]()
    if any(role not in found.roles for role in ROLES):
        return problems
    for culture in found.cultures:
        contact = "english-us" if "english-us" in found.cultures else culture
        for scenario in found.scenarios:
            settings = Settings(scenario=scenario, contact=contact, survey=survey)
            if (
                not found.people(culture)
                or not found.people(contact)
                or (contact == culture and len(found.people(culture)) < 2)
            ):
                continue
            try:
                scenes = casting.scenes(found, settings, culture)
                for scene in islice(scenes, 1 if scenario in tried else KINDS):
                    _try_prompts(found, settings, scene)
                tried.add(scenario)
            except CardError as error:
                problems += error.problems
            except InputError:
                continue  # a pack with no seed for this culture is no mistake of the cards
    return list(dict.fromkeys(problems))


def _own_settings(found: Workspace) -> dict[str, Any]:
    """Return what culturepark.toml says, nothing where it is wrong itself; no keys."""
    try:
        return {name: value for name, value in read_settings(found.root).items() if name != "keys"}
    except CardError:
        return {}


def _first_scenes(found: Workspace) -> Iterator[str]:
    """Yield why a run that culturepark.toml casts would have no first scene."""
    data = _own_settings(found)
    settings = build(data)
    there = settings.contact in found.cultures and settings.scenario in found.scenarios
    cast = casting.cultures(found, settings) if there and data.keys() & CASTING else ()
    for culture in cast:
        try:
            next(casting.scenes(found, settings, culture))
        except CardError as error:
            yield from error.problems
        except InputError as error:
            yield f"{SETTINGS}: {error}"


def _try_prompts(found: Workspace, settings: Settings, scene: Scene) -> None:
    cues = max(1, len(found.role("moderator").cues))
    held = _rehearse(found, settings, scene, min(scene.turns, cues * len(scene.seats)))
    for role in ("extractor", "verifier", "rewriter"):
        preview_curation(held, role, "Many see it so.")


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
    found = load(workspace)
    card_ = found.role(role)
    if card_.name == "moderator":
        raise InputError(
            "the moderator's lines are the cues in agents/moderator.toml; no model is asked for"
            " them"
        )
    base = settings or merge_settings(None, workspace, {})[0]
    scenario = scenario or base.scenario
    found.scenario(scenario)
    how = {"modes": ("cross",), "styles": (style,), "scenario": scenario}
    base = base.model_copy(update=how | ({"delegates": delegates} if delegates else {}))
    if persona:
        culture = culture or found.persona(persona).culture
    culture = culture or casting.cultures(found, base)[0]
    if culture == base.contact:
        base = base.model_copy(update={"modes": ("in",)})
    chosen = base.model_copy(
        update={
            "questions": (question,) if question else (),
            "personas": (persona,) if persona else (),
        }
    )
    scene = next(casting.scenes(found, chosen, culture))
    first = 1 if role == "delegate" else 0
    return preview(found, chosen, scene, role, first if turn is None else turn, opinion)


def preview(
    found: Workspace,
    settings: Settings,
    scene: Scene,
    role: str,
    turn: int,
    opinion: str = "Many see it so.",
) -> Request:
    """Return the request of a role in a scene once `turn` turns have been held by the embedded
    engine; InputError where another role speaks at that turn.
    """
    context = _rehearse(found, settings, scene, turn)
    if role not in ("main_contact", "delegate"):
        return preview_curation(context, role, opinion)
    request = build_request(context, context.dialogue)
    if request.role != role:
        seat = request.facts["seat"]
        own = [i for i, s in enumerate(scene.seats) if s.role == role]
        raise InputError(
            f"turn {turn} is not the {role}'s: seat {seat}, the {request.role}, speaks then. In"
            f" each round of {len(scene.seats)} turns the {role} speaks at"
            f" {', '.join(map(str, own))}, counted from 0"
        )
    return request


def _rehearse(found: Workspace, settings: Settings, scene: Scene, turns: int) -> DialogueContext:
    """Return a scene's context once so many turns have been held by the embedded engine."""

    def stop_there(dialogue: Dialogue) -> str | None:
        return "as far as asked" if len(dialogue.turns) >= turns else None

    context = look_up(found, Dialogue(scene=scene), settings.survey)
    session = Rehearsal(load_model("embedded"))
    dialogue = pool.run_loop(hold_dialogue(context, session, context.dialogue, (stop_there,)))
    return replace(context, dialogue=dialogue)
