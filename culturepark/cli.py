"""The command: verbs, flags, progress and exit codes over the functions of `culturepark.verbs`.

Exit codes: 0 done, 1 failed, 2 bad input, 130 interrupted (go on with --resume).
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from culturepark.runs import Run

# Only click is imported here: `culturepark --help` must be instant. click rather than typer, whose import alone
# costs more than the whole budget (see benchmarks/startup.py).


class Command(click.Group):
    """The command group: turns the park's errors into one message and an exit code."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Keep the order of the work."""
        return list(self.commands)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Name the nearest verb when there is none of this name."""
        if args and args[0] not in self.commands and not args[0].startswith("-"):
            from culturepark.errors import nearest

            raise click.UsageError(f"no verb {args[0]!r}. {nearest(args[0], self.commands)}")
        return super().resolve_command(ctx, args)


@click.group(cls=Command, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="culturepark", prog_name="culturepark")
def cli() -> None:
    """Persona-driven agents from different cultures converse; their dialogues become fine-tuning corpora.

    Start with `culturepark run demo`: simulate, refine, export and report on the embedded engine, no key needed.
    """


def main() -> None:
    """Run the command; the only place where errors become exit codes."""
    try:
        cli.main(standalone_mode=False)
    except click.exceptions.Exit as error:
        sys.exit(error.exit_code)
    except click.ClickException as error:
        error.show()
        sys.exit(2)
    except (KeyboardInterrupt, click.exceptions.Abort):
        click.echo("interrupted; nothing is lost: the same command, or --resume, goes on", err=True)
        sys.exit(130)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(0)
    except Exception as error:
        from culturepark.errors import ParkError

        if not isinstance(error, ParkError):
            raise
        click.echo(f"culturepark: {error}", err=True)
        sys.exit(error.exit_code)


# -------------------------------------------------------------------- flags

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]


def together(*options: Decorator) -> Decorator:
    """Return one decorator of several."""

    def apply(function: Callable[..., Any]) -> Callable[..., Any]:
        for option in reversed(options):
            function = option(function)
        return function

    return apply


as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON for machines.")
workspace_flag = click.option(
    "--workspace", "-w", metavar="FOLDER", help="Where agents/, personas/ and scenarios/ are."
)
run_argument = click.argument("run", metavar="RUN")
out_flag = click.option("--out", metavar="FOLDER", help="Keep runs below FOLDER instead of the workspace's outputs/.")
settings_flags = together(
    click.option("--config", metavar="FILE", help="Settings from a TOML file; flags override it."),
    click.option(
        "--cultures", "-c", multiple=True, metavar="A,B", help="Cultures to simulate (default: all but the contact's)."
    ),
    click.option("--personas", multiple=True, metavar="A,B", help="Only these personas."),
    click.option("--contact", metavar="CULTURE", help="Culture of the main contact."),
    click.option("--scenario", metavar="NAME", help="Pack of seed questions."),
    click.option("--questions", "-q", multiple=True, metavar="Q1,Q2", help="Only these questions of the pack."),
    click.option("--survey", metavar="FILE", help="Your own WVS wave 7 release (CSV) instead of the shipped figures."),
    click.option("--dialogues", "-n", type=int, metavar="N", help="Dialogues a culture."),
    click.option("--samples", type=int, metavar="N", help="Go on until each culture has N accepted samples."),
    click.option("--turns", type=int, metavar="N", help="Turns a dialogue."),
    click.option("--modes", multiple=True, metavar="cross,in", help="Cross-cultural, in-cultural, or both in turn."),
    click.option("--styles", multiple=True, metavar="guided,free", help="Self-guidance, free chat, or both in turn."),
    click.option("--stance", metavar="persona|modal|shares", help="Where a delegate's answer comes from."),
    click.option("--seed", type=int, metavar="N", help="Seed of every random stream."),
    click.option("--model", "-m", metavar="NAME", help="embedded, openai/NAME, or package.module:NAME."),
    click.option("--base-url", metavar="URL", help="Endpoint of an OpenAI-compatible server."),
    click.option("--concurrency", type=int, metavar="N", help="Dialogues in flight at once."),
    click.option(
        "--fault",
        "faults",
        multiple=True,
        metavar="KIND=RATE",
        help="Faults for the embedded engine to plant.",
    ),
)
format_flags = together(
    click.option("--to", "formats", metavar="A,B", default="trl,openai,hub", show_default=True, help="Export formats."),
    click.option("--by-culture", is_flag=True, help="One folder of files for each culture."),
)


def chosen(flags: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings given by flags: lists split, faults read, absent ones left out."""
    lists = {"cultures", "personas", "questions", "modes", "styles"}
    given = {k: v for k, v in flags.items() if v not in (None, ())}
    # A list may be given at once (`-c arabic,korean`) or one by one (`-c arabic -c korean`).
    read = {
        k: tuple(x.strip() for part in v for x in part.split(",") if x.strip()) if k in lists else v
        for k, v in given.items()
    }
    if "faults" in read:
        read["faults"] = dict(map(fault, read["faults"]))
    return read


