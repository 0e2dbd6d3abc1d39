"""What the park can do, one function a verb: the command and `import culturepark as cp` are both this module."""

from __future__ import annotations

import json
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

from culturepark import logs, pool, runs
from culturepark.corpus import build as corpus_build
from culturepark.corpus import card
from culturepark.corpus.export import export as export_files
from culturepark.desk import Desk
from culturepark.errors import CardError, InputError, NotFound, RunFailed
from culturepark.journal import Journal
from culturepark.park import cast
from culturepark.park.floor import request
from culturepark.park.simulate import plan, table
from culturepark.park.simulate import simulate as hold_all
from culturepark.records import Dialogue, Opinion, Request, Scene
from culturepark.refinery.distil import refine as refine_all
from culturepark.runs import Run
from culturepark.settings import Settings, own
from culturepark.settings import build as build_settings
from culturepark.settings import table as read_settings
from culturepark.workspace import ROLES, Workspace, create, find, load, output
from culturepark.workspace import read as read_workspace

Tell = Callable[[str, Mapping[str, Any]], None]  # stage and its figures so far
FORMATS = ("trl", "openai", "hub")
WAVES = 50  # rounds of simulate and refine after which a run that still lacks samples is given up


def _silent(stage: str, figures: Mapping[str, Any]) -> None:
    """Tell nobody."""


# -------------------------------------------------------------------- cards


def init(target: str | Path) -> Path:
    """Write a new workspace with the shipped cards and return its folder; InputError if the folder is not empty."""
    return create(Path(target))


def check(workspace: str | Path | None = None) -> dict[str, Any]:
    """Read every card and render every prompt once; return counts. CardError lists every mistake in every card at once."""
    found, problems = read_workspace(find(workspace))
    problems += _prompts(found)
    if problems:
        raise CardError(problems)
    return {
        "workspace": str(found.root),
        "roles": len(found.roles),
        "cultures": len(found.cultures),
        "personas": len(found.personas),
        "scenarios": len(found.scenarios),
        "questions": sum(len(s.questions) for s in found.scenarios.values()),
    }


def _prompts(found: Workspace) -> list[str]:
    """Render every role's templates for one scene a culture, and return what goes wrong."""
    problems: list[str] = []
    if any(role not in found.roles for role in ROLES):
        return problems
    for culture in found.cultures:
        contact = "english-us" if "english-us" in found.cultures else culture
        for scenario in found.scenarios:
            settings = Settings(scenario=scenario, contact=contact, modes=("cross",))
            if (
                not found.people(culture)
                or not found.people(contact)
                or (contact == culture and len(found.people(culture)) < 2)
            ):
                continue
            try:
                scene = next(cast.scenes(found, settings, culture))
                _try_prompts(found, settings, scene)
            except CardError as error:
                problems += error.problems
            except InputError:
                continue  # a pack with no seed for this culture is no mistake of the cards
    return list(dict.fromkeys(problems))


def _try_prompts(found: Workspace, settings: Settings, scene: Scene) -> None:
    for turn in range(min(scene.turns, 2 * max(1, len(found.role("moderator").cues)))):
        preview(found, settings, scene, scene.seats[turn % 2].role, turn)
    for role in ("extractor", "verifier", "rewriter"):
        preview(found, settings, scene, role, 2)


def show(
    role: str,
    *,
    culture: str | None = None,
    persona: str | None = None,
    question: str | None = None,
    turn: int | None = None,
    opinion: str = "Many people see it that way.",
    style: str = "guided",
    settings: Settings | None = None,
    workspace: str | Path | None = None,
) -> Request:
    """Return exactly what a model would be sent for a role at a turn, the turns before it played by the embedded engine.

    `turn` counts the dialogue's turns from 0; by default the role's own first. NotFound names the nearest right name.
    """
    found = load(workspace)
    card_ = found.role(role)
    if card_.name == "moderator":
        raise InputError("the moderator's lines are the cues in agents/moderator.toml; no model is asked for them")
    base = (settings or Settings()).model_copy(update={"modes": ("cross",), "styles": (style,)})
    if persona:
        culture = culture or found.persona(persona).culture
    culture = culture or cast.cultures(found, base)[0]
    if culture == base.contact:
        base = base.model_copy(update={"modes": ("in",)})
    chosen = base.model_copy(
        update={"questions": (question,) if question else (), "personas": (persona,) if persona else ()}
    )
    scene = next(cast.scenes(found, chosen, culture))
    first = 1 if role == "delegate" else 0
    return preview(found, chosen, scene, role, first if turn is None else turn, opinion)


