"""Reads people's judgements into preference pairs: labels a country, scored conversations,
preference rows; splits them by user.
"""

from __future__ import annotations

import hashlib
import itertools
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import isfinite
from pathlib import Path
from typing import Any

from culturepark import tables
from culturepark.errors import InputError, NotFound, nearest
from culturepark.local_models.rows import checked
from culturepark.records import Message, Record, digest, stream

ASKED = "Is this post hateful?\n\n{text}"
LABELS = ("This post is not hateful.", "This post is hateful.")
VOTE, TEXT, ID = "_hate", ("text", "post"), ("id", "post_id")
UNSAID = ("", "prefer not to say")
SHORT = {
    "US": "United States",
    "UK": "United Kingdom",
    "GB": "United Kingdom",
    "AU": "Australia",
    "ZA": "South Africa",
    "SG": "Singapore",
    "CA": "Canada",
    "CL": "Chile",
    "IL": "Israel",
    "MX": "Mexico",
    "NZ": "New Zealand",
}


class Pair(Record):
    """One preference: of two answers to the same history, the one that was preferred.

    `user` is what is split and resampled as one: whose preference it is or, where a file names
    nobody, the item voted on. `item` is shared by pairs over the same two answers; empty where
    nobody else judged them. `minority` says whether most countries preferred the other answer; None
    where the data don't say.
    """

    id: str
    user: str
    country: str
    history: tuple[Message, ...]
    chosen: str
    rejected: str
    item: str = ""
    minority: bool | None = None

    def talk(self, answer: str) -> list[dict[str, str]]:
        """Return the whole conversation up to and with an answer."""
        told = [{"role": m.role, "content": m.content} for m in self.history]
        return [*told, {"role": "assistant", "content": answer}]


@dataclass(frozen=True)
class Votes:
    """Pairs, the hash of the files they came from, and how many judgements made no pair, by reason.

    `notices` counts what the reader of the files passed over or replaced.
    """

    title: str
    hash: str
    pairs: Sequence[Pair] = field(repr=False)
    skipped: Mapping[str, int]
    notices: Mapping[str, int] = field(default_factory=dict)

    def countries(self) -> tuple[str, ...]:
        """Return the countries that have pairs, by name."""
        return tuple(sorted({p.country for p in self.pairs}))

    def named(self, names: Iterable[str]) -> tuple[str, ...]:
        """Return countries by name or usual abbreviation, all of them where none is named; NotFound
        gives the nearest.
        """
        there = {c.casefold(): c for c in self.countries()}
        found = []
        for name in names:
            whole = name if name.casefold() in there else SHORT.get(name.upper(), name)
            if whole.casefold() not in there:
                raise NotFound("country", name, self.title, there.values())
            found.append(there[whole.casefold()])
        return tuple(dict.fromkeys(found)) or self.countries()


def slug(country: str) -> str:
    """Return the name of a country's folder: its models lie there.

    >>> slug("South Africa")
    'south-africa'
    """
    return "".join(c if c.isalnum() else "-" for c in country.casefold()).strip("-") or digest(
        country
    )


# ------------------------------------------------------------------ reading


def read(source: str | Path, layout: tables.Layout | None = None) -> Votes:
    """Read judgements of one of three shapes, told apart by what is in them.

    A CSV of posts with a 0/1 column `<Country>_Hate` each (CREHate: Lee et al., NAACL 2024, arXiv
    2308.16705); JSONL of scored conversations with the users' countries in `country`, `location` or
    survey.jsonl beside it (PRISM: Kirk et al. 2024, arXiv
    2404.16019); JSONL of `prompt`, `chosen`, `rejected` with `metadata.country` and `metadata.user` (TRL). A folder is read as
    conversations.jsonl or, all of them together, its SPLIT.jsonl; `simulated`, where there is no
    such file, is what the module of that name makes. InputError names file, line and mistake.
    """
    source = Path(source).expanduser()
    if str(source) == "simulated" and not source.exists():
        return simulation()
    files = _files(source)
    made = hashlib.blake2b(digest_size=8)
    for path in files:
        made.update(path.read_bytes())
    pairs: list[Pair] = []
    skipped, notices = Counter[str](), Counter[str]()
    for path in files:
        table = tables.kind_of(path, "votes are") in tables.TABLES
        pairs += (
            _table(path, layout or tables.Layout(), skipped, notices)
            if table
            else _objects(path, skipped, notices)
        )
    if twice := [i for i, n in Counter(p.id for p in pairs).items() if n > 1]:
        raise InputError(
            f"{source}: {len(twice)} pairs have an id of another, for example {twice[0]!r}; ids are"
            " to be different"
        )
    if not pairs:
        raise InputError(
            f"{source}: no two answers of which one was preferred ({_reasons(skipped)})"
        )
    return Votes(source.name, made.hexdigest(), tuple(marked(pairs)), dict(skipped), +notices)


