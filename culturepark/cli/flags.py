"""The flags that verbs share, and how they become settings and runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from culturepark.runs import Run

ROLES = ("main_contact", "delegate", "extractor", "verifier", "rewriter")
Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]


def together(*options: Decorator) -> Decorator:
    """Return one decorator of several."""

    def apply(function: Callable[..., Any]) -> Callable[..., Any]:
        for option in reversed(options):
            function = option(function)
        return function

    return apply


class Sectioned(click.Command):
    """A command whose help has its options in sections: those of `titled`, the others first."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options, section by section."""
        sections: dict[str, list[tuple[str, str]]] = {"Options": []}
        for param in self.get_params(ctx):
            if (
                isinstance(param, click.Option)
                and (record := param.get_help_record(ctx)) is not None
            ):
                sections.setdefault(getattr(param, "section", "Options"), []).append(record)
        for title, records in sections.items():
            if records:
                with formatter.section(title):
                    formatter.write_dl(records)


def titled(title: str, *options: Decorator) -> Decorator:
    """Return one decorator of several options, which stand below a title in the command's help."""

    def apply(function: Callable[..., Any]) -> Callable[..., Any]:
        given = len(getattr(function, "__click_params__", ()))
        function = together(*options)(function)
        for param in function.__click_params__[given:]:  # type: ignore[attr-defined]
            param.section = title
        return function

    return apply


as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON for machines.")
licence_flag = click.option(
    "--licence",
    "--license",
    metavar="ID",
    help="What the corpus is given away under, for its card: cc-by-4.0, …",
)
workspace_flag = click.option(
    "--workspace", "-w", metavar="FOLDER", help="Where agents/, personas/ and scenarios/ are."
)
run_argument = click.argument("run", metavar="RUN")
survey_flag = click.option(
    "--survey",
    metavar="FILE",
    help="Your own WVS wave 7 release (CSV) instead of the shipped figures.",
)
out_flag = click.option(
    "--out", metavar="FOLDER", help="Keep runs below FOLDER instead of the workspace's outputs/."
)
drive_flags = titled(
    "Pace and money",
    click.option(
        "--concurrency",
        type=int,
        metavar="N",
        help="Dialogues in flight, and calls at once to one endpoint (default 200).",
    ),
    click.option("--rpm", type=int, metavar="N", help="Requests a minute to one endpoint."),
    click.option("--tpm", type=int, metavar="N", help="Tokens a minute to one endpoint."),
    click.option("--timeout", type=float, metavar="SECONDS", help="How long one call may take."),
    click.option(
        "--max-usd",
        type=float,
        metavar="USD",
        help="Never spend more on this run; stops with exit code 3.",
    ),
    click.option(
        "--max-tokens",
        type=int,
        metavar="N",
        help="Never use more tokens on this run; stops with exit code 3.",
    ),
    click.option(
        "--price",
        "prices",
        multiple=True,
        metavar="MODEL=IN/OUT",
        help="A model's price, USD per million tokens.",
    ),
    click.option(
        "--batch/--no-batch",
        default=None,
        help="Use the provider's batch API: half the price, hours instead of minutes.",
    ),
    click.option(
        "--api-key",
        "key",
        metavar="KEY",
        help="Key of --model's provider (better: its environment variable).",
    ),
)


def server_flags(port: int, request: int) -> Decorator:
    """Return the options of every server on this machine: its port, its key, and what it takes at
    most (MiB, seconds).
    """
    return together(
        click.option(
            "--port",
            type=click.IntRange(0, 65_535),
            default=port,
            show_default=True,
            metavar="N",
            help="Port on 127.0.0.1; 0 takes a free one.",
        ),
        click.option(
            "--key-env",
            metavar="NAME",
            help="Ask every caller for the key in this environment variable.",
        ),
        click.option(
            "--max-request",
            type=click.IntRange(1),
            default=request,
            show_default=True,
            metavar="MIB",
            help="Size of a request, at most.",
        ),
        click.option(
            "--idle",
            type=click.FloatRange(0, min_open=True),
            default=120.0,
            show_default=True,
            metavar="SECONDS",
            help="Close connections that are silent for so long.",
        ),
    )


