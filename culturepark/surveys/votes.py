"""Reads people's judgements into preferences, and splits these by user.

Three formats: labels per country, scored conversations, rows of `prompt`, `chosen`, `rejected`.
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
from culturepark.records import Message, Preference, digest, stream
from culturepark.tables.conversations import check_row

QUESTION = "Is this post hateful?\n\n{text}"
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


@dataclass(frozen=True)
class Votes:
    """Preference pairs and the hash of their files.

    `skipped` counts the judgements that made no pair, by reason; `notices` what the reader of the
    files left out or replaced.
    """

    title: str
    hash: str
    pairs: Sequence[Preference] = field(repr=False)
    skipped: Mapping[str, int]
    notices: Mapping[str, int] = field(default_factory=dict)

    def countries(self) -> tuple[str, ...]:
        """Return the countries that have pairs, by name."""
        return tuple(sorted({p.country for p in self.pairs}))

    def find_countries(self, names: Iterable[str]) -> tuple[str, ...]:
        """Return countries by name or usual abbreviation; all of them if none is named.

        Raises NotFound with the nearest name.
        """
        known = {c.casefold(): c for c in self.countries()}
        countries = []
        for name in names:
            full_name = name if name.casefold() in known else SHORT.get(name.upper(), name)
            if full_name.casefold() not in known:
                raise NotFound("country", name, self.title, known.values())
            countries.append(known[full_name.casefold()])
        return tuple(dict.fromkeys(countries)) or self.countries()


def slugify(country: str) -> str:
    """Return a country's name as a folder's.

    >>> slugify("South Africa")
    'south-africa'
    """
    return "".join(c if c.isalnum() else "-" for c in country.casefold()).strip("-") or digest(
        country
    )


# ------------------------------------------------------------------ reading


def read_votes(source: str | Path, layout: tables.Layout | None = None) -> Votes:
    """Read judgements in one of three formats, recognised by their columns.

    - A CSV of posts with a 0/1 column `<Country>_Hate` per country (CREHate: Lee et al., NAACL
      2024, arXiv 2308.16705).
    - JSONL of scored conversations with the users' countries in `country`, `location` or
      survey.jsonl beside it (PRISM: Kirk et al. 2024, arXiv 2404.16019).
    - JSONL of `prompt`, `chosen`, `rejected` with `metadata.country` and `metadata.user` (TRL).

    Of a folder, conversations.jsonl is read or else all its SPLIT.jsonl together. `simulated`, if
    no such file exists, is simulated data. Raises InputError with file, line and mistake.
    """
    source = Path(source).expanduser()
    if str(source) == "simulated" and not source.exists():
        return simulate_votes()
    files = _list_files(source)
    file_hash = hashlib.blake2b(digest_size=8)
    for path in files:
        file_hash.update(path.read_bytes())
    pairs: list[Preference] = []
    skipped, notices = Counter[str](), Counter[str]()
    for path in files:
        table = tables.kind_of(path, "votes are") in tables.TABLES
        pairs += (
            _read_table(path, layout or tables.Layout(), skipped, notices)
            if table
            else _read_objects(path, skipped, notices)
        )
    if repeated := [i for i, n in Counter(p.id for p in pairs).items() if n > 1]:
        raise InputError(
            f"{source}: {len(repeated)} ids stand twice, for example {repeated[0]!r}; each pair"
            " needs an id of its own"
        )
    if not pairs:
        raise InputError(
            f"{source}: no two answers of which one was preferred ({_format_reasons(skipped)})"
        )
    return Votes(
        source.name, file_hash.hexdigest(), tuple(mark_minorities(pairs)), dict(skipped), +notices
    )


def simulate_votes(**how: Any) -> Votes:
    """Return simulated votes with known minorities; `how` as for `generate_conversations`."""
    from culturepark.surveys.simulated import generate_conversations

    skipped = Counter[str]()
    pairs = [
        p
        for n, row in enumerate(generate_conversations(**how), 1)
        for p in read_conversation(row, {}, f"simulated:{n}", skipped)
    ]
    return Votes("simulated", digest(how, [p.id for p in pairs]), tuple(pairs), dict(skipped))


def _list_files(source: Path) -> list[Path]:
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
        if present := [source / name for name in group if (source / name).is_file()]:
            return present
    there = sorted(p.name for p in source.iterdir())
    raise InputError(
        f"{source} holds no conversations.jsonl, train.jsonl or CSV."
        f" {nearest('conversations.jsonl', there)}"
    )


def _format_reasons(skipped: Mapping[str, int]) -> str:
    return ", ".join(f"{n} {why}" for why, n in skipped.items()) or "the file is empty"


def _read_table(
    path: Path, layout: tables.Layout, skipped: Counter[str], notices: Counter[str]
) -> Iterator[Preference]:
    """Yield a pair per post and country: its annotators' label is preferred to the opposite one."""
    table = tables.read(path, layout, "votes are")
    notices.update(table.notices)
    names = table.columns
    text, key = _find_column(path, names, TEXT), _find_column(path, names, ID)
    votes = [n for n in names if n.casefold().endswith(VOTE)]
    if not votes:
        raise InputError(
            f"{path}: no column <Country>_Hate."
            f" {nearest('Country_Hate', names)}{tables.suggest_columns(path)}"
        )
    for line, row in table.rows:
        yield from _read_post(row, text, key, votes, f"{path}:{line}", skipped)


