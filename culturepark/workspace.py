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
from culturepark.records import (
    READERS,
    RESERVED,
    SPEAKERS,
    Culture,
    Persona,
    Question,
    Record,
    Role,
    Scenario,
)
from culturepark.toml import explain, misread, read_toml

FOLDERS = ("agents", "personas", "scenarios")
ROLES = (*SPEAKERS, "moderator", *READERS)  # the cards that every workspace has
R = TypeVar("R", bound=Record)
SETTINGS = "culturepark.toml"
TEMPLATE = """\
# Settings of every run in this workspace; --config FILE and options override them. See
# docs/models.md.

# model = "openai/gpt-4o-mini"
# max_usd = 20.0

# [models]                            # one model per role
# verifier = "openai/gpt-4o"

# [endpoints."hosted_vllm/llama"]     # how a model is reached and driven
# base_url = "http://localhost:8000/v1"
# concurrency = 500

# [keys]                              # better: keys in the environment; no run ever copies them
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
        questions = {q.id: q for q in self.scenario(scenario).questions}
        return self._get("question", questions, name, f"scenarios/{scenario}.toml")

    def people(self, culture: str) -> tuple[Persona, ...]:
        """Return the personas of a culture, by name."""
        self.culture(culture)
        return tuple(p for _, p in sorted(self.personas.items()) if p.culture == culture)

    def _get(self, kind: str, cards: Mapping[str, R], name: str, where: str) -> R:
        if name not in cards:
            raise NotFound(kind, name, str(self.root / where), cards)
        return cards[name]


# ------------------------------------------------------------------ finding


def find_shipped_cards() -> Path:
    """Return the folder of the cards that the package ships (in a checkout: the checkout)."""
    package = Path(__file__).parent
    return package / "shipped" if (package / "shipped").is_dir() else package.parent


def find_workspace(folder: str | Path | None = None) -> Path:
    """Return `folder`, else CULTUREPARK_WORKSPACE, else the nearest workspace above the current
    folder, else the shipped one.

    Raises InputError for a workspace that lacks one of its three folders; the shipped one never
    takes its place.
    """
    chosen = folder or os.environ.get("CULTUREPARK_WORKSPACE")
    if chosen:
        root = Path(chosen).expanduser()
        if lacking := _list_missing(root):
            raise InputError(
                f"no workspace at {root}: it has no {', '.join(f + '/' for f in lacking)}. "
                "`culturepark init NEW` writes a whole one, to start from or to copy from."
            )
        return root
    here = Path.cwd()
    for ancestor in (here, *here.parents):
        lacking = _list_missing(ancestor)
        if not lacking:
            return ancestor
        if _has_cards(ancestor):
            raise InputError(
                f"the workspace at {ancestor} has lost {', '.join(f + '/' for f in lacking)}: put"
                " it back (`culturepark init NEW` writes the shipped cards to copy from), or name"
                " another with --workspace"
            )
    return find_shipped_cards()


def _list_missing(folder: Path) -> list[str]:
    return [name for name in FOLDERS if not (folder / name).is_dir()]


def _has_cards(folder: Path) -> bool:
    """Return whether a folder holds cards; other projects have folders of these names too."""
    roles = any((folder / "agents" / f"{name}.toml").is_file() for name in ROLES)
    return (
        roles
        or any((folder / "personas").glob("*/culture.toml"))
        or ((folder / SETTINGS).is_file() and any((folder / name).is_dir() for name in FOLDERS))
    )


def create_workspace(target: Path) -> Path:
    """Write a workspace, with the shipped cards, at `target`, which must be new or empty."""
    target = target.expanduser()
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise InputError(
            f"{target} exists and is not an empty folder; nothing was written. Choose a new name."
        )
    try:
        target.mkdir(parents=True, exist_ok=True)
        for name in FOLDERS:
            shutil.copytree(
                find_shipped_cards() / name,
                target / name,
                ignore=shutil.ignore_patterns("__pycache__"),
            )
    except OSError as error:
        raise InputError(
            f"cannot write a workspace at {target}: {error.strerror or error}"
        ) from error
    (target / "outputs").mkdir(exist_ok=True)
    (target / SETTINGS).write_text(TEMPLATE, encoding="utf-8")
    return target


def locate_output(workspace: Path, name: str, out: str | Path | None = None) -> Path:
    """Return the folder of the run `name` below the outputs folder.

    Raises InputError for a name that cannot be a folder's.
    """
    if why := _explain_name(name):
        short = name if len(name) <= 80 else name[:79] + "…"
        raise InputError(f"run name {short!r} cannot be a folder: {why}")
    inside = (
        workspace / "outputs"
        if workspace != find_shipped_cards() or Path.cwd().is_relative_to(workspace)
        else Path("outputs")
    )
    return Path(out) / name if out else inside / name


def _explain_name(name: str) -> str:
    """Return why a name cannot be a folder's on every system; empty if it can."""
    letters = name.replace("-", "").replace("_", "").replace(".", "")
    if not name.isascii() or not letters.isalnum():
        return "use ASCII letters (A-Z, a-z), digits, '-', '_' and '.'"
    if name.startswith(".") or name.endswith("."):
        return f"it {'begins' if name.startswith('.') else 'ends'} with a dot"
    if name.split(".")[0].casefold() in RESERVED:
        return f"{name.split('.')[0]!r} is the name of a device on Windows"
    return "" if len(name) <= 80 else f"it is too long: {len(name):,} characters, of 80 at most"


