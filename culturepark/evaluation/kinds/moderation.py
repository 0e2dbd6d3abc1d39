"""Content moderation: posts are labelled without examples and held against people's labels, by
macro-F1.

The task is CulturePark's (Li et al. 2024, arXiv 2405.15145, content moderation). Macro-F1 is the
plain mean over labels of F1 = 2 TP / (2 TP + FP + FN): the "averaged F1" of Opitz & Burst (2019,
arXiv 1911.03347), and scikit-learn's.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from culturepark import tables
from culturepark.errors import InputError, nearest
from culturepark.evaluation import notices, posts
from culturepark.evaluation.card import resolve_options
from culturepark.evaluation.intervals import SHARE
from culturepark.evaluation.kind import BenchmarkKind
from culturepark.evaluation.measure import Measure
from culturepark.evaluation.posts import Dataset, Post
from culturepark.evaluation.types import Attempt, Benchmark, Item, Setup
from culturepark.llm import session
from culturepark.records import Role, stream

UNREAD = (
    "share of answers that could not be read or did not come; each counts against its gold label"
)
OTHERS = "*"  # in a map: every label that it does not name
FEW_TEXTS = (
    12  # of which macro-F1 gets an interval: of fewer, a label that hardly occurs makes it jump
)
COUNTS = 3  # what is summed for each label: rightly said, gold, said


@dataclass(frozen=True)
class Task:
    """What is asked of a post, and the labels that are offered; `means` says for each gold label
    which of them it is.

    The gold label `*` stands for every other one. "" means that a post with this label has none.
    """

    name: str
    ask: str
    labels: tuple[str, ...]
    means: Mapping[str, str]

    def meaning(self, label: str) -> str | None:
        """Return the offered label that a gold label means; None where nothing says it."""
        return self.means.get(_fold_label(label), self.means.get(OTHERS))

    def gold(self, post: Post) -> str:
        """Return the offered label that a post should get: of several, the one that comes first in
        `means`.
        """
        order = {gold: place for place, gold in enumerate(self.means)}
        first = min(
            post.labels,
            key=lambda label: order.get(_fold_label(label), order.get(OTHERS, len(order))),
        )
        return self.meaning(first) or ""


@dataclass(frozen=True)
class Trial:
    """A data set with its task, culture and group (the sets that share texts with it), and those of
    its posts that are asked.
    """

    data: Dataset
    task: Task
    culture: str
    group: tuple[str, ...]
    asked: tuple[Post, ...]

    @property
    def facts(self) -> dict[str, Any]:
        """What attempts are told of it."""
        data, task = self.data, self.task
        repeats = len(data.posts) - len(data.marks)
        return {
            "labels": list(task.labels),
            "codes": list(task.labels),
            "task": task.name,
            "group": list(self.group),
            "rows": data.rows,
            "unlabelled": data.unlabelled,
            "empty": data.empty,
            "repeats": repeats,
            **({"read": {data.path.name: dict(data.notices)}} if data.notices else {}),
        }


# ------------------------------------------------------------------- plan


def plan(benchmark: Benchmark, setup: Setup) -> Iterator[Item]:
    """Yield every labelled post of the setup's data, once a seed; nothing before all label maps are
    checked.
    """
    options = resolve_options(benchmark, setup.options)
    role = benchmark.asks(setup.workspace)
    for trial in plan_trials(setup, options):
        for post in trial.asked:
            for replica in setup.list_replicas():
                yield _build_item(trial, post, replica.number, role, setup, options)


def plan_trials(setup: Setup, options: Mapping[str, Any]) -> list[Trial]:
    """Return the data sets that are asked; InputError lists every one whose labels do not fit the
    task's.
    """
    known, checked, problems = _read_tasks(options["tasks"]), [], []
    for name, (path, culture) in _choose_files(setup, options).items():
        try:
            data = _read_dataset(name, path, options)
            task = _find_task(data, known, options)
            checked.append((_drop_meaningless(data, task), task, culture))
        except InputError as error:
            problems.append(str(error))
    if problems:
        raise InputError("\n".join(dict.fromkeys(problems)))
    groups = posts.group_datasets(
        {data.name: data.marks for data, *_ in checked}, float(options["share"])
    )
    return [
        Trial(data, task, culture, groups[data.name], _draw_posts(data, setup.limit))
        for data, task, culture in checked
    ]


def _read_dataset(name: str, path: Path, options: Mapping[str, Any]) -> Dataset:
    """Read a data set as the options say."""
    how = {key: options[key] for key in ("text", "label", "separator", "votes")}
    return posts.read(path, name=name, layout=tables.Layout.from_options(options), **how)


def _drop_meaningless(data: Dataset, task: Task) -> Dataset:
    """Return a data set without the posts whose label a map says to mean none; they count as
    unlabelled.
    """
    kept = tuple(post for post in data.posts if task.gold(post))
    return replace(data, posts=kept, unlabelled=data.unlabelled + len(data.posts) - len(kept))


def _choose_files(setup: Setup, options: Mapping[str, Any]) -> dict[str, tuple[Path, str]]:
    """Return the files that are asked, by name, each with its culture ("" for none); those of other
    cultures are left out.
    """
    without = _as_tuple(options["without"])
    files = {
        name: file
        for name, file in posts.find_files(setup.data).items()
        if not any(fnmatch(name, w) for w in without)
    }
    there = {
        name: (file, _find_culture(tables.stem_of(file), setup, options))
        for name, file in files.items()
    }
    asked = {
        name: found
        for name, found in there.items()
        if not found[1] or not setup.cultures or found[1] in setup.cultures
    }
    if not asked:
        listed = (
            ", ".join(f"{name} ({culture})" for name, (_, culture) in there.items())
            or "none but what is left out"
        )
        raise InputError(
            f"no posts of {', '.join(setup.cultures)} in what was given; there are: {listed}"
        )
    return asked


def _as_tuple(value: Any) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else tuple(value)


def _find_culture(stem: str, setup: Setup, options: Mapping[str, Any]) -> str:
    """Return the culture that is given for all files, else the one that a file's first word names,
    "" where it names none.
    """
    if options["culture"]:
        return str(setup.workspace.culture(options["culture"]).name)
    word = next(iter("".join(c if c.isalpha() else " " for c in stem.casefold()).split()), "")
    word = options["cultures"].get(word, word)
    return word if word in setup.workspace.cultures else ""


def _draw_posts(data: Dataset, limit: int | None) -> tuple[Post, ...]:
    if limit is None or limit >= len(data.posts):
        return data.posts
    rng = stream("moderation", "sample", data.name)
    return tuple(data.posts[i] for i in sorted(rng.sample(range(len(data.posts)), limit)))


def _build_item(
    trial: Trial, post: Post, seed: int, role: Role, setup: Setup, options: Mapping[str, Any]
) -> Item:
    task, name = trial.task, trial.data.name
    whose = setup.workspace.cultures.get(trial.culture) if options["as_people"] else None
    facts = {"task": task.ask, "text": post.text, "labels": list(task.labels), "culture": whose}
    request = session.build_single_request(
        role, facts, None, post.mark, task.name, trial.culture, seed
    )
    if setup.method == "likelihood":
        request = replace(request, options=task.labels)
    part = _read_column(post, trial, options["part"]) if options["part"] else ""
    unit = (
        next(
            (
                u
                for u in (
                    _read_column(post, trial, column) for column in _as_tuple(options["unit"])
                )
                if u
            ),
            "",
        )
        or post.mark
    )
    return Item(
        f"{trial.culture or 'none'}/{name}/{post.line}/{seed}",
        trial.culture,
        unit,
        request,
        name,
        seed,
        task.gold(post),
        {**trial.facts, "part": part},
    )


def _read_column(post: Post, trial: Trial, column: str) -> str:
    if column not in post.more:
        raise InputError(
            f"{trial.data.path}:{post.line}: no column {column!r}. {nearest(column, post.more)}"
        )
    return post.more[column]


# ----------------------------------------------------------------- labels


def _fold_label(label: str) -> str:
    return posts.plain(label).casefold()


def _read_tasks(cards: Mapping[str, Mapping[str, Any]]) -> dict[str, Task]:
    """Return the card's tasks; a gold label or an offered one may stand but once in a task, an
    offered one but once in all.
    """
    made, offered = {}, dict[str, str]()
    for name, card in cards.items():
        if not {"ask", "labels"} <= set(card):
            raise InputError(
                f"tasks.{name}: wants `ask`, and `labels` as {{ offered label = [gold labels] }}"
            )
        pairs = [
            (_fold_label(gold), label) for label, golds in card["labels"].items() for gold in golds
        ]
        twice = [gold for gold, count in Counter(gold for gold, _ in pairs).items() if count > 1]
        twice += [label for label in card["labels"] if offered.setdefault(label, name) != name]
        if twice:
            raise InputError(f"tasks.{name}: {twice[0]!r} stands for two labels")
        made[name] = Task(name, card["ask"], tuple(card["labels"]), dict(pairs))
    if not made:
        raise InputError("options.tasks: no task, so no label can be offered")
    return made


def _find_task(data: Dataset, known: Mapping[str, Task], options: Mapping[str, Any]) -> Task:
    """Return a data set's task with a map that was checked: all gold labels mean one that is
    offered, and all of those occur.
    """
    if not data.posts:
        raise InputError(f"{data.path}: none of its {data.rows} rows has a text and a label")
    mapped = _find_map(data.name, options["map"]) or _find_map(data.name, options["maps"])
    task = _find_mapped_task(data, mapped, known) if mapped else _guess_task(data, known)
    lacking = [gold for gold in data.labels if task.meaning(gold) is None]
    met = {task.gold(post) for post in data.posts}
    never = [label for label in task.labels if label not in met]
    if lacking:
        raise InputError(
            f"{_describe_labels(data)}; nothing says which of {_list_labels(task.labels)}"
            f" {_list_labels(lacking)} is"
        )
    if never:
        raise InputError(
            f"{_describe_labels(data)}; none of them means {_list_labels(never)}, so that answer"
            f" to {task.name!r} could never be right"
        )
    return task


def _find_map(name: str, maps: Any) -> Mapping[str, str] | None:
    """Return the first map whose pattern a name matches."""
    if not isinstance(maps, Mapping) or not all(
        isinstance(held, Mapping) for held in maps.values()
    ):
        raise InputError(
            f'the option `map` is {{ FILE = {{ "gold label" = "offered label" }} }}, not {maps!r}'
        )
    return next((held for pattern, held in maps.items() if fnmatch(name, pattern)), None)


def _find_mapped_task(data: Dataset, mapped: Mapping[str, str], known: Mapping[str, Task]) -> Task:
    """Return the task whose labels a map names."""
    for task in known.values():
        if {label for label in mapped.values() if label} <= set(task.labels):
            return replace(task, means={_fold_label(gold): label for gold, label in mapped.items()})
    owners = {label: task.name for task in known.values() for label in task.labels}
    odd = [label for label in mapped.values() if label and label not in owners]
    why = (
        f"no task offers {odd[0]!r}. {nearest(odd[0], owners)}"
        if odd
        else (
            "its map mixes the labels of several tasks:"
            f" {', '.join(f'{v!r} ({owners[v]})' for v in mapped.values())}"
        )
    )
    raise InputError(f"{_describe_labels(data)}; {why}")


def _guess_task(data: Dataset, known: Mapping[str, Task]) -> Task:
    """Return the one task that knows all of a data set's labels."""
    fits = [
        task
        for task in known.values()
        if all(_fold_label(gold) in task.means for gold in data.labels)
    ]
    if len(fits) == 1:
        return fits[0]
    example = ", ".join(f'{_quote(gold)} = "…"' for gold in data.labels)
    why = (
        f"they fit several tasks ({', '.join(t.name for t in fits)})"
        if fits
        else "no task knows all of them"
    )
    offered = "; ".join(_list_labels(t.labels) for t in fits or known.values())
    raise InputError(
        f"{_describe_labels(data)}; {why}. Say what they mean with the option map = {{"
        f" {_quote(data.name)} = {{ {example} }} }}, where … is one of {offered}; or leave the file"
        f" out with without = [{_quote(data.name)}]"
    )