def preview(
    found: Workspace, settings: Settings, scene: Scene, role: str, turn: int, opinion: str = "Many see it so."
) -> Request:
    """Return the request of a role in a scene once `turn` turns have been held by the embedded engine."""
    from culturepark.models.embedded import Embedded
    from culturepark.refinery.case import look_up
    from culturepark.refinery.preview import preview as refinery_preview

    laid = table(found, settings, scene)
    speaks = role in ("main_contact", "delegate")
    if speaks and scene.seats[turn % len(scene.seats)].role != role:
        own = [i for i, s in enumerate(scene.seats) if s.role == role]
        raise InputError(
            f"turn {turn} is not the {role}'s: seat {own[0]} speaks at turns {own[0]}, {own[0] + 2}, {own[0] + 4}, …"
        )
    dialogue = pool.work(_play(laid, Embedded(), Dialogue(scene=scene), turn))
    return request(laid, dialogue) if speaks else refinery_preview(look_up(found, dialogue), role, opinion)


async def _play(laid: Any, model: Any, dialogue: Dialogue, turns: int) -> Dialogue:
    from culturepark.records import Turn

    while len(dialogue.turns) < turns:
        asked = request(laid, dialogue)
        reply = await model.complete(asked)
        seat = asked.facts["seat"]
        said = Turn(
            n=len(dialogue.turns),
            seat=seat,
            speaker=laid.personas[seat].given_name,
            text=reply.text,
            cue=asked.facts["cue"],
            call="",
        )
        dialogue = dialogue.model_copy(update={"turns": (*dialogue.turns, said)})
    return dialogue


# --------------------------------------------------------------------- runs


def settings(
    given: Settings | Mapping[str, Any] | str | Path | None = None,
    /,
    *,
    workspace: str | Path | None = None,
    **changes: Any,
) -> Settings:
    """Return settings: the workspace's own (culturepark.toml), a TOML file's or a mapping's above them, `changes` on top."""
    data: dict[str, Any] = {}
    if isinstance(given, Settings):
        data = given.model_dump()
    else:
        data, _ = own(find(workspace))
        data |= read_settings(Path(given)) if isinstance(given, (str, Path)) else dict(given or {})
    # What is told of one endpoint, role or seat leaves the others as they are.
    for name in ("endpoints", "models", "seats"):
        if changes.get(name):
            changes[name] = {**data.get(name, {}), **changes[name]}
    return build_settings(data | {k: v for k, v in changes.items() if v is not None})


def start(name: str, given: Any = None, /, *, workspace: str | Path | None = None, out: str | Path | None = None,
          fresh: bool = False, key: str | None = None, **changes: Any) -> Run:  # fmt: skip
    """Create a run below outputs/ (or reopen it, if nothing but its length, pace and caps changed).

    `key` is an API key for the provider of `model`, held in memory only.
    """
    output(find(workspace), name, out)
    found = load(workspace)
    chosen = settings(given, workspace=workspace, **changes)
    keys = keys_of(chosen, workspace, key)
    _possible(found, chosen, keys)
    return runs.start(name, chosen, found, out, fresh=fresh, keys=keys)


def resume(folder: str | Path, *, workspace: str | Path | None = None, key: str | None = None, **changes: Any) -> Run:
    """Open a run as it was started; `changes` may alter how it is driven and capped (`max_usd`, `rpm`, `concurrency`, …)."""
    opened = runs.resume(folder)
    given = {k: v for k, v in changes.items() if v is not None}
    opened = runs.adjust(opened, **given) if given else opened
    return replace(opened, keys=keys_of(opened.settings, workspace, key))


