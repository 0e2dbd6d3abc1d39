"""The frozen types that move through the park, from cards to samples.

Cards (written by people, read from TOML): Role, Culture, Persona, Scenario.
Park: Seat, Scene, Turn, Dialogue.   Models: Message, Request, Reply.
Refinery: Opinion, Verdict.          Corpus: Sample, Pair.    Surveys: Distribution, Dimensions.
"""

from __future__ import annotations

import hashlib
import json
import random
import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import Annotated, Any, Literal, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    model_validator,
)

# What no person may be called: in a transcript it would be taken for the part that a model plays.
ROLE_NAMES = {
    "moderator",
    "main contact",
    "delegate",
    "extractor",
    "verifier",
    "rewriter",
    "system",
    "user",
    "assistant",
}
RESERVED = {"con", "prn", "aux", "nul", *(f"{p}{n}" for p in ("com", "lpt") for n in range(1, 10))}


def _portable(name: str) -> str:
    """Refuse what cannot be a file's name everywhere: a separator, drive, dot, capital or device
    name.
    """
    if not re.fullmatch(r"[a-z0-9][a-z0-9_-]{0,47}", name):
        raise ValueError(
            f"{name[:60]!r} cannot be a name: write small letters a-z, digits, '-' and '_', at most"
            " 48, the first a letter or digit"
        )
    if name.casefold() in RESERVED:
        raise ValueError(f"{name!r} is a device name on some systems; choose another")
    return name


def _question_id(name: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]{0,47}", name):
        raise ValueError(
            f"{name[:60]!r} cannot be an id: write letters A-Z, digits, '-' and '_', at most 48, "
            "the first a letter or digit"
        )
    return name


Name = Annotated[str, AfterValidator(_portable)]


def _single_line(text: str) -> str:
    if any(unicodedata.category(character) in ("Cc", "Zl", "Zp") for character in text):
        raise ValueError(f"{text[:60]!r} must be one line, without control characters")
    return text


def _no_role(name: str) -> str:
    if name.casefold().replace("_", " ") in ROLE_NAMES:
        raise ValueError(
            f"{name!r} is the name of a role in dialogues; give the person a name of their own"
        )
    return name


QuestionId = Annotated[str, AfterValidator(_question_id)]
Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=4_000)]
Texts = tuple[Text, ...]
Title = Annotated[Text, AfterValidator(_single_line)]
GivenName = Annotated[Title, AfterValidator(_no_role)]
TemplateText = Annotated[str, StringConstraints(max_length=40_000)]  # in Jinja; may be empty
PromptText = Annotated[TemplateText, StringConstraints(strip_whitespace=True, min_length=1)]


