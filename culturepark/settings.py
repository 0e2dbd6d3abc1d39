"""What a run is told to do: its frozen settings, as kept in run.toml."""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import tomlkit
from pydantic import (
    AfterValidator,
    Field,
    ModelWrapValidatorHandler,
    Strict,
    ValidationError,
    field_validator,
    model_validator,
)

from culturepark.atomic import write_text
from culturepark.errors import CardError, InputError
from culturepark.options import LENGTH, MODELS, PACE, WHO, comment_toml, names_that_change, setting
from culturepark.records import CutTurns, ModelRole, Name, Record, Seat, Title, content, digest
from culturepark.toml import explain, read_toml
from culturepark.workspace import ROLES, SETTINGS, Workspace, find_shipped_cards

# How a run's file begins; the hash of what follows, comments aside, ends the line.
WRITTEN = "# Settings of a run, written by CulturePark: change them by options, not here. "
ALWAYS_WRITTEN = ("contact", "scenario", "dialogues", "turns", "seed", "model", "refine", "split")


# Neither a truth value nor a text in quotes is a number, wherever settings come from.
Whole = Annotated[int, Strict()]
Number = Annotated[float, Strict()]
Switch = Annotated[bool, Strict()]


def _both_speak(turns: int) -> int:
    if turns < 2:
        raise ValueError(f"a dialogue needs at least 2 turns, so that both speak; got {turns}")
    return turns


class Refining(Record):
    """How opinions are filtered."""

    filters: tuple[str, ...] = setting(
        ("refusal", "form", "anchors", "repeat"),
        "Filters that an opinion passes, in this order, by name or package.module:NAME.",
        hidden=True,
    )
    embedder: str = setting(
        "hashing", "What makes vectors of opinions: hashing, or package.module:NAME.", hidden=True
    )
    clusters: Annotated[Whole, Field(ge=1)] = setting(
        10, "Opinions that are kept of one dialogue and culture, at most.", hidden=True
    )
    rewrites: Annotated[Whole, Field(ge=0, le=5)] = setting(
        1, "How often an opinion that contradicts its answer is written anew.", hidden=True
    )

    @model_validator(mode="before")
    @classmethod
    def _accept_sieves(cls, data: Any) -> Any:
        if isinstance(data, Mapping) and "sieves" in data:
            if "filters" in data:
                raise ValueError("sieves is the old name of filters: write filters alone")
            warnings.warn(f"refine.{SIEVES}", DeprecationWarning, stacklevel=2)
            data = rename_sieves(data)
        return data

    @property
    def sieves(self) -> tuple[str, ...]:
        """The filters, by the name they had."""
        warnings.warn(f"refine.{SIEVES}", DeprecationWarning, stacklevel=2)
        return self.filters


SIEVES = "sieves is now refine.filters"


