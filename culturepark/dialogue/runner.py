"""The loop that holds one dialogue: who speaks, what they are sent, what they said, is it over?"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from culturepark.dialogue.floor import (
    STOPS,
    Stop,
    Table,
    cue,
    facts,
    others,
    over,
    request,
    speaker,
)
from culturepark.dialogue.trimming import OwnTurn, own_turn
from culturepark.llm.session import Desk, Meter, metered
from culturepark.prompts import render
from culturepark.records import CutTurns, Dialogue, Reply, Request, Turn

TRIES = 3  # a turn that says nothing whole is asked for again this often in all, as another sample


async def hold(
    table: Table,
    desk: Desk,
    dialogue: Dialogue,
    stops: tuple[Stop, ...] = STOPS,
    cut_turns: CutTurns = "trim",
    *,
    on_turn: Callable[[int, Meter], None] | None = None,
) -> Dialogue:
    """Hold a dialogue from where it stands to its end; every turn is in the journal before the next
    is asked for.

    `on_turn` is told the place and the cost of each turn. A seat whose model fails ends the
    dialogue as failed, with the reason; nothing stands in for what it did not say.
    """
    scene, journal = dialogue.scene, desk.journal
    fixed = [facts(table, seat) for seat in range(len(scene.seats))]
    systems = [
        render(r.system, f, f"agents/{r.name}.toml: system")
        for r, f in zip(table.roles, fixed, strict=True)
    ]
    journal.open_scene(scene)
    while (reason := over(dialogue, stops)) is None:
        seat = speaker(dialogue)
        asked = request(table, dialogue, fixed[seat], systems[seat])
        name = table.personas[seat].given_name
        with metered() as meter:
            own, reply, key = await speak(
                desk, asked, scene.id, name, others(table, seat), cut_turns
            )
        if not own.text:
            why = f"turn {len(dialogue.turns)} ({name}): {_why(reply, own)}"
            journal.end_scene(scene.id, "failed", why)
            return dialogue.model_copy(update={"status": "failed", "reason": why})
        turn = Turn.model_construct(
            n=len(dialogue.turns),
            seat=seat,
            speaker=name,
            text=own.text,
            marks=own.marks,
            cue=cue(table, len(dialogue.turns))[0],
            call=key,
            faults=reply.faults,
        )
        journal.add_turn(scene.id, turn)
        if on_turn:
            on_turn(turn.n, meter)
        dialogue = dialogue.model_copy(update={"turns": (*dialogue.turns, turn)})
    journal.end_scene(scene.id, "done", reason)
    return dialogue.model_copy(update={"status": "done", "reason": reason})


async def speak(
    desk: Desk,
    asked: Request,
    subject: str,
    name: str,
    others: tuple[str, ...],
    cut_turns: CutTurns,
) -> tuple[OwnTurn, Reply, str]:
    """Ask for one turn until it says something whole, TRIES times in all; return it, the last reply
    and that call's key.

    The turn is empty where none did. What is done with a turn that was cut at max_tokens,
    `cut_turns` says: `trim` it to its last whole sentence, `retry` with twice the room each time,
    or `fail` at once. Only the first try is sent stop texts: they may have ended a thinking model's
    thoughts before it answered.
    """
    own = OwnTurn("")
    for index in range(TRIES):
        reply, key = await desk.ask(replace(asked, index=index) if index else asked, subject)
        cut = reply.status == "truncated"
        if reply.status == "ok" or (cut and cut_turns == "trim"):
            own = own_turn(reply.text, name, others, cut=cut)
        if (
            own.text
            or reply.status in ("failed", "refused", "filtered")
            or (cut and cut_turns == "fail")
        ):
            break
        longer = 2 if cut and cut_turns == "retry" else 1
        asked = replace(asked, max_tokens=longer * asked.max_tokens, stop=())
    return own, reply, key


def _why(reply: Reply, own: OwnTurn) -> str:
    """Return why a reply gave no turn."""
    if reply.status not in ("ok", "truncated") or not reply.text.strip():
        return f"{reply.status}: {reply.reason or 'the answer holds no text'}"
    lacking = {
        "other_voice": "it speaks for somebody else",
        "looped": "it says one thing over and over",
        "trimmed": "it holds no whole sentence",
    }
    said = "; ".join(lacking[mark] for mark in own.marks) or reply.reason
    return f"{'truncated' if reply.status == 'truncated' else 'empty'}: {said}"