def simulation(**how: Any) -> Votes:
    """Return simulated votes, whose minorities are known; `how` as for
    `simulated.conversations`.
    """
    from culturepark.surveys.simulated import conversations

    skipped = Counter[str]()
    pairs = [
        p
        for n, row in enumerate(conversations(**how), 1)
        for p in conversation(row, {}, f"simulated:{n}", skipped)
    ]
    return Votes("simulated", digest(how, [p.id for p in pairs]), tuple(pairs), dict(skipped))


def _files(source: Path) -> list[Path]:
    if source.is_file():
        return [source]
    if not source.is_dir():
        raise InputError(
            f"no votes at {source}."
            f" {nearest(source.name, sorted(p.name for p in source.parent.glob('*')))}"
        )
    names = (
        ("conversations.jsonl",),
        ("train.jsonl", "validation.jsonl", "test.jsonl"),
        tuple(p.name for p in sorted(source.glob("*.csv"))),
    )
    for group in names:
        if found := [source / name for name in group if (source / name).is_file()]:
            return found
    there = sorted(p.name for p in source.iterdir())
    raise InputError(
        f"{source} holds no conversations.jsonl, train.jsonl or CSV."
        f" {nearest('conversations.jsonl', there)}"
    )


def _reasons(skipped: Mapping[str, int]) -> str:
    return ", ".join(f"{n} {why}" for why, n in skipped.items()) or "the file is empty"


def _table(
    path: Path, layout: tables.Layout, skipped: Counter[str], notices: Counter[str]
) -> Iterator[Pair]:
    """Yield a pair a post and country: what its annotators said of the post, over the opposite."""
    table = tables.read(path, layout, "votes are")
    notices.update(table.notices)
    names = table.columns
    text, key = _column(path, names, TEXT), _column(path, names, ID)
    votes = [n for n in names if n.casefold().endswith(VOTE)]
    if not votes:
        raise InputError(
            f"{path}: no column <Country>_Hate."
            f" {nearest('Country_Hate', names)}{tables.headless(path)}"
        )
    for line, row in table.rows:
        yield from _post(row, text, key, votes, f"{path}:{line}", skipped)


def _column(path: Path, names: Sequence[str], wanted: Sequence[str]) -> str:
    found = [n for n in names if n.casefold() in wanted]
    if not found:
        raise InputError(f"{path}: no column {wanted[0]!r}. {nearest(wanted[0], names)}")
    return found[0]


def _post(
    row: Mapping[str, Any],
    text: str,
    key: str,
    votes: Sequence[str],
    where: str,
    skipped: Counter[str],
) -> Iterator[Pair]:
    if not row[text].strip():
        skipped["posts without a text"] += 1
        return
    if not row[key].strip():
        raise InputError(f"{where}: a row without {key}")
    history = (Message("user", ASKED.format(text=row[text].strip())),)
    for name in votes:
        if tables.is_missing(row[name]):
            skipped["unlabelled"] += 1
            continue
        if row[name].strip() not in ("0", "1", "0.0", "1.0"):
            raise InputError(f"{where}: {name}: {row[name]!r} is neither 0 nor 1")
        said = int(float(row[name]))
        country = name[: -len(VOTE)].replace("_", " ")
        yield Pair(
            id=f"{row[key]}:{country}",
            user=row[key],
            country=country,
            history=history,
            chosen=LABELS[said],
            rejected=LABELS[1 - said],
            item=row[key],
        )


def _objects(path: Path, skipped: Counter[str], notices: Counter[str]) -> list[Pair]:
    table = tables.read(path, what="votes are")
    notices.update(table.notices)
    rows = [(f"{path}:{line}", row) for line, row in table.rows]
    if not rows:
        return []
    first = rows[0][1]
    if "conversation_history" in first:
        homes = _homes(path.parent / "survey.jsonl")
        return [p for where, row in rows for p in conversation(row, homes, where, skipped)]
    if "chosen" not in first and "rejected" not in first:
        hint = (
            " (of PRISM give conversations.jsonl, which has whole histories)"
            if "interaction_id" in first
            else ""
        )
        raise InputError(
            f"{rows[0][0]}: neither conversation_history nor chosen and rejected{hint}."
            f" {nearest('chosen', first)}"
        )
    return [_preference(row, where) for where, row in rows]