# What the embedded engine can plant; a test holds this to its own list, which is too heavy to
# import here.
FAULTS = ("contradiction", "off_topic", "refusal", "duplicate", "drift")
settings_flags = together(
    titled(
        "Who talks about what",
        click.option(
            "--cultures",
            "-c",
            multiple=True,
            metavar="A,B",
            help="Cultures to simulate (default: all but the contact's).",
        ),
        click.option(
            "--personas", multiple=True, metavar="A,B", help="Only these personas (default: all)."
        ),
        click.option(
            "--contact", metavar="CULTURE", help="Culture of the main contact (default english-us)."
        ),
        click.option(
            "--scenario", metavar="NAME", help="Pack of seed questions (default world_values)."
        ),
        click.option(
            "--questions",
            "-q",
            multiple=True,
            metavar="Q1,Q2",
            help="Only these questions of the pack (default: all).",
        ),
        survey_flag,
    ),
    titled(
        "How long, and in which way",
        click.option(
            "--dialogues", "-n", type=int, metavar="N", help="Dialogues per culture (default 10)."
        ),
        click.option(
            "--samples",
            type=int,
            metavar="N",
            help="Go on until each culture has N accepted samples.",
        ),
        click.option("--turns", type=int, metavar="N", help="Turns per dialogue (default 14)."),
        click.option(
            "--modes",
            multiple=True,
            metavar="cross,in",
            help="Cross-cultural, in-cultural, or both in turn (default both).",
        ),
        click.option(
            "--styles",
            multiple=True,
            metavar="guided,free",
            help="Self-guidance, free chat, or both in turn (default both).",
        ),
        click.option(
            "--delegates",
            type=int,
            metavar="N",
            help="Delegates per dialogue; across cultures each of another culture (default 1).",
        ),
        click.option(
            "--mine",
            metavar="delegates|everyone",
            help="Whose opinions become samples across cultures (default delegates).",
        ),
        click.option(
            "--language",
            "languages",
            multiple=True,
            metavar="WHO=LANGUAGE",
            help="What a culture or persona speaks, if not English.",
        ),
        click.option(
            "--stance",
            metavar="persona|modal|shares",
            help=(
                "Where a delegate's answer comes from: its card, its people's most frequent answer,"
                " or a draw from their shares (default persona)."
            ),
        ),
        click.option(
            "--cut-turns",
            metavar="trim|retry|fail",
            help=(
                "A turn cut at max_tokens: trim it to its last whole sentence (default), retry"
                " longer, or fail."
            ),
        ),
        click.option(
            "--seed", type=int, metavar="N", help="Seed of every random stream (default 0)."
        ),
        licence_flag,
        click.option(
            "--config", metavar="FILE", help="Settings from a TOML file; flags override it."
        ),
    ),
    titled(
        "Models",
        click.option(
            "--model",
            "-m",
            metavar="NAME",
            help=(
                "embedded (default), PROVIDER/NAME (openai/…, ollama/…, anthropic/…), or"
                " package.module:NAME."
            ),
        ),
        *(
            click.option(
                f"--{role.replace('_', '-')}-model",
                f"{role}_model",
                metavar="NAME",
                help=f"Model of the {role.replace('_', ' ')} (default: --model's).",
            )
            for role in ROLES
        ),
        click.option(
            "--seat",
            "seats",
            multiple=True,
            metavar="WHO=NAME",
            help="Model of a culture or persona at the table.",
        ),
        click.option("--base-url", metavar="URL", help="Address of an OpenAI-compatible endpoint."),
        click.option(
            "--fault",
            "faults",
            multiple=True,
            metavar="KIND=RATE",
            help=(
                f"Faults for the embedded engine to plant, as shares of turns: {', '.join(FAULTS)}."
            ),
        ),
    ),
)
format_flags = together(
    click.option(
        "--to",
        "formats",
        multiple=True,
        metavar="A,B",
        default=("trl,openai",),
        show_default=True,
        help=(
            "Export formats: trl, openai, hub (Parquet; needs culturepark[hub]), llamafactory; dpo,"
            " kto, openai-dpo (pairs); shares (the survey's)."
        ),
    ),
    click.option("--by-culture", is_flag=True, help="A folder of files for each culture too."),
)


