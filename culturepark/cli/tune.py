"""The verbs that make models of a corpus: `tune sft`, `dpo`, `orpo`, `kto`, `shares`, `mix`, and
what stands beside them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import click

from culturepark.cli.flags import as_json, out_flag, together, workspace_flag
from culturepark.cli.progress import say
from culturepark.cli.terminal import echo
from culturepark.errors import nearest
from culturepark.registry import OBJECTIVES, is_path

recipe_flags = together(
    click.argument("corpus", metavar="CORPUS"),
    click.option(
        "--base",
        "-b",
        metavar="MODEL",
        help="A folder, a hub name, or tiny (built here, no download).",
    ),
    click.option(
        "--preset", metavar="NAME", help="A paper's settings: culturepark-llama, safeworld-dpo."
    ),
    click.option(
        "--name", metavar="NAME", help="What the models are kept under (default: the objective)."
    ),
    click.option(
        "--cultures",
        "-c",
        multiple=True,
        metavar="A,B",
        help="Only these (default: all in the corpus).",
    ),
    click.option(
        "--culture", metavar="NAME", help="Whose answers these are, where the rows don't say."
    ),
    click.option(
        "--pooled",
        is_flag=True,
        default=None,
        help="One model of all cultures instead of one each.",
    ),
    click.option(
        "--method",
        type=click.Choice(["lora", "qlora", "full"]),
        help="Adapters (default), adapters over 4 bits, or whole models.",
    ),
    click.option("--rank", type=int, metavar="N", help="Rank of the adapters (16)."),
    click.option("--alpha", type=float, metavar="X", help="Scale of the adapters (32)."),
    click.option("--dropout", type=float, metavar="X", help="Dropout of the adapters (0)."),
    click.option(
        "--lr", type=float, metavar="X", help="Largest step size (by objective and method)."
    ),
    click.option("--epochs", type=float, metavar="N", help="Passes over the rows (3)."),
    click.option("--steps", type=int, metavar="N", help="Stop after so many steps instead."),
    click.option("--batch", type=int, metavar="N", help="Rows of one forward pass (by memory)."),
    click.option("--rows", type=int, metavar="N", help="Rows of one step, accumulated (16)."),
    click.option(
        "--length",
        type=int,
        metavar="N",
        help="Most tokens of a row (1024); a longer one is an error.",
    ),
    click.option(
        "--warmup",
        type=float,
        metavar="X",
        help="Share of the steps in which the step size grows (0.1).",
    ),
    click.option("--decay", type=float, metavar="X", help="Weight decay (0)."),
    click.option(
        "--packing/--no-packing",
        default=None,
        help="Several rows in one (only with FlashAttention by default).",
    ),
    click.option(
        "--patience",
        type=int,
        metavar="N",
        help="Stop after N checks without progress (2; 0: never).",
    ),
    click.option("--checks", type=int, metavar="N", help="Checks and checkpoints an epoch (1)."),
    click.option("--seed", type=int, metavar="N", help="Seed of everything random (0)."),
    click.option("--device", metavar="cuda|mps|cpu"),
    click.option("--dtype", metavar="bfloat16|float16|float32"),
    click.option("--attention", metavar="flash_attention_2|sdpa|eager"),
    click.option(
        "--track", multiple=True, metavar="tensorboard|wandb|trackio", help="Send curves there too."
    ),
    click.option("--fresh", is_flag=True, help="Throw away models of this name first."),
    workspace_flag,
    out_flag,
    as_json,
)
OWN_OPTIONS = {  # of those objectives that heed them
    "answers": click.option(
        "--answers",
        type=click.Choice(["opinions", "modal"]),
        help="Or the majority's answer alone.",
    ),
    "beta": click.option("--beta", type=float, metavar="X", help="The loss' own (0.1)."),
    "weight": click.option(
        "--weight",
        type=float,
        metavar="X",
        help="Share of the distribution loss, 0 to 1 (0.5).",
    ),
}
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

    objective = load_objective(name)
    work.__doc__ = objective.about
    own = together(*(OWN_OPTIONS[option] for option in objective.options))
    return click.command(name)(recipe_flags(own(work)))


def _tune(objective: str, flags: dict[str, Any]) -> None:
    from culturepark import api

    machines = flags.pop("as_json")
    flags["cultures"] = (
        tuple(c.strip() for part in flags["cultures"] for c in part.split(",") if c.strip()) or None
    )
    flags["track"] = flags["track"] or None
    made = api.tune(
        objective, flags.pop("corpus"), flags.pop("base"), tell=_lines(machines), **flags
    )
    if not api.first():
        return
    found = api.graduates(made)
    say(
        found,
        machines,
        "\n".join(
            [*(_told(m) for m in found["models"]), f"curves: {found['report']}", *_next(found)]
        ),
    )


def _told(model: Mapping[str, Any]) -> str:
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
    say(found.model_dump(), as_json, found.told())
