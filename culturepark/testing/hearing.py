"""Recovers from a chat's messages the role and the facts that the embedded engine answers from.

A chat request carries only messages. Those that were rendered from this workspace's cards are read
back through the cards' own templates, so edited cards are understood as well as the shipped ones.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from culturepark.context import make_guest
from culturepark.dialogue.casting import shares as answered
from culturepark.dialogue.prompting import write_messages
from culturepark.llm.codec import FITTING
from culturepark.records import (
    Culture,
    Distribution,
    Message,
    Norm,
    Persona,
    Question,
    Request,
    Role,
    Turn,
    digest,
)
from culturepark.settings import Settings
from culturepark.testing.patterns import Bound, Match, Pattern
from culturepark.workspace import Workspace

SEATS = {"main_contact": 0, "delegate": 1}
READERS = ("extractor", "verifier", "rewriter")
SITTER = "respondent"  # not every workspace has one
KEPT = 4096  # system prompts whose reading is kept; a dialogue sends the same one turn after turn
# paragraphs among which the end of a system message is looked for where it opens the first user
# message
FOLDS = 30
TURNS = Settings.model_fields["turns"].default


def hear(workspace: Workspace, body: Mapping[str, Any]) -> Request | None:
    """Return the request that a chat's messages were rendered from; None where they were not
    rendered from these cards.

    `body` is a chat completion's: `messages`, and `seed`, `temperature` and `max_tokens` where
    given. What messages do not tell is taken as usual: the number of turns a dialogue has in all,
    the shares of the shipped survey. A dialogue's random streams are named by those at the table,
    the question and the first turn, or the seed before there is one.
    """
    return _ear(workspace).hear(body)


_EARS: list[Ear] = []


def _ear(workspace: Workspace) -> Ear:
    for ear in _EARS:
        if ear.workspace is workspace:
            return ear
    _EARS.append(Ear(workspace))
    del _EARS[:-4]
    return _EARS[-1]


class Ear:
    """The patterns of one workspace's cards."""

    def __init__(self, workspace: Workspace) -> None:
        self.workspace = workspace
        self.people = tuple(workspace.personas.values())
        self.cultures = tuple(workspace.cultures.values())
        self.scenarios = tuple(workspace.scenarios.values())
        self.questions = tuple((s.name, q) for s in self.scenarios for q in s.questions)
        self.norms = tuple(n for c in self.cultures for n in c.norms)
        candidates: dict[str, Sequence[Any]] = {
            "me": self.people,
            "culture": self.cultures,
            "question": tuple(q for _, q in self.questions),
            "guest": tuple(make_guest(p, workspace.culture(p.culture)) for p in self.people),
            "norm": self.norms,
            "setting": tuple(s.setting for s in self.scenarios),
            "style": ("guided", "free"),
            "mode": ("cross", "in"),
        }
        readers = (*READERS, *({SITTER} & set(workspace.roles)))
        roles = {name: workspace.role(name) for name in (*SEATS, *readers)}
        self._systems = {
            name: Pattern(_system_template(role), candidates) for name, role in roles.items()
        }
        self._prompts = {name: Pattern(roles[name].prompt, candidates) for name in readers}
        moderator = workspace.role("moderator")
        self._cues: list[tuple[str, Pattern]] = []
        for card in filter(None, (moderator, moderator.in_culture)):
            texts = [(cue.name, cue.text) for cue in card.cues]
            texts += [("opening", card.opening), ("free", card.free_cue)]
            self._cues += [(name, Pattern(text, candidates)) for name, text in texts if text]
        # What stands before a nudge is asked of the dialogue's room, so that it has one home.
        self._nudge = write_messages((), 0, "\0")[-1].content.partition("\0")[0]
        self._heard: dict[str, list[tuple[str, Match]]] = {}
        self._shares: dict[tuple[str, str], Distribution | None] = {}

    def hear(self, body: Mapping[str, Any]) -> Request | None:
        """Return the request behind a chat's messages, or None."""
        told = [Message(m.get("role", "user"), content(m)) for m in body["messages"]]
        for messages in _unfolded(told):
            for name, match in self._system(messages[0].content):
                facts = (
                    self._sits(name, match, messages)
                    if name in SEATS
                    else self._reads(name, match, messages)
                )
                if facts is not None:
                    return self._request(self.workspace.role(name), messages, facts, body)
        return None

    def _request(
        self,
        role: Role,
        messages: Sequence[Message],
        facts: Mapping[str, Any],
        body: Mapping[str, Any],
    ) -> Request:
        seed = body.get("seed")
        drawn = int(digest([(m.role, m.content) for m in messages]), 16) >> 1
        return Request(
            role=role.name,
            messages=tuple(messages),
            facts=facts,
            temperature=role.temperature
            if body.get("temperature") is None
            else body["temperature"],
            max_tokens=body.get("max_completion_tokens")
            or body.get("max_tokens")
            or role.max_tokens,
            seed=drawn if seed is None else int(digest(seed, drawn), 16) >> 1,
        )

    def _system(self, text: str) -> list[tuple[str, Match]]:
        if text not in self._heard:
            if len(self._heard) >= KEPT:
                self._heard.clear()
            found = ((name, pattern.read(text)) for name, pattern in self._systems.items())
            self._heard[text] = [(name, match) for name, match in found if match is not None]
        return self._heard[text]

    # ----------------------------------------------------------- speakers

    def _sits(self, name: str, match: Match, messages: Sequence[Message]) -> dict[str, Any] | None:
        """Return the facts of a seat at the table; None where the messages name no one person or no
        one question.
        """
        nudge, rest = _nudge(messages, self._nudge)
        cue, told = self._cue(nudge, match.bound)
        question = self._question(told.bound)
        mine = [p for p in self._of("me", self.people, told.bound) if self._lives(p, told.bound)]
        if question is None or not mine:
            return None
        me, culture = mine[0], self.workspace.culture(mine[0].culture)
        near = match.lists.get("guest") or [told.bound["guest"]]
        others = tuple(
            self.people[min(left)]
            for found in near
            if (left := found - {self.people.index(me)}) and len(left) < len(self.people) - 1
        )
        seat, seats = SEATS[name], len(others) + 1
        history = _history(rest, me, others, seat)
        if nudge is None and history:
            cue = "free"
        answer = _answer(question, match.said.get("view", ""))
        guests = tuple(make_guest(p, self.workspace.culture(p.culture)) for p in others)
        last = next((t.speaker for t in reversed(history) if t.seat != seat), None)
        return {
            "me": me,
            "culture": culture,
            "norms": self._norms(match),
            "others": guests,
            "question": question,
            "other": next(
                (g for g in guests if g.given_name == last), guests[0] if guests else None
            ),
            "answer": answer,
            "view": match.said.get("view", ""),
            "shares": self.shares(culture, question),
            "style": "free" if cue in ("opening", "free") else "guided",
            "mode": "in" if others and others[0].culture == me.culture else "cross",
            "seat": seat % seats,
            "turns": TURNS,
            "history": history,
            "n": len(history),
            "cue": cue,
            "dialogue": _dialogue(me, others, question, history, answer, messages, cue),
        }

    def _cue(self, nudge: str | None, bound: Bound) -> tuple[str, Match]:
        """Return the moderator's cue that rendered to this nudge, and what it tells besides."""
        for name, pattern in self._cues:
            if nudge is not None and (found := pattern.read(nudge, bound)) is not None:
                return name, found
        return "none", Match(bound)

    def _question(self, bound: Bound) -> Question | None:
        """Return the question, of the scenario whose setting was told; None where many fit."""
        ids = {self.questions[i][1].id for i in bound["question"]}
        if len(ids) != 1:
            return None
        settings = {self.scenarios[i].name for i in bound["setting"]}
        found = [self.questions[i] for i in sorted(bound["question"])]
        return next((q for scenario, q in found if scenario in settings), found[0][1])

    def _lives(self, persona: Persona, bound: Bound) -> bool:
        return any(self.cultures[i].name == persona.culture for i in bound["culture"])

    def _norms(self, match: Match) -> tuple[Norm, ...]:
        return tuple(self.norms[min(found)] for found in match.lists.get("norm", ()) if found)

    def _of(self, kind: str, cards: Sequence[Any], bound: Bound) -> list[Any]:
        """Return the cards that fit; none where nothing was told, so that all do."""
        found = bound[kind]
        return (
            [cards[i] for i in sorted(found)] if len(found) < len(cards) or len(cards) == 1 else []
        )

    def shares(self, culture: Culture, question: Question) -> Distribution | None:
        """Return what a culture's people answered in the shipped survey; None where the codes are
        another question's.
        """
        key = (culture.name, question.id)
        if key not in self._shares:
            found = answered(culture, question, None)
            fits = found is not None and set(found.shares) <= {o.code for o in question.options}
            self._shares[key] = found if fits else None
        return self._shares[key]

    # ------------------------------------------------------------ readers

    def _reads(self, name: str, match: Match, messages: Sequence[Message]) -> dict[str, Any] | None:
        """Return the facts of a role that answers once; None where the prompt is not its card's."""
        # A schema in words, and a second asking after an answer that could not be read, are not the
        # card's.
        asked = messages[1].content.partition(FITTING)[0]
        found = self._prompts[name].read(asked, match.bound) if len(messages) in (2, 4) else None
        question = self._question(found.bound) if found else None
        if found is None or question is None:
            return None
        if name == SITTER:
            me = self._of("me", self.people, match.bound)
            return {
                "options": [o.code for o in question.options],
                "view": me[0].views.get(question.id) if me else None,
            }
        facts: dict[str, Any] = {**found.said, "question": question, "turns": _turns(found)}
        if name == "extractor":
            return {
                **facts,
                "culture": self._culture(found, " ".join(t.speaker for t in facts["turns"])),
            }
        answer = _answer(question, found.said.get("view", ""))
        opinion = found.said.get("opinion")
        if answer is None or opinion is None:
            return None
        return {**facts, "answer": answer, "culture": self._culture(found, opinion)}

    def _culture(self, match: Match, text: str) -> Culture:
        """Return the culture that was told, or whose place or people a text names, else one of no
        named place.
        """
        told = self._of("culture", self.cultures, match.bound)
        by_place = [c for c in self.cultures if re.search(rf"\b{re.escape(c.place)}\b", text)]
        by_name = [
            self.workspace.culture(p.culture) for p in self.people if p.given_name in text.split()
        ]
        found = next(iter((*told, *by_place, *by_name)), None)
        return found or self.cultures[0].model_copy(update={"place": "the country"})


