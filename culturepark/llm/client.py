"""A client of one endpoint: every call passes its limiter, its budget and its retries, and ends as
one Reply.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import replace
from typing import Any, Protocol

from tenacity import AsyncRetrying, RetryCallState, retry_if_exception, wait_random_exponential

from culturepark.errors import ModelError
from culturepark.executor import stopping
from culturepark.keys import redact
from culturepark.llm.batch import BatchClient
from culturepark.llm.budget import Budget
from culturepark.llm.codec import (
    PASSING,
    UNSETTLED,
    ProviderError,
    Style,
    bound_prompt_tokens,
    build_body,
)
from culturepark.llm.facts import FactSender
from culturepark.llm.pricing import Price
from culturepark.llm.rate_limiter import KNOCK, ConcurrencyLimiter, Limits
from culturepark.llm.reading import (
    explain_missing_probs,
    ignores_schema,
    opens_thoughts,
    read_option_probs,
    read_reply,
)
from culturepark.llm.tracing import trace_call
from culturepark.records import Reply, Request
from culturepark.store import RunStore

log = logging.getLogger("culturepark")
# How often a call is tried in all, by what went wrong last. 429s are many: the limiter slows down
# meanwhile.
TRIES = {"rate": 30, "busy": 8, "down": 8, "lost": 8, "slow": 3, "garbled": 8}
JITTER = wait_random_exponential(
    multiplier=0.5, max=30
)  # full jitter: calls that failed together do not return together

IGNORED = (
    "the endpoint was sent response_format ({}) and did not hold the answer to it, as `transformers"
    ' serve` and some proxies do; structured = "text" under [endpoints."{}"] in culturepark.toml'
    " asks in words"
)


class Client(Protocol):
    """One way to send a chat completion's body.

    `limited` says whether calls at once are to be limited; `discount` is the share of the price
    that its calls cost.
    """

    identity: str
    limited: bool
    discount: float

    def check(self) -> None:
        """Raise ModelError or InputError for what would make every call fail: no key, no
        package.
        """
        ...

    async def send(self, body: Mapping[str, Any], request: Request) -> Mapping[str, Any]:
        """Send once and return the answer's body; ProviderError when there is none."""
        ...

    async def close(self) -> None:
        """Let go of connections."""
        ...


