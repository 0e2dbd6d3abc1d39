"""How many dialogues to hold next on the way to a number of samples: few at first, then as many as
their yield asks for.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

GROWTH = 10  # times the dialogues so far that a batch may have: by then their yield is known better


@dataclass(frozen=True)
class Yield:
    """What a culture's dialogues gave: opinions kept, of all its dialogues and of those of the last
    batch.
    """

    dialogues: int = 0
    kept: int = 0
    last_dialogues: int = 0
    last_kept: int = 0

    def add_batch(self, dialogues: int, kept: int) -> Yield:
        """Return the yield with one more batch of dialogues, after which `kept` are kept in all."""
        return Yield(self.dialogues + dialogues, kept, dialogues, kept - self.kept)


def size_batch(wanted: int, so_far: Yield, pilot: int, most: int) -> int:
    """Return how many dialogues to hold next for `wanted` opinions; 0 where no more opinions are to
    be hoped for.

    `most` is how many opinions a dialogue can give: the first batch has no more than could be
    enough, and at most `pilot` dialogues. While nothing is kept, batches double up to `pilot` in
    all. Then as many are held as the yield asks for: the last batch's where that had `pilot`
    dialogues or more, for later dialogues repeat earlier ones, else the yield of all so far.
    """
    if not so_far.kept:
        least = so_far.dialogues or ceil(wanted / most)
        return min(least, pilot - so_far.dialogues)
    is_large = so_far.last_dialogues >= pilot
    if is_large and not so_far.last_kept:
        return 0
    dialogues, kept = so_far.dialogues, so_far.kept
    if is_large:
        dialogues, kept = so_far.last_dialogues, so_far.last_kept
    return min(ceil((wanted - so_far.kept) * dialogues / kept), GROWTH * so_far.dialogues)