def fault(text: str) -> tuple[str, float]:
    """Read KIND=RATE."""
    kind, _, rate = text.partition("=")
    try:
        return kind, float(rate)
    except ValueError:
        raise click.UsageError(f"--fault {text!r}: write KIND=RATE, for example contradiction=0.05") from None


def located(run: str, out: str | None, workspace: str | None) -> Run:
    """Return the run of this name or folder."""
    from pathlib import Path

    from culturepark import verbs
    from culturepark.workspace import find, output

    folder = Path(run)
    return verbs.resume(
        folder if (folder / "run.toml").exists() or folder.parent != Path() else output(find(workspace), run, out)
    )


def opened(name: str, resume: bool, fresh: bool, out: str | None, workspace: str | None, flags: dict[str, Any]) -> Run:
    """Start a run, or with --resume reopen one verbatim."""
    from culturepark import verbs

    config = flags.pop("config", None)
    given = chosen(flags)
    if resume:
        if given or config or fresh:
            raise click.UsageError("--resume goes on with the settings in run.toml; give no others")
        return located(name, out, workspace)
    return verbs.start(name, config, workspace=workspace, out=out, fresh=fresh, **given)


# ----------------------------------------------------------------- progress


@contextmanager
def progress(quiet: bool) -> Iterator[Callable[[str, Mapping[str, Any]], None]]:
    """Yield a function to tell figures to: a live bar on a terminal, a plain line every few seconds elsewhere."""
    if quiet:
        yield lambda stage, figures: None
    elif sys.stderr.isatty():
        with _bar() as tell:
            yield tell
    else:
        yield _lines()


@contextmanager
def _bar() -> Iterator[Callable[[str, Mapping[str, Any]], None]]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description:9}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[said]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), refresh_per_second=5) as bar:
        tasks: dict[tuple[str, int], Any] = {}
        clock = Clock()

        def tell(stage: str, figures: Mapping[str, Any]) -> None:
            key = (stage, figures["of"])
            if key not in tasks:
                tasks[key] = bar.add_task(stage, total=figures["of"] or None, said="")
            bar.update(tasks[key], completed=figures["dialogues"], said=sentence(figures, clock.since(stage)))

        yield tell


class Clock:
    """Seconds since each stage began."""

    def __init__(self) -> None:
        from time import monotonic

        self.now, self.began, self.last = monotonic, dict[str, float](), 0.0

    def since(self, stage: str) -> float:
        """Return seconds since the first call for this stage."""
        return self.now() - self.began.setdefault(stage, self.now())


def _lines(every: float = 5.0) -> Callable[[str, Mapping[str, Any]], None]:
    clock = Clock()

    def tell(stage: str, figures: Mapping[str, Any]) -> None:
        seconds = clock.since(stage)
        finished = figures["dialogues"] >= figures["of"]
        if clock.now() - clock.last < every and not finished:
            return
        clock.last = clock.now()
        rate = figures["dialogues"] / seconds if seconds > 0.2 else 0.0
        left = f" · {(figures['of'] - figures['dialogues']) / rate:.0f} s left" if rate and not finished else ""
        click.echo(
            f"{stage}: {figures['dialogues']}/{figures['of']} dialogues · {sentence(figures, seconds)}{left}",
            err=True,
        )

    return tell


def sentence(figures: Mapping[str, Any], seconds: float) -> str:
    """Return what a stage has done so far, in words."""
    main = "turns" if "turns" in figures else "kept"
    parts = [f"{figures[main]} {main}"]
    if seconds > 0.5:
        parts.append(f"{figures['calls'] / seconds:,.0f} calls/s")
    if figures["tokens"]:
        parts.append(f"{figures['tokens']:,} tokens")
    parts.append(f"{figures['failures']} failed calls")
    return " · ".join(parts)


def say(value: Any, as_json: bool, text: str) -> None:
    """Print a result for machines or for people."""
    click.echo(json.dumps(value, ensure_ascii=False, indent=2, default=str) if as_json else text)


# -------------------------------------------------------------------- verbs


@cli.command()
@click.argument("folder")
@as_json
def init(folder: str, as_json: bool) -> None:
    """Write a workspace: agents/, personas/ and scenarios/ to make your own."""
    from culturepark import verbs

    made = verbs.init(folder)
    say(
        {"workspace": str(made)},
        as_json,
        f"{made}: ready. Edit its cards, then: cd {made} && culturepark check && culturepark run first",
    )


@cli.command()
@workspace_flag
@as_json
def check(workspace: str | None, as_json: bool) -> None:
    """Check every card and prompt; list every mistake at once."""
    from culturepark import verbs

    found = verbs.check(workspace)
    say(found, as_json, "{workspace}: {roles} roles, {cultures} cultures, {personas} personas, {scenarios} scenarios with "
        "{questions} questions; all sound".format(**found))  # fmt: skip


