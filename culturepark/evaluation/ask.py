"""Asks a model for an item and makes an attempt of its reply."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from culturepark.evaluation import parsers
from culturepark.evaluation.types import Ask, Attempt, Benchmark, Item, Unparsed
from culturepark.records import Reply


def make_attempt(
    item: Item, reply: Reply, answer: Any = None, score: float | None = None, **more: Any
) -> Attempt:
    """Return the attempt of an item that was asked once; `answer` is what was read (Unparsed where
    it cannot be).
    """
    status: Any = (
        reply.status
        if reply.status != "ok"
        else "unparsed"
        if isinstance(answer, Unparsed)
        else "ok"
    )
    read = status == "ok"
    talk = (*((m.role, m.content) for m in item.request.messages), ("assistant", reply.text))
    return Attempt(
        item=item.id,
        culture=item.culture,
        unit=item.unit,
        subset=item.subset,
        seed=item.seed,
        status=status,
        reason=answer.reason if isinstance(answer, Unparsed) else reply.reason,
        answer=answer if read else None,
        shares=reply.option_probs if read else (),
        score=score if read else None,
        gold=item.gold,
        facts=dict(item.facts),
        said=reply.text,
        talk=more.pop("talk", talk),
        **more,
    )


async def ask_once(benchmark: Benchmark, item: Item, ask: Ask) -> Attempt:
    """Ask once and read the answer with the benchmark's parser; where a distribution was told, that
    is the answer.

    An answer that was cut still holds what it begins with, for parsers that read no more than that.
    """
    reply = await ask(item.request)
    if reply.status == "truncated" and benchmark.parser in parsers.HEADS:
        found = parsers.load(benchmark.parser)(reply.text, item)
        return make_attempt(
            item,
            reply if isinstance(found, Unparsed) else replace(reply, status="ok", reason=""),
            found,
        )
    if reply.status != "ok" or reply.option_probs:
        best = (
            None
            if not reply.option_probs
            else max(range(len(reply.option_probs)), key=reply.option_probs.__getitem__)
        )
        codes = item.facts.get("codes")
        return make_attempt(item, reply, codes[best] if codes and best is not None else best)
    return make_attempt(item, reply, parsers.load(benchmark.parser)(reply.text, item))