class Record(BaseModel):
    """A frozen value: equal by content, no unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", ignored_types=(cached_property,))


def digest(*parts: Any, size: int = 8) -> str:
    """Return the hex BLAKE2b hash (`size` bytes) of JSON-like parts; equal content, equal hash."""
    text = json.dumps(
        parts, sort_keys=True, ensure_ascii=False, separators=(",", ":"), default=_plain
    )
    return hashlib.blake2b(text.encode(), digest_size=size).hexdigest()


def _plain(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    raise TypeError(f"cannot hash a {type(value).__name__}")


# Optional fields that count in hashes whether they are set or not, as they always have. None is
# ever added: a field that comes later counts only where it is set, so that the ids of older runs
# stay.
# Who has a model of its own: those who speak in a dialogue, and those who read it.
SpeakerRole = Literal["main_contact", "delegate"]
ReaderRole = Literal["extractor", "verifier", "rewriter"]
ModelRole = Literal[SpeakerRole, ReaderRole]
SPEAKERS: tuple[SpeakerRole, ...] = get_args(SpeakerRole)
READERS: tuple[ReaderRole, ...] = get_args(ReaderRole)
ChatRole = Literal["system", "user", "assistant"]  # whose a message to a model is
CHAT_ROLES: tuple[ChatRole, ...] = get_args(ChatRole)
SplitName = Literal["train", "validation", "test"]
SPLITS: tuple[SplitName, ...] = get_args(SplitName)
HASHED = {
    "Option": {"label", "degree"},
    "Norm": {"topics", "source"},
    "Culture": {"survey", "hofstede", "sensitivities", "notes"},
    "Persona": {"public", "private", "secret", "views", "notes"},
    "Question": {"claim", "denial", "pros", "cons", "answers"},
    "Scenario": {"survey", "scales"},
    "Seat": {"view"},
    "Role": {"prompt", "temperature", "max_tokens", "cues", "free_cue", "opening", "repeat_from"},
    "Settings": {
        "contact",
        "personas",
        "scenario",
        "questions",
        "survey",
        "turns",
        "modes",
        "styles",
        "stance",
        "seed",
        "model",
        "models",
        "seats",
        "endpoints",
        "faults",
        "refine",
        "split",
    },
    "Refining": {"filters", "embedder", "clusters", "rewrites"},
    "Split": {"validation", "test"},
    "Endpoint": {"structured", "params"},
}

# Fields that stand in hashes under the names they first had.
FIRST_NAMES = {("Refining", "filters"): "sieves"}


def content(record: Record) -> dict[str, Any]:
    """Return what a record says, as plain data for a hash that stays when the record's class grows
    an optional field.
    """
    found: dict[str, Any] = _content(record, record.model_dump(mode="json"))
    return found


def _content(value: Any, data: Any) -> Any:
    if isinstance(value, Record):
        kind = type(value).__name__
        return {
            FIRST_NAMES.get((kind, name), name): _content(getattr(value, name), data[name])
            for name in type(value).model_fields
            if _counts(value, name)
        }
    if isinstance(value, Mapping):
        return {
            key: _content(inner, data[key]) for key, inner in zip(data, value.values(), strict=True)
        }
    if isinstance(value, (tuple, list)):
        return [_content(inner, plain) for inner, plain in zip(value, data, strict=True)]
    return data


def _counts(record: Record, name: str) -> bool:
    defaults = _omitted_defaults(type(record))
    return name not in defaults or getattr(record, name) != defaults[name]


@lru_cache(maxsize=256)
def _omitted_defaults(kind: type[Record]) -> dict[str, Any]:
    """Return the fields that do not count while they have their default, and that default."""
    always = {name for base in kind.__mro__ for name in HASHED.get(base.__name__, ())}
    return {
        name: field.get_default(call_default_factory=True)
        for name, field in kind.model_fields.items()
        if name not in always and not field.is_required()
    }


def stream(*purpose: Any) -> random.Random:
    """Return the random stream named by `purpose`: same name, same numbers, whatever ran before."""
    return random.Random(int(digest(*purpose), 16))  # noqa: S311 - simulation, not security


# ------------------------------------------------------------------ surveys


class Option(Record):
    """One answer option. `degree` says how far it affirms the question's claim, from -1 to 1."""

    code: int
    label: str = ""
    degree: Annotated[float, Field(ge=-1, le=1)] = 0.0

    def __str__(self) -> str:
        return f"{self.code}. {self.label}" if self.label else str(self.code)


class Distribution(Record):
    """What a people answered to one survey item.

    `shares` maps option code to its share (0 to 1) of the valid answers, weighted where the
    release has weights; `n` counts valid respondents; `missing` is the share of respondents
    without a valid answer. Missing codes never enter a share or a mean.
    """

    survey: str
    countries: tuple[str, ...]
    item: str
    n: Annotated[int, Field(gt=0)]
    missing: Annotated[float, Field(ge=0, le=1)]
    shares: dict[int, float]

    @property
    def modal(self) -> int:
        """The most frequent answer (the lowest code among equals)."""
        return min(self.shares, key=lambda code: (-self.shares[code], code))

    @property
    def mean(self) -> float:
        """The mean of the valid answer codes."""
        return sum(code * share for code, share in self.shares.items())

    def draw(self, rng: random.Random) -> int:
        """Draw one answer with the people's own probabilities."""
        codes = sorted(self.shares)
        return rng.choices(codes, [self.shares[c] for c in codes])[0]


