"""Cultural education: a learner sits an exam on a culture, talks with the model as its teacher, and
sits it again.

After the human study of Li et al. 2024, CulturePark (arXiv 2405.15145), with a learner that a model
plays. The figure of merit is how much nearer the learner's answers come to the people's. What is
taught and what is examined are different questions, so that knowing is measured and not repeating,
unless `leak` is set.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

from culturepark.errors import InputError
from culturepark.evaluation import exam, parsers
from culturepark.evaluation.card import resolve_options
from culturepark.evaluation.intervals import POSITIVE, SHARE
from culturepark.evaluation.kind import BenchmarkKind
from culturepark.evaluation.measure import Measure, mean
from culturepark.evaluation.types import Ask, Attempt, Item, Parser, Setup, Unparsed
from culturepark.llm import session
from culturepark.records import (
    Culture,
    Message,
    Persona,
    Question,
    Reply,
    Request,
    Role,
    digest,
    stream,
)
from culturepark.surveys import Figures

if TYPE_CHECKING:
    from culturepark.evaluation.types import Benchmark
    from culturepark.workspace import Workspace

EXAMS = ("survey", exam.VSM)
APART = (-1.0, 1.0)  # of a gain: a difference of two distances from 0 to 1
LIKES = (float(exam.SCALE[0]), float(exam.SCALE[1]))
Said = dict[str, str]  # who ("learner" or "teacher"), and text


@dataclass(frozen=True)
class Study:
    """One learner's study of one culture. `modal` holds what most of its people answer to the
    lesson's questions: the fact `answer` of what its teacher is sent.
    """

    id: str
    culture: Culture
    me: Persona
    home: Culture
    exam: tuple[Question, ...]
    lesson: tuple[Question, ...]
    modal: Mapping[str, int]
    teacher: Role
    learner: Role


# -------------------------------------------------------------------- plan


def plan(benchmark: Benchmark, setup: Setup) -> Iterator[Item]:
    """Yield one study a culture, learner and seed. It is talk: answers are sampled whatever
    `setup.method` says.

    InputError for options that cannot be, and for a culture without people's answers to examine.
    """
    options = check_options(resolve_options(benchmark, setup.options))
    teacher, learner = benchmark.asks(setup.workspace), setup.workspace.role("learner")
    for culture in setup.cultures:
        asked, taught, gold, modal = build_course(
            setup.workspace, culture, options, setup.survey_figures
        )
        for me in choose_learners(setup, culture, options["learners"]):
            order = stream("lesson", culture, me.id).sample(taught, len(taught))
            lesson = tuple(order[i % len(order)] for i in range(options["turns"]))
            for seed in setup.seeds:
                name = f"{culture}/{me.id}/{seed}"
                study = Study(
                    name,
                    setup.workspace.culture(culture),
                    me,
                    setup.workspace.culture(me.culture),
                    asked,
                    lesson,
                    modal,
                    teacher,
                    learner,
                )
                told = {
                    "learner": me.id,
                    "exam": [q.id for q in asked],
                    "lesson": [q.id for q in lesson],
                    "cards": digest(
                        study.culture, me, study.home, asked, lesson, modal, teacher, learner
                    ),
                }
                yield Item(
                    id=name,
                    culture=culture,
                    unit=me.id,
                    seed=seed,
                    gold=gold,
                    facts=told,
                    request=_build_learner_request(study, "sit", (), asked[0]),
                    task=study,
                )


def check_options(options: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the options as they are; InputError for one that cannot be."""
    if options["exam"] not in EXAMS:
        raise InputError(f"education: exam = {options['exam']!r}; there are: {', '.join(EXAMS)}")
    for name in ("questions", "turns"):
        if (
            isinstance(options[name], bool)
            or not isinstance(options[name], int)
            or options[name] < 1
        ):
            raise InputError(f"education: {name} = {options[name]!r} is no whole number above 0")
    if not isinstance(options["leak"], bool):
        raise InputError(f"education: leak = {options['leak']!r} is neither true nor false")
    return options


