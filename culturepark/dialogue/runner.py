"""The loop that holds one dialogue: who speaks, what they are sent, what they said, is it over?"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Protocol

from culturepark.context import DialogueContext
from culturepark.dialogue.prompting import build_request
from culturepark.dialogue.stopping import STOPS, Stop, stop
from culturepark.dialogue.trimming import OwnTurn, own_turn
from culturepark.llm import Model
from culturepark.llm.session import Failure, Meter, measure_cost
from culturepark.records import CutTurns, Dialogue, Reply, Request, Scene, Turn

TRIES = 3  # a turn that says nothing whole is asked for again this often in all, as another sample


class DialogueStore(Protocol):
    """Where a dialogue is kept while it is held."""

    def open_scene(self, scene: Scene) -> None:
        """Note that a dialogue is to be held."""

    def add_turn(self, dialogue: str, turn: Turn) -> None:
        """Keep one turn."""

    def end_scene(self, dialogue: str, status: str, reason: str) -> None:
        """Say that a dialogue has ended, and why."""


class DialogueSession(Protocol):
    """Who is asked for turns, and where they are kept."""

    @property
    def store(self) -> DialogueStore:
        """Where the dialogue is kept."""

    async def ask(self, request: Request, subject: str) -> tuple[Reply, str]:
        """Return the reply to a request about `subject`, and the call's key."""


class Rehearsal:
    """A session and store that keeps nothing: one model answers, for previews."""

    def __init__(self, model: Model) -> None:
        self._model = model

    @property
    def store(self) -> DialogueStore:
        """The rehearsal itself, which keeps nothing."""
        return self

    async def ask(self, request: Request, subject: str) -> tuple[Reply, str]:
        """Return the model's reply; no call has a key."""
        return await self._model.complete(request), ""

    def open_scene(self, scene: Scene) -> None:
        """Keep nothing."""

    def add_turn(self, dialogue: str, turn: Turn) -> None:
        """Keep nothing."""

    def end_scene(self, dialogue: str, status: str, reason: str) -> None:
        """Keep nothing."""


async def hold_dialogue(
    context: DialogueContext,
    session: DialogueSession,
    dialogue: Dialogue,
    stops: tuple[Stop, ...] = STOPS,
    cut_turns: CutTurns = "trim",
    *,
    on_turn: Callable[[int, Meter], None] | None = None,
) -> Dialogue:
    """Hold a dialogue from where it stands to its end; every turn is in the store before the next
    is asked for.

    `on_turn` is told the place and the cost of each turn. A seat whose model fails ends the
    dialogue as failed, with the reason; nothing stands in for what it did not say.
    """
    store = session.store
    store.open_scene(dialogue.scene)
    while (reason := stop(dialogue, stops)) is None:
        with measure_cost() as meter:
            turn = await take_turn(context, session, dialogue, cut_turns)
        if isinstance(turn, Failure):
            return end_dialogue(store, dialogue, turn.status, turn.reason)
        store.add_turn(dialogue.scene.id, turn)
        if on_turn:
            on_turn(turn.n, meter)
        dialogue = dialogue.model_copy(update={"turns": (*dialogue.turns, turn)})
    return end_dialogue(store, dialogue, "done", reason)


def end_dialogue(store: DialogueStore, dialogue: Dialogue, status: str, reason: str) -> Dialogue:
    """Keep how a dialogue ended, and return it."""
    store.end_scene(dialogue.scene.id, status, reason)
    return dialogue.model_copy(update={"status": status, "reason": reason})


async def take_turn(
    context: DialogueContext, session: DialogueSession, dialogue: Dialogue, cut_turns: CutTurns
) -> Turn | Failure:
    """Ask the next speaker; return the turn, or why there is none."""
    request = build_request(context, dialogue)
    seat, n = request.facts["seat"], request.facts["n"]
    name = context.personas[seat].given_name
    own, reply, key = await ask_turn(
        session, request, dialogue.scene.id, name, context.others[seat], cut_turns
    )
    if not own.text:
        return Failure("failed", f"turn {n} ({name}): {_explain_silence(reply, own)}")
    return Turn.model_construct(
        n=n,
        seat=seat,
        speaker=name,
        text=own.text,
        marks=own.marks,
        cue=request.facts["cue"],
        call=key,
        faults=reply.faults,
    )


async def ask_turn(
    session: DialogueSession,
    request: Request,
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
        reply, key = await session.ask(replace(request, index=index) if index else request, subject)
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
        request = replace(request, max_tokens=longer * request.max_tokens, stop=())
    return own, reply, key


def _explain_silence(reply: Reply, own: OwnTurn) -> str:
    """Return why a reply gave no turn."""
    if reply.status not in ("ok", "truncated") or not reply.text.strip():
        return f"{reply.status}: {reply.reason or 'the answer holds no text'}"
    lacking = {
        "other_voice": "it speaks for somebody else",
        "looped": "it says one thing over and over",
        "trimmed": "it holds no whole sentence",
    }
    why = "; ".join(lacking[mark] for mark in own.marks) or reply.reason
    return f"{'truncated' if reply.status == 'truncated' else 'empty'}: {why}"