class Dimensions(Record):
    """Hofstede's six dimensions for one country or region; None where none was published."""

    code: str
    title: str
    pdi: int | None = None
    idv: int | None = None
    mas: int | None = None
    uai: int | None = None
    lto: int | None = None
    ivr: int | None = None


# -------------------------------------------------------------------- cards

SUBTYPES = {
    "belief": ("religious", "moral", "social", "political", "economic", "philosophical"),
    "norm": (
        "descriptive",
        "prescriptive",
        "proscriptive",
        "relational",
        "conversational",
        "legal",
    ),
    "custom": ("family", "food", "greeting", "festival", "ritual", "dress"),
}


class Norm(Record):
    """A belief, norm or custom that many hold or keep, said with care and with its source."""

    kind: Literal["belief", "norm", "custom"]
    subtype: str
    text: Text
    topics: tuple[str, ...] = ()
    source: Text = "authored"

    @model_validator(mode="after")
    def _subtype_fits(self) -> Norm:
        if self.subtype not in SUBTYPES[self.kind]:
            raise ValueError(
                f"subtype {self.subtype!r} of a {self.kind}; there are:"
                f" {', '.join(SUBTYPES[self.kind])}"
            )
        return self


class Culture(Record):
    """A culture card: how its people are named, surveyed and addressed, and what many of them
    keep.
    """

    name: Name
    title: Title
    people: Title
    place: Title
    languages: Annotated[Texts, Field(min_length=1)]
    survey: tuple[str, ...] = ()
    hofstede: str | None = None
    style: Text
    sensitivities: Texts = ()
    norms: Annotated[tuple[Norm, ...], Field(alias="norm", min_length=1)]
    notes: str = ""


class Persona(Record):
    """A persona card: one invented person of a culture.

    `public` is known to everyone at the table, `private` is told to nobody but may be acted on,
    `secret` must not be revealed; the last two are rendered only for their owner.
    `views` maps a question's id to the option code this person holds.
    """

    name: Name
    culture: Name
    given_name: GivenName
    gender: Literal["woman", "man", "nonbinary"]
    age: Annotated[int, Field(ge=16, le=110)]
    home: Text
    work: Text
    education: Text
    household: Text
    voice: Text
    public: Texts = ()
    private: Texts = ()
    secret: Texts = ()
    views: dict[str, int] = {}
    notes: str = ""

    @property
    def id(self) -> str:
        """`culture/name`, unique in a workspace."""
        return f"{self.culture}/{self.name}"


class Question(Record):
    """A seed question with its full option list.

    `claim` and `denial` hold clauses (no full stop, lower-case start) that say what affirming
    or denying the question's statement means; `pros` and `cons` hold clauses that may follow
    "because". The embedded engine speaks and reads through them; hosted models never see them.
    """

    id: QuestionId
    topic: Name
    about: Text
    text: Text
    options: Annotated[tuple[Option, ...], Field(min_length=2)]
    claim: Texts = ()
    denial: Texts = ()
    pros: Texts = ()
    cons: Texts = ()
    answers: dict[str, int] = {}

    @model_validator(mode="after")
    def _codes_differ(self) -> Question:
        codes = [o.code for o in self.options]
        if len(set(codes)) < len(codes):
            raise ValueError(f"question {self.id}: option codes repeat: {codes}")
        return self

    def option(self, code: int) -> Option:
        """Return the option with this code; KeyError when there is none."""
        for option in self.options:
            if option.code == code:
                return option
        raise KeyError(code)

    def say(self, code: int) -> str:
        """Return the answer as a person would say it, scale named where the option has no words."""
        option = self.option(code)
        if option.label and (len(self.options) < 8 or all(o.label for o in self.options)):
            return option.label
        low, high = self.options[0], self.options[-1]
        return (
            f"{code} on a scale from {low.code} ({low.label.lower()}) to {high.code}"
            f" ({high.label.lower()})"
        )

    @property
    def prompt(self) -> str:
        """The question with every option, as a survey taker reads it."""
        return self.text + "\n" + "\n".join(map(str, self.options))