def _quote(text: str) -> str:
    """Return a text as TOML and JSON write it."""
    return json.dumps(text, ensure_ascii=False)


def _describe_labels(data: Dataset) -> str:
    return (
        f"{data.path}: its labels are"
        f" {', '.join(f'{label!r} ({count})' for label, count in data.labels.items())}"
    )


def _list_labels(labels: Iterable[str]) -> str:
    return ", ".join(map(repr, labels))


# --------------------------------------------------------------- measures


def measure(attempts: Sequence[Attempt], options: Mapping[str, Any]) -> list[Measure]:
    """Return macro-F1, accuracy and the share of unread answers of each data set, each culture and
    all; accuracy of each part.

    A culture's figure, and that of all, is the mean over groups of data sets, a group's the mean
    over its sets. What was answered wrongly, unreadably or not at all counts against its gold
    label. In a figure of a set or part without culture, `subset` names it.
    """
    what = str(options.get("what", "texts"))
    scopes = [m for scope in _list_scopes(attempts) for m in _measure_scope(*scope, what)]
    parts = [
        _measure_accuracy(LabelCounts(those), culture, subset, what)
        for culture, subset, those in _list_parts(attempts)
    ]
    return [*scopes, *parts]


def _measure_scope(
    culture: str, subset: str, attempts: Sequence[Attempt], what: str
) -> Iterator[Measure]:
    counts = LabelCounts(attempts)
    note = counts.note()
    yield Measure(
        "macro_f1",
        counts.units,
        counts.mean(f1),
        culture,
        subset,
        headline=not subset,
        what=what,
        note=note,
        within=SHARE,
        few=FEW_TEXTS,
    )
    yield _measure_accuracy(counts, culture, subset, what, note.rpartition(";")[0])
    yield Measure(
        "unparsed",
        counts.units,
        counts.unread,
        culture,
        subset,
        "low",
        what=what,
        note=UNREAD,
        share=True,
    )


