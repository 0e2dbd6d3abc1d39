"""Who may speak next, what they are sent, and when a dialogue is over."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from culturepark.dialogue.trimming import stop_texts
from culturepark.prompts import render
from culturepark.records import (
    Culture,
    Dialogue,
    Message,
    Norm,
    Persona,
    Question,
    Record,
    Request,
    Role,
    Scene,
    Shares,
    digest,
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


@dataclass(frozen=True)
class Table:
    """A scene with its cards looked up: all that the prompts of one dialogue are rendered from."""

    scene: Scene
    question: Question
    setting: str
    personas: tuple[Persona, ...]
    cultures: tuple[Culture, ...]
    roles: tuple[Role, ...]
    moderator: Role
    shares: tuple[Shares | None, ...]


def lay(
    workspace: Workspace, scene: Scene, find: Callable[[Culture, Question], Shares | None]
) -> Table:
    """Look up a scene's cards. `find` returns what a culture's people answered."""
    personas = tuple(workspace.persona(s.persona) for s in scene.seats)
    cultures = tuple(workspace.culture(p.culture) for p in personas)
    question = workspace.question(scene.scenario, scene.question)
    return Table(
        scene=scene,
        question=question,
        setting=workspace.scenario(scene.scenario).setting,
        personas=personas,
        cultures=cultures,
        roles=tuple(workspace.role(s.role) for s in scene.seats),
        moderator=workspace.role("moderator"),
        shares=tuple(find(c, question) for c in cultures),
    )


# -------------------------------------------------------------------- floor


def speaker(dialogue: Dialogue) -> int:
    """Return the seat that speaks next: round the table, the main contact first."""
    return len(dialogue.turns) % len(dialogue.scene.seats)


def cue(table: Table, n: int) -> tuple[str, str]:
    """Return name and template of the moderator's nudge before turn `n`: one cue a round, the same
    for every seat.
    """
    card = table.moderator
    if table.scene.style == "free":
        return ("opening", card.opening) if n == 0 else ("free", card.free_cue)
    if not card.cues:
        return "none", ""
    place = n // len(table.scene.seats)
    if place >= len(card.cues):
        start = min(card.repeat_from, len(card.cues) - 1)
        place = start + (place - start) % (len(card.cues) - start)
    return card.cues[place].name, card.cues[place].text


# ------------------------------------------------------------------ prompts


def guest(persona: Persona, culture: Culture) -> Guest:
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


def norms(table: Table, seat: int) -> tuple[Norm, ...]:
    """Choose the norms a seat is reminded of: those on the question's topic first, the rest drawn
    for this dialogue.
    """
    rng, topic = stream(table.scene.id, seat, "norms"), table.question.topic
    cards = table.cultures[seat].norms
    near = [n for n in cards if topic in n.topics]
    far = [n for n in cards if topic not in n.topics]
    chosen = rng.sample(near, min(len(near), NORMS - 2))
    return tuple(chosen + rng.sample(far, min(len(far), NORMS - len(chosen))))


def facts(table: Table, seat: int) -> dict[str, Any]:
    """Return what stays the same for a seat through a dialogue. Private and secret fields are only
    its own.
    """
    me, scene, question = table.personas[seat], table.scene, table.question
    found, view = table.shares[seat], scene.seats[seat].view
    others = tuple(
        guest(p, c)
        for i, (p, c) in enumerate(zip(table.personas, table.cultures, strict=True))
        if i != seat
    )
    return {
        "me": me,
        "culture": table.cultures[seat],
        "norms": norms(table, seat),
        "others": others,
        "question": question,
        "answer": view,
        "view": question.spoken(view) if view is not None else "",
        "shares": found,
        "survey": survey(question, found) if found else None,
        "setting": table.setting,
        "style": scene.style,
        "mode": scene.mode,
        "seat": seat,
        "turns": scene.turns,
        "dialogue": scene.id,
    }


def request(
    table: Table,
    dialogue: Dialogue,
    fixed: Mapping[str, Any] | None = None,
    system: str | None = None,
) -> Request:
    """Return exactly what the model of the next seat is sent: a pure function of the dialogue and
    its cards.

    Each speaker sees itself as assistant and the others, named, as user; the moderator's nudge
    closes the last user message. `fixed` and `system` spare rendering again what a seat's turns
    share.
    """
    seat, n = speaker(dialogue), len(dialogue.turns)
    role = table.roles[seat]
    known = facts(table, seat) if fixed is None else fixed
    name, template = cue(table, n)
    last = next((t.speaker for t in reversed(dialogue.turns) if t.seat != seat), None)
    other = next((g for g in known["others"] if g.given_name == last), known["others"][0])
    all_facts = {**known, "other": other, "history": dialogue.turns, "n": n, "cue": name}
    if system is None:
        system = render(role.system, known, f"agents/{role.name}.toml: system")
    key = "free_cue" if name == "free" else name
    where = f"agents/{table.moderator.name}.toml: {key}"
    nudge = render(template, all_facts, where) if template else ""
    return Request(
        role=role.name,
        messages=(Message(role="system", content=system), *history(dialogue, seat, nudge)),
        facts=all_facts,
        temperature=role.temperature,
        max_tokens=role.max_tokens,
        seed=int(digest(table.scene.id, n), 16) >> 1,
        speaker=table.personas[seat].id,
        stop=stop_texts(others(table, seat)),
    )


def others(table: Table, seat: int) -> tuple[str, ...]:
    """Return the names of those who sit beside a seat, as they are written before their turns."""
    name = table.personas[seat].given_name
    return tuple(p.given_name for p in table.personas if p.given_name != name)


def history(dialogue: Dialogue, seat: int, nudge: str) -> list[Message]:
    """Return the talk as one seat sees it, user and assistant strictly in turn, the nudge at the
    end.
    """
    messages: list[Message] = []
    for turn in dialogue.turns:
        role: Literal["user", "assistant"] = "assistant" if turn.seat == seat else "user"
        text = turn.text if turn.seat == seat else f"{turn.speaker}: {turn.text}"
        if messages and messages[-1].role == role:
            text = messages.pop().content + "\n\n" + text
        messages.append(Message(role, text))
    if not messages or messages[0].role == "assistant":
        messages.insert(0, Message(role="user", content="The conversation begins."))
    if nudge:
        text = f"Moderator: {nudge}"
        if messages[-1].role == "user":
            opening = messages.pop().content
            text = text if not dialogue.turns else opening + "\n\n" + text
        messages.append(Message(role="user", content=text))
    return messages


def survey(question: Question, found: Shares) -> Mapping[str, Any]:
    """Return what a prompt may say of the figures: source and one line an option."""
    lines = [
        f"{question.option(code)}: {share:.0%}" for code, share in sorted(found.shares.items())
    ]
    return {
        "source": f"{found.survey}, {', '.join(found.countries)}, n = {found.n}",
        "lines": lines,
    }


# --------------------------------------------------------------------- stop

Stop = Callable[[Dialogue], str | None]


def all_said(dialogue: Dialogue) -> str | None:
    """Stop when the planned number of turns is reached."""
    return "all turns held" if len(dialogue.turns) >= dialogue.scene.turns else None


def circling(dialogue: Dialogue) -> str | None:
    """Stop when a speaker repeats their own last turn word for word: nothing more will come."""
    turns, seats = dialogue.turns, len(dialogue.scene.seats)
    if len(turns) > seats and turns[-1].text == turns[-1 - seats].text:
        return f"{turns[-1].speaker} repeats the same turn"
    return None


def parted(dialogue: Dialogue) -> str | None:
    """Stop when everyone has said goodbye in turn."""
    last = dialogue.turns[-len(dialogue.scene.seats) :]
    if len(last) == len(dialogue.scene.seats) and all(FAREWELL.search(t.text[-60:]) for t in last):
        return "everyone has said goodbye"
    return None


FAREWELL = re.compile(
    r"\b(goodbye|good-bye|farewell|bye for now|see you (soon|again|later))[.! ]*$", re.IGNORECASE
)
STOPS: tuple[Stop, ...] = (all_said, circling, parted)


def over(dialogue: Dialogue, stops: tuple[Stop, ...] = STOPS) -> str | None:
    """Return why the dialogue is over, or None while it goes on."""
    return next((reason for stop in stops if (reason := stop(dialogue))), None)