def choose_learners(setup: Setup, culture: str, first: str) -> list[Persona]:
    """Return who learns about a culture: `setup.count` people of other cultures, those of the
    culture `first` before the rest.
    """
    setup.workspace.culture(first)
    others = [p for _, p in sorted(setup.workspace.personas.items()) if p.culture != culture]
    order = stream("learners", culture).sample(others, len(others))
    near = [p for p in order if p.culture == first]
    found = [*near, *(p for p in order if p.culture != first)][
        : min(setup.count, setup.limit or setup.count)
    ]
    if not found:
        raise InputError(
            f"nobody to learn about the {culture} culture: {setup.workspace.root} has no persona of"
            " another"
        )
    return found


class Course(NamedTuple):
    """What is examined in a culture, what may be taught, what answers are held against, and what
    most answer to what is taught.
    """

    exam: tuple[Question, ...]
    taught: list[Question]
    gold: dict[str, Any]
    modal: dict[str, int]


def build_course(
    park: Workspace, culture: str, options: Mapping[str, Any], figures: Figures | None = None
) -> Course:
    """Return a culture's course. `gold` also holds what the people of the park's other cultures
    answer, for the specific gain.
    """
    pack, others = (
        park.scenario(options["pack"]),
        [name for name in sorted(park.cultures) if name != culture],
    )
    known = exam.find_targets(park, culture, pack.name, figures)
    modal = {name: target.modal for name, target in known.items()}
    if options["exam"] == exam.VSM:
        asked = park.scenario(exam.VSM).questions
        peoples = [
            exam.load_published(card) for name in others if (card := park.culture(name)).hofstede
        ]
        gold: dict[str, Any] = {
            "own": [exam.load_published(park.culture(culture))],
            "others": peoples,
        }
        taught = [*asked] if options["leak"] else [q for q in pack.questions if q.id in known]
    else:
        names, rest = exam.split_questions([*known], options["questions"], culture)
        means = [exam.find_targets(park, name, pack.name, figures) for name in others]
        gold = {
            n: {**known[n].model_dump(), "others": [m[n].mean for m in means if n in m]}
            for n in names
        }
        asked = tuple(q for q in pack.questions if q.id in names)
        taught = [q for q in pack.questions if q.id in (names if options["leak"] else rest)]
    if not taught:
        raise InputError(
            f"education: nothing in scenarios/{pack.name}.toml has known answers by the {culture}"
            " culture"
        )
    return Course(asked, taught, gold, modal)


# -------------------------------------------------------------------- hold


async def run(benchmark: Benchmark, item: Item, ask: Ask) -> Attempt:
    """Hold one study. A lesson that breaks off is the attempt's status; an exam answer that cannot
    be read is that answer's own.
    """
    study: Study = item.task
    before = await _take_exam(study, (), ask)
    talk, broken = await _hold_lesson(study, ask)
    facts: dict[str, Any] = {**item.facts, "before": before}
    if broken is not None:
        who, reply = broken
        return _build_attempt(
            item,
            study,
            talk,
            facts,
            status=reply.status,
            reason=f"{who}: {reply.reason or reply.status}",
        )
    facts["after"] = await _take_exam(study, talk, ask)
    request = _build_learner_request(study, "rate", talk)
    facts["satisfaction"] = _read_answer(
        await ask(request, "learner"), request, parsers.rating, {"scale": exam.SCALE}
    )
    return _build_attempt(item, study, talk, facts, status="ok")


def _build_attempt(
    item: Item, study: Study, talk: Sequence[Said], facts: dict[str, Any], **how: Any
) -> Attempt:
    """Return the attempt, with the lesson as the teacher's model saw it."""
    seen = tuple(
        (m.role, m.content)
        for m in build_teacher_request(study.teacher, study.culture, talk, "").messages[:-1]
    )
    return Attempt(
        item=item.id,
        culture=item.culture,
        unit=item.unit,
        subset=item.subset,
        seed=item.seed,
        gold=item.gold,
        facts=facts,
        talk=seen,
        **how,
    )


async def _take_exam(study: Study, talk: Sequence[Said], ask: Ask) -> dict[str, dict[str, Any]]:
    """Return what the learner answers to each exam question: answer (None where there is none),
    status and reason.
    """
    found = {}
    for question in study.exam:
        request = _build_learner_request(study, "sit", talk, question)
        codes = {
            "codes": [o.code for o in question.options],
            "labels": [o.label for o in question.options],
        }
        found[question.id] = _read_answer(
            await ask(request, "learner"), request, parsers.option, codes
        )
    return found