# ------------------------------------------------------------- conversations


def _homes(path: Path) -> dict[str, str]:
    """Return where each user of PRISM's survey lives, by user id; empty without a survey."""
    if not path.is_file():
        return {}
    return {str(row.get("user_id")): _home(row) for _, row in tables.json_lines(path)}


def _home(row: Mapping[str, Any]) -> str:
    found = row.get("country") or row.get("location") or ""
    return str(found.get("reside_country") or "") if isinstance(found, dict) else str(found)


def conversation(
    row: Mapping[str, Any], homes: Mapping[str, str], where: str, skipped: Counter[str]
) -> list[Pair]:
    """Return the pairs of one scored conversation: every two answers of a turn that a user scored
    differently.

    Each keeps every earlier turn: what the user wrote and the answer the conversation went on with
    (`if_chosen`, else the best scored). Ties make no pair, nor do answers without a score. Where
    answers carry `majority_score`, a pair is a minority's exactly if that score puts the two the
    other way round.
    """
    if lacking := [
        k for k in ("user_id", "conversation_id", "conversation_history") if k not in row
    ]:
        raise InputError(f"{where}: no {lacking[0]!r}. {nearest(lacking[0], row)}")
    user = str(row["user_id"])
    country = _home(row) or homes.get(user, "")
    if country.strip().casefold() in UNSAID:
        if not country and not homes:
            raise InputError(
                f"{where}: where does user {user!r} live? Give country or location in the row, or"
                " survey.jsonl beside the file"
            )
        skipped["conversations without a country"] += 1
        return []
    history: list[Message] = []
    made: list[Pair] = []
    for turn, asked, answers in _turns(row["conversation_history"], where):
        history.append(Message("user", asked))
        told = tuple(history)
        for (i, a), (j, b) in itertools.combinations(enumerate(answers), 2):
            if (
                a.get("score") is None
                or b.get("score") is None
                or not a["content"].strip()
                or not b["content"].strip()
            ):
                skipped["answers without a score or text"] += 1
            elif a["score"] == b["score"] or a["content"] == b["content"]:
                skipped["ties"] += 1
            else:
                good, bad = (a, b) if a["score"] > b["score"] else (b, a)
                made.append(
                    Pair(
                        id=f"{row['conversation_id']}:{turn}:{i}-{j}",
                        user=user,
                        country=country,
                        history=told,
                        chosen=good["content"],
                        rejected=bad["content"],
                        minority=_against(good, bad),
                    )
                )
        history.append(Message("assistant", _chosen(answers, where, turn)["content"]))
    return made


def _turns(told: Any, where: str) -> Iterator[tuple[int, str, list[dict[str, Any]]]]:
    """Yield (turn, what the user wrote, the answers to it) in order."""
    if not isinstance(told, list):
        raise InputError(f"{where}: conversation_history is a list of messages, not {told!r:.60}")
    for message in told:
        if why := _wrong(message):
            raise InputError(f"{where}: conversation_history: {why}: {message!r:.80}")
    for turn, messages in itertools.groupby(
        sorted(told, key=lambda m: int(m["turn"])), key=lambda m: int(m["turn"])
    ):
        held = list(messages)
        asked = [m["content"] for m in held if m["role"] == "user"]
        answers = [m for m in held if m["role"] in ("model", "assistant")]
        if len(asked) != 1 or not answers:
            raise InputError(
                f"{where}: turn {turn} has {len(asked)} messages of the user's and {len(answers)}"
                " answers; one and some are needed"
            )
        yield turn, asked[0], answers


def _wrong(message: Any) -> str:
    """Say what is wrong with a message of a scored conversation; empty where nothing is."""
    if not isinstance(message, dict) or not {"turn", "role", "content"} <= message.keys():
        return "a message has turn, role and content"
    if not isinstance(message["content"], str):
        return "content is a text"
    if not re.fullmatch("[0-9]{1,9}", str(message["turn"])):
        return "turn is a whole number"
    scores = [message[key] for key in ("score", "majority_score") if message.get(key) is not None]
    return (
        ""
        if all(isinstance(s, (int, float)) and isfinite(s) for s in scores)
        else "a score is a number"
    )


def _chosen(answers: Sequence[dict[str, Any]], where: str, turn: int) -> dict[str, Any]:
    if marked := [a for a in answers if a.get("if_chosen")]:
        return marked[0]
    if scored := [a for a in answers if a.get("score") is not None]:
        return max(scored, key=lambda a: float(a["score"]))
    raise InputError(
        f"{where}: turn {turn}: with which answer did it go on? None has if_chosen or score"
    )