def chosen(flags: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings given by flags: lists split, pairs read, absent ones left out."""
    lists = {"cultures", "personas", "questions", "modes", "styles"}
    given = {k: v for k, v in flags.items() if v not in (None, ())}
    # A list may be given at once (`-c arabic,korean`) or one by one (`-c arabic -c korean`).
    read = {
        k: tuple(x.strip() for part in v for x in part.split(",") if x.strip()) if k in lists else v
        for k, v in given.items()
    }
    if "faults" in read:
        read["faults"] = {
            kind: rate(kind, text)
            for kind, text in (pair("--fault", t, "KIND=RATE") for t in read["faults"])
        }
    if "seats" in read:
        read["seats"] = dict(pair("--seat", t, "WHO=NAME") for t in read["seats"])
    if "languages" in read:
        read["languages"] = dict(pair("--language", t, "WHO=LANGUAGE") for t in read["languages"])
    if "prices" in read:
        read["endpoints"] = dict(map(price, read.pop("prices")))
    roles = {role: read.pop(f"{role}_model") for role in ROLES if f"{role}_model" in read}
    return read | ({"models": roles} if roles else {})


def listed(given: Sequence[str]) -> tuple[str, ...]:
    """Read A,B, given once or several times: the names, each once, without the spaces around
    them.
    """
    return tuple(dict.fromkeys(name.strip() for text in given for name in text.split(",")))


def pair(flag: str, text: str, form: str) -> tuple[str, str]:
    """Read NAME=VALUE."""
    name, found, value = text.rpartition("=")
    if not found or not name or not value:
        raise click.UsageError(f"{flag} {text!r}: write {form}")
    return name, value


def rate(kind: str, text: str) -> float:
    """Read the rate of KIND=RATE."""
    try:
        return float(text)
    except ValueError:
        raise click.UsageError(
            f"--fault {kind}={text!r}: write KIND=RATE, for example contradiction=0.05"
        ) from None


def price(text: str) -> tuple[str, dict[str, float]]:
    """Read MODEL=PROMPT/COMPLETION, USD per million tokens."""
    name, costs = pair("--price", text, "MODEL=IN/OUT")
    try:
        prompt, completion = map(float, costs.split("/"))
    except ValueError:
        raise click.UsageError(
            f"--price {text!r}: write MODEL=IN/OUT, for example openai/gpt-4o-mini=0.15/0.60"
        ) from None
    return name, {"prompt_price": prompt, "completion_price": completion}


def located(
    run: str, out: str | None, workspace: str | None, flags: Mapping[str, Any] | None = None
) -> Run:
    """Return the run of this name or folder, driven as the flags say."""
    from pathlib import Path

    from culturepark import api
    from culturepark.workspace import find_workspace, locate_output

    folder = Path(run)
    folder = (
        folder
        if (folder / "run.toml").exists() or folder.parent != Path()
        else locate_output(find_workspace(workspace), run, out)
    )
    given = chosen(flags or {})
    return api.resume(folder, workspace=workspace, **given)


def opened(
    name: str,
    resume: bool,
    fresh: bool,
    out: str | None,
    workspace: str | None,
    flags: dict[str, Any],
    replay: str | None = None,
) -> Run:
    """Start a run, with --resume reopen one as it was, or with --replay play another one's
    journal.
    """
    from culturepark import api
    from culturepark.llm import tracing

    tracing.export_spans()
    config = flags.pop("config", None)
    given = chosen(flags)
    if replay is not None:
        if given or config or resume:
            raise click.UsageError(
                "--replay takes settings, cards and answers from the replayed run; give no others"
            )
        return api.replay(
            name, located(replay, out, workspace).folder, workspace=workspace, out=out, fresh=fresh
        )
    if resume:
        from culturepark.settings import LOOSE

        if config or fresh or set(given) - {*LOOSE, "endpoints", "key"}:
            raise click.UsageError(
                "--resume goes on with the settings in run.toml; only how it is driven and capped"
                f" may change ({', '.join('--' + k.replace('_', '-') for k in LOOSE)}, --price)"
            )
        return located(name, out, workspace, flags)
    return api.start(name, config, workspace=workspace, out=out, fresh=fresh, **given)