def _find_column(path: Path, names: Sequence[str], accepted: Sequence[str]) -> str:
    matches = [n for n in names if n.casefold() in accepted]
    if not matches:
        raise InputError(f"{path}: no column {accepted[0]!r}. {nearest(accepted[0], names)}")
    return matches[0]


def _read_post(
    row: Mapping[str, Any],
    text: str,
    key: str,
    votes: Sequence[str],
    where: str,
    skipped: Counter[str],
) -> Iterator[Preference]:
    if not row[text].strip():
        skipped["posts without a text"] += 1
        return
    if not row[key].strip():
        raise InputError(f"{where}: a row without {key}")
    history = (Message("user", QUESTION.format(text=row[text].strip())),)
    for name in votes:
        if tables.is_missing(row[name]):
            skipped["unlabelled"] += 1
            continue
        if row[name].strip() not in ("0", "1", "0.0", "1.0"):
            raise InputError(f"{where}: {name}: {row[name]!r} is neither 0 nor 1")
        label = int(float(row[name]))
        country = name[: -len(VOTE)].replace("_", " ")
        yield Preference(
            id=f"{row[key]}:{country}",
            user=row[key],
            country=country,
            history=history,
            chosen=LABELS[label],
            rejected=LABELS[1 - label],
            item=row[key],
        )


def _read_objects(path: Path, skipped: Counter[str], notices: Counter[str]) -> list[Preference]:
    table = tables.read(path, what="votes are")
    notices.update(table.notices)
    rows = [(f"{path}:{line}", row) for line, row in table.rows]
    if not rows:
        return []
    first = rows[0][1]
    if "conversation_history" in first:
        homes = _read_homes(path.parent / "survey.jsonl")
        return [p for where, row in rows for p in read_conversation(row, homes, where, skipped)]
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
    return [_read_preference(row, where) for where, row in rows]


# ------------------------------------------------------------- conversations


def _read_homes(path: Path) -> dict[str, str]:
    """Return where each user of PRISM's survey lives, by user id; empty without a survey."""
    if not path.is_file():
        return {}
    return {str(row.get("user_id")): _find_home(row) for _, row in tables.json_lines(path)}


def _find_home(row: Mapping[str, Any]) -> str:
    home = row.get("country") or row.get("location") or ""
    return str(home.get("reside_country") or "") if isinstance(home, dict) else str(home)