def replay(name: str, source: str | Path, /, *, workspace: str | Path | None = None, out: str | Path | None = None,
           fresh: bool = False) -> Run:  # fmt: skip
    """Create the run `name` with settings, cards and answers of the run at `source`: no model is asked, no key needed."""
    told = runs.resume(source)
    folder = output(find(workspace), name, out)
    if folder.resolve() == told.folder.resolve():
        raise InputError(f"{folder} cannot be replayed into itself; give the new run another name")
    made = runs.start(name, told.settings, told.workspace, folder.parent, fresh=fresh)
    return replace(made, replay=told.folder)


def keys_of(chosen: Settings, workspace: str | Path | None, key: str | None) -> dict[str, str]:
    """Return API keys by provider: the workspace file's, and the given one for the provider of the run's model."""
    _, keys = own(find(workspace))
    return keys | ({chosen.model.partition("/")[0]: key} if key else {})


def _possible(found: Workspace, chosen: Settings, keys: Mapping[str, str]) -> None:
    """Raise InputError for anything that would stop the run, before anything is written or paid for."""
    from culturepark.models.line import Line
    from culturepark.refinery import embedders, sieves

    for name in chosen.refine.sieves:
        sieves.load(name)
    embedders.load(chosen.refine.embedder)
    cast.figures(chosen.survey)
    for seat in chosen.seats:
        found.persona(seat) if "/" in seat else found.culture(seat)
    models = runs.lines(chosen, keys)
    for model in models.all():
        if isinstance(model, Line):
            model.check()
    runs.affordable(chosen, models)
    for culture in cast.cultures(found, chosen):
        next(cast.scenes(found, chosen, culture))


def simulate(run: Run, tell: Tell = _silent) -> dict[str, Any]:
    """Hold the run's dialogues (`dialogues` a culture) that are not yet held; return counts."""
    with run.journal() as journal:
        desk = run.desk(journal)
        lengths = dict.fromkeys(_cultures(run), run.settings.dialogues)
        ahead = _ahead(journal, "status = 'done'", lengths)
        _work(run, desk, _simulate(run, desk, _planned(run, lengths), ahead, tell))
        return counts(journal) | _usage(desk)


def refine(run: Run, tell: Tell = _silent) -> dict[str, Any]:
    """Refine every held dialogue that is not yet refined, and build the corpus; return counts."""
    with run.journal() as journal:
        desk = run.desk(journal)
        ready = "status = 'done' AND (refined IS NULL OR refined != 'ok')"
        ((total,),) = journal.count(f"SELECT COUNT(*) FROM scenes WHERE {ready}")
        _work(run, desk, _refine(run, desk, journal.scenes(ready), total, tell))
        corpus_build.build(run.workspace, run.settings, journal)
        return counts(journal) | _usage(desk)


def export(run: Run, formats: Sequence[str] = FORMATS, *, by_culture: bool = False) -> dict[str, Path]:
    """Write the corpus in these formats; return format → folder."""
    with run.journal() as journal:
        about = card.render(journal, run.workspace, run.settings, run.folder.name)
        return export_files(journal, run.corpus, formats, about, by_culture=by_culture)


def report(run: Run) -> Path:
    """Write the run's report (HTML and JSON) and return the page's path."""
    from culturepark import reports

    with run.journal(write=False) as journal:
        return reports.write(journal, run.workspace, run.settings, run.folder / "report")[0]


def calls(run: Run, *, role: str | None = None, model: str | None = None, top: int = 10) -> dict[str, Any]:
    """Return what the run's model calls took, by role and model, and the slowest, dearest and failed of them."""
    from culturepark.reports.calls import calls as gathered

    with run.journal(write=False) as journal:
        return gathered(journal, role=role, model=model, top=top)