def _read_answer(
    reply: Reply, request: Request, parser: Parser, facts: Mapping[str, Any]
) -> dict[str, Any]:
    if reply.status != "ok":
        return {"answer": None, "status": reply.status, "reason": reply.reason}
    read = parser(reply.text, Item(id="", culture="", unit="", request=request, facts=facts))
    if isinstance(read, Unparsed):
        return {"answer": None, "status": "unparsed", "reason": read.reason}
    return {"answer": read, "status": "ok", "reason": ""}


async def _hold_lesson(study: Study, ask: Ask) -> tuple[tuple[Said, ...], tuple[str, Reply] | None]:
    """Return the lesson, and who broke it off with which reply, if anybody did."""
    talk: tuple[Said, ...] = ()
    for n, question in enumerate(study.lesson):
        asked = await ask(_build_learner_request(study, "ask", talk, question, n), "learner")
        if asked.status != "ok":
            return talk, ("learner", asked)
        facts = {"question": question, "answer": study.modal.get(question.id)}
        told = await ask(
            build_teacher_request(
                study.teacher, study.culture, talk, asked.text, study.id, n, **facts
            )
        )
        talk = (*talk, {"who": "learner", "text": asked.text})
        if told.status != "ok":
            return talk, ("teacher", told)
        talk = (*talk, {"who": "teacher", "text": told.text})
    return talk, None


def _build_learner_request(
    study: Study, task: str, talk: Sequence[Said], question: Question | None = None, n: int = 0
) -> Request:
    """Return what the learner is sent. An exam question has one seed before and after: what differs
    is what was heard.
    """
    name = question.id if question is not None else ""
    facts = {
        "task": task,
        "me": study.me,
        "home": study.home,
        "culture": study.culture,
        "talk": tuple(talk),
        "question": question,
        "lesson": study.lesson,
        "view": study.me.views.get(name),
    }
    return session.build_single_request(study.learner, facts, None, study.id, task, name, n)


def build_teacher_request(
    role: Role, culture: Culture, talk: Sequence[Said], asked: str, *purpose: Any, **facts: Any
) -> Request:
    """Return what the teacher is sent: the culture's system message, the conversation so far, and
    what was asked now.
    """
    request = session.build_single_request(
        role, {"culture": culture, "asked": asked, "talk": tuple(talk), **facts}, None, *purpose
    )
    system, prompt = request.messages
    held = (Message("assistant" if t["who"] == "teacher" else "user", t["text"]) for t in talk)
    return replace(request, messages=(system, *held, prompt))


# ---------------------------------------------------------------- measures

Vector = Sequence[float]


def measure(attempts: Sequence[Attempt], options: Mapping[str, Any]) -> list[Measure]:
    """Return distance before and after, gain, satisfaction and unreadable answers, over all
    cultures and each; units are learners.
    """
    options = {**KIND.options, **options}
    done, groups = [o for o in attempts if o.status == "ok"], options["exam"] == exam.VSM
    constants = fit_constants(done) if groups else {}
    found: list[Measure] = []
    for culture in ("", *sorted({o.culture for o in attempts})):
        asked, part = ([o for o in some if culture in ("", o.culture)] for some in (attempts, done))
        scale = _build_vsm_scale(asked, constants) if groups else SURVEY
        alike = ("cultures",) if groups else ()  # constants are fitted on the other cultures
        found += _measure_culture(
            part, culture, scale, _write_note(options, len(asked) - len(part)), alike
        )
    return found