def read_conversation(
    row: Mapping[str, Any], homes: Mapping[str, str], where: str, skipped: Counter[str]
) -> list[Preference]:
    """Return the pairs of one scored conversation: every two answers of a turn that the user scored
    differently.

    Each pair's history holds every earlier turn: what the user wrote and the answer with which the
    conversation continued (`if_chosen`, else the best scored). Ties and answers without a score
    make no pair. If answers carry `majority_score`, a pair belongs to a minority if and only if
    that score orders the two the other way round.
    """
    if lacking := [
        k for k in ("user_id", "conversation_id", "conversation_history") if k not in row
    ]:
        raise InputError(f"{where}: no {lacking[0]!r}. {nearest(lacking[0], row)}")
    user = str(row["user_id"])
    country = _find_home(row) or homes.get(user, "")
    if country.strip().casefold() in UNSAID:
        if not country and not homes:
            raise InputError(
                f"{where}: where does user {user!r} live? Give country or location in the row, or"
                " survey.jsonl beside the file"
            )
        skipped["conversations without a country"] += 1
        return []
    history: list[Message] = []
    pairs: list[Preference] = []
    for turn, question, answers in _split_turns(row["conversation_history"], where):
        history.append(Message("user", question))
        earlier = tuple(history)
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
                pairs.append(
                    Preference(
                        id=f"{row['conversation_id']}:{turn}:{i}-{j}",
                        user=user,
                        country=country,
                        history=earlier,
                        chosen=good["content"],
                        rejected=bad["content"],
                        minority=_is_minority(good, bad),
                    )
                )
        history.append(Message("assistant", _find_continuation(answers, where, turn)["content"]))
    return pairs


def _split_turns(messages: Any, where: str) -> Iterator[tuple[int, str, list[dict[str, Any]]]]:
    """Yield (turn, the user's text, the answers to it) in order."""
    if not isinstance(messages, list):
        raise InputError(
            f"{where}: conversation_history is a list of messages, not {messages!r:.60}"
        )
    for message in messages:
        if why := _explain_fault(message):
            raise InputError(f"{where}: conversation_history: {why}: {message!r:.80}")
    for turn, group in itertools.groupby(
        sorted(messages, key=lambda m: int(m["turn"])), key=lambda m: int(m["turn"])
    ):
        turn_messages = list(group)
        questions = [m["content"] for m in turn_messages if m["role"] == "user"]
        answers = [m for m in turn_messages if m["role"] in ("model", "assistant")]
        if len(questions) != 1 or not answers:
            raise InputError(
                f"{where}: turn {turn} has {len(questions)} messages of the user's and"
                f" {len(answers)} answers; one and some are needed"
            )
        yield turn, questions[0], answers


def _explain_fault(message: Any) -> str:
    """Return what is wrong with a message of a scored conversation; empty if nothing is."""
    if not isinstance(message, dict) or not {"turn", "role", "content"} <= message.keys():
        return "a message has turn, role and content"
    if not isinstance(message["content"], str):
        return "content is a text"
    if not re.fullmatch("[0-9]{1,9}", str(message["turn"])):
        return "turn is a whole number"
    scores = [message[key] for key in ("score", "majority_score") if message.get(key) is not None]
    if not all(isinstance(s, (int, float)) and isfinite(s) for s in scores):
        return "a score is a number"
    return ""


def _find_continuation(answers: Sequence[dict[str, Any]], where: str, turn: int) -> dict[str, Any]:
    if continued := [a for a in answers if a.get("if_chosen")]:
        return continued[0]
    if with_score := [a for a in answers if a.get("score") is not None]:
        return max(with_score, key=lambda a: float(a["score"]))
    raise InputError(
        f"{where}: turn {turn}: with which answer did it go on? None has if_chosen or score"
    )


def _is_minority(good: Mapping[str, Any], bad: Mapping[str, Any]) -> bool | None:
    if good.get("majority_score") is None or bad.get("majority_score") is None:
        return None
    return bool(good["majority_score"] < bad["majority_score"])


# --------------------------------------------------------------- preferences


