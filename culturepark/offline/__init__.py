"""The embedded engine: plays every role offline, from the facts of a request. Its text is
templated.

It needs no key, network or weights. It speaks from the persona's card, the question's clauses and
the survey's shares, and reads any English text by its words. It proves the pipeline and is a
reproducible baseline; a corpus meant to read like people needs a real model.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from importlib import resources
from typing import Any

from culturepark.errors import ModelError
from culturepark.offline import faults as planting
from culturepark.offline import reading, sitting, speech
from culturepark.offline.faults import KINDS
from culturepark.offline.grading import GRADING
from culturepark.offline.lessons import LESSONS
from culturepark.offline.measure import shared_sentences
from culturepark.offline.phrases import load_bank
from culturepark.records import SPEAKERS, Fault, Reply, Request, digest, stream

__all__ = ["KINDS", "ROLES", "Embedded", "shared_sentences"]

READERS: dict[str, Callable[[Request], str]] = {
    "extractor": lambda request: reading.answer_extractor(request.facts),
    "verifier": lambda request: reading.answer_verifier(request.facts),
    "rewriter": lambda request: reading.answer_rewriter(
        request.facts, stream(request.seed, request.index, "rewrite")
    ),
    # The moderator's lines are the cues of its card; this one is for whoever asks a model for one
    # all the same.
    "moderator": lambda request: (
        f"Let us stay with {request.facts['question'].about}."
        if "question" in request.facts
        else "Please go on."
    ),
}
# Benchmarks bring roles of their own: what is asked is told by the fact that is there, in this
# order.
TOLD: dict[str, Callable[[Request], str]] = {
    **GRADING,
    "options": sitting.answer_survey,
    "labels": sitting.choose_label,
}
ROLES = (*SPEAKERS, *READERS, *LESSONS)


class Embedded:
    """A model that answers from a request's role, facts and seed alone.

    `faults` maps a kind of fault to the share of delegate turns in which it is planted (0 to 1,
    together at most 1); each is recorded in the reply. InputError for a kind or rate that cannot
    be.
    """

    def __init__(
        self, *, faults: Mapping[str, float] | None = None, name: str = "embedded"
    ) -> None:
        self.faults = planting.check_rates(faults or {})
        rates = ",".join(f"{kind}={rate:g}" for kind, rate in self.faults.items() if rate)
        self.identity = f"{name}/{load_bank()['version']}-{_hash_edition()}" + (
            f"+{rates}" if rates else ""
        )

    async def complete(self, request: Request) -> Reply:
        """Answer one request; ModelError for a role that the engine does not play."""
        planted: tuple[Fault, ...] = ()
        if request.options:
            shares = sitting.compute_option_probs(request)
            best = max(range(len(shares)), key=shares.__getitem__)
            return Reply(
                status="ok", text=request.options[best], model=self.identity, option_probs=shares
            )
        if request.role in SPEAKERS:
            text, planted = self._speak(request.role, request.facts)
        elif request.role in READERS:
            text = READERS[request.role](request)
        elif request.role in LESSONS:
            text = LESSONS[request.role](request)
        elif (told := next((t for t in TOLD if t in request.facts), None)) is not None:
            text = TOLD[told](request)
        else:
            raise ModelError(
                f"the embedded engine does not play {request.role!r}; it plays {', '.join(ROLES)}"
            )
        return Reply(status="ok", text=text, model=self.identity, faults=planted)

    def _speak(self, role: str, facts: Mapping[str, Any]) -> tuple[str, tuple[Fault, ...]]:
        said = speech.write_turn(facts)
        if self.faults and role == "delegate":
            said, planted = planting.plant_fault(self.faults, facts, said)
            return " ".join(said), planted
        return " ".join(said), ()


@lru_cache(maxsize=1)
def _hash_edition() -> str:
    """Return the hash of all that the engine says and reads by: another bank is another model."""
    folder = resources.files(__package__)
    return digest(
        *(
            folder.joinpath(name).read_text(encoding="utf-8")
            for name in ("phrases.toml", "words.toml")
        ),
        size=4,
    )