def rename_sieves(refining: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is said of refining, under the names of today."""
    return {"filters" if name == "sieves" else name: how for name, how in refining.items()}


class Split(Record):
    """Shares of the seed questions that go to validation and test; the rest trains."""

    validation: Annotated[Number, Field(ge=0, lt=1)] = setting(
        0.1, "Share of the questions on which a model is checked while it is tuned.", hidden=True
    )
    test: Annotated[Number, Field(ge=0, lt=1)] = setting(
        0.1, "Share of the questions that nobody is tuned on.", hidden=True
    )

    @model_validator(mode="after")
    def _leave_training(self) -> Split:
        if self.validation + self.test >= 1:
            raise ValueError("validation and test leave no question to train on")
        return self


def _clean_address(url: str | None) -> str | None:
    from culturepark.errors import InputError
    from culturepark.keys import check_address

    try:
        return check_address(url) if url is not None else None
    except InputError as error:
        raise ValueError(str(error)) from None


def _variable(name: str | None) -> str | None:
    from culturepark.keys import is_variable

    if name is not None and not is_variable(name):
        raise ValueError("write the NAME of an environment variable (capitals), never a key itself")
    return name


Address = Annotated[str | None, AfterValidator(_clean_address)]


class Endpoint(Record):
    """How one model is reached, driven and paid for. Nothing here is a key: `key_env` names the
    variable that holds one.
    """

    base_url: Address = setting(None, "Its address, up to /v1.", changes="handling", hidden=True)
    key_env: Annotated[str | None, AfterValidator(_variable)] = setting(
        None, "The environment variable that holds its key.", changes="handling", hidden=True
    )
    concurrency: Annotated[Whole, Field(gt=0, le=100_000)] | None = setting(
        None, "Calls at once.", changes="handling", hidden=True
    )
    rpm: Annotated[Whole, Field(gt=0)] | None = setting(
        None, "Requests per minute.", changes="handling", hidden=True
    )
    tpm: Annotated[Whole, Field(gt=0)] | None = setting(
        None, "Tokens per minute.", changes="handling", hidden=True
    )
    timeout: Annotated[Number, Field(gt=0)] = setting(
        120.0, "Seconds that one call may take.", changes="handling", hidden=True
    )
    patience: Annotated[Number, Field(ge=0)] = setting(
        600.0, "Seconds that a dead endpoint is waited for.", changes="handling", hidden=True
    )
    max_reply_mb: Annotated[Number, Field(gt=0)] = setting(
        16.0, "The largest answer that is read, megabytes.", changes="handling", hidden=True
    )
    max_wait: Annotated[Number, Field(gt=0, le=86_400)] = setting(
        600.0, "The longest that it may ask to wait, seconds.", changes="handling", hidden=True
    )
    structured: Literal["schema", "json", "text"] = setting(
        "schema", "How JSON answers are asked for first: schema, json or text.", hidden=True
    )
    prompt_price: Annotated[Number, Field(ge=0, allow_inf_nan=False)] | None = setting(
        None, "USD per million tokens of prompts.", changes="handling", hidden=True
    )
    completion_price: Annotated[Number, Field(ge=0, allow_inf_nan=False)] | None = setting(
        None, "USD per million tokens of answers.", changes="handling", hidden=True
    )
    cached_price: Annotated[Number, Field(ge=0, allow_inf_nan=False)] | None = setting(
        None, "USD per million tokens of prompts from its cache.", changes="handling", hidden=True
    )
    params: dict[str, Any] = setting({}, "More parameters of every request, as top_p.", hidden=True)

    def list_content(self) -> dict[str, Any]:
        """Return what can change an answer: not how the endpoint is driven and paid for."""
        return {k: v for k, v in content(self).items() if k not in DRIVEN}

    @model_validator(mode="after")
    def _both_prices(self) -> Endpoint:
        if (self.prompt_price is None) != (self.completion_price is None):
            raise ValueError("give both prompt_price and completion_price, or none")
        return self

    @model_validator(mode="after")
    def _no_keys(self) -> Endpoint:
        named = [
            k
            for k in self.params
            if any(w in k.lower() for w in ("api_key", "authorization", "extra_headers"))
        ]
        if named:
            raise ValueError(
                f"params.{named[0]} would write a secret to run.toml; name its environment variable"
                " in key_env"
            )
        return self


def build_endpoint(**how: Any) -> Endpoint:
    """Return an Endpoint; CardError names every wrong key, and shows no secret."""
    try:
        return Endpoint.model_validate(how)
    except ValidationError as error:
        raise CardError([f"endpoint: {line}" for line in explain(error, Endpoint)]) from None


class Settings(Record):
    """Everything that determines a run, save the cards; with the cards it determines every
    dialogue.
    """

    cultures: tuple[str, ...] = setting(
        (),
        "Cultures to simulate (default: all but the contact's).",
        "-c",
        metavar="A,B",
        section=WHO,
        changes="length",
    )
    contact: str = setting(
        "english-us", "Culture of the main contact.", metavar="CULTURE", section=WHO
    )
    personas: tuple[str, ...] = setting(
        (), "Only these personas (default: all).", metavar="A,B", section=WHO
    )
    scenario: Name = setting("world_values", "Pack of seed questions.", metavar="NAME", section=WHO)
    questions: tuple[str, ...] = setting(
        (),
        "Only these questions of the pack (default: all).",
        "-q",
        metavar="Q1,Q2",
        section=WHO,
    )
    survey: str | None = setting(
        None,
        "Your own WVS wave 7 release (CSV) instead of the shipped figures.",
        metavar="FILE",
        section=WHO,
    )
    dialogues: Annotated[Whole, Field(gt=0)] = setting(
        10, "Dialogues per culture.", "-n", metavar="N", section=LENGTH, changes="length"
    )
    samples: Annotated[Whole, Field(gt=0)] | None = setting(
        None,
        "Go on until each culture has N accepted samples.",
        metavar="N",
        section=LENGTH,
        changes="length",
    )
    turns: Annotated[Whole, Field(le=400), AfterValidator(_both_speak)] = setting(
        14, "Turns per dialogue.", metavar="N", section=LENGTH
    )
    modes: Annotated[tuple[Literal["cross", "in"], ...], Field(min_length=1)] = setting(
        ("cross", "in"),
        "Cross-cultural, in-cultural, or both in turn.",
        metavar="cross,in",
        section=LENGTH,
    )
    styles: Annotated[tuple[Literal["guided", "free"], ...], Field(min_length=1)] = setting(
        ("guided", "free"),
        "Self-guidance, free chat, or both in turn.",
        metavar="guided,free",
        section=LENGTH,
    )
    delegates: Annotated[Whole, Field(ge=1, le=12)] = setting(
        1,
        "Delegates per dialogue; across cultures each of another culture.",
        metavar="N",
        section=LENGTH,
    )
    mine: Literal["delegates", "everyone"] = setting(
        "delegates",
        "Whose opinions become samples across cultures; within one, always everyone's.",
        section=LENGTH,
    )
    languages: dict[str, Title] = setting(
        {},
        "What a culture or persona speaks, if not English.",
        "--language",
        metavar="WHO=LANGUAGE",
        section=LENGTH,
    )
    stance: Literal["persona", "modal", "shares"] = setting(
        "persona",
        "Where a delegate's answer comes from: its card (else a draw from its people's shares), its"
        " people's most frequent answer, or always a draw from their shares.",
        section=LENGTH,
    )
    cut_turns: CutTurns = setting(
        "trim",
        "A turn cut at max_tokens: trim it to its last whole sentence, retry with twice the room"
        " (three calls in all), or fail the dialogue.",
        section=LENGTH,
    )
    seed: Whole = setting(0, "Seed of every random stream.", metavar="N", section=LENGTH)
    model: str = setting(
        "embedded",
        "embedded (default), PROVIDER/NAME (openai/…, ollama/…, anthropic/…), or"
        " package.module:NAME.",
        "-m",
        metavar="NAME",
        section=MODELS,
    )
    models: dict[ModelRole, str] = setting(
        {}, "Model per role (default: --model's).", metavar="NAME", section=MODELS
    )
    seats: dict[str, str] = setting(
        {},
        "Model of a culture or persona at the table, before its role's.",
        "--seat",
        metavar="WHO=NAME",
        section=MODELS,
    )
    base_url: Address = setting(
        None,
        "Address of an OpenAI-compatible endpoint, for the provider of --model.",
        metavar="URL",
        section=MODELS,
        changes="handling",
    )
    endpoints: dict[str, Endpoint] = setting(
        {}, "How a model is reached, by its name.", hidden=True
    )
    rpm: Annotated[Whole, Field(gt=0)] | None = setting(
        None,
        "Requests per minute to one endpoint.",
        metavar="N",
        section=PACE,
        changes="handling",
    )
    tpm: Annotated[Whole, Field(gt=0)] | None = setting(
        None, "Tokens per minute to one endpoint.", metavar="N", section=PACE, changes="handling"
    )
    timeout: Annotated[Number, Field(gt=0)] | None = setting(
        None, "How long one call may take.", metavar="SECONDS", section=PACE, changes="handling"
    )
    max_usd: Annotated[Number, Field(gt=0, allow_inf_nan=False)] | None = setting(
        None,
        "Never spend more on this run; stops with exit code 3.",
        metavar="USD",
        section=PACE,
        changes="handling",
    )
    max_tokens: Annotated[Whole, Field(gt=0)] | None = setting(
        None,
        "Never use more tokens on this run; stops with exit code 3.",
        metavar="N",
        section=PACE,
        changes="handling",
    )
    batch: Switch = setting(
        False,
        "Use the provider's batch API: half the price, hours instead of minutes.",
        section=PACE,
        changes="handling",
    )
    concurrency: Annotated[Whole, Field(gt=0, le=10_000)] = setting(
        200,
        "Dialogues in flight, and calls at once to one endpoint.",
        metavar="N",
        section=PACE,
        changes="handling",
    )
    shards: Annotated[Whole, Field(ge=1, le=10)] = setting(
        1,
        "Files over which the run's dialogues are spread, at most 10.",
        metavar="N",
        section=PACE,
        changes="place",
    )
    licence: str | None = setting(
        None,
        "What the corpus is given away under, for its card: cc-by-4.0, …",
        "--licence",
        "--license",
        metavar="ID",
        section=LENGTH,
        changes="handling",
    )
    faults: dict[str, Annotated[Number, Field(ge=0, le=1)]] = setting(
        {},
        "Faults for the embedded engine to plant, as shares of turns: contradiction, off_topic,"
        " refusal, duplicate, drift.",
        "--fault",
        metavar="KIND=RATE",
        section=MODELS,
    )
    refine: Refining = setting(Refining(), "How opinions are filtered.", hidden=True)
    split: Split = setting(
        Split(),
        "Shares of the questions that go to validation and test; the rest trains.",
        hidden=True,
    )

    @model_validator(mode="after")
    def _all_speak(self) -> Settings:
        if self.turns <= self.delegates:
            raise ValueError(
                f"turns: {self.delegates} delegates and their contact need at least"
                f" {self.delegates + 1} turns, so that all speak; got {self.turns}"
            )
        return self

    @model_validator(mode="wrap")
    @classmethod
    def _in_plain_words(cls, data: Any, validate: ModelWrapValidatorHandler[Self]) -> Self:
        """Raise CardError for settings that cannot be: one line per mistake, with its key."""
        try:
            return validate(data)
        except ValidationError as error:
            raise CardError(explain(error, cls)) from error

    @field_validator("licence")
    @classmethod
    def _identifier(cls, value: str | None) -> str | None:
        name = value.strip().lower() if value else ""
        if value is not None and not (
            name.isascii() and name.replace("-", "").replace(".", "").isalnum()
        ):
            raise ValueError("write a licence's identifier, for example cc-by-4.0 or apache-2.0")
        return name or None

    def list_content(self) -> dict[str, Any]:
        """Return what endpoints say that can change an answer, by model; those that are only driven
        and paid for say nothing.
        """
        unsaid = Endpoint().list_content()
        return {
            name: said
            for name, how in self.endpoints.items()
            if (said := how.list_content()) != unsaid
        }

    def determining(self) -> dict[str, Any]:
        """Return what can change a dialogue: everything but the run's length and how it is driven
        and capped.
        """
        data = {k: v for k, v in content(self).items() if k not in (*UNSAID, *LOOSE)}
        data["endpoints"] = self.list_content()
        # Where a model is found does not matter, but the word for it always stood here.
        return {k: v for k, v in data.items() if k not in ("models", "seats", "endpoints") or v} | {
            "base_url": None
        }

    def model_of(self, seat: Seat) -> str:
        """Return the name of the model that plays a seat."""
        own = self.seats.get(seat.persona) or self.seats.get(seat.culture)
        return own or self.models.get(seat.role, self.model)

    @property
    def width(self) -> int:
        """How many dialogues are open at once. In batch mode as many as can be: each wave takes
        hours, whatever its size.
        """
        return max(self.concurrency, 10_000) if self.batch else self.concurrency

    def addressed_provider(self) -> str | None:
        """Return the provider that `base_url` is for: that of `model`, else the one provider of all
        other models at endpoints.
        """
        from culturepark.providers import is_hosted

        if is_hosted(self.model):
            return self.model.partition("/")[0]
        others = {
            n.partition("/")[0]
            for n in (*self.models.values(), *self.seats.values())
            if is_hosted(n)
        }
        return others.pop() if len(others) == 1 else None

    def endpoint(self, name: str) -> Endpoint:
        """Return how the model of this name is reached."""
        how, unsaid = self.endpoints.get(name, Endpoint()), Endpoint()
        given: dict[str, Any] = {
            k: getattr(self, k) for k in ("rpm", "tpm", "timeout", "concurrency")
        }
        if name.partition("/")[0] == self.addressed_provider():
            given["base_url"] = self.base_url
        told = {
            k: v
            for k, v in given.items()
            if v is not None and getattr(how, k) == getattr(unsaid, k)
        }
        return how.model_copy(update=told)


# What says how much there will be, and where it is kept: no part of ids.
UNSAID = (*names_that_change(Settings, "length"), *names_that_change(Settings, "place"))
LOOSE = names_that_change(Settings, "handling")  # what may change while a run goes on
DRIVEN = names_that_change(Endpoint, "handling")


def hash_scenes(settings: Settings, workspace: Workspace) -> dict[str, str]:
    """Return, by mode, the hash of all that determines dialogues besides who meets whom; each scene
    of a run carries it.

    An edited card makes another one; a scenario, role or nudge that scenes of this mode do not use
    does not.
    """
    roles = {
        name: content(workspace.role(name)) for name in sorted(set(ROLES) & set(workspace.roles))
    }
    cultures = {name: content(card) for name, card in workspace.cultures.items()}
    personas = {name: content(card) for name, card in workspace.personas.items()}
    scenario = {settings.scenario: content(workspace.scenario(settings.scenario))}
    unused = {"in": set[str](), "cross": {"in_culture"}}
    hashes = {}
    for mode, names in unused.items():
        names |= set() if settings.languages else {"language"}
        used = {
            role: {name: value for name, value in card.items() if name not in names}
            for role, card in roles.items()
        }
        cards = digest([used, cultures, personas, scenario], size=16)
        hashes[mode] = digest(settings.determining(), cards)
    return hashes


def build(data: dict[str, Any], where: str = "settings") -> Settings:
    """Validate settings; CardError names every wrong key with the nearest right one."""
    try:
        return Settings.model_validate(data)
    except CardError as error:
        raise CardError([f"{where}: {line}" for line in error.problems]) from error


def table(path: Path, *, of_run: bool = False) -> dict[str, Any]:
    """Read a settings file and return what it says; CardError names every wrong key, or says why it
    cannot be read.

    `[keys]` holds API keys by provider and is no setting: whoever asks takes it out before anything
    is written. The settings of a run (`of_run`) may be an earlier version's, without a warning.
    """
    data = read_toml(path)
    if of_run and isinstance(data.get("refine"), Mapping):
        data["refine"] = rename_sieves(data["refine"])
    build({k: v for k, v in data.items() if k != "keys"}, str(path))
    keys = data.get("keys", {})
    if not isinstance(keys, dict) or not all(
        isinstance(v, str) and v.strip() for v in keys.values()
    ):
        raise CardError([f'{path}: keys: write provider = "key"'])
    return data | (
        {"keys": {provider: key.strip() for provider, key in keys.items()}} if keys else {}
    )


def read(path: Path) -> Settings:
    """Read the settings of a run; InputError where the file is not whole."""
    data = table(path, of_run=True)
    if not _hash_line(path) and (lacking := [name for name in ALWAYS_WRITTEN if name not in data]):
        raise InputError(
            f"{path} is not whole: it lacks {', '.join(lacking)}. Put the file back as it was,"
            " choose another name, or throw the run away with --fresh."
        )
    return build(data, str(path))


def is_edited(path: Path) -> bool:
    """Say whether a run's settings file was changed by anything but this program."""
    told = _hash_line(path)
    return told is not None and told != digest(_body(path))


def _hash_line(path: Path) -> str | None:
    """Return the hash in a file's first line; None where there is none, as in files of the first
    versions.
    """
    found = re.match(
        re.escape(WRITTEN) + "([0-9a-f]{16})$",
        path.read_text(encoding="utf-8-sig", errors="replace").partition("\n")[0],
    )
    return found[1] if found else None


def _body(path: Path) -> str:
    lines = path.read_text(encoding="utf-8-sig", errors="replace").splitlines(keepends=True)[1:]
    return "".join(line for line in lines if not line.startswith("#"))


def read_own(workspace: Path) -> dict[str, Any]:
    """Return what a workspace says for every run in its culturepark.toml; where it has none of its
    own, what this folder's says.
    """
    places = [
        workspace / SETTINGS,
        *([Path(SETTINGS)] if workspace == find_shipped_cards() else []),
    ]
    return next((table(path) for path in places if path.exists()), {})


def layer_settings(*layers: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings laid over one another, the last on top. What is told of one endpoint, role,
    seat or key leaves the others.
    """
    made: dict[str, Any] = {}
    for layer in layers:
        for name, value in layer.items():
            old = made.get(name)
            if name == "endpoints" and isinstance(old, Mapping):
                value = {**old, **{n: {**old.get(n, {}), **how} for n, how in value.items()}}
            elif name in ("models", "seats", "languages", "keys", "faults") and isinstance(
                old, Mapping
            ):
                value = {**old, **value}
            made[name] = value
    return made


def write(settings: Settings, path: Path) -> None:
    """Write settings as TOML, whole or not at all; WriteError says why not."""
    data = settings.model_dump(mode="json", exclude_none=True)
    data["endpoints"] = {
        n: how.model_dump(mode="json", exclude_defaults=True)
        for n, how in settings.endpoints.items()
    }
    text = tomlkit.dumps({k: v for k, v in data.items() if v != {}})
    write_text(path, f"{WRITTEN}{digest(text)}\n{comment_toml(text, Settings)}")