def _read_preference(row: Mapping[str, Any], where: str) -> Preference:
    """Return the preference in a row of TRL's format."""
    fields = check_row(dict(row), "dpo", where)
    metadata = {**row, **fields["metadata"]}
    if not isinstance(metadata.get("minority"), (bool, type(None))):
        raise InputError(
            f"{where}: metadata.minority: {metadata['minority']!r:.60} is neither true nor false"
        )
    country, user = (
        _require_metadata(metadata, names, where)
        for names in (("country", "culture"), ("user", "user_id", "persona"))
    )
    return Preference(
        id=str(metadata.get("id") or where.rpartition("/")[2]),
        user=user,
        country=country,
        item=str(metadata.get("item") or ""),
        history=tuple(Message(m["role"], m["content"]) for m in fields["prompt"]),
        chosen=fields["chosen"][0]["content"],
        rejected=fields["rejected"][0]["content"],
        minority=metadata.get("minority"),
    )


def _require_metadata(metadata: Mapping[str, Any], names: Sequence[str], where: str) -> str:
    value = next((str(metadata[n]) for n in names if metadata.get(n)), "")
    if not value:
        keys = [k for k in metadata if k not in ("prompt", "chosen", "rejected")]
        raise InputError(f"{where}: no metadata.{names[0]}. {nearest(names[0], keys)}")
    return value


# ------------------------------------------------------- minorities and splits


def mark_minorities(pairs: Sequence[Preference]) -> Iterator[Preference]:
    """Yield pairs with `minority` set where people of at least three countries judged the item.

    A country's side is what most of its people preferred; a pair belongs to a minority if most
    countries are on the other side. No model takes part, so the definition is the same for every
    split and for whichever model is judged.
    """
    sides: dict[str, dict[str, Counter[str]]] = {}
    for p in pairs:
        if p.item:
            sides.setdefault(p.item, {}).setdefault(p.country, Counter())[p.chosen] += 1
    most = {
        item: _find_majority(Counter(filter(None, map(_find_majority, by.values()))))
        for item, by in sides.items()
        if len(by) > 2
    }
    for p in pairs:
        if p.item in most:
            p = p.model_copy(update={"minority": most[p.item] not in (None, p.chosen)})
        yield p


def _find_majority(votes: Counter[str]) -> str | None:
    """Return the answer with more votes than any other; None if there is none."""
    ranking = votes.most_common(2)
    return (
        ranking[0][0] if len(ranking) == 1 or (ranking and ranking[0][1] > ranking[1][1]) else None
    )


def split_by_user(
    pairs: Sequence[Preference], share: float, seed: int, purpose: str = "test"
) -> tuple[list[Preference], list[Preference]]:
    """Return training pairs and held-out pairs: those of a share of each country's users.

    All pairs of a user are on one side. Users of several countries (items that all of them judged)
    are a stratum of their own. At least one user of a stratum of two or more is held out, and never
    all of them. Who is held out depends on `seed` and `purpose` alone.
    """
    held_out: set[str] = set()
    for countries, users in _group_by_countries(pairs).items():
        count = min(len(users) - 1, max(1, round(share * len(users)))) if share > 0 else 0
        held_out.update(stream("scpo", purpose, seed, *countries).sample(users, count))
    return [p for p in pairs if p.user not in held_out], [p for p in pairs if p.user in held_out]


def split_into_folds(pairs: Sequence[Preference], count: int, seed: int) -> list[list[Preference]]:
    """Return pairs in `count` folds, each with its share of each country's users.

    Raises InputError if there are fewer users than folds.
    """
    part: dict[str, int] = {}
    for countries, users in _group_by_countries(pairs).items():
        for user in stream("scpo", "folds", seed, *countries).sample(users, len(users)):
            part[user] = len(part) % count
    if len(part) < count:
        raise InputError(
            f"{len(part)} users cannot be in {count} parts, each scored by a model of the others;"
            " more users are needed"
        )
    return [[p for p in pairs if part[p.user] == i] for i in range(count)]


def _group_by_countries(pairs: Sequence[Preference]) -> dict[tuple[str, ...], list[str]]:
    """Return users by the countries of their pairs."""
    homes: dict[str, set[str]] = {}
    for p in pairs:
        homes.setdefault(p.user, set()).add(p.country)
    users_by_countries: dict[tuple[str, ...], list[str]] = {}
    for user in sorted(homes):
        users_by_countries.setdefault(tuple(sorted(homes[user])), []).append(user)
    return users_by_countries