@cli.command()
@click.argument("role")
@click.option("--culture", "-c", metavar="NAME")
@click.option("--persona", "-p", metavar="NAME")
@click.option("--question", "-q", metavar="ID")
@click.option("--turn", type=int, metavar="N", help="Which turn of the dialogue, from 0.")
@click.option("--style", type=click.Choice(["guided", "free"]), default="guided", show_default=True)
@click.option(
    "--opinion", metavar="TEXT", default="Many people see it that way.", help="For the verifier and rewriter."
)
@workspace_flag
@as_json
def show(role: str, workspace: str | None, as_json: bool, **flags: Any) -> None:
    """Show exactly what a model is sent for ROLE at a turn."""
    from culturepark import verbs

    request = verbs.show(role, workspace=workspace, **flags)
    sent = {
        "temperature": request.temperature,
        "max_tokens": request.max_tokens,
        "messages": [{"role": m.role, "content": m.content} for m in request.messages],
    }
    body = "\n\n".join(f"[{m.role}]\n{m.content}" for m in request.messages)
    say(sent, as_json, f"{body}\n\n(temperature {request.temperature}, at most {request.max_tokens} tokens)")


def run_command(function: Callable[..., None]) -> Callable[..., None]:
    """Give a verb the flags with which a run is started or reopened."""
    return together(
        click.argument("name", metavar="NAME"),
        click.option("--resume", is_flag=True, help="Go on with the run NAME (or folder) exactly as it was started."),
        click.option("--fresh", is_flag=True, help="Throw away an earlier run of this name first."),
        settings_flags, workspace_flag, out_flag, as_json,
    )(function)  # fmt: skip


@cli.command()
@run_command
def simulate(
    name: str, resume: bool, fresh: bool, workspace: str | None, out: str | None, as_json: bool, **flags: Any
) -> None:
    """Hold the dialogues of the run NAME."""
    from culturepark import verbs

    run = opened(name, resume, fresh, out, workspace, flags)
    with progress(as_json) as tell:
        done = verbs.simulate(run, tell)
    say(
        done | {"run": str(run.folder)},
        as_json,
        f"{run.folder}: {done['dialogues']} dialogues, {done['turns']} turns, {done['failed_dialogues']} failed",
    )


@cli.command()
@run_argument
@workspace_flag
@out_flag
@as_json
def refine(run: str, workspace: str | None, out: str | None, as_json: bool) -> None:
    """Extract, verify, rewrite and thin out the opinions of RUN."""
    from culturepark import verbs

    found = located(run, out, workspace)
    with progress(as_json) as tell:
        done = verbs.refine(found, tell)
    say(
        done | {"run": str(found.folder)},
        as_json,
        f"{found.folder}: {done['opinions']} opinions, {done['kept']} kept, {done['samples']} samples",
    )


@cli.command()
@run_argument
@format_flags
@workspace_flag
@out_flag
@as_json
def export(run: str, formats: str, by_culture: bool, workspace: str | None, out: str | None, as_json: bool) -> None:
    """Write the corpus of RUN in the formats that trainers read."""
    from culturepark import verbs

    written = verbs.export(located(run, out, workspace), formats.split(","), by_culture=by_culture)
    say(
        {k: str(v) for k, v in written.items()},
        as_json,
        "\n".join(f"{name}: {path}" for name, path in written.items()),
    )


@cli.command()
@run_argument
@workspace_flag
@out_flag
@as_json
def report(run: str, workspace: str | None, out: str | None, as_json: bool) -> None:
    """Write one self-contained page (and JSON) about RUN."""
    from culturepark import verbs

    page = verbs.report(located(run, out, workspace))
    say({"report": str(page)}, as_json, str(page))


@cli.command()
@click.argument("sample", metavar="ID")
@click.option("--run", required=True, metavar="RUN", help="The run's name or folder.")
@workspace_flag
@out_flag
@as_json
def explain(sample: str, run: str, workspace: str | None, out: str | None, as_json: bool) -> None:
    """Walk from a sample (or opinion) back to its seed, personas, turns, verdicts, rewrite and split."""
    from culturepark import verbs

    found = verbs.explain(located(run, out, workspace), sample)
    say(found, as_json, verbs.told(found))


@cli.command()
@run_command
@format_flags
def run(name: str, resume: bool, fresh: bool, workspace: str | None, out: str | None, as_json: bool, formats: str, by_culture: bool,
        **flags: Any) -> None:  # fmt: skip
    """Do it all: simulate, refine, export and report the run NAME."""
    from culturepark import verbs

    found = opened(name, resume, fresh, out, workspace, flags)
    with progress(as_json) as tell:
        verbs.run(found, tell=tell, formats=tuple(formats.split(",")), by_culture=by_culture)
    with found.journal(write=False) as journal:
        done = verbs.counts(journal)
    page = found.folder / "report" / "report.html"
    say(done | {"run": str(found.folder), "corpus": str(found.corpus), "report": str(page)}, as_json,
        f"{done['dialogues']} dialogues → {done['opinions']} opinions → {done['samples']} samples\n"
        f"corpus: {found.corpus}\nreport: {page}")  # fmt: skip