class Scenario(Record):
    """A scenario card: a topic, a situation or a whole pack of seed questions."""

    name: Name
    title: Title
    setting: Text
    survey: str = ""
    source: Text
    questions: Annotated[tuple[Question, ...], Field(alias="question", min_length=1)]
    scales: dict[str, tuple[Option, ...]] = {}

    @model_validator(mode="before")
    @classmethod
    def _fill_scales(cls, data: Any) -> Any:
        """Let a question name a scale of this card instead of writing its options out."""
        if not isinstance(data, Mapping) or not isinstance(data.get("question"), (list, tuple)):
            return data
        scales = data.get("scales", {})
        filled = []
        for question in data["question"]:
            if isinstance(question, Mapping) and isinstance(question.get("options"), str):
                scale = question["options"]
                if scale not in scales:
                    from culturepark.errors import nearest

                    raise ValueError(
                        f"question {question.get('id')}: no scale {scale!r} here."
                        f" {nearest(scale, scales)}"
                    )
                question = {**question, "options": scales[scale]}
            filled.append(question)
        return {**data, "question": filled}

    @model_validator(mode="after")
    def _ids_differ(self) -> Scenario:
        ids = [q.id for q in self.questions]
        twice = sorted({i for i in ids if ids.count(i) > 1})
        if twice:
            raise ValueError(f"question ids repeat: {', '.join(twice)}")
        return self


class Cue(Record):
    """One nudge of the moderator to the seat that speaks next (a Jinja template)."""

    name: Name
    text: PromptText


class Nudges(Record):
    """What the moderator says: `cues`, one per round in order, the last ones repeating from
    `repeat_from`; in free chat `opening` before the first turn and `free_cue` before every other.
    """

    cues: Annotated[tuple[Cue, ...], Field(alias="cue")] = ()
    free_cue: TemplateText = ""
    opening: TemplateText = ""
    repeat_from: Annotated[int, Field(ge=0)] = 0


class Role(Nudges):
    """A role card: the prompts and the settings with which a model plays one part.

    `system` and `prompt` are sandboxed Jinja templates; `prompt` renders the last user message
    of roles that answer once; `language` is added to `system` for a seat that does not speak
    English. The nudges are the moderator's; where all share a culture, those of `in_culture` stand
    in their place.
    """

    name: Name
    purpose: Text
    system: PromptText
    prompt: TemplateText = ""
    language: TemplateText = ""
    temperature: Annotated[float, Field(ge=0, le=2)] = 0.7
    max_tokens: Annotated[int, Field(gt=0)] = 256
    in_culture: Nudges | None = None


# ------------------------------------------------------------------- models


@dataclass(frozen=True, slots=True)
class Message:
    """One chat message as a model receives it. A plain dataclass: a turn makes one for every turn
    before it.
    """

    role: ChatRole
    content: str


@dataclass(frozen=True, slots=True)
class Request:
    """One question to a model: what it is sent, and the facts from which that was rendered.

    `speaker` is the persona (`culture/name`) that a seat's model plays; empty for roles that no
    person plays. `options`, where there are any, are the answers over which the model's own
    distribution is asked for. `stop` are texts at which the answer ends, where the endpoint takes
    any.
    """

    role: str
    messages: tuple[Message, ...]
    facts: Mapping[str, Any] = field(default_factory=dict, repr=False)
    temperature: float = 0.7
    max_tokens: int = 256
    reply_schema: Mapping[str, Any] | None = None
    seed: int = 0
    index: int = 0
    speaker: str = ""
    options: tuple[str, ...] = ()
    stop: tuple[str, ...] = ()

    def key(self, identity: str) -> str:
        """Return the hash of everything that can change the answer of the model `identity`."""
        from orjson import OPT_SORT_KEYS, dumps

        messages = [(m.role, m.content) for m in self.messages]
        parts = (
            identity,
            self.role,
            messages,
            self.temperature,
            self.max_tokens,
            self.reply_schema,
            self.seed,
            self.index,
            *([self.options] if self.options else []),
            *([{"stop": self.stop}] if self.stop else []),
        )
        return hashlib.blake2b(dumps(parts, option=OPT_SORT_KEYS), digest_size=10).hexdigest()