class EndpointClient:
    """A model behind an endpoint. Passing failures are retried by class; hopeless ones raise
    ModelError with advice.
    """

    def __init__(
        self,
        client: Client,
        model: str,
        limits: Limits | None = None,
        *,
        price: Price | None = None,
        structured: str = "schema",
        params: Mapping[str, Any] | None = None,
        max_wait: float = 600.0,
        missing_key: bool = False,
        facts: FactSender | None = None,
    ) -> None:
        self.missing_key, self._facts = missing_key, facts
        self.max_wait, self._waited_too_long = max_wait, False
        self.client, self.model, self.identity = client, model, client.identity
        self.price = price.discount(client.discount) if price else None
        self.params = dict(params or {})
        self.style = Style(structured=structured)
        self.limiter = ConcurrencyLimiter(limits or Limits(), client.identity)
        self.budget: Budget | None = None
        self.store: RunStore | None = None
        self._uncounted = False  # whether somebody was warned of it

    def check(self) -> None:
        """Raise what would make every call fail."""
        if self.missing_key:
            raise ModelError(f"{self.identity}: the variable that key_env names for it is not set")
        self.client.check()

    def attach(self, store: RunStore, budget: Budget | None) -> None:
        """Join a run: its budget, and the store in which batches are written down."""
        self.budget, self.store = budget, store
        if isinstance(self.client, BatchClient):
            self.client.store = store

    async def close(self) -> None:
        """Let go of connections."""
        await self.client.close()

    async def complete(self, request: Request) -> Reply:
        """Answer one request. `attempts` counts what was sent, `lost` what may have been billed
        without an answer.
        """
        with trace_call(self.identity, self.model, request) as record_reply:
            started, tally = time.perf_counter(), [0, 0]
            try:
                reply = await self._try_first(request, tally)
            except ProviderError as error:
                prefix = f"gave up after {tally[0]} attempts: " if tally[0] > 1 else ""
                reason = redact(f"{prefix}{error}")[:500]
                reply = Reply(
                    "filtered" if error.kind == "filtered" else "failed",
                    reason=reason,
                    model=self.identity,
                    final=error.kind == "long",
                )
            reply = replace(
                reply, ms=(time.perf_counter() - started) * 1000, attempts=tally[0], lost=tally[1]
            )
            record_reply(reply)
            return reply

    async def _try_first(self, request: Request, tally: list[int]) -> Reply:
        """Try once without ceremony, as nearly every call needs no more; then by the rules."""
        try:
            return await self._attempt(request, tally)
        except ProviderError as error:
            if error.kind not in PASSING:
                raise
            known: ProviderError | None = error

        async def again() -> Reply:
            nonlocal known
            if known is not None:  # the first attempt's failure counts as this loop's first
                error, known = known, None
                raise error
            return await self._attempt(request, tally)

        return await AsyncRetrying(
            stop=_has_tried_enough,
            wait=self._choose_pause,
            retry=retry_if_exception(_is_passing),
            reraise=True,
        )(again)

    async def _attempt(self, request: Request, tally: list[int]) -> Reply:
        """Send once, and again in other words for as long as the endpoint refuses a parameter that
        it can do without.
        """
        while True:
            version, body = (
                self.style.version,
                build_body(self.model, request, self.style, self.params),
            )
            try:
                return await self._send(request, body, tally)
            except ProviderError as error:
                if error.kind != "refused":
                    raise
                if self.style.version == version:
                    change = (
                        self.style.learn(error.refusal, request, error.status)
                        if error.refusal
                        else None
                    )
                    if change is None:
                        raise self._build_refusal(error) from None
                    log.warning(
                        "%s refused a request as it was; from now on CulturePark %s (%s)",
                        self.identity,
                        change,
                        str(error)[:200],
                        extra={"event": "adapted"},
                    )

    def _build_refusal(self, error: ProviderError) -> Exception:
        """Return what a refusal is that no other wording of the request answers."""
        if (error.status or 0) >= 500:  # its words may mean anything: the endpoint is busy
            return ProviderError("busy", str(error), status=error.status, wait=error.wait)
        own = [name for name in self.params if error.refusal and name.lower() in error.refusal.text]
        hint = f"; {', '.join(own)} is of your own `params` for this endpoint" if own else ""
        return ModelError(f"{self.identity}: the request was refused: {error}{hint}")

    async def _send(self, request: Request, body: Mapping[str, Any], tally: list[int]) -> Reply:
        limiter, budget, reservation, stop = self.limiter, self.budget, 0, stopping.current()
        most, longest = (
            bound_prompt_tokens(request) if budget or limiter.tpm else 0,
            _bound_answer_tokens(body),
        )
        if budget:
            key = "" if self.client.limited else request.key(self.identity)
            usd = self.price.compute_most(most, longest) if self.price else 0.0
            reservation = await budget.reserve(usd, most + longest, key)
        sent, entered, reply = False, 0.0, None
        unsettled = True  # cancelled in flight, it may have been billed all the same
        estimate = most // 4 + longest // 2  # what a call probably takes; put right by its usage
        try:
            if self.client.limited:
                entered = await limiter.enter(estimate)
            if self.store is not None:
                await self.store.wait_for_commit()  # nobody asks on before the last answer is kept
            await stop.pass_or_wait()
            sent = True
            tally[0] += 1
            with stop.sending() if self.client.limited else nullcontext():
                if self._facts is not None:
                    body = await self._facts.add_facts(body, request)
                answer = await self.client.send(body, request)
            reply = read_reply(
                answer, self.identity, request, opens_thoughts=self.style.opens_thoughts
            )
            self.style.opens_thoughts = self.style.opens_thoughts or (
                bool(reply.reasoning) and opens_thoughts(answer)
            )
            reply = self._drop_unsound_counts(reply, (most, longest)) if budget else reply
            reply = self._add_option_probs(self._add_price(reply), answer, request)
        except ProviderError as error:
            error.at(self.limiter.answered).wait = self._bound_wait(error.wait)
            unsettled = error.kind in UNSETTLED
            tally[1] += unsettled
            self._report(error, entered)
            raise
        finally:
            if entered:
                limiter.leave()
            if budget:
                self._settle(budget, reservation, reply, (most, longest), kept=sent and unsettled)
        limiter.note_success()
        if limiter.tpm:
            limiter.tpm.correct(
                estimate, (reply.prompt_tokens or 0) + (reply.completion_tokens or 0) or estimate
            )
        return reply

    def _bound_wait(self, wait: float | None) -> float | None:
        """Return how long to wait, at most `max_wait`; the first time it is shortened is
        reported.
        """
        if wait is None or wait <= self.max_wait:
            return wait
        if not self._waited_too_long:
            self._waited_too_long = True
            log.warning(
                "%s asks to wait %.0f s; it is asked again after %g s (max_wait)",
                self.identity,
                wait,
                self.max_wait,
                extra={"event": "wait_bounded"},
            )
        return self.max_wait

    def _choose_pause(self, state: RetryCallState) -> float:
        """Wait a random time that grows with the attempts, never less than the provider asked for.

        What a batch did not answer goes into the next one, all of it into the same.
        """
        if not self.client.limited:
            return 0.0
        wait = JITTER(state) + (_get_error(state).wait or 0.0)
        return (
            wait if self.limiter.reached or _get_error(state).kind != "down" else min(wait, KNOCK)
        )

    def _add_option_probs(self, reply: Reply, answer: Mapping[str, Any], request: Request) -> Reply:
        """Return a reply with its distribution over options, or with what an endpoint has ignored
        of the request.
        """
        if request.options and reply.status in (
            "ok",
            "truncated",
        ):  # the first token tells, wherever the answer ends
            if probs := read_option_probs(answer, request.options):
                return replace(reply, option_probs=probs, status="ok", reason="")
            return replace(reply, reason=explain_missing_probs(answer))
        schema = (
            request.reply_schema
            if self.style.structured != "text" and reply.status == "ok"
            else None
        )
        if schema is not None and ignores_schema(reply.text, schema):
            return replace(
                reply, reason=IGNORED.format(self.style.structured, self.identity.partition("@")[0])
            )
        return reply

    def _drop_unsound_counts(self, reply: Reply, most: tuple[int, int]) -> Reply:
        """Return a reply without counts above what was set aside for them: those are charged at
        just that, as missing ones are.
        """
        counts = reply.prompt_tokens, reply.completion_tokens
        prompt, completion = (
            c if c is not None and c <= m else None for c, m in zip(counts, most, strict=True)
        )
        if not self._uncounted and None in (prompt, completion):
            self._uncounted = True
            log.warning(
                "%s does not count its tokens, or not soundly (prompt %s, answer %s): such calls"
                " are charged against the cap at the most that they can have cost",
                self.identity,
                *counts,
                extra={"event": "uncounted"},
            )
        return replace(reply, prompt_tokens=prompt, completion_tokens=completion)

    def _add_price(self, reply: Reply) -> Reply:
        prompt, completion = reply.prompt_tokens, reply.completion_tokens
        if self.price is None or prompt is None or completion is None:
            return reply
        return replace(reply, usd=self.price.compute(prompt, completion, reply.cached_tokens or 0))

    def _settle(
        self,
        budget: Budget,
        reservation: int,
        reply: Reply | None,
        most: tuple[int, int],
        *,
        kept: bool,
    ) -> None:
        """Settle a reservation: by the reply's cost, by nothing if nothing can have been billed,
        else by all of it.

        `most` (prompt, answer) is charged for a count that the provider did not give.
        """
        if reply is None:
            budget.keep(reservation) if kept else budget.settle(reservation, 0.0, 0)
            return
        counts = reply.prompt_tokens, reply.completion_tokens
        known = sum(c or 0 for c in counts)
        if None not in counts:
            budget.settle(reservation, reply.usd or 0.0, known)
            return
        charges = [m if c is None else c for c, m in zip(counts, most, strict=True)]
        budget.settle(
            reservation,
            0.0,
            known,
            (self.price.compute_most(*charges) if self.price else 0.0, sum(charges) - known),
        )

    def _report(self, error: ProviderError, entered: float) -> None:
        if error.kind == "hopeless":
            raise ModelError(f"{self.identity}: {error}") from None
        if not self.client.limited:
            return  # a line of a batch that failed says nothing of whether the endpoint lives
        if error.kind == "rate":
            self.limiter.note_rate_limit(entered, error.wait)
        elif error.kind in ("busy", "down", "lost", "slow"):
            error.down = self.limiter.note_failure(str(error)[:300], reached=error.kind != "down")


def _bound_answer_tokens(body: Mapping[str, Any]) -> int:
    """Return how many tokens an answer can have at most, by what is really sent: the user's own
    parameters win.
    """
    limits = [
        v for k in ("max_tokens", "max_completion_tokens") if isinstance(v := body.get(k), int)
    ]
    answers = n if isinstance(n := body.get("n"), int) else 1
    return max(limits, default=0) * max(answers, 1)


def _is_passing(error: BaseException) -> bool:
    return isinstance(error, ProviderError) and error.kind in PASSING


def _get_error(state: RetryCallState) -> ProviderError:
    error = state.outcome.exception() if state.outcome else None
    assert isinstance(error, ProviderError)
    return error


def _has_tried_enough(state: RetryCallState) -> bool:
    """Stop after as many attempts as this kind of failure deserves; while the line is down, its
    patience decides.
    """
    error = _get_error(state)
    return not error.down and state.attempt_number >= TRIES[error.kind]
