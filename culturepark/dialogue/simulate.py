"""Holds all dialogues of a run, many at once, and picks up where a killed run left off."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import islice

from culturepark.context import look_up
from culturepark.dialogue import casting
from culturepark.dialogue.runner import hold_dialogue
from culturepark.executor.pool import run_each
from culturepark.llm.session import Meter, Session
from culturepark.records import Dialogue, Scene
from culturepark.settings import Settings
from culturepark.workspace import Workspace

Report = Callable[[Dialogue], None]


def plan(
    workspace: Workspace, settings: Settings, culture: str, until: int, since: int = 0
) -> Iterator[Scene]:
    """Return scenes `since` to `until` of a culture."""
    return islice(casting.scenes(workspace, settings, culture), since, until)


async def simulate(
    workspace: Workspace,
    settings: Settings,
    session: Session,
    scenes: Iterable[Scene],
    report: Report | None = None,
    *,
    on_begin: Report | None = None,
    on_turn: Callable[[Scene, int, Meter], None] | None = None,
) -> None:
    """Hold every dialogue of `scenes` that the journal does not know as ended.

    `on_begin` is told each dialogue as it stands before its first call, `on_turn` the scene,
    place and cost of each turn, `report` each dialogue as it ended.

    At most `settings.width` are in flight; a half-held one goes on after its last turn. A failed
    dialogue is tried again on the next call.
    """

    async def one(scene: Scene) -> None:
        status = session.store.find_status(scene.id)
        if status == "done":
            return
        turns = session.store.read_turns(scene.id) if status else ()
        dialogue = Dialogue(scene=scene, turns=turns)
        if on_begin:
            on_begin(dialogue)
        ended = await hold_dialogue(
            look_up(workspace, dialogue, settings.survey),
            session,
            dialogue,
            cut_turns=settings.cut_turns,
            on_turn=partial(on_turn, scene) if on_turn else None,
        )
        if report:
            report(ended)

    await run_each(scenes, one, settings.width)
    session.store.commit()
