"""The command `tune scpo`: countries' reward models from preferences, judged with intervals."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from culturepark.cli.flags import as_json, out_flag, workspace_flag
from culturepark.cli.progress import say
from culturepark.cli.terminal import echo

if TYPE_CHECKING:
    from culturepark.local_models.rewards import RewardResult
    from culturepark.surveys.votes import Votes

LISTS = ("countries", "variants", "seeds", "shares", "taus", "betas")
BEST = "{country}, seed {seed}: tau {tau:g}, beta {beta:g}"
ABOUT = {
    "told": "minority: pairs on which most countries are on the other side, as the data tell.",
    "judged": (
        "minority: pairs that global models which have not seen the user get wrong (none of the"
        " models judged here)."
    ),
}


def _parse_list(
    kind: Callable[[str], Any],
) -> Callable[[click.Context, click.Parameter, tuple[str, ...]], tuple[Any, ...]]:
    """Return a callback that parses `A,B`, given once or several times."""

    def read(ctx: click.Context, param: click.Parameter, given: tuple[str, ...]) -> tuple[Any, ...]:
        texts = [x.strip() for part in given for x in part.split(",") if x.strip()]
        try:
            return tuple(kind(x) for x in texts)
        except ValueError:
            raise click.BadParameter(
                f"{','.join(texts)!r} is no list of numbers", ctx, param
            ) from None

    return read


def _list_option(
    name: str, kind: Callable[[str], Any], metavar: str, text: str
) -> Callable[..., Any]:
    return click.option(name, multiple=True, callback=_parse_list(kind), metavar=metavar, help=text)


@click.command("scpo")
@click.argument("data", metavar="DATA")
@click.option(
    "--base", "-b", metavar="MODEL", help="A folder, a hub name, or tiny (built here, no download)."
)
@click.option("--preset", metavar="NAME", help="The paper's settings: scpo.")
@click.option(
    "--name",
    default="scpo",
    show_default=True,
    metavar="NAME",
    help="Name of the folder of results and models.",
)
@_list_option("--countries", str, "A,B", "Only these (default: all in the data).")
@_list_option(
    "--variants", str, "A,B", "global, full, filter, weight, inverse, filter+weight (default: all)."
)
@_list_option("--seeds", int, "0,1,2", "Seeds of splits, order and heads (0).")
@_list_option("--shares", float, "0.1,1", "Shares of each country's pairs to learn from (1).")
@click.option("--tau", type=float, metavar="X", help="The filter's threshold (0.7).")
@click.option("--beta", type=float, metavar="X", help="The weight's temperature (1.10).")
@click.option(
    "--sweep",
    is_flag=True,
    help="Choose τ and β for each country on validation users, and add the variant tuned.",
)
@_list_option("--taus", float, "A,B", "What --sweep tries (0.6,0.7,0.8,0.9).")
@_list_option("--betas", float, "A,B", "What --sweep tries (0.5,1.1,2).")
@click.option(
    "--method", type=click.Choice(["lora", "full"]), help="Adapters or whole models (full)."
)
@click.option(
    "--reference",
    type=click.Choice(["trained", "base"]),
    help="Train the global model (default), or take the base for it.",
)
@click.option("--lr", type=float, metavar="X", help="Largest step size (by method).")
@click.option("--global-lr", type=float, metavar="X", help="The global model's (--lr).")
@click.option("--batch", type=int, metavar="N", help="Pairs per step (8).")
@click.option(
    "--steps",
    type=int,
    metavar="N",
    help="Steps a country's model takes (as many as --epochs has).",
)
@click.option("--epochs", type=float, metavar="N", help="Passes over a country's pairs (3).")
@click.option("--global-epochs", type=float, metavar="N", help="Passes over everybody's pairs (2).")
@click.option(
    "--length",
    type=int,
    metavar="N",
    help="Maximum tokens of a conversation, whose beginning is cut (512).",
)
@click.option("--held", type=float, metavar="X", help="Share of the users held out (0.15).")
@click.option("--rank", type=int, metavar="N", help="Rank of adapters (16).")
@click.option(
    "--keep",
    metavar="VARIANT",
    help="Whose models stay (filter+weight; with --sweep tuned; none keeps none).",
)
@click.option("--device", metavar="cuda|mps|cpu")
@click.option("--fresh", is_flag=True, help="Delete results of this name first.")
@workspace_flag
@out_flag
@as_json
def tune_scpo(
    data: str,
    name: str,
    workspace: str | None,
    out: str | None,
    as_json: bool,
    preset: str | None,
    sweep: bool,
    keep: str | None,
    fresh: bool,
    **flags: Any,
) -> None:
    """Train reward models that follow a country without losing what countries share (SCPO), and
    judge them.

    DATA is a CSV of posts with a column <Country>_Hate per country (CREHate), JSONL of scored
    conversations (PRISM, survey.jsonl beside it), JSONL of prompt, chosen, rejected with
    metadata.country and metadata.user, or the word simulated.

    A global model learns everybody's pairs; each country's starts from it. Users are held out,
    never pairs. Run a stopped command again to continue.
    """
    from culturepark.surveys.votes import read_votes
    from culturepark.training import scpo as work
    from culturepark.workspace import find_workspace, locate_output

    lists = {k: flags.pop(k) for k in LISTS}
    terms = work.build_terms(preset, **flags)
    votes, folder = read_votes(data), locate_output(find_workspace(workspace), name, out)
    if sweep:
        lists |= {"taus": lists["taus"] or work.TAUS, "betas": lists["betas"] or work.BETAS}
    elif lists["taus"] or lists["betas"]:
        raise click.UsageError(
            "--taus and --betas are what --sweep tries; for one value give --tau or --beta"
        )
    variants = lists["variants"] = lists["variants"] or work.VARIANTS
    usual = "filter+weight" if "filter+weight" in variants else "none"
    keep = keep or ("tuned" if sweep else usual)
    lists |= {"seeds": lists["seeds"] or (0,), "shares": lists["shares"] or (1.0,)}
    results = work.run(
        votes,
        folder,
        terms,
        keep="" if keep == "none" else keep,
        fresh=fresh,
        tell=_build_printer(as_json),
        **lists,
    )
    _print_results(results, votes, folder, as_json)


def _print_results(
    results: Sequence[RewardResult], votes: Votes, folder: Path, as_json: bool
) -> None:
    from culturepark.evaluation import steered

    sweep, test = ([r for r in results if r.split == s] for s in ("validation", "test"))
    figures = steered.measure_steering(test, votes)
    source = "told" if any(p.minority is not None for p in votes.pairs) else "judged"
    best = [
        r.model_dump(include={"country", "seed", "tau", "beta"})
        for r in test
        if r.variant == "tuned" and r.share == test[-1].share
    ]
    value = {
        "out": str(folder),
        "figures": [f.model_dump() for f in figures],
        "minority": source,
        "tuned": best,
        "skipped": dict(votes.skipped),
        "models": {p.name: str(p) for p in _list_models(folder)},
    }
    parts = [steered.build_table(figures, test), ABOUT[source]]
    if sweep:
        parts.append(f"on validation users:\n{steered.build_grid(sweep, votes)}")
        parts.append("\n".join(map(BEST.format_map, best)))
    say(value, as_json, "\n\n".join([*filter(None, parts), f"{folder}"]))


def _list_models(folder: Path) -> Sequence[Path]:
    """Return the folders of the countries' models that were kept."""
    from culturepark.local_models import manifest

    return [
        p
        for p in sorted(folder.iterdir())
        if (p / manifest.FILE).is_file() and not p.name.startswith(("global-", "."))
    ]


def _build_printer(quiet: bool) -> Callable[[str, dict[str, Any]], None]:
    """Return a function that prints each stage to stderr, unless `quiet`."""

    def print_stage(stage: str, how: dict[str, Any]) -> None:
        if not quiet:
            figures = " · ".join(
                f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in how.items()
            )
            echo(f"{stage}: {figures}", err=True)

    return print_stage
