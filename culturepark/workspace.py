"""Finds, reads, checks and creates the three card folders, and names output paths."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from pydantic import ValidationError

from culturepark.errors import CardError, InputError, NotFound, nearest
from culturepark.records import RESERVED, Culture, Persona, Question, Record, Role, Scenario
from culturepark.toml import explain, misread, read_toml

FOLDERS = ("agents", "personas", "scenarios")
ROLES = ("main_contact", "delegate", "moderator", "extractor", "verifier", "rewriter")
R = TypeVar("R", bound=Record)
SETTINGS = "culturepark.toml"
TEMPLATE = """\
# Settings of every run in this workspace; --config FILE and flags override them. See docs/models.md.

# model = "openai/gpt-4o-mini"
# max_usd = 20.0

# [models]                            # a model a role
# verifier = "openai/gpt-4o"

# [endpoints."hosted_vllm/llama"]     # how a model is reached and driven
# base_url = "http://localhost:8000/v1"
# concurrency = 500

# [keys]                              # or, better, leave keys in the environment; they are never copied into a run
# openai = "sk-..."
"""


@dataclass(frozen=True)
class Workspace:
    """All cards below `root`, read and validated."""

    root: Path
    roles: Mapping[str, Role] = field(default_factory=dict)
    cultures: Mapping[str, Culture] = field(default_factory=dict)
    personas: Mapping[str, Persona] = field(default_factory=dict)
    scenarios: Mapping[str, Scenario] = field(default_factory=dict)

    def role(self, name: str) -> Role:
        """Return a role card; NotFound names the nearest."""
        return self._get("role", self.roles, name, "agents")

    def culture(self, name: str) -> Culture:
        """Return a culture card; NotFound names the nearest."""
        return self._get("culture", self.cultures, name, "personas")

    def persona(self, name: str) -> Persona:
        """Return the persona `culture/name`, or `name` where only one culture has it."""
        if "/" not in name:
            matches = [p for p in self.personas.values() if p.name == name]
            if len(matches) > 1:
                raise InputError(
                    f"persona {name!r} is ambiguous: {', '.join(p.id for p in matches)}"
                )
            if matches:
                return matches[0]
        return self._get("persona", self.personas, name, "personas")

    def scenario(self, name: str) -> Scenario:
        """Return a scenario card; NotFound names the nearest."""
        return self._get("scenario", self.scenarios, name, "scenarios")

    def question(self, scenario: str, name: str) -> Question:
        """Return one question of a scenario; NotFound names the nearest."""
        known = {q.id: q for q in self.scenario(scenario).questions}
        return self._get("question", known, name, f"scenarios/{scenario}.toml")

    def people(self, culture: str) -> tuple[Persona, ...]:
        """Return the personas of a culture, by name."""
        self.culture(culture)
        return tuple(p for _, p in sorted(self.personas.items()) if p.culture == culture)

    def _get(self, kind: str, cards: Mapping[str, R], name: str, where: str) -> R:
        if name not in cards:
            raise NotFound(kind, name, str(self.root / where), cards)
        return cards[name]


# ------------------------------------------------------------------ finding


def shipped() -> Path:
    """Return the folder of the cards that come with the package (in a checkout: the checkout
    itself).
    """
    package = Path(__file__).parent
    return package / "shipped" if (package / "shipped").is_dir() else package.parent


def find(given: str | Path | None = None) -> Path:
    """Return the workspace folder: given, CULTUREPARK_WORKSPACE, nearest ancestor of here, else the
    shipped one.

    InputError for a folder that lacks one of the three: a workspace that lost a folder is never
    taken for the shipped one.
    """
    named = given or os.environ.get("CULTUREPARK_WORKSPACE")
    if named:
        root = Path(named).expanduser()
        if lacking := _lacking(root):
            raise InputError(
                f"no workspace at {root}: it has no {', '.join(f + '/' for f in lacking)}. "
                "`culturepark init NEW` writes a whole one, to start from or to copy from."
            )
        return root
    here = Path.cwd()
    for folder in (here, *here.parents):
        lacking = _lacking(folder)
        if not lacking:
            return folder
        if _has_cards(folder):
            raise InputError(
                f"the workspace at {folder} has lost {', '.join(f + '/' for f in lacking)}: put it"
                " back (`culturepark init NEW` writes the shipped cards to copy from), or name"
                " another with --workspace"
            )
    return shipped()


def _lacking(folder: Path) -> list[str]:
    return [name for name in FOLDERS if not (folder / name).is_dir()]


def _has_cards(folder: Path) -> bool:
    """Return whether a folder holds cards of ours; others have folders of these names too."""
    roles = any((folder / "agents" / f"{name}.toml").is_file() for name in ROLES)
    return (
        roles
        or any((folder / "personas").glob("*/culture.toml"))
        or ((folder / SETTINGS).is_file() and any((folder / name).is_dir() for name in FOLDERS))
    )


def create(target: Path) -> Path:
    """Write a new workspace (the three folders with the shipped cards) at `target`, which must be
    new or empty.
    """
    target = target.expanduser()
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise InputError(
            f"{target} exists and is not an empty folder; nothing was written. Choose a new name."
        )
    try:
        target.mkdir(parents=True, exist_ok=True)
        for name in FOLDERS:
            shutil.copytree(
                shipped() / name, target / name, ignore=shutil.ignore_patterns("__pycache__")
            )
    except OSError as error:
        raise InputError(
            f"cannot write a workspace at {target}: {error.strerror or error}"
        ) from error
    (target / "outputs").mkdir(exist_ok=True)
    (target / SETTINGS).write_text(TEMPLATE, encoding="utf-8")
    return target


def output(workspace: Path, name: str, out: str | Path | None = None) -> Path:
    """Return the folder of the run `name` below the outputs folder; a name that would leave it is
    refused.
    """
    if why := _no_folder(name):
        shown = name if len(name) <= 80 else name[:79] + "…"
        raise InputError(f"run name {shown!r} cannot be a folder: {why}")
    inside = (
        workspace / "outputs"
        if workspace != shipped() or Path.cwd().is_relative_to(workspace)
        else Path("outputs")
    )
    return Path(out) / name if out else inside / name


def _no_folder(name: str) -> str:
    """Return why a name cannot be a folder's on every system; empty where it can."""
    allowed = name.replace("-", "").replace("_", "").replace(".", "")
    if not name.isascii() or not allowed.isalnum():
        return "use ASCII letters (A-Z, a-z), digits, '-', '_' and '.'"
    if name.startswith(".") or name.endswith("."):
        return f"it {'begins' if name.startswith('.') else 'ends'} with a dot"
    if name.split(".")[0].casefold() in RESERVED:
        return f"{name.split('.')[0]!r} is the name of a device on Windows"
    return "" if len(name) <= 80 else f"it is too long: {len(name):,} characters, of 80 at most"