# ------------------------------------------------------------------ messages


def _system_template(role: Role) -> str:
    """Return the template of a role's system message, with or without the line on its language."""
    line = "\n" + role.language if role.language else ""
    return role.system.rstrip() + "{% if language %}" + line + "{% endif %}"


def content(message: Mapping[str, Any]) -> str:
    """Return the text of a message, its text parts joined."""
    found = message.get("content")
    if isinstance(found, list):
        return "".join(str(part.get("text", "")) for part in found if isinstance(part, Mapping))
    return found if isinstance(found, str) else ""


def _unfolded(messages: Sequence[Message]) -> Iterator[Sequence[Message]]:
    """Yield the messages with their system message in front; where there is none, each way to part
    it from the first user message.
    """
    if not messages or messages[0].role in ("system", "developer"):
        if len(messages) > 1:
            yield messages
        return
    parts = messages[0].content.split("\n\n", FOLDS)
    for i in range(1, min(len(parts), FOLDS)):
        system, user = "\n\n".join(parts[:i]), "\n\n".join(parts[i:])
        yield [Message("system", system), Message("user", user), *messages[1:]]


def _nudge(messages: Sequence[Message], mark: str) -> tuple[str | None, list[Message]]:
    """Part the moderator's nudge, which `mark` begins, from the talk before it."""
    rest = list(messages[1:])
    last = rest[-1]
    if last.role == "user" and last.content.startswith(mark):
        return last.content.removeprefix(mark), rest[:-1]
    if last.role == "user" and f"\n\n{mark}" in last.content:
        before, _, nudge = last.content.rpartition(f"\n\n{mark}")
        return nudge, [*rest[:-1], Message("user", before)]
    return None, rest


