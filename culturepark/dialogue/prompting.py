"""What the model of the next seat is sent: a pure function of a dialogue and its cards."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from culturepark.context import DialogueContext
from culturepark.dialogue.topology import next_speaker, visible
from culturepark.dialogue.trimming import stop_texts
from culturepark.prompts import render
from culturepark.records import Dialogue, Message, Request, Turn, digest


def choose_cue(context: DialogueContext, n: int) -> tuple[str, str]:
    """Return name and template of the moderator's nudge before turn `n`: one cue per round, the
    same for every seat. Compatriots get cues of their own: nobody explains their country to them.
    """
    role = context.roles["moderator"]
    card = (role.in_culture or role) if context.scene.mode == "in" else role
    if context.scene.style == "free":
        return ("opening", card.opening) if n == 0 else ("free", card.free_cue)
    if not card.cues:
        return "none", ""
    place = n // len(context.scene.seats)
    if place >= len(card.cues):
        start = min(card.repeat_from, len(card.cues) - 1)
        place = start + (place - start) % (len(card.cues) - start)
    return card.cues[place].name, card.cues[place].text


def build_request(context: DialogueContext, dialogue: Dialogue) -> Request:
    """Return exactly what the model of the next seat is sent.

    Each speaker sees itself as assistant and the others, named, as user; the moderator's nudge
    closes the last user message. ValueError where nobody is left to speak.
    """
    seat, n = next_speaker(dialogue.scene.topology, dialogue), len(dialogue.turns)
    if seat is None:
        raise ValueError("nobody is left to speak in this dialogue")
    role, turns = context.role(seat), visible(dialogue.scene.topology, dialogue, seat)
    name, template = choose_cue(context, n)
    facts = context.seat_facts[seat]
    last = next((t.speaker for t in reversed(turns) if t.seat != seat), None)
    others = facts["others"]
    other = next((guest for guest in others if guest.given_name == last), others[0])
    facts = {**facts, "other": other, "history": turns, "n": n, "cue": name}
    key = "free_cue" if name == "free" else name
    nudge = render(template, facts, f"agents/moderator.toml: {key}") if template else ""
    return Request(
        role=role.name,
        messages=(
            Message("system", context.system_prompts[seat]),
            *write_messages(turns, seat, nudge),
        ),
        facts=facts,
        temperature=role.temperature,
        max_tokens=role.max_tokens,
        seed=int(digest(dialogue.scene.id, n), 16) >> 1,
        speaker=context.personas[seat].id,
        stop=stop_texts(context.others[seat]),
    )


def write_messages(turns: Sequence[Turn], seat: int, nudge: str) -> list[Message]:
    """Return the talk as one seat sees it, user and assistant strictly in turn, the nudge at the
    end.
    """
    messages: list[Message] = []
    for turn in turns:
        role: Literal["user", "assistant"] = "assistant" if turn.seat == seat else "user"
        text = turn.text if turn.seat == seat else f"{turn.speaker}: {turn.text}"
        if messages and messages[-1].role == role:
            text = messages.pop().content + "\n\n" + text
        messages.append(Message(role, text))
    if not messages or messages[0].role == "assistant":
        messages.insert(0, Message("user", "The conversation begins."))
    if nudge:
        text = f"Moderator: {nudge}"
        if messages[-1].role == "user":
            talk = messages.pop().content
            text = talk + "\n\n" + text if turns else text
        messages.append(Message("user", text))
    return messages