# ------------------------------------------------------------------ reading


def load(root: str | Path | None = None) -> Workspace:
    """Read and validate every card; CardError lists every mistake in every card at once."""
    workspace, problems = read(find(root))
    if problems:
        raise CardError(problems)
    return workspace


def read(root: Path) -> tuple[Workspace, list[str]]:
    """Read every card below `root`; return the workspace of the good ones and all mistakes of the
    others.
    """
    problems: list[str] = []
    roles = {c.name: c for _, c in _cards(root, "agents", "*.toml", Role, problems)}
    scenarios = {c.name: c for _, c in _cards(root, "scenarios", "*.toml", Scenario, problems)}
    cultures = {c.name: c for _, c in _cards(root, "personas", "*/culture.toml", Culture, problems)}
    people = [c for _, c in _cards(root, "personas", "*/*.toml", Persona, problems)]
    workspace = Workspace(root, roles, cultures, {p.id: p for p in people}, scenarios)
    problems += _across(workspace)
    return workspace, problems


def _cards(
    root: Path, folder: str, pattern: str, kind: type[R], problems: list[str]
) -> Iterator[tuple[Path, R]]:
    for path in sorted((root / folder).glob(pattern)):
        if kind is Persona and path.name == "culture.toml":
            continue
        where = path.relative_to(root).as_posix()
        if not path.resolve().is_relative_to(root.resolve()):
            problems.append(f"{where}: the card lies outside the workspace, behind a link")
            continue
        card = parse(path, kind, where, problems)
        if card is None:
            continue
        name, expected = (
            getattr(card, "name", ""),
            path.parent.name if kind is Culture else path.stem,
        )
        if name != expected:
            problems.append(
                f"{where}: name: {name!r} differs from the"
                f" {'folder' if kind is Culture else 'file'}'s name {expected!r}"
            )
            continue
        if isinstance(card, Persona) and card.culture != path.parent.name:
            problems.append(
                f"{where}: culture: {card.culture!r} differs from the folder's name"
                f" {path.parent.name!r}"
            )
            continue
        yield path, card