def _against(good: Mapping[str, Any], bad: Mapping[str, Any]) -> bool | None:
    if good.get("majority_score") is None or bad.get("majority_score") is None:
        return None
    return bool(good["majority_score"] < bad["majority_score"])


# --------------------------------------------------------------- preferences


def _preference(row: Mapping[str, Any], where: str) -> Pair:
    """Return a row of TRL's preference format as a pair."""
    made = checked(dict(row), "dpo", where)
    about = {**row, **made["metadata"]}
    if not isinstance(about.get("minority"), (bool, type(None))):
        raise InputError(
            f"{where}: metadata.minority: {about['minority']!r:.60} is neither true nor false"
        )
    country, user = (
        _about(about, names, where)
        for names in (("country", "culture"), ("user", "user_id", "persona"))
    )
    return Pair(
        id=str(about.get("id") or where.rpartition("/")[2]),
        user=user,
        country=country,
        item=str(about.get("item") or ""),
        history=tuple(Message(m["role"], m["content"]) for m in made["prompt"]),
        chosen=made["chosen"][0]["content"],
        rejected=made["rejected"][0]["content"],
        minority=about.get("minority"),
    )


def _about(about: Mapping[str, Any], names: Sequence[str], where: str) -> str:
    found = next((str(about[n]) for n in names if about.get(n)), "")
    if not found:
        raise InputError(
            f"{where}: no metadata.{names[0]}."
            f" {nearest(names[0], [k for k in about if k not in ('prompt', 'chosen', 'rejected')])}"
        )
    return found


# ------------------------------------------------------- minorities and splits


def marked(pairs: Sequence[Pair]) -> Iterator[Pair]:
    """Yield pairs with `minority` set where people of at least three countries judged the same
    item.

    A country's side is what most of its people preferred; a pair is a minority's where most
    countries are on the other side. No model is asked, so the same definition holds for every split
    and for whichever model is judged.
    """
    sides: dict[str, dict[str, Counter[str]]] = {}
    for p in pairs:
        if p.item:
            sides.setdefault(p.item, {}).setdefault(p.country, Counter())[p.chosen] += 1
    most = {
        item: _most(Counter(filter(None, map(_most, by.values()))))
        for item, by in sides.items()
        if len(by) > 2
    }
    for p in pairs:
        yield (
            p.model_copy(update={"minority": most[p.item] not in (None, p.chosen)})
            if p.item in most
            else p
        )


def _most(votes: Counter[str]) -> str | None:
    """Return what has more votes than any other, or None."""
    ranked = votes.most_common(2)
    return ranked[0][0] if len(ranked) == 1 or (ranked and ranked[0][1] > ranked[1][1]) else None


def split(
    pairs: Sequence[Pair], share: float, seed: int, purpose: str = "test"
) -> tuple[list[Pair], list[Pair]]:
    """Return pairs kept and pairs held out: a share of the users of each country, all pairs of a
    user on one side.

    Users who come under several countries (items that all of them judged) are a stratum of their
    own. At least one user of a stratum of two or more is held out, and never all of them. Who is
    held out depends on `seed` and `purpose` alone.
    """
    held: set[str] = set()
    for countries, users in _strata(pairs).items():
        count = min(len(users) - 1, max(1, round(share * len(users)))) if share > 0 else 0
        held.update(stream("scpo", purpose, seed, *countries).sample(users, count))
    return [p for p in pairs if p.user not in held], [p for p in pairs if p.user in held]


def folds(pairs: Sequence[Pair], count: int, seed: int) -> list[list[Pair]]:
    """Return pairs in `count` parts, every part with its share of each country's users; InputError
    where users are too few.
    """
    part: dict[str, int] = {}
    for countries, users in _strata(pairs).items():
        for user in stream("scpo", "folds", seed, *countries).sample(users, len(users)):
            part[user] = len(part) % count
    if len(part) < count:
        raise InputError(
            f"{len(part)} users cannot be in {count} parts, each told by the others' model; more"
            " users are needed"
        )
    return [[p for p in pairs if part[p.user] == i] for i in range(count)]


def _strata(pairs: Sequence[Pair]) -> dict[tuple[str, ...], list[str]]:
    """Return users by the countries they come under."""
    homes: dict[str, set[str]] = {}
    for p in pairs:
        homes.setdefault(p.user, set()).add(p.country)
    made: dict[tuple[str, ...], list[str]] = {}
    for user in sorted(homes):
        made.setdefault(tuple(sorted(homes[user])), []).append(user)
    return made
