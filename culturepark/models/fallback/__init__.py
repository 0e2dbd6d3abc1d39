"""The embedded engine: plays every role offline, from the facts of a request. Its text is templated.

It needs no key, network or weights. It speaks from the persona's card, the question's clauses and the survey's shares, and
reads any English text by its words. It proves the pipeline and is a reproducible baseline; a corpus meant to read like
people needs a real model.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import get_args

from culturepark.errors import InputError, ModelError, nearest
from culturepark.models.fallback import reading, speech
from culturepark.records import Fault, Reply, Request, digest, stream

KINDS: tuple[str, ...] = get_args(Fault.model_fields["kind"].annotation)
ROLES = ("main_contact", "delegate", "extractor", "verifier", "rewriter")


class Embedded:
    """A model that answers from a request's role, facts and seed alone.

    `faults` maps a kind of fault to the share of delegate turns in which it is planted (0 to 1, together at most 1); each is
    recorded in the reply, so that a refinery can be measured against the truth.
    """

    def __init__(self, faults: Mapping[str, float] | None = None) -> None:
        self.faults = dict(faults or {})
        for kind, rate in self.faults.items():
            if kind not in KINDS:
                raise InputError(f"no fault {kind!r} to plant. {nearest(kind, KINDS)}")
            if not 0 <= rate <= 1:
                raise InputError(f"fault {kind}: the rate {rate} is not between 0 and 1")
        if sum(self.faults.values()) > 1:
            raise InputError(
                f"the fault rates add up to {sum(self.faults.values()):.2f}; at most 1 of all turns can carry one"
            )
        bank = digest(speech.phrases())
        self.identity = f"embedded/{bank}" + (f"+{digest(self.faults)}" if self.faults else "")

    async def complete(self, request: Request) -> Reply:
        """Answer one request; ModelError for a role that the engine does not play."""
        faults: tuple[Fault, ...] = ()
        if request.role in ("main_contact", "delegate"):
            text, faults = self._speak(request)
        elif request.role == "extractor":
            text = reading.extract(request.facts)
        elif request.role == "verifier":
            text = reading.verify(request.facts)
        elif request.role == "rewriter":
            text = reading.rewrite(request.facts, stream(request.seed, request.index, "rewrite"))
        else:
            raise ModelError(f"the embedded engine does not play {request.role!r}; it plays {', '.join(ROLES)}")
        return Reply(status="ok", text=text, model=self.identity, faults=faults)

    def _speak(self, request: Request) -> tuple[str, tuple[Fault, ...]]:
        facts = request.facts
        said = speech.turn(facts)
        if self.faults and request.role == "delegate":
            rng = stream(facts["dialogue"], facts["n"], "fault")
            kind = rng.choices([*self.faults, ""], [*self.faults.values(), max(0.0, 1 - sum(self.faults.values()))])[0]
            planted = speech.fault(kind, facts, said, rng) if kind else None
            if planted:
                return " ".join(planted[0]), (Fault.model_validate({"kind": kind, "sentence": planted[1]}),)
        return " ".join(said), ()
