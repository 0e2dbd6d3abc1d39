"""The verb that walks from a sample back to where it came from."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from os.path import commonprefix
from typing import Any

from culturepark.dialogue import casting
from culturepark.errors import InputError, NotFound
from culturepark.records import Question, Scene
from culturepark.runs import Run
from culturepark.store import RunStore
from culturepark.store.queries import find_sample, list_ids


def explain(run: Run, sample: str) -> dict[str, Any]:
    """Return a sample's whole descent: seed, personas, turns, verdicts, rewrite, cluster and split.

    `sample` is the id of a sample or of an opinion (kept or dropped), or the beginning of a
    sample's id.
    """
    with run.open_store(write=False) as store:
        found = find_sample(store, sample)
        opinion = store.find_opinion(found.opinion if found else sample)
        if opinion is None:
            raise _no_such(store, sample, run)
        dialogue = store.find_dialogue(opinion.dialogue)
        assert dialogue is not None, "an opinion's dialogue is written before it"
        scene = dialogue.scene
        question = run.workspace.question(scene.scenario, scene.question)
        return {
            "sample": found.model_dump(mode="json") if found else None,
            "opinion": opinion.model_dump(mode="json"),
            "seed": _describe_seed(run, scene, question, scene.seats[opinion.seat].culture),
            "scene": {
                "id": scene.id,
                "mode": scene.mode,
                "style": scene.style,
                "status": dialogue.status,
                "reason": dialogue.reason,
            },
            "seats": [
                {
                    "role": s.role,
                    "persona": s.persona,
                    "view": None if s.view is None else question.say(s.view),
                    "language": s.language or "English",
                    "model": run.settings.model_of(s),
                    "mined": i in scene.mined_seats,
                }
                for i, s in enumerate(scene.seats)
            ],
            "turns": [
                json.loads(t.model_dump_json(exclude={"faults"}))
                for t in dialogue.turns
                if t.n <= opinion.turn
            ],
        }


def _no_such(store: RunStore, sample: str, run: Run) -> InputError | NotFound:
    """Return the error of an id that names nothing, or more than one thing."""
    ids = list_ids(store)
    if len(several := [i for i in sorted(ids) if sample and i.startswith(sample)]) > 1:
        shown = ", ".join(several[:5]) + (" …" if len(several) > 5 else "")
        return InputError(
            f"{len(several)} ids in {run.folder} begin with {sample!r}: {shown}. Write more of the"
            " one you mean."
        )
    return NotFound("sample or opinion", sample, str(run.folder), closest(sample, ids))


def _describe_seed(run: Run, scene: Scene, question: Question, culture: str) -> dict[str, Any]:
    """Return the question, and what the culture's people answered to it; of a question that nobody
    surveyed, the card's own answer.
    """
    figures = casting.shares(run.workspace.culture(culture), question, run.settings.survey)
    seed: dict[str, Any] = {
        "question": question.prompt,
        "answer": question.answers.get(culture, scene.answer),
        "shares": None,
        "source": "the scenario card",
    }
    if figures is None:
        return seed
    shares = sorted(figures.shares.items())
    return seed | {
        "answer": figures.modal,
        "shares": {str(question.option(code)): round(share, 4) for code, share in shares},
        "source": f"{figures.survey}, {', '.join(figures.countries)}, n = {figures.n}",
    }


def closest(name: str, known: Sequence[str], n: int = 5) -> list[str]:
    """Return the n ids that begin most like `name`, or are most like it."""
    begin = sorted((-len(commonprefix((name, one))), one) for one in known)  # noqa: RUF071 - these are no paths
    likely = [one for _, one in begin[:200]]
    return (get_close_matches(name, likely, n=n, cutoff=0.5) or likely)[:n]


def format_lineage(found: Mapping[str, Any]) -> str:
    """Return what `explain` found, as text for people."""
    opinion, made = found["opinion"], found["sample"]
    lines = [
        (
            f"sample    {made['id']} ({made['split']})"
            if made
            else f"opinion   {opinion['id']}: no sample"
        )
    ]
    lines += [
        f"seed      {found['seed']['question'].splitlines()[0]}",
        f"          people: {found['seed']['shares'] or 'no figures'} ({found['seed']['source']})",
    ]
    lines += [
        f"seat {i}    {s['role']}: {s['persona']}, own answer: {s['view'] or 'none'}"
        + (f", speaks {s['language']}" if s["language"] != "English" else "")
        for i, s in enumerate(found["seats"])
    ]
    scene = found["scene"]
    lines.append(
        f"dialogue  {scene['id']} ({scene['mode']}-cultural, {scene['style']}): {scene['status']},"
        f" {scene['reason']}"
    )
    lines += [f"  [{t['n']}] {t['speaker']} ({t['cue']}): {t['text']}" for t in found["turns"]]
    lines.append(f"extracted {opinion['text']}  (from turn {opinion['turn']})")
    for verdict in opinion["verdicts"]:
        lines.append(
            f"verdict {verdict['round']} {verdict['label']}: {verdict['reason']}"
            + (f"  on: {verdict['text']}" if verdict["round"] else "")
        )
    lines.append(
        f"cluster   {opinion['cluster']}" if opinion["cluster"] is not None else "cluster   none"
    )
    if opinion["dropped"]:
        lines.append(f"dropped   {opinion['dropped']}: {opinion['detail']}")
    if made:
        lines.append(f"target    {made['completion']}")
    return "\n".join(lines)
