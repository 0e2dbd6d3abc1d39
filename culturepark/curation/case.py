"""What the refinery looks at: one ended dialogue with its cards."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from culturepark.records import Culture, Dialogue, Persona, Question, Role
from culturepark.workspace import Workspace


@dataclass(frozen=True)
class Case:
    """One dialogue, its question, and the card of the person and culture at each seat."""

    dialogue: Dialogue
    question: Question
    personas: tuple[Persona, ...]
    cultures: tuple[Culture, ...]
    roles: Mapping[str, Role]

    def view(self, seat: int) -> int:
        """The answer a seat's opinions are held against: its own, else its people's."""
        own = self.dialogue.scene.seats[seat].view
        return self.dialogue.scene.answer if own is None else own

    def facts(self, seat: int, **more: Any) -> dict[str, Any]:
        """What every prompt of the refinery may use."""
        view = self.view(seat)
        return {
            "question": self.question,
            "culture": self.cultures[seat],
            "answer": view,
            "view": self.question.spoken(view),
            **more,
        }


def look_up(workspace: Workspace, dialogue: Dialogue) -> Case:
    """Return a dialogue with its cards."""
    scene = dialogue.scene
    personas = tuple(workspace.persona(s.persona) for s in scene.seats)
    cultures = tuple(workspace.culture(p.culture) for p in personas)
    return Case(
        dialogue,
        workspace.question(scene.scenario, scene.question),
        personas,
        cultures,
        workspace.roles,
    )