def _measure_culture(
    done: Sequence[Attempt], culture: str, scale: ExamScale, note: str, alike: tuple[str, ...]
) -> list[Measure]:
    common: dict[str, Any] = {"culture": culture, "what": "learners", "alike": alike}
    pairs = _sum_learners(done, scale.sums)

    def gain(totals: Any) -> Any:
        return scale.before(totals) - scale.after(totals)

    far, near = (None, POSITIVE) if scale is not SURVEY else (APART, SHARE)
    return [
        Measure("gain", pairs, gain, headline=True, note=f"{note}. {HEDGE}", within=far, **common),
        Measure("specific gain", pairs, scale.specific, note=f"{note}. {SPECIFIC}", **common),
        Measure(
            "distance before", pairs, scale.before, better="low", note=note, within=near, **common
        ),
        Measure(
            "distance after", pairs, scale.after, better="low", note=note, within=near, **common
        ),
        Measure(
            "satisfaction",
            _sum_learners(done, _sum_ratings),
            mean,
            note=LIKED,
            within=LIKES,
            **common,
        ),
        Measure(
            "unparsed",
            _sum_learners(done, _sum_unread),
            mean,
            better="low",
            note=UNREAD,
            share=True,
            **common,
        ),
    ]


def _sum_learners(
    done: Iterable[Attempt], sums: Callable[[Attempt], Vector]
) -> dict[tuple[int, str], Vector]:
    """Return the sums of each learner in each seed, over the cultures that were learnt; who has
    none is left out.
    """
    found: dict[tuple[int, str], Vector] = {}
    for o in done:
        made, key = sums(o), (o.seed, o.unit)
        if not made:
            continue
        found[key] = (
            [a + b for a, b in zip(found[key], made, strict=True)] if key in found else made
        )
    return found


def pair_answers(o: Attempt) -> dict[str, tuple[int, int]]:
    """Return the answers before and after, by question, to the questions that were answered
    readably both times.
    """
    both = (
        (q, o.facts["before"][q]["answer"], o.facts["after"][q]["answer"]) for q in o.facts["exam"]
    )
    return {q: (b, a) for q, b, a in both if b is not None and a is not None}


Value = Callable[[Any], Any]


class ExamScale(NamedTuple):
    """How an exam is marked: a study's sums, and what totals of them come to."""

    sums: Callable[[Attempt], Vector]
    before: Value
    after: Value
    specific: Value


def _sum_distances(o: Attempt) -> Vector:
    """Return sums over the questions answered both times: distance before and after, the same to
    other peoples, and the counts.
    """
    sums = [0.0] * 6
    for q, answers in pair_answers(o).items():
        target, others = o.gold[q], o.gold[q]["others"]
        own = [exam.distance(a, target) for a in answers]
        far = [[exam.distance(a, {**target, "mean": m}) for m in others] for a in answers]
        other = [sum(each) / len(others) if others else 0.0 for each in far]
        sums = [a + b for a, b in zip(sums, [*own, 1, *other, bool(others)], strict=True)]
    return sums if sums[2] else []


SURVEY = ExamScale(
    _sum_distances,
    lambda t: mean(t[..., [0, 2]]),
    lambda t: mean(t[..., [1, 2]]),
    lambda t: (
        mean(t[..., [0, 2]]) - mean(t[..., [1, 2]]) - mean(t[..., [3, 5]]) + mean(t[..., [4, 5]])
    ),
)


def _build_vsm_scale(
    asked: Sequence[Attempt], constants: Mapping[str, Mapping[str, float]]
) -> ExamScale:
    """Return the scale of the VSM exam: item means over a culture's learners, Euclidean distance of
    their dimensions, mean over cultures.
    """
    gold = {o.culture: o.gold for o in sorted(asked, key=lambda o: o.culture)}
    cultures, items = [*gold], asked[0].facts["exam"]
    zero = dict.fromkeys(next(iter(constants.values()), {}), 0.0)

    def sums(o: Attempt) -> Vector:
        held = pair_answers(o)
        rows = [(*held[q], 1.0) if q in held else (0.0, 0.0, 0.0) for q in items]
        own = [row[which] for which in range(3) for row in rows]
        return (
            [x for c in cultures for x in (own if c == o.culture else [0.0] * len(own))]
            if held
            else []
        )

    def far(totals: Any, which: int, whose: str) -> Any:
        import numpy as np

        parts = totals.reshape(*totals.shape[:-1], len(cultures), 3, len(items))
        with np.errstate(invalid="ignore", divide="ignore"):
            means = parts[..., which, :] / parts[..., 2, :]
        answers = {
            c: {q: means[..., n, i] for i, q in enumerate(items)} for n, c in enumerate(cultures)
        }
        none = np.full(parts.shape[:-3], np.nan)  # the mean over nobody, in a park of one culture
        each = [
            [
                exam.measure_distance(answers[c], people, constants.get(c, zero))
                for people in gold[c][whose]
            ]
            or [none]
            for c in cultures
        ]
        return np.mean([np.mean(distances, axis=0) for distances in each], axis=0)

    def gain(totals: Any, whose: str) -> Any:
        return far(totals, 0, whose) - far(totals, 1, whose)

    def specific(totals: Any) -> Any:
        return gain(totals, "own") - gain(totals, "others")

    return ExamScale(sums, lambda t: far(t, 0, "own"), lambda t: far(t, 1, "own"), specific)