def estimate(run: Run, pilot: int = 2, tell: Tell = _silent) -> dict[str, Any]:
    """Hold and refine the first `pilot` dialogues a culture of the run, and return a band of what the whole run will cost.

    The pilot's dialogues are the run's own first ones: running it on asks nothing twice. With `batch`, the pilot is called at
    once and the rest reckoned at the batch price.
    """
    from culturepark.forecast import forecast

    at_once = replace(run, settings=run.settings.model_copy(update={"batch": False}))
    with run.journal() as journal:
        desk = at_once.desk(journal)
        lengths = dict.fromkeys(
            _cultures(run), min(pilot, run.settings.dialogues) if run.settings.samples is None else pilot
        )

        async def both() -> None:
            await _simulate(at_once, desk, _planned(run, lengths), _ahead(journal, "status = 'done'", lengths), tell)
            await _refine(at_once, desk, _planned(run, lengths), _ahead(journal, "refined = 'ok'", lengths), tell)

        _work(at_once, desk, both())
        found = forecast(journal, run.settings.dialogues * len(lengths), run.settings.samples, len(lengths),
                         0.5 if run.settings.batch else 1.0)  # fmt: skip
    if not found["pilot"]:
        raise RunFailed(f"no dialogue of the pilot was held and refined: {_reasons(run)}")
    return found


def _reasons(run: Run) -> str:
    with run.journal(write=False) as journal:
        return _why(journal)


def run(name: str | Run, given: Any = None, /, *, tell: Tell = _silent, formats: Sequence[str] = FORMATS, by_culture: bool = False,
        **options: Any) -> Run:  # fmt: skip
    """The main job: simulate → refine → export → report. Returns the run.

    With `samples`, dialogues are held in waves until every culture has that many accepted samples; RunFailed names the
    cultures that cannot get there.
    """
    opened = name if isinstance(name, Run) else start(name, given, **options)
    with opened.journal() as journal:
        desk = opened.desk(journal)
        _work(opened, desk, _all(opened, desk, tell))
    export(opened, formats, by_culture=by_culture)
    report(opened)
    return opened


def _work(opened: Run, desk: Desk, task: Coroutine[Any, Any, None]) -> None:
    """Do one stage's work: its log open, its models' connections closed in the end, whatever the end is."""

    async def whole() -> None:
        async with desk:
            await task

    with logs.kept(opened.folder):
        pool.work(whole())


