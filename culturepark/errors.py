"""Every error a user can meet, in one tree, each with the exit code the command gives it.

ParkError                 1  something failed
├── InputError            2  the user's input is wrong: nothing was started
│   ├── CardError            a card, or a whole folder of them
│   ├── NotFound             a name that does not exist, with the nearest that does
│   └── SurveyError          a survey file that cannot be read as one
├── JournalError          1  a run's journal cannot be read or written
├── WriteError            1  a file cannot be written: the disk is full, or it may not be changed
├── Locked                1  another process is writing this run
├── ModelError            1  a model, endpoint or key that cannot be used at all
│   └── ReplayMiss           a replayed run asks what the journal does not hold
├── BudgetReached         3  a cap on money or tokens: nothing is lost, a higher cap goes on
└── RunFailed             1  a stage ended without what it was asked for
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


class ParkError(Exception):
    """Something failed; the message says what, where and what to do."""

    exit_code = 1


class InputError(ParkError):
    """The user's input is wrong; nothing was started."""

    exit_code = 2


class CardError(InputError):
    """One or more cards are wrong; `problems` holds every mistake found, one line each."""

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(self.problems))


class NotFound(InputError):
    """A name that does not exist."""

    def __init__(self, kind: str, name: str, where: str, names: Iterable[str]) -> None:
        known = sorted(set(names))
        self.kind, self.name, self.known = kind, name, known
        super().__init__(f"no {kind} {name!r} in {where}. {nearest(name, known)}")


class SurveyError(InputError):
    """A survey file that cannot be read as one."""


class JournalError(ParkError):
    """A run's journal cannot be read or written."""


class WriteError(ParkError):
    """A file cannot be written: the disk is full, or the file may not be changed."""


class Locked(ParkError):
    """Another process is writing this run."""


class ModelError(ParkError):
    """A model, endpoint or key that cannot be used at all; retrying would not help."""


class ReplayMiss(ModelError):
    """A replayed run asks what the journal does not hold."""


class BudgetReached(ParkError):
    """A cap on money or tokens would be passed by the next call; nothing is lost, a higher cap goes
    on.
    """

    exit_code = 3


class RunFailed(ParkError):
    """A stage ended without what it was asked for."""


def nearest(name: str, known: Iterable[str]) -> str:
    """Return a sentence that names the nearest known name and what there is.

    >>> nearest("arabik", ["arabic", "german"])
    "Did you mean 'arabic'? There are: arabic, german."
    """
    names = list(known)
    if not names:
        return "There are none."
    folded = {n.casefold(): n for n in reversed(names)}
    asked = str(name).casefold()
    close = get_close_matches(asked, list(folded), n=5, cutoff=0.6)
    close.sort(
        key=lambda known: _slips(asked, known)
    )  # stable: among equals the most alike stays first
    hint = f"Did you mean {folded[close[0]]!r}? " if close else ""
    shown = ", ".join(names[:20]) + (f" and {len(names) - 20} more" if len(names) > 20 else "")
    return f"{hint}There are: {shown}."


def _slips(one: str, other: str) -> int:
    """Return how many letters were left out, added, taken for another or swapped with the next
    (Damerau, 1964).
    """
    before: list[int] = []
    row = list(range(len(other) + 1))
    for i, a in enumerate(one, 1):
        earlier, before, row = before, row, [i]
        for j, b in enumerate(other, 1):
            steps = [before[j] + 1, row[j - 1] + 1, before[j - 1] + (a != b)]
            if i > 1 and j > 1 and (a, b) == (other[j - 2], one[i - 2]):
                steps.append(earlier[j - 2] + 1)
            row.append(min(steps))
    return row[-1]
