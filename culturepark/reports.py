"""Reports of a run: its tables as JSON, as one self-contained page, and as a few lines for the terminal."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from importlib.resources import files
from itertools import groupby, islice
from math import fsum, log, log2, sqrt
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined

from culturepark import grounding
from culturepark.errors import InputError, ParkError
from culturepark.grounding import Figures
from culturepark.journal import Journal
from culturepark.park import cast
from culturepark.records import Option, Question, Shares
from culturepark.refinery import embedders
from culturepark.settings import Settings
from culturepark.workspace import Workspace

Facts = dict[str, Any]
BATCH = 1000  # opinions embedded at a time
TOP = 10  # reasons of failures that are told one by one
WORST = 8  # questions of a culture that the page shows unasked
WIDTH = 100  # columns of the terminal's table
SPLITS = ("train", "validation", "test")
REASONS = {
    "refusal": "the model refused to play, or spoke as a language model",
    "form": "no opinion by its form: a bullet, a preamble, a question, a fragment",
    "anchors": "it gives the speaker another age, gender or home than the card",
    "repeat": "the same dialogue had already said it in the same words",
    "irrelevant": "the verifier found that it says nothing about the seed answer",
    "contradict": "the verifier found that it contradicts the seed answer, after any rewrite",
    "unverified": "the verifier gave no usable answer",
    "unrewritten": "the rewriter gave no usable answer",
    "redundant": "another opinion of the same dialogue stands for it",
    "duplicate": "an earlier dialogue on the same question gave it in the same words",
}


# ---------------------------------------------------------------- gathering


def gather(journal: Journal, workspace: Workspace, settings: Settings) -> Facts:
    """Return all that is told of a run as JSON-able data; what is not known is None, never 0.

    The database counts; opinions are streamed. Memory grows with cultures × questions, not with the corpus.
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
            "faults": _faults(journal) if settings.faults else None,
            "topics": _topics(journal),
            "splits": _splits(journal),
            **_stances(journal, workspace, settings, cultures),
            "diversity": _diversity(journal, workspace, settings, cultures),
            "calls": calls,
            "models": _models(calls),
            "failures": _failures(journal),
        }


@contextmanager
def _moment(journal: Journal) -> Iterator[None]:
    """See one moment of a run that may still be going on, so that all counts fit together."""
    journal.count("SAVEPOINT report")
    try:
        yield
    finally:
        journal.count("RELEASE report")


def _cultures(journal: Journal, workspace: Workspace, settings: Settings) -> list[str]:
    held = [c for (c,) in journal.count("SELECT DISTINCT culture FROM scenes ORDER BY culture")]
    return list(dict.fromkeys((*cast.cultures(workspace, settings), *held)))


def _title(workspace: Workspace, culture: str) -> str:
    return workspace.cultures[culture].title if culture in workspace.cultures else culture


def _settings(settings: Settings) -> Facts:
    """Return the settings without what is nobody else's business: passwords in addresses, local folders."""
    data = settings.model_dump(mode="json")
    if settings.base_url:
        data["base_url"] = re.sub(r"^(\w[\w+.-]*://)?[^/]*@", r"\1", re.split("[?#]", settings.base_url)[0])
    if settings.survey:
        data["survey"] = Path(settings.survey).name
    return data


def _scenario(workspace: Workspace, settings: Settings) -> Facts:
    pack = workspace.scenario(settings.scenario)
    return {
        "name": pack.name,
        "title": pack.title,
        "source": pack.source,
        "questions": len(_asked(workspace, settings)),
    }


def _asked(workspace: Workspace, settings: Settings) -> dict[str, Question]:
    """Return the questions this run may ask, by id."""
    questions = workspace.scenario(settings.scenario).questions
    return {q.id: q for q in questions if not settings.questions or q.id in settings.questions}


