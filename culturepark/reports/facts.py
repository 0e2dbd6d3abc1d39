"""Gathers a run's figures from its store, as JSON-able data: counts and streams, never the whole
corpus at once.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal

from culturepark.dialogue import casting
from culturepark.reports import evaluated, tuned
from culturepark.reports.reading import read_examples
from culturepark.reports.stance import diversity, questions, stances
from culturepark.settings import Settings
from culturepark.store import RunStore
from culturepark.store.calls import count_calls_by_culture, count_calls_by_status
from culturepark.store.counts import (
    RewriteCounts,
    SplitCount,
    count_failed,
    count_faults,
    count_marked_turns,
    count_not_refined,
    count_opinions,
    count_personas,
    count_planted,
    count_rewrites,
    count_splits,
    count_stages,
    count_topics,
    count_unjudged,
)
from culturepark.store.queries import hold_snapshot, list_cultures
from culturepark.workspace import Workspace

Facts = dict[str, Any]
TOP = 10  # reasons of failures that are told one by one
SPLITS = ("train", "validation", "test")


def gather(store: RunStore, workspace: Workspace, settings: Settings) -> Facts:
    """Return all that is told of a run as JSON-able data; what is not known is None, never 0.

    The database counts; opinions are streamed. Memory grows with cultures × questions, not with the
    corpus.
    """
    with hold_snapshot(store):
        cultures = _cultures(store, workspace, settings)
        called = count_calls_by_culture(store)
        cast = casting.cultures(workspace, settings)
        stages = [_stage(store, settings, c, called.get(c, 0), cast) for c in cultures]
        calls = [status._asdict() for status in count_calls_by_status(store)]
        return {
            "run": store.path.absolute().parent.name,
            "model": settings.model,
            "embedded": settings.model == "embedded",
            "settings": _settings(settings),
            "scenario": _scenario(workspace, settings),
            "cultures": {c: _title(workspace, c) for c in cultures},
            "stages": stages,
            "total": _total(stages),
            "unplaced_calls": called.get(None, 0),
            "dropped": _count_dropped(store),
            "rewrites": _rewrites(store, settings),
            "marked": {
                "culture": _count_marked_turns(store, "culture"),
                "model": _count_marked_turns(store, "model"),
            },
            "faults": _faults(store) if settings.faults else None,
            "topics": _topics(store),
            "splits": _splits(store),
            "shared_personas": dict(zip(("several", "all"), count_personas(store), strict=True)),
            **stances(store, workspace, settings, cultures),
            "diversity": diversity(store, workspace, settings, cultures),
            "calls": calls,
            "models": _models(calls),
            "failures": gather_failures(store),
            "examples": read_examples(store, workspace, cultures),
            **({"tuned": made} if (made := tuned.list_jobs(store.path.absolute().parent)) else {}),
            **evaluated.load_evaluations(store.path.absolute().parent),
        }


def _cultures(store: RunStore, workspace: Workspace, settings: Settings) -> list[str]:
    return list(dict.fromkeys((*casting.cultures(workspace, settings), *list_cultures(store))))


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


def _stage(
    store: RunStore, settings: Settings, culture: str, calls: int, cast: Sequence[str]
) -> Facts:
    """Return how much of a culture has come through each stage; `cast` has dialogues of its own."""
    counts = count_stages(store, culture)
    planned = settings.dialogues if culture in cast else 0
    return {
        "culture": culture,
        # With `samples`, more are planned as they are needed.
        "planned": max(planned, counts.scenes),
        "held": counts.held,
        "failed": counts.failed,
        "turns": counts.turns,
        "calls": calls,
        "refined": counts.refined,
        "unrefined": counts.unrefined,
        "opinions": counts.opinions,
        "kept": counts.kept,
        "kept_share": counts.kept / counts.opinions if counts.opinions else None,
        "samples": counts.samples,
    }


def _total(stages: Sequence[Facts]) -> Facts:
    keys = [k for k in stages[0] if k not in ("culture", "kept_share")] if stages else []
    total: Facts = {k: sum(s[k] for s in stages) for k in keys}
    return total | {
        "kept_share": total["kept"] / total["opinions"] if total.get("opinions") else None
    }


def _count_dropped(store: RunStore) -> dict[str, dict[str, int]]:
    """Return reason → culture → opinions, the most frequent reason first."""
    table: dict[str, dict[str, int]] = defaultdict(dict)
    for count in sorted(count_opinions(store), key=lambda count: (count.dropped, count.culture)):
        if count.dropped:
            table[count.dropped][count.culture] = count.opinions
    return dict(sorted(table.items(), key=lambda item: -sum(item[1].values())))


def _rewrites(store: RunStore, settings: Settings) -> Facts:
    """Return how many opinions a rewrite was tried on, how many then passed, and how many
    stayed.
    """
    tried = count_rewrites(store) if settings.refine.rewrites else RewriteCounts(0, 0, 0)
    return tried._asdict()


def _faults(store: RunStore) -> Facts:
    """Return turns by planted fault, and what became of the opinions that carry one.

    Kind "" stands for opinions without a fault; `mended` counts those of the kept that were
    reworded.
    """
    planted = count_planted(store)
    fates: dict[str, dict[str, int]] = {kind: {} for kind in ("", *planted)}
    mended: dict[str, int] = {}
    for count in count_faults(store):
        fates.setdefault(count.kind, {})[count.dropped] = count.opinions
        if not count.dropped:
            mended[count.kind] = count.reworded
    return {
        "turns": planted,
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


def _topics(store: RunStore) -> dict[str, dict[str, int]]:
    """Return topic → culture → samples."""
    table: dict[str, dict[str, int]] = defaultdict(dict)
    for topic, culture, samples in count_topics(store):
        table[topic][culture] = samples
    return dict(table)


def _splits(store: RunStore) -> list[Facts]:
    counts = {count.split: count for count in count_splits(store)}
    return [counts.get(split, SplitCount(split, 0, 0))._asdict() for split in SPLITS]


def _count_marked_turns(store: RunStore, by: Literal["culture", "model"]) -> list[Facts]:
    return [
        {by: row.whose, "turns": row.turns, "marked": row.marked, **row.marks}
        for row in count_marked_turns(store, by)
    ]


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


def gather_failures(store: RunStore, culture: str | None = None) -> Facts:
    """Return what failed of a run, or of one culture, with the most frequent reasons.

    `judging` counts opinions, the others dialogues.
    """
    kinds = {
        "dialogues": count_failed(store, culture, TOP),
        "refining": count_not_refined(store, culture, TOP),
        "judging": count_unjudged(store, culture, TOP),
    }
    return {
        kind: (
            failures._asdict()
            | {"top": [{"reason": reason, "count": times} for reason, times in failures.top]}
        )
        for kind, failures in kinds.items()
    }