def _measure_accuracy(
    counts: LabelCounts, culture: str, subset: str, what: str, note: str = ""
) -> Measure:
    return Measure(
        "accuracy",
        counts.units,
        counts.mean(_accuracy),
        culture,
        subset,
        what=what,
        note=note,
        share=len(counts.sets) == 1,
        within=SHARE,
    )


Scope = tuple[str, str, list[Attempt]]


def _list_scopes(attempts: Sequence[Attempt]) -> list[Scope]:
    """Return culture, subset and attempts of all together, of each culture and of each data set."""
    cultures = {("", ""): list(attempts)} if attempts else {}
    sets = dict[tuple[str, str], list[Attempt]]()
    for o in attempts:
        sets.setdefault((o.culture, o.subset), []).append(o)
        if o.culture:
            cultures.setdefault((o.culture, ""), []).append(o)
    return [
        (culture, subset, those) for (culture, subset), those in (*cultures.items(), *sets.items())
    ]


def _list_parts(attempts: Sequence[Attempt]) -> list[Scope]:
    """Return the same of each part (HateCheck's functionality): of all data sets, and of each
    culture or set without one.
    """
    parts = dict[tuple[str, str], list[Attempt]]()
    for o in attempts:
        if part := o.facts.get("part"):
            parts.setdefault(("", part), []).append(o)
            parts.setdefault(
                (o.culture, part) if o.culture else ("", f"{o.subset}/{part}"), []
            ).append(o)
    return [(culture, subset, those) for (culture, subset), those in sorted(parts.items())]


