"""Gathers a run's figures from its journal, as JSON-able data: SQL counts and streams, never the
whole corpus at once.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from culturepark.corpora.card import shared
from culturepark.dialogue import casting
from culturepark.reports import evaluated, tuned
from culturepark.reports.reading import read_examples
from culturepark.reports.stance import diversity, questions, stances
from culturepark.settings import Settings
from culturepark.store import RunStore
from culturepark.workspace import Workspace

Facts = dict[str, Any]
TOP = 10  # reasons of failures that are told one by one
SPLITS = ("train", "validation", "test")


def gather(journal: RunStore, workspace: Workspace, settings: Settings) -> Facts:
    """Return all that is told of a run as JSON-able data; what is not known is None, never 0.

    The database counts; opinions are streamed. Memory grows with cultures × questions, not with the
    corpus.
    """
    with _moment(journal):
        cultures = _cultures(journal, workspace, settings)
        called = _called(journal)
        stages = [_stage(journal, settings, c, called.get(c, 0)) for c in cultures]
        calls = _calls(journal)
        return {
            "run": journal.path.absolute().parent.name,
            "model": settings.model,
            "embedded": settings.model == "embedded",
            "settings": _settings(settings),
            "scenario": _scenario(workspace, settings),
            "cultures": {c: _title(workspace, c) for c in cultures},
            "stages": stages,
            "total": _total(stages),
            "unplaced_calls": called.get(None, 0),
            "dropped": _dropped(journal),
            "rewrites": _rewrites(journal, settings),
            "marked": {by: journal.marked_turns(by) for by in ("culture", "model")},
            "faults": _faults(journal) if settings.faults else None,
            "topics": _topics(journal),
            "splits": _splits(journal),
            "shared_personas": dict(zip(("several", "all"), shared(journal), strict=True)),
            **stances(journal, workspace, settings, cultures),
            "diversity": diversity(journal, workspace, settings, cultures),
            "calls": calls,
            "models": _models(calls),
            "failures": gather_failures(journal),
            "examples": read_examples(journal, workspace, cultures),
            **({"tuned": made} if (made := tuned.jobs(journal.path.absolute().parent)) else {}),
            **evaluated.told(journal.path.absolute().parent),
        }


@contextmanager
def _moment(journal: RunStore) -> Iterator[None]:
    """See one moment of a run that may still be going on, so that all counts fit together."""
    journal.select("SAVEPOINT report")
    try:
        yield
    finally:
        journal.select("RELEASE report")


def _cultures(journal: RunStore, workspace: Workspace, settings: Settings) -> list[str]:
    held = [c for (c,) in journal.select("SELECT DISTINCT culture FROM scenes ORDER BY culture")]
    return list(dict.fromkeys((*casting.cultures(workspace, settings), *held)))


def _title(workspace: Workspace, culture: str) -> str:
    return workspace.cultures[culture].title if culture in workspace.cultures else culture


def _settings(settings: Settings) -> Facts:
    """Return the settings without what is nobody else's business: passwords in addresses, local
    folders.
    """
    data = settings.model_dump(mode="json")
    if settings.base_url:
        data["base_url"] = re.sub(
            r"^(\w[\w+.-]*://)?[^/]*@", r"\1", re.split("[?#]", settings.base_url)[0]
        )
    if settings.survey:
        data["survey"] = Path(settings.survey).name
    return data


def _scenario(workspace: Workspace, settings: Settings) -> Facts:
    pack = workspace.scenario(settings.scenario)
    return {
        "name": pack.name,
        "title": pack.title,
        "source": pack.source,
        "questions": len(questions(workspace, settings)),
    }


def _stage(journal: RunStore, settings: Settings, culture: str, calls: int) -> Facts:
    """Return how much of a culture has come through each stage."""

    def one(sql: str) -> tuple[int, ...]:
        return tuple(n or 0 for n in journal.select(sql, culture)[0])

    scenes, held, failed, ready, unrefined = one(
        "SELECT COUNT(*), SUM(status = 'done'), SUM(status = 'failed'), SUM(refined = 'ok'), "
        "SUM(refined LIKE 'failed%') FROM scenes WHERE culture = ?"
    )
    (turns,) = one(
        "SELECT COUNT(*) FROM scenes s JOIN turns t ON t.dialogue = s.id WHERE s.culture = ?"
    )
    opinions, kept = one("SELECT COUNT(*), SUM(dropped = '') FROM opinions WHERE culture = ?")
    (samples,) = one("SELECT COUNT(*) FROM samples WHERE culture = ?")
    return {
        "culture": culture,
        "planned": max(
            settings.dialogues, scenes
        ),  # with `samples`, more are planned as they are needed
        "held": held,
        "failed": failed,
        "turns": turns,
        "calls": calls,
        "refined": ready,
        "unrefined": unrefined,
        "opinions": opinions,
        "kept": kept,
        "kept_share": kept / opinions if opinions else None,
        "samples": samples,
    }


def _called(journal: RunStore) -> dict[str | None, int]:
    """Return how many calls each culture took; None holds those about opinions that were never
    stored.
    """
    return dict(
        journal.select(
            "SELECT COALESCE(s.culture, o.culture), COUNT(*) FROM calls c LEFT JOIN scenes s ON"
            " s.id = c.subject LEFT JOIN opinions o ON o.id = c.subject GROUP BY 1"
        )
    )


def _total(stages: Sequence[Facts]) -> Facts:
    keys = [k for k in stages[0] if k not in ("culture", "kept_share")] if stages else []
    total: Facts = {k: sum(s[k] for s in stages) for k in keys}
    return total | {
        "kept_share": total["kept"] / total["opinions"] if total.get("opinions") else None
    }


def _dropped(journal: RunStore) -> dict[str, dict[str, int]]:
    """Return reason → culture → opinions, the most frequent reason first."""
    rows = journal.select(
        "SELECT dropped, culture, COUNT(*) FROM opinions WHERE dropped != '' GROUP BY 1, 2 ORDER BY"
        " 1, 2"
    )
    table: dict[str, dict[str, int]] = defaultdict(dict)
    for reason, culture, n in rows:
        table[reason][culture] = n
    return dict(sorted(table.items(), key=lambda item: -sum(item[1].values())))


def _rewrites(journal: RunStore, settings: Settings) -> Facts:
    """Return how many opinions a rewrite was tried on, how many then passed, and how many
    stayed.
    """
    if not settings.refine.rewrites:
        return {"tried": 0, "saved": 0, "kept": 0}
    ((tried, saved, kept),) = journal.select(
        "SELECT COUNT(*), SUM(last = 'entail'), SUM(last = 'entail' AND dropped = '') FROM ("
        "SELECT dropped, json_extract(opinion, '$.verdicts[#-1].label') AS last FROM opinions "
        "WHERE json_extract(opinion, '$.verdicts[0].label') = 'contradict')"
    )
    return {"tried": tried, "saved": saved or 0, "kept": kept or 0}


def _faults(journal: RunStore) -> Facts:
    """Return turns by planted fault, and what became of the opinions that carry one.

    Kind "" stands for opinions without a fault; `mended` counts those of the kept that were
    reworded.
    """
    planted = journal.select(
        "SELECT json_extract(f.value, '$.kind'), COUNT(*) FROM turns t, json_each(t.turn,"
        " '$.faults') f GROUP BY 1 ORDER BY 1"
    )
    rows = journal.select(
        "SELECT COALESCE(f.value, ''), o.dropped, COUNT(DISTINCT o.id), COUNT(DISTINCT CASE WHEN"
        " json_extract(o.opinion, '$.final') != json_extract(o.opinion, '$.text') THEN o.id END)"
        " FROM opinions o LEFT JOIN json_each(o.opinion, '$.faults') f GROUP BY 1, 2 ORDER BY 1, 2"
    )
    fates: dict[str, dict[str, int]] = {kind: {} for kind in ("", *(k for k, _ in planted))}
    mended: dict[str, int] = {}
    for kind, reason, n, rewritten in rows:
        fates.setdefault(kind, {})[reason] = n
        mended |= {} if reason else {kind: rewritten}
    return {
        "turns": dict(planted),
        "opinions": [
            {
                "kind": kind,
                "kept": fate.pop("", 0),
                "mended": mended.get(kind, 0),
                "dropped": sum(fate.values()),
                "reasons": fate,
            }
            for kind, fate in sorted(fates.items(), key=lambda item: (not item[0], item[0]))
        ],
    }


def _topics(journal: RunStore) -> dict[str, dict[str, int]]:
    """Return topic → culture → samples."""
    table: dict[str, dict[str, int]] = defaultdict(dict)
    for topic, culture, n in journal.select(
        "SELECT json_extract(sample, '$.topic'), culture, COUNT(*) FROM samples GROUP BY 1, 2 ORDER"
        " BY 1, 2"
    ):
        table[topic][culture] = n
    return dict(table)


def _splits(journal: RunStore) -> list[Facts]:
    found = {
        split: (samples, questions)
        for split, samples, questions in journal.select(
            "SELECT split, COUNT(*), COUNT(DISTINCT question) FROM samples GROUP BY split"
        )
    }
    return [
        {"split": s, "samples": n, "questions": q}
        for s in SPLITS
        for n, q in [found.get(s, (0, 0))]
    ]


def _calls(journal: RunStore) -> list[Facts]:
    """Return calls by role, model and status.

    Tokens, seconds and USD are None where no call told them; `untold` counts the calls that told no
    tokens, `unpriced` those whose price or tokens are unknown.
    """
    names = (
        "role",
        "model",
        "status",
        "calls",
        "prompt_tokens",
        "completion_tokens",
        "untold",
        "usd",
        "unpriced",
        "seconds",
    )
    rows = journal.select(
        "SELECT role, model, status, COUNT(*), SUM(prompt_tokens), SUM(completion_tokens),"
        " SUM(prompt_tokens IS NULL OR completion_tokens IS NULL), SUM(usd), SUM(usd IS NULL),"
        " ROUND(SUM(NULLIF(ms, 0)) / 1000, 3) FROM calls GROUP BY 1, 2, 3 ORDER BY 1, 2, 3"
    )
    return [dict(zip(names, row, strict=True)) for row in rows]


def _models(calls: Sequence[Facts]) -> list[Facts]:
    """Return what each model used. What has no known price is not guessed: None."""
    models: dict[str, list[Facts]] = defaultdict(list)
    for row in calls:
        models[row["model"]].append(row)
    keys = ("calls", "prompt_tokens", "completion_tokens", "untold", "usd", "unpriced", "seconds")
    return [
        {"model": name, **{k: _sum(row[k] for row in rows) for k in keys}}
        for name, rows in sorted(models.items())
    ]


def _sum(values: Iterable[float | None]) -> float | None:
    """Return the sum of what is known; None where nothing is."""
    found = [v for v in values if v is not None]
    return round(sum(found), 6) if found else None


def gather_failures(journal: RunStore, culture: str | None = None) -> Facts:
    """Return what failed of a run, or of one culture, with the most frequent reasons.

    `judging` counts opinions, the others dialogues.
    """
    own = "AND (?1 IS NULL OR culture = ?1)"
    unrefined = f"FROM scenes WHERE refined LIKE 'failed: %' {own}"
    reasons = {
        "dialogues": "SELECT CASE WHEN reason LIKE 'turn %): %' "
        "THEN SUBSTR(reason, INSTR(reason, '): ') + 3) ELSE reason END AS r "
        f"FROM scenes WHERE status = 'failed' {own}",
        "refining": f"SELECT SUBSTR(refined, 9) AS r {unrefined}",
        "judging": "SELECT dropped || ': ' || json_extract(opinion, '$.detail') AS r FROM opinions "
        f"WHERE dropped IN ('unverified', 'unrewritten') {own}",
    }
    return {kind: _top(journal, sql, culture) for kind, sql in reasons.items()}


def _top(journal: RunStore, reasons: str, culture: str | None) -> Facts:
    """Return how many failures there are and their main reasons, without the answers that these
    quote.
    """
    quote = "'; the model wrote:'"
    why = (
        f"SUBSTR(r, 1, CASE INSTR(r, {quote}) WHEN 0 THEN 300 ELSE MIN(300, INSTR(r, {quote}) - 1)"
        " END)"
    )
    grouped = f"SELECT {why} AS why, COUNT(*) AS n FROM ({reasons}) GROUP BY 1"
    totals = f"SELECT COALESCE(SUM(n), 0), COUNT(*) FROM ({grouped})"
    top = f"SELECT why, n FROM ({grouped}) ORDER BY n DESC, why LIMIT {TOP}"
    ((total, kinds),), rows = (journal.select(sql, culture) for sql in (totals, top))
    return {"total": total, "kinds": kinds, "top": [{"reason": r, "count": n} for r, n in rows]}