def _stage(journal: Journal, settings: Settings, culture: str, calls: int) -> Facts:
    """Return how much of a culture has come through each stage."""

    def one(sql: str) -> tuple[int, ...]:
        return tuple(n or 0 for n in journal.count(sql, culture)[0])

    scenes, held, failed, ready, unrefined = one(
        "SELECT COUNT(*), SUM(status = 'done'), SUM(status = 'failed'), SUM(refined = 'ok'), "
        "SUM(refined LIKE 'failed%') FROM scenes WHERE culture = ?"
    )
    (turns,) = one("SELECT COUNT(*) FROM scenes s JOIN turns t ON t.dialogue = s.id WHERE s.culture = ?")
    opinions, kept = one("SELECT COUNT(*), SUM(dropped = '') FROM opinions WHERE culture = ?")
    (samples,) = one("SELECT COUNT(*) FROM samples WHERE culture = ?")
    return {
        "culture": culture,
        "planned": max(settings.dialogues, scenes),  # with `samples`, more are planned as they are needed
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


def _called(journal: Journal) -> dict[str | None, int]:
    """Return how many calls each culture took; None holds those about opinions that were never stored."""
    return dict(
        journal.count(
            "SELECT COALESCE(s.culture, o.culture), COUNT(*) FROM calls c "
            "LEFT JOIN scenes s ON s.id = c.subject LEFT JOIN opinions o ON o.id = c.subject GROUP BY 1"
        )
    )


def _total(stages: Sequence[Facts]) -> Facts:
    keys = [k for k in stages[0] if k not in ("culture", "kept_share")] if stages else []
    total: Facts = {k: sum(s[k] for s in stages) for k in keys}
    return total | {"kept_share": total["kept"] / total["opinions"] if total.get("opinions") else None}


def _dropped(journal: Journal) -> dict[str, dict[str, int]]:
    """Return reason → culture → opinions, the most frequent reason first."""
    rows = journal.count(
        "SELECT dropped, culture, COUNT(*) FROM opinions WHERE dropped != '' GROUP BY 1, 2 ORDER BY 1, 2"
    )
    table: dict[str, dict[str, int]] = defaultdict(dict)
    for reason, culture, n in rows:
        table[reason][culture] = n
    return dict(sorted(table.items(), key=lambda item: -sum(item[1].values())))


def _rewrites(journal: Journal, settings: Settings) -> Facts:
    """Return how many opinions a rewrite was tried on, how many then passed, and how many stayed."""
    if not settings.refine.rewrites:
        return {"tried": 0, "saved": 0, "kept": 0}
    ((tried, saved, kept),) = journal.count(
        "SELECT COUNT(*), SUM(last = 'entail'), SUM(last = 'entail' AND dropped = '') FROM ("
        "SELECT dropped, json_extract(opinion, '$.verdicts[#-1].label') AS last FROM opinions "
        "WHERE json_extract(opinion, '$.verdicts[0].label') = 'contradict')"
    )
    return {"tried": tried, "saved": saved or 0, "kept": kept or 0}


def _faults(journal: Journal) -> Facts:
    """Return turns by planted fault, and what became of the opinions that carry one.

    Kind "" stands for opinions without a fault; `mended` counts those of the kept that were reworded.
    """
    planted = journal.count(
        "SELECT json_extract(f.value, '$.kind'), COUNT(*) FROM turns t, json_each(t.turn, '$.faults') f "
        "GROUP BY 1 ORDER BY 1"
    )
    rows = journal.count(
        "SELECT COALESCE(f.value, ''), o.dropped, COUNT(DISTINCT o.id), "
        "COUNT(DISTINCT CASE WHEN json_extract(o.opinion, '$.final') != json_extract(o.opinion, '$.text') "
        "THEN o.id END) FROM opinions o LEFT JOIN json_each(o.opinion, '$.faults') f "
        "GROUP BY 1, 2 ORDER BY 1, 2"
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


def _topics(journal: Journal) -> dict[str, dict[str, int]]:
    """Return topic → culture → samples."""
    table: dict[str, dict[str, int]] = defaultdict(dict)
    for topic, culture, n in journal.count(
        "SELECT json_extract(sample, '$.topic'), culture, COUNT(*) FROM samples GROUP BY 1, 2 ORDER BY 1, 2"
    ):
        table[topic][culture] = n
    return dict(table)


def _splits(journal: Journal) -> list[Facts]:
    found = {
        split: (samples, questions)
        for split, samples, questions in journal.count(
            "SELECT split, COUNT(*), COUNT(DISTINCT question) FROM samples GROUP BY split"
        )
    }
    return [{"split": s, "samples": n, "questions": q} for s in SPLITS for n, q in [found.get(s, (0, 0))]]


def _calls(journal: Journal) -> list[Facts]:
    """Return calls by role, model and status.

    Tokens and seconds are None where no call told them; `untold` counts the calls that told no tokens.
    """
    names = ("role", "model", "status", "calls", "prompt_tokens", "completion_tokens", "untold", "seconds")
    rows = journal.count(
        "SELECT role, model, status, COUNT(*), SUM(prompt_tokens), SUM(completion_tokens), "
        "SUM(prompt_tokens IS NULL OR completion_tokens IS NULL), ROUND(SUM(NULLIF(ms, 0)) / 1000, 3) "
        "FROM calls GROUP BY 1, 2, 3 ORDER BY 1, 2, 3"
    )
    return [dict(zip(names, row, strict=True)) for row in rows]


def _models(calls: Sequence[Facts]) -> list[Facts]:
    """Return what each model used. The price is not guessed: None."""
    models: dict[str, list[Facts]] = defaultdict(list)
    for row in calls:
        models[row["model"]].append(row)
    keys = ("calls", "prompt_tokens", "completion_tokens", "untold", "seconds")
    return [
        {"model": name, **{k: _sum(row[k] for row in rows) for k in keys}, "price": None}
        for name, rows in sorted(models.items())
    ]


def _sum(values: Iterable[float | None]) -> float | None:
    """Return the sum of what is known; None where nothing is."""
    found = [v for v in values if v is not None]
    return round(sum(found), 3) if found else None


def _failures(journal: Journal) -> Facts:
    """Return what failed, with the most frequent reasons: `judging` counts opinions, the others dialogues."""
    return {
        "dialogues": _top(
            journal,
            "SELECT CASE WHEN reason LIKE 'turn %): %' THEN SUBSTR(reason, INSTR(reason, '): ') + 3) "
            "ELSE reason END AS r FROM scenes WHERE status = 'failed'",
        ),
        "refining": _top(journal, "SELECT SUBSTR(refined, 9) AS r FROM scenes WHERE refined LIKE 'failed: %'"),
        "judging": _top(
            journal,
            "SELECT dropped || ': ' || json_extract(opinion, '$.detail') AS r FROM opinions "
            "WHERE dropped IN ('unverified', 'unrewritten')",
        ),
    }


def _top(journal: Journal, reasons: str) -> Facts:
    """Return how many failures there are and their main reasons, without the answers that these quote."""
    quote = "'; the model wrote:'"
    why = f"SUBSTR(r, 1, CASE INSTR(r, {quote}) WHEN 0 THEN 300 ELSE MIN(300, INSTR(r, {quote}) - 1) END)"
    grouped = f"SELECT {why} AS why, COUNT(*) AS n FROM ({reasons}) GROUP BY 1"
    ((total, kinds),) = journal.count(f"SELECT COALESCE(SUM(n), 0), COUNT(*) FROM ({grouped})")
    rows = journal.count(f"SELECT why, n FROM ({grouped}) ORDER BY n DESC, why LIMIT {TOP}")
    return {"total": total, "kinds": kinds, "top": [{"reason": r, "count": n} for r, n in rows]}


# ----------------------------------------------------- stance against survey


def distance(p: Mapping[int, float], q: Mapping[int, float]) -> float:
    """Return the Jensen–Shannon distance of two distributions over codes: 0 equal, 1 nothing shared.

    It is the square root of the divergence with logarithms to base 2. Weights need not add up to 1.
    """
    whole_p, whole_q = fsum(p.values()), fsum(q.values())
    parts = []
    for code in p.keys() | q.keys():
        a, b = p.get(code, 0.0) / whole_p, q.get(code, 0.0) / whole_q
        parts += [x * log2(2 * x / (a + b)) for x in (a, b) if x > 0]
    return sqrt(min(1.0, max(0.0, fsum(parts) / 2)))


def chance(people: Mapping[int, float], n: int) -> float:
    """Return about how far n answers drawn from the shares themselves lie from them: √((k−1) / (8 n ln 2)).

    k counts the options that anyone chose. χ² has the mean k − 1, and the divergence is χ² / (8 n ln 2).
    """
    return min(1.0, sqrt((sum(s > 0 for s in people.values()) - 1) / (8 * n * log(2))))


def _stances(journal: Journal, workspace: Workspace, settings: Settings, cultures: Sequence[str]) -> Facts:
    """Return the survey, and each culture's answers in the corpus beside its people's."""
    figures, trouble = _figures(settings)
    answers = _answers(journal)
    survey = {"name": figures.survey, "source": figures.source} if figures else {"name": None, "source": None}
    return {
        "survey": survey | {"trouble": trouble},
        "stance": [_stance(workspace, settings, figures, c, answers.get(c, {})) for c in cultures],
    }


def _figures(settings: Settings) -> tuple[Figures | None, str | None]:
    """Return the survey's figures, or what keeps them from being read: the rest is told all the same."""
    try:
        return (grounding.read(settings.survey) if settings.survey else grounding.shipped()), None
    except InputError as error:
        return None, str(error).replace(str(settings.survey), Path(str(settings.survey)).name)


def _answers(journal: Journal) -> dict[str, dict[str, tuple[dict[int, int], int]]]:
    """Return culture → question → (samples by option code, number of persons' answers in dialogues)."""
    found: dict[str, dict[str, tuple[dict[int, int], int]]] = defaultdict(dict)
    for culture, question, code, samples, given in journal.count(
        "SELECT culture, question, json_extract(sample, '$.answer'), COUNT(*), "
        "COUNT(DISTINCT json_extract(sample, '$.dialogue') || ' ' || json_extract(sample, '$.persona')) "
        "FROM samples GROUP BY 1, 2, 3 ORDER BY 1, 2, 3"
    ):
        codes, before = found[culture].get(question, ({}, 0))
        found[culture][question] = (codes | {code: samples}, before + given)
    return found


def _stance(
    workspace: Workspace,
    settings: Settings,
    figures: Figures | None,
    culture: str,
    answers: Mapping[str, tuple[dict[int, int], int]],
) -> Facts:
    countries = workspace.cultures[culture].survey if culture in workspace.cultures else ()
    asked = _asked(workspace, settings)
    pooled = {i: figures.pool(countries, i) if figures else None for i in asked}
    rows = [_compare(asked[i], *answers[i], pooled[i]) for i in asked if i in answers]
    rows.sort(key=lambda row: (row["distance"] is None, -(row["distance"] or 0), row["question"]))
    shares = [s for s in pooled.values() if s]
    codes = dict.fromkeys(c for s in shares for c in s.countries)
    return {
        "culture": culture,
        "countries": [figures.names.get(c, c) for c in codes] if figures else [],
        "people": [min(s.n for s in shares), max(s.n for s in shares)] if shares else None,
        "samples": sum(row["samples"] for row in rows),
        "compared": sum(row["distance"] is not None for row in rows),
        "mean": _mean(row["distance"] for row in rows),
        "chance": _mean(row["chance"] for row in rows),
        "questions": rows,
        "no_figures": [row["question"] for row in rows if row["distance"] is None],
        "no_samples": [i for i in asked if i not in answers and pooled[i]],
    }


def _mean(values: Iterable[float | None]) -> float | None:
    """Return the mean of what is known; None where nothing is."""
    found = [v for v in values if v is not None]
    return round(fsum(found) / len(found), 6) if found else None


def _compare(question: Question, counts: Mapping[int, int], answers: int, people: Shares | None) -> Facts:
    """Return one question's answers in the corpus beside the people's; None where they were not asked."""
    samples = sum(counts.values())
    return {
        "question": question.id,
        "topic": question.topic,
        "text": question.text,
        "samples": samples,
        "answers": answers,
        "people": people.n if people else None,
        "distance": round(distance(counts, people.shares), 6) if people else None,
        "chance": round(chance(people.shares, answers), 6) if people else None,
        "options": [
            {
                "code": o.code,
                "label": o.label,
                "degree": o.degree,
                "corpus": round(counts.get(o.code, 0) / samples, 6),
                "people": round(people.shares.get(o.code, 0.0), 6) if people else None,
            }
            for o in question.options
        ],
    }


# ---------------------------------------------------------------- diversity


def _diversity(journal: Journal, workspace: Workspace, settings: Settings, cultures: Sequence[str]) -> Facts:
    """Return each culture's diversity gain of kept opinions over its seed questions; None without opinions."""
    asked = _asked(workspace, settings)
    seeds: dict[str, list[str]] = defaultdict(list)
    for culture, question in journal.count("SELECT DISTINCT culture, question FROM scenes ORDER BY 1, 2"):
        seeds[culture].append(asked[question].text)
    embed = embedders.load(settings.refine.embedder)
    found: dict[str, tuple[float, int]] = {}
    for culture, kept in groupby(journal.kept(), key=lambda pair: str(json.loads(pair[1])["culture"])):
        found[culture] = _gain(embed, (opinion.final for opinion, _ in kept), seeds[culture])
    rows = [(c, *found.get(c, (None, 0))) for c in cultures]
    return {
        "embedder": settings.refine.embedder,
        "cultures": [{"culture": c, "gain": g, "opinions": n, "seeds": len(seeds[c])} for c, g, n in rows],
    }


def _gain(embed: embedders.Embedder, opinions: Iterator[str], seeds: Sequence[str]) -> tuple[float, int]:
    """Return the diversity gain of a stream of opinions, a batch at a time, and how many there were."""
    grid, sums, count = embed(seeds), [], 0
    while batch := list(islice(opinions, BATCH)):
        sums.append(embedders.diversity(embed(batch), grid) * len(batch))
        count += len(batch)
    return round(fsum(sums) / count, 6), count


# ------------------------------------------------------------------ showing


def page(facts: Facts) -> str:
    """Return the facts as one HTML page that needs nothing from outside: no script, no font, no picture."""
    source = files("culturepark").joinpath("report.html.j2").read_text(encoding="utf-8")
    return _environment().from_string(source).render(f=facts, reasons=REASONS, worst=WORST)


def _environment() -> Environment:
    found = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    found.filters |= {"num": number, "pct": percent, "known": known, "duration": _duration}
    found.filters |= {"heat": _heat, "bar": _bar, "shaded": _shaded, "flat": _flat}
    return found


def number(value: int | None) -> str:
    """Return a count with its thousands set apart; "unknown" for None.

    >>> number(12345), number(0), number(None)
    ('12,345', '0', 'unknown')
    """
    return "unknown" if value is None else f"{value:,}"


def percent(share: float | None) -> str:
    """Return a share (0 to 1) in per cent; a dash for None, and never 0 or 100 for what is not quite.

    >>> percent(0.5), percent(0.001), percent(0.9999), percent(None)
    ('50%', '<1%', '>99%', '–')
    """
    if share is None:
        return "–"
    if 0 < share < 0.005:
        return "<1%"
    return ">99%" if 0.995 <= share < 1 else f"{share:.0%}"


def known(row: Facts, key: str) -> str:
    """Return a token count: "unknown" where no call told it, "at least" where only some did."""
    at_least = "at least " if row["untold"] and row[key] is not None else ""
    return at_least + number(row[key])


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return "unknown"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"


def _heat(value: int, top: int) -> str:
    """Return the class of a table cell: h0 (nothing) to h5 (the most)."""
    return f"h{-(-5 * value // top)}" if top and value else "h0"


def _bar(shares: Iterable[float], steps: Iterable[int]) -> list[tuple[str, str, int]]:
    """Return left edge, width (0 to 100) and colour step of each visible part of a stacked bar."""
    left, parts = 0.0, []
    for share, step in zip(shares, steps, strict=True):
        if share > 0:
            parts.append((f"{100 * left:.2f}", f"{100 * share:.2f}", step))
        left += share
    return parts


def _shaded(options: Sequence[Facts]) -> list[Facts]:
    """Return the options with a colour step (0 denies, 9 affirms), by degree; by order if not told."""
    degrees = [o["degree"] for o in options]
    by_degree = len(set(degrees)) == len(degrees)
    last = len(options) - 1
    places = [(d + 1) / 2 if by_degree else 1 - i / last for i, d in enumerate(degrees)]
    names = [str(Option(code=o["code"], label=o["label"])) for o in options]
    return [o | {"step": round(9 * p), "name": n} for o, p, n in zip(options, places, names, strict=True)]


def _flat(data: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Return nested settings as lines of key and value; what is not set is left out."""
    rows: list[tuple[str, str]] = []
    for key, value in data.items():
        if isinstance(value, Mapping):
            rows += _flat(value, f"{prefix}{key}.")
        elif value not in (None, [], ""):
            values = value if isinstance(value, (list, tuple)) else [value]
            rows.append((prefix + key, ", ".join(map(str, values))))
    return rows


def table(facts: Facts) -> str:
    """Return a short summary for the terminal: stages by culture and why opinions were dropped."""
    keys = ("planned", "held", "failed", "turns", "opinions", "kept", "samples")
    heads = [f"{'culture':<20}", *(f"{k:>9}" for k in keys), f"{'kept %':>8}"]
    rows = [
        f"{_cut(row.get('culture', 'all'), 20):<20}"
        + "".join(f"{row.get(k, 0):>9}" for k in keys)
        + f"{percent(row['kept_share']):>8}"
        for row in (*facts["stages"], facts["total"])
    ]
    drops = [f"{reason} {sum(cultures.values())}" for reason, cultures in facts["dropped"].items()]
    failed = {k: v["total"] for k, v in facts["failures"].items() if v["total"]}
    lines = [f"run {facts['run']}, model {facts['model']}", "".join(heads), *rows,
             f"dropped: {', '.join(drops[:6]) + (', …' if drops[6:] else '') or 'nothing'}"]  # fmt: skip
    if failed:
        lines.append("failed:  " + ", ".join(f"{k} {n}" for k, n in failed.items()))
    return "\n".join(_cut(line, WIDTH) for line in lines)


def _cut(text: str, width: int) -> str:
    """Return one line of at most this many characters, without any that would steer a terminal."""
    clean = "".join(c if c.isprintable() else "�" for c in text)
    return clean if len(clean) <= width else clean[: width - 1] + "…"


# ------------------------------------------------------------------ writing


def write(journal: Journal, workspace: Workspace, settings: Settings, folder: Path) -> tuple[Path, Path]:
    """Write report.html and report.json to `folder`, each whole or not at all; return both paths.

    The same journal gives the same bytes. ParkError if the folder cannot be written.
    """
    facts = gather(journal, workspace, settings)
    data = json.dumps(facts, indent=1, ensure_ascii=False)
    texts = {"report.html": page(facts), "report.json": data + "\n"}
    partials = {folder / name: folder / f"{name}.partial" for name in texts}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for partial, text in zip(partials.values(), texts.values(), strict=True):
            partial.write_text(text, encoding="utf-8", newline="\n")
        for target, partial in partials.items():
            partial.replace(target)
    except OSError as error:
        for partial in partials.values():
            with suppress(OSError):
                partial.unlink()
        raise ParkError(f"cannot write the report to {folder}: {error.strerror or error}") from error
    return folder / "report.html", folder / "report.json"