class Fault(Record):
    """A fault that the embedded engine planted on purpose, so that filters can be measured."""

    kind: Literal["contradiction", "off_topic", "refusal", "duplicate", "drift"]
    sentence: str


Status = Literal["ok", "refused", "truncated", "filtered", "empty", "failed"]


@dataclass(frozen=True, slots=True)
class Reply:
    """What came back. Only `status == "ok"` carries an answer; every other status carries a reason.

    Tokens are as the provider counted them, None where it did not say; `usd` is None where the
    price or the tokens are unknown. `attempts` counts what was sent, `lost` those of them that may
    have been billed without an answer. `option_probs` are the request's options' probabilities,
    which sum to 1; empty if the model gave none. `reasoning` is what the model thought
    before it answered: never part of `text`, kept for reading, counted as tokens. `final` says of a
    failure that the same request would fail again; it is not kept, for settings may change.
    """

    status: Status
    text: str = ""
    reason: str = ""
    model: str = ""
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    cached_tokens: int | None = None
    usd: float | None = None
    ms: float = 0.0
    attempts: int = 1
    lost: int = 0
    faults: tuple[Fault, ...] = ()
    option_probs: tuple[float, ...] = ()
    reasoning: str = ""
    final: bool = False


# --------------------------------------------------------------------- park


Edges = tuple[tuple[int, int], ...]


class Topology(Record):
    """How the seats of a dialogue are joined: a kind of turn-taking, and who hears whom.

    `edges` are pairs of seats that hear each other, as networkx reads an edge list.
    """

    kind: Literal["pair", "hub"] = "pair"
    edges: Edges = ((0, 1),)

    @cached_property
    def seats(self) -> tuple[int, ...]:
        """All seats that are joined to any other."""
        return tuple(sorted({seat for edge in self.edges for seat in edge}))

    @cached_property
    def neighbours(self) -> dict[int, tuple[int, ...]]:
        """By seat, the seats that hear it and are heard by it."""
        return {
            seat: tuple(sorted({i for edge in self.edges if seat in edge for i in edge} - {seat}))
            for seat in self.seats
        }


class Seat(Record):
    """One place at the table: a role, played as a persona of a culture, with a view or none.

    `language` is what the seat speaks, English where it is empty. `mined` says whether opinions are
    taken from its turns; where it is None, they are from delegates', and in-culture from
    everyone's.
    """

    role: SpeakerRole
    persona: str
    view: int | None = None
    language: str = ""
    mined: bool | None = None

    @property
    def culture(self) -> str:
        """The culture of the seat's persona."""
        return self.persona.partition("/")[0]


class Scene(Record):
    """Everything that determines a dialogue; `id` is the hash of it.

    `culture` is the one that the scene was cast for: its first delegate's. `answer` is what most of
    that culture's people answered.
    """

    ordinal: int
    culture: str
    scenario: str
    question: str
    mode: Literal["cross", "in"]
    style: Literal["guided", "free"]
    turns: Annotated[int, Field(gt=0)]
    seats: tuple[Seat, ...]
    answer: int
    run: str
    topology: Topology = Topology()

    @cached_property
    def id(self) -> str:
        """The dialogue's id."""
        return digest(content(self))

    @property
    def mined_seats(self) -> tuple[int, ...]:
        """Positions of the seats whose opinions are extracted."""
        everyone = self.mode == "in"
        return tuple(
            i
            for i, seat in enumerate(self.seats)
            if seat.mined or (seat.mined is None and (everyone or seat.role == "delegate"))
        )

    def answer_of(self, seat: int) -> int:
        """Return the answer that a seat's opinions are held against: its own, else its people's."""
        view = self.seats[seat].view
        return self.answer if view is None else view