def parse(path: Path, kind: type[R], where: str, problems: list[str]) -> R | None:
    """Read one card; None after appending what is wrong with it to `problems`."""
    if not path.is_file():
        problems.append(f"{where}: no file")
        return None
    try:
        data = read_toml(path, where)
        card = kind.model_validate(data)
        if odd := [f"{where}: {line}" for line in misread(data, card)]:
            raise CardError(odd)
        return card
    except CardError as error:
        problems += error.problems
    except ValidationError as error:
        problems += [f"{where}: {line}" for line in explain(error, kind)]
    return None


# ----------------------------------------------------------------- checking


def _across(workspace: Workspace) -> list[str]:
    """Return the mistakes that only show between cards."""
    checks: tuple[Callable[[Workspace], Iterator[str]], ...] = (
        _roles,
        _empty,
        _citizens,
        _views,
        _answers,
    )
    return [problem for check in checks for problem in check(workspace)]


def _roles(workspace: Workspace) -> Iterator[str]:
    folder = workspace.root / "agents"
    for name in ROLES:
        if name not in workspace.roles and not (folder / f"{name}.toml").exists():
            yield f"agents/{name}.toml: missing; every park needs the roles {', '.join(ROLES)}"


def _empty(workspace: Workspace) -> Iterator[str]:
    for folder, pattern in (("personas", "*/culture.toml"), ("scenarios", "*.toml")):
        if not any((workspace.root / folder).glob(pattern)):
            yield f"{folder}/: no card ({pattern}) in {workspace.root / folder}"


def _citizens(workspace: Workspace) -> Iterator[str]:
    for persona in workspace.personas.values():
        path = workspace.root / "personas" / persona.culture / "culture.toml"
        if persona.culture not in workspace.cultures and not path.exists():
            yield (
                f"personas/{persona.id}.toml: culture: {persona.culture!r} has no culture.toml"
                " beside it"
            )


def _views(workspace: Workspace) -> Iterator[str]:
    """A view must name a question of some pack and one of its options."""
    codes = {
        q.id: [o.code for o in q.options] for s in workspace.scenarios.values() for q in s.questions
    }
    for persona in workspace.personas.values():
        for item, code in persona.views.items():
            where = f"personas/{persona.id}.toml: views.{item}"
            if item not in codes:
                yield f"{where}: no such question in scenarios/. {nearest(item, codes)}"
            elif code not in codes[item]:
                yield (
                    f"{where}: {code} is no option of {item}; there are:"
                    f" {', '.join(map(str, codes[item]))}"
                )


def _answers(workspace: Workspace) -> Iterator[str]:
    """An answer of a pack's own must be one of its question's options."""
    for scenario in workspace.scenarios.values():
        for question in scenario.questions:
            codes = [o.code for o in question.options]
            for culture, code in question.answers.items():
                if code not in codes:
                    yield (
                        f"scenarios/{scenario.name}.toml: question {question.id}:"
                        f" answers.{culture}: {code} is no option; there are:"
                        f" {', '.join(map(str, codes))}"
                    )