def _history(
    talk: Sequence[Message], me: Persona, others: Sequence[Persona], seat: int
) -> tuple[Turn, ...]:
    """Return the turns of a talk: one's own as assistant, the others' by name; a user message by
    nobody is no turn.
    """
    turns: list[Turn] = []
    seats = [i for i in range(len(others) + 1) if i != seat]
    names = {p.given_name: i for p, i in zip(others, seats, strict=False)}
    named = re.compile(rf"(?:\A|\n\n)({'|'.join(map(re.escape, names)) or '(?!)'}): ")
    for message in talk:
        if message.role == "assistant":
            turns.append(_turn(len(turns), seat, me.given_name, message.content))
            continue
        # One neighbour alone speaks once a message, whatever stands in it.
        parts = named.split(message.content, maxsplit=1 if len(names) == 1 else 0)
        for name, text in zip(parts[1::2], parts[2::2], strict=True):
            turns.append(_turn(len(turns), names[name], name, text))
    return tuple(turns)


def _turn(n: int, seat: int, speaker: str, text: str) -> Turn:
    return Turn.model_construct(
        n=n, seat=seat, speaker=speaker, text=text, cue="", call="", faults=()
    )


def _turns(match: Match) -> tuple[Turn, ...]:
    """Return the numbered turns of an extractor's prompt; one without a number counts on."""
    return tuple(
        _turn(
            int(t["n"]) if t.get("n", "").isdecimal() else i,
            0,
            t.get("speaker", ""),
            t.get("text", ""),
        )
        for i, t in enumerate(match.turns)
    )


def _answer(question: Question, view: str) -> int | None:
    """Return the code of the option that is spoken so."""
    return next((o.code for o in question.options if question.spoken(o.code) == view), None)


def _dialogue(
    me: Persona,
    others: Sequence[Persona],
    question: Question,
    history: Sequence[Turn],
    answer: int | None,
    messages: Sequence[Message],
    cue: str,
) -> str:
    """Return a name for a dialogue's random streams that both its seats arrive at once it has a
    turn.
    """
    table = [sorted(p.id for p in (me, *others)), question.id]
    return (
        digest(table, history[0].text)
        if history
        else digest(table, answer, cue, messages[0].content)
    )