# What was cut off a turn: an unfinished end, what the model said as somebody else, the rounds of a
# loop but the first.
Mark = Literal["trimmed", "other_voice", "looped"]
MARKS: tuple[Mark, ...] = get_args(Mark)
CutTurns = Literal["trim", "retry", "fail"]  # what is done with a turn that was cut at max_tokens


class Turn(Record):
    """One utterance. `cue` names the moderator's nudge it answered, `call` the model call it came
    from.

    `marks` says what was cut off the model's reply.
    """

    n: int
    seat: int
    speaker: str
    text: str
    cue: str
    call: str
    faults: tuple[Fault, ...] = ()
    marks: tuple[Mark, ...] = ()


class Dialogue(Record):
    """A dialogue as far as it has come. `status` and `reason` say why it ended."""

    scene: Scene
    turns: tuple[Turn, ...] = ()
    status: Literal["open", "done", "failed"] = "open"
    reason: str = ""


# ----------------------------------------------------------------- refinery


class Verdict(Record):
    """A verifier's judgement of one wording of an opinion; `round` 0 is before any rewrite."""

    round: int
    label: Literal["entail", "contradict", "irrelevant"]
    reason: str
    text: str


class Opinion(Record):
    """One extracted opinion and all that happened to it.

    `text` is the wording as extracted, `final` the wording that was kept (after a rewrite, if any);
    `dropped` holds the reason when it was rejected and is empty when it was kept.
    """

    id: str
    dialogue: str
    n: int
    turn: int
    seat: int
    text: str
    final: str
    verdicts: tuple[Verdict, ...] = ()
    dropped: str = ""
    detail: str = ""
    spoken: str = ""
    cluster: int | None = None
    faults: tuple[str, ...] = ()


# ------------------------------------------------------------------- corpus


class Origin(Record):
    """Where a record was read: a file's name, its line (in a JSON list its place) and the SHA-256
    of its bytes.
    """

    file: str
    line: int
    sha256: str


class Sample(Record):
    """One fine-tuning sample. Of a run, as in the paper: system, question with options, answer with
    opinion. Of somebody's file (`origin`) it has no dialogue behind it, its `question` is what
    keeps rows in one split, and `history` may stand before its prompt.
    """

    id: str
    culture: str
    question: str
    topic: str
    system: str
    prompt: str
    completion: str
    answer: int | None = None
    opinion: str = ""
    dialogue: str = ""
    persona: str = ""
    split: SplitName
    history: tuple[Message, ...] = ()
    origin: Origin | None = None


class Preference(Record):
    """One preference: which of two answers to the same history was preferred.

    `user` is the unit of splitting and resampling: the person or, if the file names none, the item
    that was labelled. `item` is shared by pairs over the same two answers; empty if nobody else
    judged them. `minority` says whether most countries preferred the other answer; None if the data
    do not say.
    """

    id: str
    user: str
    country: str
    history: tuple[Message, ...]
    chosen: str
    rejected: str
    item: str = ""
    minority: bool | None = None

    def with_answer(self, answer: str) -> list[dict[str, str]]:
        """Return the history as messages, with an answer as the last."""
        messages = [{"role": m.role, "content": m.content} for m in self.history]
        return [*messages, {"role": "assistant", "content": answer}]


class Pair(Record):
    """Two completions of one prompt, the chosen one a sample's (`sample` is its id, `answer` its
    option code), or both from somebody's file (`origin`; then its kind is `given`).

    `kind` says what is rejected: `rewrite` is the sample's own opinion before it was rewritten, for
    it contradicted its answer (`other` is the opinion's id); `culture` is what another culture
    answers to the question (`other` is that sample's id). `other_culture` and `other_answer` are
    the rejected one's.
    """

    id: str
    kind: Literal["rewrite", "culture", "given"]
    culture: str
    question: str
    topic: str
    system: str
    prompt: str
    chosen: str
    rejected: str
    answer: int | None = None
    sample: str = ""
    other: str = ""
    other_culture: str = ""
    other_answer: int | None = None
    split: SplitName
    history: tuple[Message, ...] = ()
    origin: Origin | None = None
