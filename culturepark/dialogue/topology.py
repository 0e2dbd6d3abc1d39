"""Who may speak next in a dialogue, and whose turns each seat hears: pure functions of a
Topology.
"""

from __future__ import annotations

from collections.abc import Callable

from culturepark.records import Dialogue, Topology, Turn


def hub(delegates: int) -> Topology:
    """Return the topology of a main contact (seat 0) and its delegates; with one, a pair.

    The contact opens every round and hears everyone; a delegate hears the contact alone.
    """
    if delegates == 1:
        return Topology()
    return Topology(kind="hub", edges=tuple((0, seat) for seat in range(1, delegates + 1)))


def next_speaker(topology: Topology, dialogue: Dialogue) -> int | None:
    """Return the seat that speaks next; None where nobody is left to speak."""
    return ORDERS[topology.kind](topology, dialogue)


def visible(topology: Topology, dialogue: Dialogue, seat: int) -> tuple[Turn, ...]:
    """Return the turns that a seat has heard: its own and those of its neighbours."""
    others = topology.neighbours[seat]
    if len(others) + 1 == len(topology.seats):
        return dialogue.turns
    return tuple(turn for turn in dialogue.turns if turn.seat == seat or turn.seat in others)


def go_round(topology: Topology, dialogue: Dialogue) -> int | None:
    """Let the seats speak one after another, the first seat first in every round."""
    seats = topology.seats
    return seats[len(dialogue.turns) % len(seats)] if seats else None


# A new shape is a kind of Topology and its order of speakers here.
ORDERS: dict[str, Callable[[Topology, Dialogue], int | None]] = {"pair": go_round, "hub": go_round}
