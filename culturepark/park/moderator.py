"""The loop that holds one dialogue: who speaks, what they are sent, what they said, is it over?"""

from __future__ import annotations

from dataclasses import replace

from culturepark.desk import Desk
from culturepark.park.floor import STOPS, Stop, Table, cue, facts, over, own_words, request, speaker
from culturepark.prompts import render
from culturepark.records import Dialogue, Turn

TRIES = 3  # an empty or cut turn is asked for again this often in all, as another sample


async def hold(table: Table, desk: Desk, dialogue: Dialogue, stops: tuple[Stop, ...] = STOPS) -> Dialogue:
    """Hold a dialogue from where it stands to its end; every turn is in the journal before the next is asked for.

    A seat whose model fails ends the dialogue as failed, with the reason; nothing stands in for what it did not say.
    """
    scene, journal = dialogue.scene, desk.journal
    fixed = [facts(table, seat) for seat in range(len(scene.seats))]
    systems = [render(r.system, f, f"agents/{r.name}.toml: system") for r, f in zip(table.roles, fixed, strict=True)]
    journal.open_scene(scene)
    while (reason := over(dialogue, stops)) is None:
        seat = speaker(dialogue)
        asked = request(table, dialogue, fixed[seat], systems[seat])
        for index in range(TRIES):
            reply, key = await desk.ask(replace(asked, index=index) if index else asked, scene.id)
            text = own_words(reply.text, table.personas[seat].given_name)
            if reply.status == "ok" and text:
                break
            if reply.status in ("failed", "refused", "filtered"):
                break
        if reply.status != "ok" or not text:
            why = f"turn {len(dialogue.turns)} ({table.personas[seat].given_name}): {reply.status}: {reply.reason}"
            journal.end_scene(scene.id, "failed", why)
            return dialogue.model_copy(update={"status": "failed", "reason": why})
        turn = Turn.model_construct(n=len(dialogue.turns), seat=seat, speaker=table.personas[seat].given_name, text=text,
                                    cue=cue(table, len(dialogue.turns))[0], call=key, faults=reply.faults)  # fmt: skip
        journal.add_turn(scene.id, turn)
        dialogue = dialogue.model_copy(update={"turns": (*dialogue.turns, turn)})
    journal.end_scene(scene.id, "done", reason)
    return dialogue.model_copy(update={"status": "done", "reason": reason})
