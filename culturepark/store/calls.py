"""Reads what a run's model calls took: by role and model, by dialogue, and one by one."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

from culturepark.store.writer import RunStore

Order = Literal["slowest", "dearest", "failed"]
ORDERS: dict[Order, tuple[str, str]] = {  # which calls, in which order
    "slowest": ("1", "ms DESC"),
    "dearest": ("usd > 0", "usd DESC"),
    "failed": ("status != 'ok'", "id DESC"),
}


class Call(NamedTuple):
    """One model call. `ms` includes waiting and retries; tokens and USD are None where unknown."""

    id: int
    role: str
    model: str
    status: str
    ms: float
    prompt_tokens: int | None
    completion_tokens: int | None
    usd: float | None
    attempts: int
    lost: int
    subject: str
    reason: str


class CallText(NamedTuple):
    """What was said in a call, and what the model thought before it."""

    text: str
    reasoning: str


class CallGroup(NamedTuple):
    """What the calls of one role to one model took; `untold` counts those whose cost is unknown."""

    role: str
    model: str
    calls: int
    failed: int
    attempts: int
    lost: int
    prompt_tokens: int | None
    completion_tokens: int | None
    usd: float | None
    untold: int


class CallStatus(NamedTuple):
    """What the calls of one role to one model with one status took.

    Tokens, seconds and USD are None where no call told them; `untold` counts the calls that told no
    tokens, `unpriced` those whose price or tokens are unknown.
    """

    role: str
    model: str
    status: str
    calls: int
    prompt_tokens: int | None
    completion_tokens: int | None
    untold: int
    usd: float | None
    unpriced: int
    seconds: float | None


class DialogueCost(NamedTuple):
    """What a dialogue took of one role and model; tokens and USD are None where a call's are."""

    role: str
    model: str
    dialogue: str
    calls: int
    prompt_tokens: int | None
    completion_tokens: int | None
    usd: float | None


class Reservations(NamedTuple):
    """What calls that were sent and never answered may have cost at most."""

    usd: float
    tokens: int
    calls: int


def group_calls(
    store: RunStore, role: str | None = None, model: str | None = None
) -> list[CallGroup]:
    """Return the calls of a role and of models with `model` in their name, by role and model."""
    where, values = _choose(role, model)
    rows = store.select(
        "SELECT role, model, COUNT(*), SUM(status != 'ok'), SUM(attempts), SUM(lost),"
        " SUM(prompt_tokens), SUM(completion_tokens), SUM(usd), SUM(usd IS NULL) FROM calls"
        f" WHERE {where} GROUP BY 1, 2 ORDER BY 1, 2",
        *values,
    )
    return [CallGroup(*row) for row in rows]


def list_calls(
    store: RunStore, order: Order, role: str | None, model: str | None, top: int
) -> list[Call]:
    """Return the `top` calls in this order, of a role and of models with `model` in their name."""
    (chosen, values), (kind, sort) = _choose(role, model), ORDERS[order]
    rows = store.select(
        f"SELECT {', '.join(Call._fields)} FROM calls WHERE {chosen} AND {kind}"
        f" ORDER BY {sort}, id LIMIT ?",
        *values,
        top,
    )
    return [Call(*row) for row in rows]


def _choose(role: str | None, model: str | None) -> tuple[str, list[Any]]:
    """Return a condition on calls and its values."""
    where, values = ["1"], list[Any]()
    if role:
        where, values = [*where, "role = ?"], [*values, role]
    if model:
        where, values = [*where, "model LIKE ?"], [*values, f"%{model}%"]
    return " AND ".join(where), values


def find_call(store: RunStore, number: int) -> tuple[Call, CallText] | None:
    """Return one call with what was said and thought; None where there is none of this number."""
    reasoning = "reasoning" if store.keeps_reasoning else "''"
    columns = ", ".join((*Call._fields, "text", reasoning))
    for row in store.select(f"SELECT {columns} FROM calls WHERE id = ?", number):
        size = len(Call._fields)
        return Call(*row[:size]), CallText(*row[size:])
    return None


def find_last_call(store: RunStore) -> int | None:
    """Return the number of the last call; None where there is none yet."""
    ((last,),) = store.select("SELECT MAX(id) FROM calls")
    return None if last is None else int(last)


def find_duration(store: RunStore, role: str, model: str, place: int) -> float:
    """Return the milliseconds of the call at this place, the fastest of a role and model first."""
    ((ms,),) = store.select(
        "SELECT ms FROM calls WHERE role = ? AND model = ? ORDER BY ms LIMIT 1 OFFSET ?",
        role,
        model,
        place,
    )
    return float(ms)


def count_calls_by_status(store: RunStore) -> list[CallStatus]:
    """Return what calls took by role, model and status, in order."""
    rows = store.select(
        "SELECT role, model, status, COUNT(*), SUM(prompt_tokens), SUM(completion_tokens),"
        " SUM(prompt_tokens IS NULL OR completion_tokens IS NULL), SUM(usd), SUM(usd IS NULL),"
        " ROUND(SUM(NULLIF(ms, 0)) / 1000, 3) FROM calls GROUP BY 1, 2, 3 ORDER BY 1, 2, 3"
    )
    return [CallStatus(*row) for row in rows]


def count_calls_by_culture(store: RunStore) -> dict[str | None, int]:
    """Return how many calls each culture took; None holds those about opinions that were never
    stored.
    """
    return dict(
        store.select(
            "SELECT COALESCE(s.culture, o.culture), COUNT(*) FROM calls c LEFT JOIN scenes s ON"
            " s.id = c.subject LEFT JOIN opinions o ON o.id = c.subject GROUP BY 1"
        )
    )


def sum_dialogue_costs(store: RunStore) -> list[DialogueCost]:
    """Return what each dialogue took, by role and model."""
    sums = (
        f"CASE WHEN COUNT({figure}) = COUNT(*) THEN SUM({figure}) END"
        for figure in ("prompt_tokens", "completion_tokens", "usd")
    )
    rows = store.select(
        f"SELECT c.role, c.model, COALESCE(o.dialogue, c.subject), COUNT(*), {', '.join(sums)}"
        " FROM calls c LEFT JOIN opinions o ON o.id = c.subject GROUP BY 1, 2, 3 ORDER BY 1, 2, 3"
    )
    return [DialogueCost(*row) for row in rows]


def sum_reservations(store: RunStore) -> Reservations:
    """Return what calls that were sent and never answered may have cost at most."""
    (row,) = store.select("SELECT TOTAL(usd), CAST(TOTAL(tokens) AS INTEGER), COUNT(*) FROM holds")
    return Reservations(*row)