async def _all(opened: Run, desk: Desk, tell: Tell) -> None:
    wanted, journal = opened.settings.samples, desk.journal
    lengths = dict.fromkeys(_cultures(opened), opened.settings.dialogues)
    since = dict.fromkeys(lengths, 0)
    for _ in range(WAVES):
        await _through(opened, desk, lengths, since, tell)
        kept = dict.fromkeys(lengths, 0) | dict(
            journal.count("SELECT culture, COUNT(*) FROM opinions WHERE dropped = '' GROUP BY culture")
        )
        lacking = {c: wanted - kept[c] for c in lengths if wanted and kept[c] < wanted}
        if not lacking:
            break
        if stuck := [c for c in lacking if not kept[c]]:
            raise RunFailed(f"no opinion was kept for {', '.join(stuck)} in {lengths[stuck[0]]} dialogues; "
                            f"`culturepark report {opened.folder}` shows why. Nothing is lost.")  # fmt: skip
        since = dict(lengths)
        # A little more than the yield so far asks for, so that most runs need one more wave.
        lengths |= {c: lengths[c] + max(1, -(-lengths[c] * lacking[c] * 21 // (kept[c] * 20))) for c in lacking}
    else:
        raise RunFailed(
            f"after {WAVES} waves there are still too few samples: {lacking}. Nothing is lost; --resume goes on."
        )
    made = corpus_build.build(opened.workspace, opened.settings, journal)
    if not sum(made.values()):
        raise RunFailed(f"no opinion was kept: {_why(journal)}")


async def _through(opened: Run, desk: Desk, until: Mapping[str, int], since: Mapping[str, int], tell: Tell) -> None:
    """Hold and refine these scenes; what failed is tried once more at the end, when what was wrong may have passed."""
    for stage, done in ((_simulate, "status = 'done'"), (_refine, "refined = 'ok'")):
        ahead = _ahead(desk.journal, done, until, since)
        await stage(opened, desk, _planned(opened, until, since), ahead, tell)
        failed = _ahead(desk.journal, done, until, since)
        if 0 < failed < ahead:
            await stage(opened, desk, _planned(opened, until, since), failed, tell)


def _why(journal: Journal) -> str:
    """Return the main reasons why a run has no sample."""
    failed = journal.count(
        "SELECT reason, COUNT(*) FROM scenes WHERE status = 'failed' GROUP BY reason ORDER BY 2 DESC LIMIT 1"
    )
    dropped = journal.count(
        "SELECT dropped, COUNT(*) FROM opinions WHERE dropped != '' GROUP BY dropped ORDER BY 2 DESC LIMIT 3"
    )
    refused = journal.count(
        "SELECT refined, COUNT(*) FROM scenes WHERE refined LIKE 'failed%' GROUP BY refined ORDER BY 2 DESC LIMIT 1"
    )
    parts = [f"{n} dialogues failed ({why})" for why, n in failed] + [f"{n} not refined ({why})" for why, n in refused]
    return "; ".join(parts + [f"{n} dropped as {why}" for why, n in dropped]) or "the dialogues hold no opinion"


def _cultures(opened: Run) -> tuple[str, ...]:
    return cast.cultures(opened.workspace, opened.settings)


def _planned(opened: Run, until: Mapping[str, int], since: Mapping[str, int] | None = None) -> Iterable[Scene]:
    parts: list[Iterator[Scene]] = [
        plan(opened.workspace, opened.settings, c, n, (since or {}).get(c, 0)) for c, n in until.items()
    ]
    return chain.from_iterable(parts)


def _ahead(journal: Journal, done: str, until: Mapping[str, int], since: Mapping[str, int] | None = None) -> int:
    """Return how many of the planned scenes are not yet `done` (a condition on the journal's scenes)."""
    sql = f"SELECT COUNT(*) FROM scenes WHERE {done} AND culture = ? AND ordinal >= ? AND ordinal < ?"
    return sum(
        n - low - journal.count(sql, c, low, n)[0][0] for c, n in until.items() for low in [(since or {}).get(c, 0)]
    )


async def _simulate(opened: Run, desk: Desk, scenes: Iterable[Scene], total: int, tell: Tell) -> None:
    done, spent = {"of": total, "dialogues": 0, "turns": 0, "failed": 0}, desk.usd

    def held(dialogue: Dialogue) -> None:
        done["dialogues"] += 1
        done["turns"] += len(dialogue.turns)
        done["failed"] += dialogue.status == "failed"
        tell("simulate", done | _usage(desk) | _money(opened, desk, done, spent))

    await hold_all(opened.workspace, opened.settings, desk, scenes, held)


async def _refine(opened: Run, desk: Desk, scenes: Iterable[Scene], total: int, tell: Tell) -> None:
    done, spent = {"of": total, "dialogues": 0, "opinions": 0, "kept": 0}, desk.usd

    def refined(scene: Scene, opinions: tuple[Opinion, ...]) -> None:
        done["dialogues"] += 1
        done["opinions"] += len(opinions)
        done["kept"] += sum(not o.dropped for o in opinions)
        tell("refine", done | _usage(desk) | _money(opened, desk, done, spent))

    await refine_all(opened.workspace, opened.settings, desk, scenes, refined)


def _usage(desk: Desk) -> dict[str, Any]:
    """Return what was asked since the desk opened, and what the whole run has taken; `usd` is None where no price is known."""
    usd = desk.usd if desk.priced else None
    return {"calls": desk.calls, "failures": desk.failures, "tokens": desk.tokens, "usd": usd}


def _money(opened: Run, desk: Desk, done: Mapping[str, int], spent: float) -> dict[str, Any]:
    """Return the cap, and what will have been spent when the stage ends if it goes on as so far."""
    ahead = (desk.usd - spent) / done["dialogues"] * (done["of"] - done["dialogues"])
    return {"max_usd": opened.settings.max_usd, "forecast": desk.usd + ahead if desk.priced else None}


def counts(journal: Journal) -> dict[str, int]:
    """Return how much of everything a run holds."""
    ask = {
        "dialogues": "SELECT COUNT(*) FROM scenes WHERE status = 'done'",
        "failed_dialogues": "SELECT COUNT(*) FROM scenes WHERE status = 'failed'",
        "turns": "SELECT COUNT(*) FROM turns",
        "opinions": "SELECT COUNT(*) FROM opinions",
        "kept": "SELECT COUNT(*) FROM opinions WHERE dropped = ''",
        "samples": "SELECT COUNT(*) FROM samples",
    }
    return {name: int(journal.count(sql)[0][0]) for name, sql in ask.items()}


# ------------------------------------------------------------------ lineage


def explain(run: Run, sample: str) -> dict[str, Any]:
    """Return a sample's whole descent: seed, personas, turns, verdicts, rewrite, cluster and split.

    `sample` is the id of a sample or of an opinion (kept or dropped), or the beginning of a sample's id.
    """
    with run.journal(write=False) as journal:
        made = journal.sample(sample)
        opinion = journal.opinion(made.opinion if made else sample)
        if opinion is None:
            ids = [
                i
                for (i,) in journal.count(
                    "SELECT id FROM samples WHERE id LIKE ? LIMIT 20", sample[:3].replace("%", "") + "%"
                )
            ]
            raise NotFound("sample or opinion", sample, str(run.folder), ids)
        dialogue = journal.dialogue(opinion.dialogue)
        assert dialogue is not None, "an opinion's dialogue is written before it"
        scene = dialogue.scene
        question = run.workspace.question(scene.scenario, scene.question)
        found = cast.shares(run.workspace.culture(scene.culture), question, run.settings.survey)
        return {
            "sample": made.model_dump(mode="json") if made else None,
            "opinion": opinion.model_dump(mode="json"),
            "seed": {
                "question": question.prompt,
                "answer": scene.answer,
                "shares": {str(question.option(c)): round(s, 4) for c, s in sorted(found.shares.items())}
                if found
                else None,
                "source": f"{found.survey}, {', '.join(found.countries)}, n = {found.n}"
                if found
                else "the scenario card",
            },
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
                    "view": None if s.view is None else question.spoken(s.view),
                }
                for s in scene.seats
            ],
            "turns": [json.loads(t.model_dump_json(exclude={"faults"})) for t in dialogue.turns if t.n <= opinion.turn],
        }


def told(found: Mapping[str, Any]) -> str:
    """Return what `explain` found, as text for people."""
    opinion, made = found["opinion"], found["sample"]
    lines = [f"sample    {made['id']} ({made['split']})" if made else f"opinion   {opinion['id']}: no sample"]
    lines += [
        f"seed      {found['seed']['question'].splitlines()[0]}",
        f"          people: {found['seed']['shares'] or 'no figures'} ({found['seed']['source']})",
    ]
    lines += [
        f"seat {i}    {s['role']}: {s['persona']}, own answer: {s['view'] or 'none'}"
        for i, s in enumerate(found["seats"])
    ]
    scene = found["scene"]
    lines.append(
        f"dialogue  {scene['id']} ({scene['mode']}-cultural, {scene['style']}): {scene['status']}, {scene['reason']}"
    )
    lines += [f"  [{t['n']}] {t['speaker']} ({t['cue']}): {t['text']}" for t in found["turns"]]
    lines.append(f"extracted {opinion['text']}  (from turn {opinion['turn']})")
    for verdict in opinion["verdicts"]:
        lines.append(
            f"verdict {verdict['round']} {verdict['label']}: {verdict['reason']}"
            + (f"  on: {verdict['text']}" if verdict["round"] else "")
        )
    lines.append(f"cluster   {opinion['cluster']}" if opinion["cluster"] is not None else "cluster   none")
    if opinion["dropped"]:
        lines.append(f"dropped   {opinion['dropped']}: {opinion['detail']}")
    if made:
        lines.append(f"target    {made['completion']}")
    return "\n".join(lines)