class LabelCounts:
    """For each unit and seed how often each label of each data set is rightly said, is gold, and is
    said.
    """

    def __init__(self, attempts: Sequence[Attempt]) -> None:
        self.sets = {o.subset: o.facts for o in attempts}
        self.asked: dict[str, Counter[str]] = {name: Counter() for name in self.sets}
        self._spans, self.length = dict[str, tuple[int, int]](), 0
        for name, facts in self.sets.items():
            self._spans[name] = (self.length, self.length + COUNTS * len(facts["labels"]))
            self.length = self._spans[name][1]
        self.units = dict[tuple[int, str], list[float]]()
        for o in attempts:
            self.asked[o.subset][o.gold] += o.seed == attempts[0].seed
            self._count(o, self.units.setdefault((o.seed, o.unit), [0.0] * self.length))

    def _count(self, attempt: Attempt, sums: list[float]) -> None:
        labels, start = attempt.facts["labels"], self._spans[attempt.subset][0]
        gold = start + COUNTS * labels.index(attempt.gold)
        sums[gold + 1] += 1
        if attempt.status == "ok":
            sums[gold] += attempt.answer == attempt.gold
            sums[start + COUNTS * labels.index(attempt.answer) + 2] += 1

    @property
    def groups(self) -> list[list[str]]:
        """The data sets by group."""
        made = dict[tuple[str, ...], list[str]]()
        for name, facts in self.sets.items():
            made.setdefault(tuple(facts["group"]), []).append(name)
        return list(made.values())

    def mean(self, score: Callable[[Any], Any]) -> Callable[[Any], Any]:
        """Return the mean over groups of the mean over their sets of a score of counts, shape (...,
        labels, 3).
        """
        spans = [[self._spans[name] for name in group] for group in self.groups]

        def value(sums: Any) -> Any:
            each = [
                sum(score(_by_label(sums[..., a:b])) for a, b in group) / len(group)
                for group in spans
            ]
            return sum(each) / len(each)

        return value

    @staticmethod
    def unread(sums: Any) -> Any:
        """Return the share of answers that said no label, over all sets alike."""
        return 1 - _share(sums[..., 2::COUNTS].sum(-1), sums[..., 1::COUNTS].sum(-1))

    def note(self) -> str:
        """Say what was asked, what was left out, which sets count as one, and what labels drawn at
        random would give.
        """
        by_chance = [
            [chance(self.asked[name], len(self.sets[name]["labels"])) for name in group]
            for group in self.groups
        ]
        luck = sum(sum(each) / len(each) for each in by_chance) / len(by_chance)
        return (
            f"{self._mean()}{self._describe_counts()}; labels drawn at random give about {luck:.2f}"
        )

    def _mean(self) -> str:
        if len(self.sets) == 1:
            return f"{next(iter(self.sets.values()))['task']}: "
        joined = ", ".join(" + ".join(group) for group in self.groups if len(group) > 1)
        return (
            f"mean over {len(self.sets)} data"
            f" sets{f', of which these share texts and enter as one: {joined}' if joined else ''}: "
        )

    def _describe_counts(self) -> str:
        total = {
            key: sum(facts[key] for facts in self.sets.values())
            for key in ("rows", "unlabelled", "empty", "repeats")
        }
        count = sum(sum(asked.values()) for asked in self.asked.values())
        labelled = total["rows"] - total["unlabelled"] - total["empty"]
        left = [
            f"{total[key]} without {what}"
            for key, what in (("unlabelled", "label"), ("empty", "text"))
            if total[key]
        ]
        said = (
            f"{count} of {total['rows']} rows"
            if count == labelled
            else f"{count} drawn of {labelled} labelled rows"
        )
        said += f", left out {' and '.join(left)}" if left else ""
        said += f", repeated texts {total['repeats']}" if total["repeats"] else ""
        return said + "".join(f"; {line}" for line in notices.describe(self.sets.values()))


