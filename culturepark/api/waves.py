"""How many dialogues to hold next on the way to a number of samples: few at first, then as many as
their yield asks for.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

GROWTH = 10  # times the dialogues so far that a wave may have: by then their yield is known better


@dataclass(frozen=True)
class Yield:
    """What a culture's dialogues gave: opinions kept, of all its dialogues and of those of the last
    wave.
    """

    dialogues: int = 0
    kept: int = 0
    last: int = 0
    gained: int = 0


def wave(wanted: int, found: Yield, pilot: int, most: int) -> int:
    """Return how many dialogues to hold next for `wanted` opinions; 0 where no more opinions are to
    be hoped for.

    `most` is how many opinions a dialogue can give: the first wave has no more than could be
    enough, and at most `pilot` dialogues. While nothing is kept, waves double up to `pilot` in all.
    Then as many are held as the yield asks for: the last wave's where that had `pilot` dialogues or
    more, for later dialogues repeat earlier ones, else the yield of all so far.
    """
    if not found.kept:
        least = found.dialogues or ceil(wanted / most)
        return min(least, pilot - found.dialogues)
    large = found.last >= pilot
    if large and not found.gained:
        return 0
    held, kept = (found.last, found.gained) if large else (found.dialogues, found.kept)
    return min(ceil((wanted - found.kept) * held / kept), GROWTH * found.dialogues)