# ------------------------------------------------------------------ reading


def load(root: str | Path | None = None) -> Workspace:
    """Read and validate every card; CardError lists every mistake in every card at once."""
    workspace, problems = read_workspace(find_workspace(root))
    if problems:
        raise CardError(problems)
    return workspace


def read_workspace(root: Path) -> tuple[Workspace, list[str]]:
    """Return the workspace of the valid cards below `root`, and all mistakes in the others."""
    problems: list[str] = []
    roles = {c.name: c for _, c in _read_cards(root, "agents", "*.toml", Role, problems)}
    scenarios = {c.name: c for _, c in _read_cards(root, "scenarios", "*.toml", Scenario, problems)}
    cultures = {
        c.name: c for _, c in _read_cards(root, "personas", "*/culture.toml", Culture, problems)
    }
    people = [c for _, c in _read_cards(root, "personas", "*/*.toml", Persona, problems)]
    workspace = Workspace(root, roles, cultures, {p.id: p for p in people}, scenarios)
    problems += _check_across(workspace)
    return workspace, problems


def _read_cards(
    root: Path, folder: str, pattern: str, kind: type[R], problems: list[str]
) -> Iterator[tuple[Path, R]]:
    for path in sorted((root / folder).glob(pattern)):
        if kind is Persona and path.name == "culture.toml":
            continue
        where = path.relative_to(root).as_posix()
        if not path.resolve().is_relative_to(root.resolve()):
            problems.append(f"{where}: the card lies outside the workspace, behind a link")
            continue
        card = parse_card(path, kind, where, problems)
        if card is None:
            continue
        name = getattr(card, "name", "")
        file_name = path.parent.name if kind is Culture else path.stem
        if name != file_name:
            problems.append(
                f"{where}: name: {name!r} differs from the"
                f" {'folder' if kind is Culture else 'file'}'s name {file_name!r}"
            )
            continue
        if isinstance(card, Persona) and card.culture != path.parent.name:
            problems.append(
                f"{where}: culture: {card.culture!r} differs from the folder's name"
                f" {path.parent.name!r}"
            )
            continue
        yield path, card


def parse_card(path: Path, kind: type[R], where: str, problems: list[str]) -> R | None:
    """Return one card; None, with its mistakes appended to `problems`, if it is invalid."""
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


def _check_across(workspace: Workspace) -> list[str]:
    """Return the mistakes that only show between cards."""
    checks: tuple[Callable[[Workspace], Iterator[str]], ...] = (
        _check_roles,
        _check_folders,
        _check_cultures,
        _check_views,
        _check_answers,
    )
    return [problem for check in checks for problem in check(workspace)]


def _check_roles(workspace: Workspace) -> Iterator[str]:
    folder = workspace.root / "agents"
    for name in ROLES:
        if name not in workspace.roles and not (folder / f"{name}.toml").exists():
            yield f"agents/{name}.toml: missing; every park needs the roles {', '.join(ROLES)}"


def _check_folders(workspace: Workspace) -> Iterator[str]:
    for folder, pattern in (("personas", "*/culture.toml"), ("scenarios", "*.toml")):
        if not any((workspace.root / folder).glob(pattern)):
            yield f"{folder}/: no card ({pattern}) in {workspace.root / folder}"


def _check_cultures(workspace: Workspace) -> Iterator[str]:
    for persona in workspace.personas.values():
        path = workspace.root / "personas" / persona.culture / "culture.toml"
        if persona.culture not in workspace.cultures and not path.exists():
            yield (
                f"personas/{persona.id}.toml: culture: {persona.culture!r} has no culture.toml"
                " beside it"
            )


def _check_views(workspace: Workspace) -> Iterator[str]:
    """Yield views that name no question, or none of its options."""
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


def _check_answers(workspace: Workspace) -> Iterator[str]:
    """Yield answers in scenarios that are not among their question's options."""
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