def chance(gold: Mapping[str, int], labels: int) -> float:
    """Return the macro-F1 to be expected when every one of so many labels is drawn alike, from how
    often each is gold.

    F1's formula with expected counts, 2p / (kp + 1) for a gold label's share p among k labels:
    exact in the limit of many posts.
    """
    count = sum(gold.values())
    return sum(2 * n / (labels * n + count) for n in gold.values()) / labels if count else 0.0


def _by_label(sums: Any) -> Any:
    return sums.reshape(*sums.shape[:-1], -1, COUNTS)


def f1(counts: Any) -> Any:
    """Return macro-F1 over the labels that are gold or said somewhere; NaN where none is."""
    import numpy as np

    right, both = 2 * counts[..., 0], counts[..., 1] + counts[..., 2]
    there = both > 0
    return _share(np.where(there, _share(right, both), 0.0).sum(-1), there.sum(-1))


def _accuracy(counts: Any) -> Any:
    return _share(counts[..., 0].sum(-1), counts[..., 1].sum(-1))


def _share(part: Any, whole: Any) -> Any:
    """Return part / whole, NaN where the whole is 0."""
    import numpy as np

    with np.errstate(invalid="ignore", divide="ignore"):
        return np.true_divide(part, whole)


# `tasks`: what can be asked, each with `ask` and `labels` (offered label → gold labels that mean
# it). `maps` and, before it, `map`: file name pattern → gold label → offered label. `cultures`: a
# file name's first word → the culture it means; `culture`: that of all files. `without`: patterns
# of files to leave out. `share`: of the smaller set's texts from which on two sets count as one.
# `unit`: columns that say what is drawn as one, the first that holds something; `part`: the column
# by which accuracy is told. `as_people`: whether the model is asked as a person of the post's
# culture.
KIND = BenchmarkKind(
    plan=plan,
    culture_source="data",
    graded=True,
    measure=measure,
    options={
        **tables.OPTIONS,
        "text": "",
        "label": (),
        "separator": "",
        "votes": 1.0,
        "tasks": {},
        "maps": {},
        "map": {},
        "cultures": {},
        "culture": "",
        "without": (),
        "share": 0.05,
        "unit": (),
        "part": "",
        "what": "texts",
        "as_people": True,
    },
)