def fit_constants(done: Sequence[Attempt]) -> dict[str, dict[str, float]]:
    """Return the VSM's constants by culture and dimension, fitted on the other cultures' learners
    before any lesson.

    They are the same before and after, and zero where too few other cultures have the dimension
    (see `vsm.fit_constants`).
    """
    import numpy as np

    from culturepark.evaluation.kinds import vsm

    held = {o.culture: o.gold["own"][0] for o in done}
    if not held:
        return {}
    means = {
        c: _average_before([pair_answers(o) for o in done if o.culture == c], vsm.ITEMS)
        for c in held
    }
    gaps = [
        [own.get(d, np.nan) - vsm.score(d, means[c]) for d in vsm.FORMULAS]
        for c, own in held.items()
    ]
    constants = vsm.fit_constants(np.array(gaps))[0]
    return {
        c: dict(zip(vsm.FORMULAS, map(float, row), strict=True))
        for c, row in zip(held, constants, strict=True)
    }


def _average_before(
    answers: Sequence[Mapping[str, tuple[int, int]]], items: Sequence[str]
) -> dict[str, float]:
    """Return the mean answer to each item before the lesson; NaN where nobody answered it."""
    found = {q: [held[q][0] for held in answers if q in held] for q in items}
    return {q: sum(a) / len(a) if a else float("nan") for q, a in found.items()}


def _sum_ratings(o: Attempt) -> Vector:
    rated = o.facts["satisfaction"]["answer"]
    return [] if rated is None else [rated, 1]


def _sum_unread(o: Attempt) -> Vector:
    held = [*o.facts["before"].values(), *o.facts["after"].values(), o.facts["satisfaction"]]
    return [sum(one["answer"] is None for one in held), len(held)]


def _write_note(options: Mapping[str, Any], broken: int) -> str:
    """Say what was compared."""
    if options["exam"] == exam.VSM:
        what = (
            "Euclidean distance of the learners' VSM 2013 dimensions, as a group, from those"
            " published; constants, the same before and after, fitted on the other cultures'"
            " learners before, zero where they are too few; few learners' noise makes such a"
            " distance larger"
        )
    else:
        what = (
            f"mean of |answer − the people's mean| / length of the scale, {options['questions']}"
            " questions a learner; a people's mean lies between options, so 0 is out of reach"
        )
    taught = "the exam's own questions" if options["leak"] else "questions other than the exam's"
    out = f"; {broken} broken off, left out" if broken else ""
    return (
        f"{what}; answers readable both before and after; lessons of {options['turns']} exchanges"
        f" on {taught}; the learner is a model{out}"
    )


HEDGE = (
    "Answers nearer the middle of a scale come nearer to every people: read it beside the specific"
    " gain"
)
SPECIFIC = (
    "Less the mean gain of the same answers towards the other cultures' people, so that hedging"
    " does not count"
)
LIKED = "the learner's rating of the lesson, 1 to 5"
UNREAD = (
    "share of exam answers and ratings that are none: unreadable, refused or failed; no distance"
    " counts them"
)

KIND = BenchmarkKind(
    surveyed=True,
    embedded_warning=lambda setup: (
        "The embedded teacher is told what people answer: it is a ceiling, not a rival."
    ),
    plan=plan,
    measure=measure,
    run=run,
    needs=lambda benchmark: ("learner",),
    options={
        "exam": "survey",
        "pack": "world_values",
        "questions": 12,
        "turns": 6,
        "leak": False,
        "learners": "english-us",
    },
)
