"""The calls of a run: what each role and model took, and the slowest, dearest and failed of
them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from culturepark.errors import InputError
from culturepark.store import RunStore
from culturepark.store.calls import (
    ORDERS,
    CallGroup,
    find_call,
    find_duration,
    find_last_call,
    group_calls,
    list_calls,
    sum_reservations,
)


def calls(
    store: RunStore, *, role: str | None = None, model: str | None = None, top: int = 10
) -> dict[str, Any]:
    """Return the calls by role and model, the `top` slowest, dearest and last failed, and the
    ledger.

    `role` and `model` (any part of its name) choose. Milliseconds include waiting and retries; USD
    is None where unknown.
    """
    groups = [
        group._asdict() | {f"p{q}_ms": _quantile(store, group, q) for q in (50, 95)}
        for group in group_calls(store, role, model)
    ]
    lists: dict[str, Any] = {
        order: [call._asdict() for call in list_calls(store, order, role, model, top)]
        for order in ORDERS
    }
    (usd, tokens), reserved = store.sum_spent(), sum_reservations(store)
    ledger = {
        "usd": usd,
        "tokens": tokens,
        "unsettled": reserved.calls,
        "unsettled_usd": reserved.usd,
        "unsettled_tokens": reserved.tokens,
    }
    return {"groups": groups, **lists, "ledger": ledger}


def whole(store: RunStore, number: int) -> dict[str, Any]:
    """Return one call with what was said and what was thought before; InputError where there is
    none of this number.
    """
    if found := find_call(store, number):
        call, text = found
        return call._asdict() | text._asdict()
    last = find_last_call(store)
    there = f"its calls are 1 to {last}" if last else "it has none yet"
    raise InputError(f"{store.path} has no call {number}; {there}")


def format_call(call: Mapping[str, Any]) -> str:
    """Return one call as text for people."""
    head = (
        f"call {call['id']}  {call['role']}  {call['status']}  {call['model']}  about"
        f" {call['subject']}"
    )
    parts = [
        head,
        call["reason"],
        f"thoughts\n{call['reasoning']}" if call["reasoning"] else "",
        f"said\n{call['text'] or '(nothing)'}",
    ]
    return "\n\n".join(filter(None, parts))


def _quantile(store: RunStore, group: CallGroup, q: int) -> float:
    """Return the q-th percentile of a group's milliseconds (nearest rank)."""
    place = max(0, -(-group.calls * q // 100) - 1)
    return find_duration(store, group.role, group.model, place)


def format_calls(found: Mapping[str, Any]) -> str:
    """Return them as text for people: groups, the calls that stand out, prices, and the bill."""
    prices: Mapping[str, Mapping[str, Any] | None] = found.get("prices", {})
    parts = [_format_groups(found["groups"], prices)]
    parts += [
        f"{order}\n{_format_single_calls(found[order], prices)}" for order in ORDERS if found[order]
    ]
    if prices:
        lines = (f"price   {name}: {_price(price)}" for name, price in prices.items())
        parts.append("\n".join(lines))
    has_price = any(g["usd"] is not None for g in found["groups"]) or any(prices.values())
    return "\n\n".join([*parts, f"in all  {_format_bill(found['ledger'], has_price)}"])


def _format_groups(groups: Sequence[Mapping[str, Any]], prices: Mapping[str, Any]) -> str:
    """Return a table with a row per role, model and status."""
    head = ("role", "model", "calls", "failed", "sent", "lost", "prompt tok", "answer tok", "USD")
    rows = [
        (
            g["role"],
            g["model"],
            *(f"{g[count]:,}" for count in ("calls", "failed", "attempts", "lost")),
            _number(g["prompt_tokens"]),
            _number(g["completion_tokens"]),
            _usd(_drop_unbilled(g, prices)),
            f"{g['p50_ms']:,.0f}",
            f"{g['p95_ms']:,.0f}",
        )
        for g in groups
    ]
    return _table((*head, "p50 ms", "p95 ms"), rows)


def _format_single_calls(calls: Sequence[Mapping[str, Any]], prices: Mapping[str, Any]) -> str:
    """Return a table with a row per call."""
    rows = [
        (
            str(call["id"]),
            call["role"],
            call["status"],
            f"{call['ms']:,.0f} ms",
            _usd(_drop_unbilled(call, prices)),
            f"{call['attempts']} sent",
            call["reason"][:90],
        )
        for call in calls
    ]
    return _table((), rows)


def _format_bill(bill: Mapping[str, Any], has_price: bool) -> str:
    """Return what was spent, and at most how much of it for calls that were never answered."""
    usd, open_usd = "unknown USD", "unknown USD"
    if has_price:
        usd, open_usd = f"${bill['usd']:.4f}", f"${bill['unsettled_usd']:.4f}"
    money = f"{usd} and {bill['tokens']:,} tokens"
    if not bill["unsettled"]:
        return money
    return (
        f"{money}, of which at most {open_usd} and {bill['unsettled_tokens']:,} tokens for"
        f" {bill['unsettled']} calls that were sent and never answered"
    )


def _price(price: Mapping[str, Any] | None) -> str:
    if price is None:
        return "unknown; give it with --price MODEL=IN/OUT"
    return (
        f"${price['prompt']:g} in, ${price['completion']:g} out per million tokens"
        f" ({price['source']})"
    )


def _drop_unbilled(row: Mapping[str, Any], prices: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a row of failed calls at a known price as costing nothing, if nothing was sent that
    may have been billed.
    """
    failed = row["failed"] == row["calls"] if "calls" in row else row["status"] != "ok"
    if row["usd"] is None and failed and not row["lost"] and prices.get(row["model"]):
        return {**row, "usd": 0.0, "untold": 0}
    return row


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    whole = [*([head] if head else []), *rows]
    widths = [max(len(r[i]) for r in whole) for i in range(len(whole[0]))] if whole else []
    return "\n".join(
        "  ".join(c.ljust(w) for c, w in zip(r, widths, strict=True)).rstrip() for r in whole
    )


def _number(value: float | None) -> str:
    return "unknown" if value is None else f"{value:,.0f}"


def _usd(row: Mapping[str, Any]) -> str:
    if row["usd"] is None:
        return "unknown"
    return f"${row['usd']:.4f}" + (f" (+{row['untold']} unknown)" if row.get("untold") else "")
