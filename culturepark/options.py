"""A field of settings is written once: type, default, description, option, and what it changes.

The command line's options and their help, the comments in run.toml and docs/settings.md are made of
that.
"""

from __future__ import annotations

import re
import types
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin

if TYPE_CHECKING:
    from pydantic import BaseModel

# Sections of the help of a run's options.
WHO = "Who talks about what"
LENGTH = "How long, and in which way"
MODELS = "Models"
PACE = "Pace and money"
# What a field changes: what is said (it is part of ids), how much of it there is, where it is kept,
# or only how the work is done (it may change while a run goes on).
Changes = Literal["content", "length", "place", "handling"]


def setting(
    default: Any,
    about: str,
    *flags: str,
    metavar: str = "",
    section: str = "Options",
    changes: Changes = "content",
    hidden: bool = False,
) -> Any:
    """Return a pydantic field with all that is to be known of it.

    Its option is `--name`, or those `flags` that begin with `--`; short ones stand beside it. A
    `hidden` one has no option. `about` says what it is in one sentence; where its help is to say a
    default in words, it ends with "(default: …)".
    """
    option: dict[str, Any] = {"flags": [*flags], "metavar": metavar, "section": section}
    option |= {"changes": changes, "hidden": hidden}
    from pydantic import Field

    return Field(default, description=about, json_schema_extra={"option": option})


class Setting(NamedTuple):
    """A field as others see it: `kind` is int, float, bool, str, tuple, dict or a model's class,
    `choices` are the values that it may have, or the keys of a dict; `values` are what a dict
    holds.
    """

    name: str
    about: str
    default: Any
    kind: type
    choices: tuple[str, ...] = ()
    values: Any = None
    flags: tuple[str, ...] = ()
    metavar: str = ""
    section: str = ""
    changes: Changes = "content"
    hidden: bool = False

    @property
    def options(self) -> tuple[str, ...]:
        """The options that set it, the long one last; none where the command line has none."""
        if self.hidden:
            return ()
        if self.kind is dict and self.choices:
            return tuple(f"--{k.replace('_', '-')}-{self.name[:-1]}" for k in self.choices)
        long = [flag for flag in self.flags if flag.startswith("--")]
        short = [flag for flag in self.flags if not flag.startswith("--")]
        return (*short, *(long or [f"--{self.name.replace('_', '-')}"]))

    @property
    def help(self) -> str:
        """What it is, with its default."""
        if self.default in (None, (), {}) or "(default" in self.about or self.kind is bool:
            return self.about
        shown = self.default
        if isinstance(shown, tuple):
            shown = ",".join(shown)
        text = f"{shown:g}" if isinstance(shown, float) else str(shown)
        return f"{self.about.removesuffix('.')} (default {text})."


def read_settings(model: type[BaseModel]) -> dict[str, Setting]:
    """Return the fields of a model that are written by `setting`, by name."""
    return {setting.name: setting for setting in _read(model)}


def _read(model: type[BaseModel]) -> Iterator[Setting]:
    for name, field in model.model_fields.items():
        extra = field.json_schema_extra
        if not isinstance(extra, dict) or not isinstance(how := extra.get("option"), dict):
            continue
        kind, inner = _bare(field.annotation)
        named = get_args(inner)[0] if kind is dict else inner
        choices: tuple[str, ...] = get_args(named) if get_origin(named) is Literal else ()
        values = get_args(inner)[-1] if kind is dict else None
        yield Setting(
            name,
            field.description or "",
            None if field.is_required() else field.get_default(),
            kind,
            choices,
            values,
            **{key: tuple(v) if key == "flags" else v for key, v in how.items()},  # type: ignore[arg-type]
        )


def _bare(annotation: Any) -> tuple[type, Any]:
    """Return the type that a value has at last, and its annotation without what surrounds it."""
    origin = get_origin(annotation)
    if origin is Annotated:
        return _bare(get_args(annotation)[0])
    if origin in (Union, types.UnionType):
        return _bare(next(part for part in get_args(annotation) if part is not type(None)))
    if origin is Literal:
        return str, annotation
    return (origin or annotation), annotation


def names_that_change(model: type[BaseModel], what: Changes) -> tuple[str, ...]:
    """Return the names of those fields that change what is said, its length, its place, or the
    handling.
    """
    return tuple(s.name for s in _read(model) if s.changes == what)


def nested_model(setting: Setting) -> type[BaseModel] | None:
    """Return the model that a field holds, alone or by name; None where it holds plain values."""
    from pydantic import BaseModel

    kind = _bare(setting.values)[0] if setting.kind is dict else setting.kind
    return kind if isinstance(kind, type) and issubclass(kind, BaseModel) else None


def comment_toml(text: str, model: type[BaseModel]) -> str:
    """Return TOML as tomlkit writes it with a comment above each key that the model describes."""
    lines: list[str] = []
    known = top = read_settings(model)
    for line in text.splitlines():
        key = line.partition(" = ")[0]
        if line.startswith("["):
            key = line.strip("[]").partition(".")[0]
            held = nested_model(top[key]) if key in top else None
            known = read_settings(held) if held else {}
            about = top[key].about if key in top else ""
        else:
            about = known[key].about if key in known else ""
        about = re.sub(r" \(default[^)]*\)", "", about)
        lines += [f"# {about}"] * bool(about) + [line]
    return "\n".join(lines) + "\n"


def write_table(model: type[BaseModel]) -> str:
    """Return a Markdown table of a model's fields: name, option, default, and what each is."""
    import json

    rows = ["| key | option | default | what it is |", "|---|---|---|---|"]
    for s in _read(model):
        options = ", ".join(f"`{option}`" for option in s.options)
        plain = s.default not in (None, (), {}) and nested_model(s) is None
        default = f"`{json.dumps(s.default, ensure_ascii=False)}`" if plain else ""
        star = {"length": " °", "handling": " *"}.get(s.changes, "")
        about = s.about.replace("|", "\\|")
        rows.append(f"| `{s.name}`{star} | {options} | {default} | {about} |")
    return "\n".join(rows) + "\n"
