"""A dialogue with its cards looked up: all that its prompts and its curation are made from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

from culturepark import surveys
from culturepark.prompts import render
from culturepark.records import (
    Culture,
    Dialogue,
    Distribution,
    Norm,
    Persona,
    Question,
    Record,
    Role,
    Scene,
    stream,
)
from culturepark.workspace import Workspace

NORMS = 8  # how many of a culture's norms a delegate is reminded of in one dialogue


class Guest(Record):
    """What a persona's neighbours at the table may know of them."""

    given_name: str
    age: int
    gender: str
    home: str
    work: str
    place: str
    culture: str
    public: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class DialogueContext:
    """One dialogue with its question, the person and culture at each seat, and every role's card.

    `dialogue` is as it stood when its cards were looked up; `survey` names the file of figures,
    None the shipped ones.
    """

    dialogue: Dialogue
    question: Question
    setting: str
    personas: tuple[Persona, ...]
    cultures: tuple[Culture, ...]
    roles: Mapping[str, Role]
    survey: str | None = None

    @property
    def scene(self) -> Scene:
        """The scene that is played."""
        return self.dialogue.scene

    def role(self, seat: int) -> Role:
        """Return the card of the role that a seat plays."""
        return self.roles[self.scene.seats[seat].role]

    def shares(self, seat: int) -> Distribution | None:
        """Return what a seat's people answered; None where they were never asked."""
        return pool_shares(self.cultures[seat].survey, self.question.id, self.survey)

    @cached_property
    def others(self) -> tuple[tuple[str, ...], ...]:
        """By seat, the names of those whom it hears, as they are written before their turns."""
        names = [persona.given_name for persona in self.personas]
        neighbours = self.scene.topology.neighbours
        return tuple(
            tuple(names[i] for i in neighbours[seat] if names[i] != names[seat])
            for seat in range(len(names))
        )

    @cached_property
    def seat_facts(self) -> tuple[dict[str, Any], ...]:
        """What stays the same for each seat through the dialogue."""
        return tuple(_seat_facts(self, seat) for seat in range(len(self.personas)))

    @cached_property
    def system_prompts(self) -> tuple[str, ...]:
        """The system message of each seat."""
        return tuple(_system_prompt(self, seat) for seat in range(len(self.personas)))

    def answer_facts(self, seat: int, **more: Any) -> dict[str, Any]:
        """Return what every prompt may use that holds a seat's opinions against its answer."""
        answer = self.scene.answer_of(seat)
        return {
            "question": self.question,
            "culture": self.cultures[seat],
            "answer": answer,
            "view": self.question.say(answer),
            **more,
        }


def look_up(workspace: Workspace, dialogue: Dialogue, survey: str | None = None) -> DialogueContext:
    """Return a dialogue with its cards; NotFound names a card that is not there."""
    scene = dialogue.scene
    personas = tuple(workspace.persona(s.persona) for s in scene.seats)
    return DialogueContext(
        dialogue=dialogue,
        question=workspace.question(scene.scenario, scene.question),
        setting=workspace.scenario(scene.scenario).setting,
        personas=personas,
        cultures=tuple(workspace.culture(p.culture) for p in personas),
        roles=workspace.roles,
        survey=survey,
    )


@lru_cache(maxsize=4096)
def pool_shares(countries: tuple[str, ...], item: str, survey: str | None) -> Distribution | None:
    """Return what the people of these countries answered together; None where none was asked."""
    return surveys.load_survey(survey).pool(countries, item) if countries else None


def make_guest(persona: Persona, culture: Culture) -> Guest:
    """Return the public face of a persona."""
    return Guest(
        given_name=persona.given_name,
        age=persona.age,
        gender=persona.gender,
        home=persona.home,
        work=persona.work,
        place=culture.place,
        culture=culture.title,
        public=persona.public,
    )


def _seat_facts(context: DialogueContext, seat: int) -> dict[str, Any]:
    """Return the facts of one seat's prompts. Private and secret fields are only its own."""
    scene, question = context.scene, context.question
    view, shares = scene.seats[seat].view, context.shares(seat)
    others = (
        make_guest(context.personas[i], context.cultures[i])
        for i in scene.topology.neighbours[seat]
    )
    return {
        "me": context.personas[seat],
        "culture": context.cultures[seat],
        "norms": _draw_norms(context, seat),
        "others": tuple(others),
        "question": question,
        "answer": view,
        "view": question.say(view) if view is not None else "",
        "shares": shares,
        "survey": _describe_shares(question, shares) if shares else None,
        "setting": context.setting,
        "style": scene.style,
        "mode": scene.mode,
        "language": scene.seats[seat].language,
        "seat": seat,
        "turns": scene.turns,
        "dialogue": scene.id,
    }


def _system_prompt(context: DialogueContext, seat: int) -> str:
    role, facts = context.role(seat), context.seat_facts[seat]
    text = render(role.system, facts, f"agents/{role.name}.toml: system")
    if not facts["language"] or not role.language:
        return text
    return text + "\n" + render(role.language, facts, f"agents/{role.name}.toml: language")


def _draw_norms(context: DialogueContext, seat: int) -> tuple[Norm, ...]:
    """Choose the norms a seat is reminded of: those on the question's topic first, the rest drawn
    for this dialogue.
    """
    rng, topic = stream(context.scene.id, seat, "norms"), context.question.topic
    norms = context.cultures[seat].norms
    near = [n for n in norms if topic in n.topics]
    far = [n for n in norms if topic not in n.topics]
    chosen = rng.sample(near, min(len(near), NORMS - 2))
    return tuple(chosen + rng.sample(far, min(len(far), NORMS - len(chosen))))


def _describe_shares(question: Question, shares: Distribution) -> Mapping[str, Any]:
    """Return what a prompt may say of the figures: source and one line per option."""
    lines = [
        f"{question.option(code)}: {share:.0%}" for code, share in sorted(shares.shares.items())
    ]
    return {
        "source": f"{shares.survey}, {', '.join(shares.countries)}, n = {shares.n}",
        "lines": lines,
    }
