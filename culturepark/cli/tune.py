"""The verbs that make models of a corpus: `tune sft`, `dpo`, `orpo`, `kto`, `shares`, `mix`, and
what stands beside them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import click

from culturepark.cli.flags import (
    Decorator,
    Sectioned,
    as_json,
    field_options,
    out_flag,
    split_names,
    together,
    workspace_flag,
)
from culturepark.cli.progress import say
from culturepark.cli.terminal import echo
from culturepark.registry import OBJECTIVES, is_path

if TYPE_CHECKING:
    from culturepark.options import Setting


def _read_recipe(objective: str) -> Iterable[Setting]:
    """Return the fields of a recipe that an objective heeds."""
    from culturepark.options import read_settings
    from culturepark.training.objective import load_objective
    from culturepark.training.recipe import Recipe

    own = {option for name in OBJECTIVES for option in load_objective(name).options}
    others = own - set(load_objective(objective).options)
    return [s for s in read_settings(Recipe).values() if s.name not in others]


def recipe_flags(objective: str) -> Decorator:
    """Return the options of an objective's verb."""
    return together(
        click.argument("corpus", metavar="CORPUS"),
        field_options(partial(_read_recipe, objective)),
        click.option(
            "--preset", metavar="NAME", help="A paper's settings: culturepark-llama, safeworld-dpo."
        ),
        click.option(
            "--name",
            metavar="NAME",
            help="What the models are kept under (default: the objective).",
        ),
        click.option(
            "--culture", metavar="NAME", help="Whose answers these are, where the rows don't say."
        ),
        click.option("--fresh", is_flag=True, help="Throw away models of this name first."),
        workspace_flag,
        out_flag,
        as_json,
    )


APART = ("scpo", "hosted", "launch")


class Lazy(click.Group):
    """Makes a verb of each tuning objective, and loads verbs with files of their own, when they are
    asked for.
    """

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Keep the order of the work."""
        return [*OBJECTIVES, *APART]

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        """Return a verb: an objective by short name or `package.module:NAME`, or one of a file."""
        if name in APART:
            from importlib import import_module

            module = import_module(f"culturepark.cli.{name}")
            return getattr(module, f"tune_{name}")  # type: ignore[no-any-return]
        return _make_verb(name) if name in OBJECTIVES or is_path(name) else None

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Name the nearest verb when there is none of this name."""
        name = args[0] if args else ""
        known = self.get_command(ctx, name) is not None or name.startswith("-")
        if name and not known and not ctx.resilient_parsing:
            from culturepark.errors import nearest

            raise click.UsageError(f"no verb {name!r}. {nearest(name, self.list_commands(ctx))}")
        return super().resolve_command(ctx, args)


@click.group(cls=Lazy)
def tune() -> None:
    """Make culture-specific models of CORPUS: a run, or a file or folder of JSONL.

    Each culture gets an adapter below models/ with its manifest, card and curves. Stopped, the same
    command goes on.
    """


def _make_verb(name: str) -> click.Command:
    from culturepark.training.objective import load_objective

    def work(**flags: Any) -> None:
        _tune(name, flags)

    work.__doc__ = load_objective(name).about
    return click.command(name, cls=Sectioned)(recipe_flags(name)(work))


def _tune(objective: str, flags: dict[str, Any]) -> None:
    from culturepark import api

    machines = flags.pop("as_json")
    flags["cultures"] = tuple(filter(None, split_names(flags["cultures"]))) or None
    flags["track"] = flags["track"] or None
    made = api.tune(
        objective, flags.pop("corpus"), flags.pop("base"), tell=_lines(machines), **flags
    )
    if not api.is_first_process():
        return
    found = api.describe_models(made)
    say(
        found,
        machines,
        "\n".join(
            [
                *(_format_model(m) for m in found["models"]),
                f"curves: {found['report']}",
                *_next(found),
            ]
        ),
    )


def _format_model(model: Mapping[str, Any]) -> str:
    scores = " · ".join(f"{name} {value:.3g}" for name, value in model["scores"].items())
    return f"{model['name']}: {model['folder']}" + (f"  ({scores})" if scores else "")


def _next(found: Mapping[str, Any]) -> list[str]:
    """Say what can be done with what was made."""
    folder, last = found["folder"], found["models"][-1]
    return [
        f"serve:  culturepark serve {folder}",
        f"seat:   culturepark run NAME --seat {last['name']}={last['folder']}",
    ]


def _lines(quiet: bool, every: float = 2.0) -> Callable[[str, Mapping[str, Any]], None]:
    """Report a job's progress on stderr: a line when a model begins, every few seconds, and when it
    is done.
    """
    from time import monotonic

    began: dict[str, tuple[float, int]] = {}
    last = [0.0]

    def tell(stage: str, how: Mapping[str, Any]) -> None:
        if quiet:
            return
        if stage == "machine":
            echo("\n".join(f"{k:10}{v}" for k, v in how.items()), err=True)
            return
        culture = how["culture"]
        if stage != "step":
            verdict = "was there" if stage == "kept" else "done"
            echo(f"{culture}: {verdict}{_figures(how)}", err=True)
            return
        begins, now = culture not in began, monotonic()
        start, first = began.setdefault(culture, (now, how["step"]))
        if begins or now - last[0] >= every:
            last[0], steps = now, how["step"] - first
            left = (now - start) / steps * (how["of"] - how["step"]) if steps else None
            ahead = "" if left is None else f" · {left:.0f} s left"
            echo(f"{culture}: step {how['step']}/{how['of']}{_figures(how)}{ahead}", err=True)

    return tell


def _figures(how: Mapping[str, Any]) -> str:
    names = ("loss", "eval_loss", "accuracy", "margin", "kl")
    return "".join(f" · {k} {how[k]:.4g}" for k in names if isinstance(how.get(k), float))


@click.command()
@click.argument("models", metavar="MODELS")
@click.argument("corpus", metavar="CORPUS")
@click.option(
    "--split", type=click.Choice(["train", "validation", "test"]), default="test", show_default=True
)
@click.option(
    "--rows",
    type=click.IntRange(1),
    default=40,
    show_default=True,
    metavar="N",
    help="At most so many rows a culture.",
)
@workspace_flag
@out_flag
@as_json
def matrix(models: str, corpus: str, as_json: bool, **how: Any) -> None:
    """Hold every model in the folder MODELS against every culture's held-out rows of CORPUS.

    Rows are cultures, columns models: does each know its own people better than the others do?
    """
    from culturepark import api

    found = api.matrix(models, corpus, **how)
    say(found.model_dump(), as_json, found.format_table())
