"""When a dialogue is over: each rule is a pure function `dialogue → reason, or None`."""

from __future__ import annotations

import re
from collections.abc import Callable

from culturepark.dialogue.topology import next_speaker
from culturepark.records import Dialogue

Stop = Callable[[Dialogue], str | None]
FAREWELL = re.compile(
    r"\b(goodbye|good-bye|farewell|bye for now|see you (soon|again|later))[.! ]*$", re.IGNORECASE
)


def reach_length(dialogue: Dialogue) -> str | None:
    """Stop when the planned number of turns is reached."""
    return "all turns held" if len(dialogue.turns) >= dialogue.scene.turns else None


def repeat_turn(dialogue: Dialogue) -> str | None:
    """Stop when a speaker repeats their own last turn word for word: nothing more will come."""
    if not dialogue.turns:
        return None
    last = dialogue.turns[-1]
    before = next((t for t in reversed(dialogue.turns[:-1]) if t.seat == last.seat), None)
    if before is None or before.text != last.text:
        return None
    return f"{last.speaker} repeats the same turn"


def say_goodbye(dialogue: Dialogue) -> str | None:
    """Stop when everyone has said goodbye in turn."""
    last = dialogue.turns[-len(dialogue.scene.seats) :]
    if len(last) == len(dialogue.scene.seats) and all(FAREWELL.search(t.text[-60:]) for t in last):
        return "everyone has said goodbye"
    return None


def run_out_of_speakers(dialogue: Dialogue) -> str | None:
    """Stop when the topology lets nobody speak any more."""
    speaker = next_speaker(dialogue.scene.topology, dialogue)
    return "nobody is left to speak" if speaker is None else None


STOPS: tuple[Stop, ...] = (reach_length, repeat_turn, say_goodbye, run_out_of_speakers)


def stop(dialogue: Dialogue, stops: tuple[Stop, ...] = STOPS) -> str | None:
    """Return why the dialogue is over, or None while it goes on."""
    return next((reason for rule in stops if (reason := rule(dialogue))), None)
